"""Places beside a study that confirm what came of it: trained anew, outside of Optuna, after its end too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from sweeper.ledger.records import LOST, OUT_OF_MEMORY, RAISED
from sweeper.ledger.schema import attempts, places, results
from sweeper.ledger.studyrows import next_position

CONFIRM, FULL = "confirm", "full"
"""An adapter, or the head alone, trained once more by workers; the whole backbone, by who confirms."""


def add(connection: Connection, study: str, wanted: Sequence[tuple[str, str, Mapping[str, Any]]]) -> int:
    """Add the places (kind, label, params) whose labels are not there yet; returns how many.

    Those that are there, and failed for want of memory, by an error or by the loss of their workers, are
    tried again. What diverged would diverge again.
    """
    _try_again(connection, study, [label for _, label, _ in wanted])
    position = next_position(connection, study)
    there = set(
        connection.execute(
            select(places.c.label).where(places.c.study == study, places.c.kind.in_((CONFIRM, FULL)))
        ).scalars()
    )
    rows = [
        {"kind": kind, "label": label, "fixed_params": dict(params)}
        for kind, label, params in wanted
        if label not in there
    ]
    for index, row in enumerate(rows):
        values = {**row, "study": study, "position": position + index, "state": "waiting", "budgeted": False}
        connection.execute(insert(places).values(values))
    return len(rows)


def _try_again(connection: Connection, study: str, labels: Sequence[str]) -> None:
    last = select(attempts.c.outcome).where(
        attempts.c.place_id == places.c.id, attempts.c.attempt == places.c.attempt
    )
    failed = list(
        connection.execute(
            select(places.c.id)
            .where(
                places.c.study == study,
                places.c.kind.in_((CONFIRM, FULL)),
                places.c.label.in_(labels),
                places.c.state == "failed",
                last.correlate(places).scalar_subquery().in_((LOST, OUT_OF_MEMORY, RAISED)),
            )
            .with_for_update()
        ).scalars()
    )
    connection.execute(delete(results).where(results.c.place_id.in_(failed)))
    connection.execute(
        update(places).where(places.c.id.in_(failed)).values(state="waiting", version=places.c.version + 1)
    )


def is_through(connection: Connection, study: str, kind: str) -> bool:
    """Whether no place of a kind waits or runs."""
    going = select(places.c.id).where(
        places.c.study == study, places.c.kind == kind, places.c.state.in_(("waiting", "running"))
    )
    return connection.execute(going.limit(1)).first() is None


def progress(connection: Connection, study: str) -> dict[str, int]:
    """How many places ended, ``ended``, ``of`` how many; without any, empty."""
    going = places.c.state.in_(("waiting", "running"))
    both = (places.c.kind.in_((CONFIRM, FULL)), places.c.study == study)
    counted = select(func.count(), func.count().filter(~going)).where(*both)
    asked_for, ended = connection.execute(counted).one()
    return {"ended": ended, "of": asked_for} if asked_for else {}


def note(connection: Connection, place_id: int, measured: Mapping[str, float]) -> None:
    """Add what was measured of a result afterwards; what is there already stays.

    Of a result that was deleted with its study there is nothing to add to.
    """
    there = connection.execute(
        select(results.c.metrics).where(results.c.place_id == place_id).with_for_update()
    ).scalar()
    if there is None:
        return
    connection.execute(
        update(results).where(results.c.place_id == place_id).values(metrics={**measured, **there})
    )
    # What is shown of the place is no longer all of it.
    connection.execute(update(places).where(places.c.id == place_id).values(version=places.c.version + 1))
