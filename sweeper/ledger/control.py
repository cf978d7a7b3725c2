"""What a user says of a study while others work on it: pause, stop, go on, one more trial, once more, delete.

Nobody is called: a worker reads ``control`` when it would begin a trial and while it trains one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from sweeper.ledger.database import now_seconds
from sweeper.ledger.records import PAUSED, STOPPED, StudyGone
from sweeper.ledger.schema import places, studies
from sweeper.ledger.studyrows import BEGUN, next_position, reopen

STOPPED_BECAUSE = "its user stopped it"
_ENDED_NOW = {
    "ended_at": func.coalesce(studies.c.ended_at, now_seconds()),
    "ended_because": func.coalesce(studies.c.ended_because, STOPPED_BECAUSE),
}
"""The end of a study that its user stops; one that had ended keeps its own."""
_MAY_BE_RETRIED = ("failed", "cancelled")


def control(connection: Connection, study: str) -> str | None:
    """``paused``, ``stopped``, or None while the study goes on. Raises StudyGone."""
    row = connection.execute(select(studies.c.control).where(studies.c.name == study)).first()
    if row is None:
        raise StudyGone(study)
    return row.control


def pause(connection: Connection, study: str) -> bool:
    """Begin no more trials, and hand those that run back at their next evaluation; False if it has ended."""
    row = connection.execute(
        update(studies)
        .where(studies.c.name == study, studies.c.ended_at.is_(None))
        .values(control=PAUSED)
        .returning(studies.c.name)
    ).first()
    return row is not None


def stop(connection: Connection, study: str) -> bool:
    """End a study and hand the trials that run back; False if it was stopped, or nothing is left to stop.

    Of one that had ended, trials may run or wait that had begun: those are left then.
    """
    begun = select(places.c.id).where(
        places.c.study == study, BEGUN, places.c.state.in_(("waiting", "running"))
    )
    row = connection.execute(
        update(studies)
        .where(
            studies.c.name == study,
            studies.c.control.is_distinct_from(STOPPED),
            or_(studies.c.ended_at.is_(None), begun.exists()),
        )
        .values(control=STOPPED, **_ENDED_NOW)
        .returning(studies.c.name)
    ).first()
    return row is not None


def resume(connection: Connection, study: str) -> bool:
    """Let a study go on that is paused or stopped; False if it is neither."""
    row = connection.execute(
        update(studies)
        .where(studies.c.name == study, studies.c.control.is_not(None))
        .values(control=None, ended_at=None, ended_because=None)
        .returning(studies.c.name)
    ).first()
    return row is not None


def enqueue(connection: Connection, study: str, params: Mapping[str, Any], request: str) -> int:
    """Add a place with fixed parameters beside the budget; returns its id. The same request adds one once.

    A study that had ended goes on, unless its user stopped it.
    """
    position = max(1, next_position(connection, study))  # 0 is that of the first trial, which may come later
    there = connection.execute(
        select(places.c.id).where(places.c.study == study, places.c.request == request)
    ).scalar()
    if there is not None:
        return there
    reopen(connection, study)
    return _add(connection, study, position, fixed_params=dict(params), request=request)


def retry(connection: Connection, study: str, place_ids: Sequence[int]) -> dict[int, int]:
    """Add a place for each that failed or was cancelled, with the same parameters.

    A study that had ended goes on, unless its user stopped it.

    Returns:
        the new place by the old one; those that have a retry already, or cannot have one, are missing.
    """
    position = next_position(connection, study)
    again = places.alias("again")
    rows = connection.execute(
        select(places.c.id, places.c.params, places.c.fixed_params)
        .where(
            places.c.study == study,
            places.c.id.in_(place_ids),
            places.c.kind == "search",
            places.c.state.in_(_MAY_BE_RETRIED),
            ~select(again.c.id).where(again.c.study == study, again.c.retry_of == places.c.id).exists(),
        )
        .order_by(places.c.position)
    ).all()
    if rows:
        reopen(connection, study)
    return {
        row.id: _add(
            connection, study, position + index, fixed_params=row.params or row.fixed_params, retry_of=row.id
        )
        for index, row in enumerate(rows)
    }


def _add(connection: Connection, study: str, position: int, **values: Any) -> int:
    return connection.execute(
        insert(places)
        .values(study=study, position=position, kind="search", state="waiting", budgeted=False, **values)
        .returning(places.c.id)
    ).scalar_one()


def close(connection: Connection, study: str) -> int:
    """Stop a study for good, unless trials of it run; returns how many do. Raises StudyGone."""
    control(connection, study)
    count = _running(connection, study)
    if count == 0:
        connection.execute(
            update(studies).where(studies.c.name == study).values(control=STOPPED, **_ENDED_NOW)
        )
    return count


def remove(connection: Connection, study: str) -> int:
    """Delete a closed study with its places, attempts, metrics and results, unless trials of it run.

    A worker may have looked at the study before it was closed, and have begun a trial at the same moment.

    Returns:
        how many trials run; if any, nothing was deleted.
    """
    count = _running(connection, study)
    if count == 0:
        connection.execute(delete(studies).where(studies.c.name == study))
    return count


def _running(connection: Connection, study: str) -> int:
    return connection.execute(
        select(func.count()).where(
            places.c.study == study, places.c.state == "running", places.c.lease_expires >= now_seconds()
        )
    ).scalar_one()
