"""Whether a study's budget is used up, and which part of it was first. Decided from plain values.

What needs the clock, the count of failures and the number of trials lies in the ledger; what looks at results
is here: a target that is reached, a best that stands still, and Optuna's terminator.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sweeper.front import Point, dominates, upward
from sweeper.ledger.records import TrialView
from sweeper.study.plugins import least_complete

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeper.study import Study

_COUNTED = ("complete", "pruned")


def why_over(study: Study, trials: Iterable[TrialView]) -> str | None:
    """Why no further trial is begun, as a sentence: target or patience; None while there is a reason to.

    Args:
        trials: of the study, as the ledger has them.
    """
    budget = study.budget
    if budget.target is None and budget.patience is None:
        return None
    directions = [each.direction for each in study.objectives]
    ended = sorted(
        (t for t in trials if t.kind == "search" and t.state in _COUNTED and not t.was_refused),
        key=lambda trial: (trial.ended_at or 0.0, trial.place_id),
    )
    points = [_point(trial, directions) for trial in ended]
    if budget.target is not None:
        (goal,) = upward([budget.target], directions)
        for trial, point in zip(ended, points, strict=True):
            if point is not None and point[0] >= goal:
                return f"{trial.name} reached the target of {budget.target:g}"
    if budget.patience is not None and (still := standing_still(points)) >= budget.patience:
        what = "better one" if len(directions) == 1 else "new point of the front"
        said = "1 trial" if still == 1 else f"{still} trials in a row"
        return f"{said} brought no {what}, and budget.patience is {budget.patience}"
    return None


def _point(trial: TrialView, directions: Sequence[str]) -> Point | None:
    """What a complete trial reached; None for one that was pruned, which is no candidate."""
    if trial.state != "complete" or trial.objective is None:
        return None
    if len(directions) == 1:
        return upward([trial.objective], directions)
    return None if trial.objectives is None else upward(trial.objectives.values(), directions)


def standing_still(points: Sequence[Point | None]) -> int:
    """How many of the last points, None for none, neither beat those before nor are new beside them.

    Before the first point there is nothing to stand still at.
    """
    front: list[Point] = []
    count = 0
    for point in points:
        if point is not None and not any(other == point or dominates(other, point) for other in front):
            front = [other for other in front if not dominates(point, other)] + [point]
            count = 0
        elif front:
            count += 1
    return count


class Terminator:
    """Optuna's rule for when little is left to be gained (EMMR, Ishibashi et al. 2023).

    It compares the gap of expected minimum simple regrets with its median over the first trials, and so needs
    no cross-validation. What it knows of the first trials is kept, so one object serves a worker's life.

    Args:
        study: with one objective and a terminator in its budget.
    """

    def __init__(self, study: Study) -> None:
        from optuna.study import StudyDirection
        from optuna.terminator import EMMREvaluator, MedianErrorEvaluator

        assert study.budget.terminator is not None
        options = study.budget.terminator.options
        self._least = least_complete(study.budget.terminator)
        self._direction = (
            StudyDirection.MAXIMIZE if study.objective.direction == "maximize" else StudyDirection.MINIMIZE
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental
            self._improvement = EMMREvaluator(seed=study.seed % 2**32)
            self._error = MedianErrorEvaluator(self._improvement, **options)

    def is_over(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the study may end, from Optuna's trials of it."""
        from optuna.trial import TrialState

        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        if len(complete) < self._least:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gap = self._improvement.evaluate(complete, self._direction)
            return bool(gap < self._error.evaluate(complete, self._direction))
