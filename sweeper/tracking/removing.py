"""Taking a study out of MLflow: into its bin, which `mlflow gc` empties."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sweeper.ledger import StudyRow
from sweeper.tracking import picture

if TYPE_CHECKING:
    from sweeper.tracking import Board


def take_away(board: Board, row: StudyRow, stay: Callable[[], object]) -> bool:
    """Put the runs of a study into the bin; False if there are none.

    Those of another study of its name, of another store on the same server, stay where they are.

    Args:
        stay: called before each run, to go on being the one who draws; raises where somebody else is.
    """
    experiment_id = board.find(row.name)
    if experiment_id is None:
        return False
    runs = list(board.search(experiment_id, picture.own_tags(row)))
    for run in runs:
        stay()
        board.delete(run)
    return bool(runs)


def drop_study(board: Board, row: StudyRow, stay: Callable[[], object]) -> bool:
    """Put the runs of a study into the bin, and its experiment if it has no others; False if it has none."""
    experiment_id = board.find(row.name)
    if experiment_id is None:
        return False
    taken = take_away(board, row, stay)
    if next(board.search(experiment_id, {}), None) is None:
        board.drop(experiment_id, row.name)
        return True
    return taken
