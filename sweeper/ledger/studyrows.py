"""The rows of studies and their places: begun once, ended for a reason, drawn by one sender."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update

from sweeper.ledger.database import now_seconds
from sweeper.ledger.records import PAUSED, STOPPED, NewStudy, StudyGone, StudyRow
from sweeper.ledger.schema import IN_STUDY, places, store, studies

BESIDE_BUDGET = and_(places.c.kind.in_(IN_STUDY), or_(places.c.kind == "reference", ~places.c.budgeted))
"""Places that the study file's budget does not count: references, and what was enqueued or is a retry."""
BEGUN = and_(places.c.kind == "search", places.c.trial_number.is_not(None))
"""Trials that have their configuration: whoever goes on with one begins none, so it may be after the end."""


def store_id(connection: Connection) -> str:
    """The id of the store, 32 hex digits; it was made with the tables."""
    return str(connection.execute(select(store.c.id)).scalar_one())


def add(connection: Connection, new: NewStudy) -> None:
    """Write a study down. Does nothing if there is one of that name."""
    if find(connection, new.name) is None:
        connection.execute(insert(studies).values(**asdict(new), created_at=now_seconds()))


def find(connection: Connection, name: str) -> StudyRow | None:
    """A study by its name."""
    row = connection.execute(select(studies).where(studies.c.name == name)).first()
    if row is None:
        return None
    return StudyRow(**{field.name: row._mapping[field.name] for field in fields(StudyRow)})


def names(connection: Connection) -> list[str]:
    """All studies, oldest first."""
    return [row.name for row in connection.execute(select(studies.c.name).order_by(studies.c.created_at))]


def replace_spec(connection: Connection, name: str, spec: Mapping[str, Any], path: str, text: str) -> None:
    """Take over a study file whose budget grew: the study goes on, unless its user stopped it."""
    connection.execute(
        update(studies)
        .where(studies.c.name == name)
        .values(spec=dict(spec), path=path, text=text, past_limits_in_a_row=0)
    )
    reopen(connection, name)


def reopen(connection: Connection, name: str) -> None:
    """A study that had ended goes on, as there is more to do; not if its user stopped it."""
    connection.execute(
        update(studies)
        .where(studies.c.name == name, studies.c.control.is_distinct_from(STOPPED))
        .values(ended_at=None, ended_because=None)
    )


def move(connection: Connection, name: str, path: str) -> None:
    """The study file, and with it the data, is elsewhere now."""
    connection.execute(update(studies).where(studies.c.name == name).values(path=path))


def add_places(
    connection: Connection,
    study: str,
    trials: int,
    first_params: Mapping[str, Any] | None,
    references: Sequence[tuple[str, Mapping[str, Any]]],
    points: Sequence[Mapping[str, Any]] | None = None,
) -> int:
    """Add the places that the budget pays for and that are not there yet; returns how many.

    What was enqueued or is a retry is none of them. The first trial has the given parameters; the
    references come behind it. Of a grid, each place is one of its points: position 0, that of the default
    configuration, stays free where that is none of them. A study that had ended goes on if a place is added.
    """
    position = max(1, next_position(connection, study))  # what was enqueued is there before these, if need be
    own = (places.c.study == study, places.c.kind.in_(IN_STUDY), places.c.budgeted)
    begun = list(connection.execute(select(places.c.kind).where(*own)).scalars())
    first: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    if not begun:
        if points is None or first_params in points:
            first = [{"kind": "search", "label": None, "fixed_params": first_params, "position": 0}]
        rows = [{"kind": "reference", "label": label, "fixed_params": params} for label, params in references]
    missing = max(0, trials - begun.count("search") - len(first))
    fixed: Sequence[dict[str, Any] | None] = [None] * missing
    if points is not None:
        there = _points_of(connection, study) | {_key(row["fixed_params"]) for row in first}
        fixed = [dict(point) for point in points if _key(point) not in there][:missing]
    rows += [{"kind": "search", "label": None, "fixed_params": params} for params in fixed]
    rows = first + [{**row, "position": position + index} for index, row in enumerate(rows)]
    if rows:
        connection.execute(insert(places), [{**row, "study": study, "state": "waiting"} for row in rows])
        # Whoever let it go on may have died before its places were there, and a worker have ended it again.
        reopen(connection, study)
    return len(rows)


def _points_of(connection: Connection, study: str) -> set[str]:
    """The points of a grid that have a place of the budget."""
    own = (places.c.study == study, places.c.kind == "search", places.c.budgeted)
    return {
        _key(params) for params in connection.execute(select(places.c.fixed_params).where(*own)).scalars()
    }


def _key(params: Mapping[str, Any] | None) -> str:
    return json.dumps(params, sort_keys=True)


def next_position(connection: Connection, study: str) -> int:
    """Where the next place of a study goes. Nobody else adds one before this transaction ends."""
    _lock(connection, study)  # two at once would number places twice
    last = connection.execute(select(func.max(places.c.position)).where(places.c.study == study)).scalar()
    return 0 if last is None else last + 1


def _lock(connection: Connection, study: str) -> None:
    """Nobody else changes a study's row, or adds a place to it, before this transaction ends.

    Raises:
        StudyGone: the store has no such study.
    """
    row = select(studies.c.name).where(studies.c.name == study).with_for_update()
    if connection.execute(row).first() is None:
        raise StudyGone(study)


def beyond_budget(connection: Connection, study: str) -> int:
    """How many trials were enqueued or are retries."""
    return connection.execute(
        select(func.count()).where(places.c.study == study, places.c.kind.in_(IN_STUDY), ~places.c.budgeted)
    ).scalar_one()


def end(connection: Connection, name: str, because: str) -> bool:
    """No trial is begun any more; False if the study had ended before."""
    row = connection.execute(
        update(studies)
        .where(studies.c.name == name, studies.c.ended_at.is_(None))
        .values(ended_at=now_seconds(), ended_because=because, control=None)
        .returning(studies.c.name)
    ).first()
    return row is not None


def end_over_budget(connection: Connection, name: str, because: str, text: str | None = None) -> bool:
    """End a study whose budget is used up, unless it is paused, or a place beside the budget waits or runs.

    Args:
        text: of the study file whose budget that is: nothing ends if it has grown since; None: any.

    Returns:
        whether it ended now.
    """
    _lock(connection, name)  # what is enqueued now would be left in a study that has ended
    going = select(places.c.id).where(
        places.c.study == name, BESIDE_BUDGET, places.c.state.in_(("waiting", "running"))
    )
    # The end of one that is paused would take the pause away, and trials that had begun would go on.
    may_end = select(studies.c.name).where(
        studies.c.name == name,
        studies.c.control.is_distinct_from(PAUSED),
        *(() if text is None else (studies.c.text == text,)),
        ~going.exists(),
    )
    return connection.execute(may_end).first() is not None and end(connection, name, because)


def end_if_done(connection: Connection, name: str) -> bool:
    """End a study none of whose places waits or runs.

    Returns:
        whether it has ended, now or before, and no trial of it waits to be finished.

    Raises:
        StudyGone: the store has no such study.
    """
    row = connection.execute(select(studies.c.ended_at, studies.c.spec).where(studies.c.name == name)).first()
    if row is None:
        raise StudyGone(name)
    if row.ended_at is not None:
        return not has_unfinished(connection, name)
    going = (
        select(places.c.id)
        .where(
            places.c.study == name,
            places.c.kind.in_(IN_STUDY),
            places.c.state.in_(("waiting", "running")),
        )
        .limit(1)
    )
    if connection.execute(going).first() is not None:
        return False
    _lock(connection, name)  # what was added meanwhile would be left in a study that has ended
    if connection.execute(going).first() is not None:
        return False
    end(connection, name, _all_done(connection, name, row.spec))
    return True


def has_unfinished(connection: Connection, name: str) -> bool:
    """Whether a trial waits that had begun; of a study that was stopped nothing is to be finished."""
    waiting = (
        select(places.c.id)
        .join(studies, studies.c.name == places.c.study)
        .where(
            places.c.study == name,
            BEGUN,
            places.c.state == "waiting",
            studies.c.control.is_distinct_from(STOPPED),
        )
    )
    return connection.execute(waiting.limit(1)).first() is not None


def _all_done(connection: Connection, name: str, spec: Mapping[str, Any]) -> str:
    """Why a study ends whose places all have results."""
    budgeted = connection.execute(
        select(func.count()).where(places.c.study == name, places.c.kind == "search", places.c.budgeted)
    ).scalar_one()
    trials = budgeted + beyond_budget(connection, name)
    if spec.get("sampler", {}).get("name") == "grid" and budgeted < spec["budget"]["trials"]:
        return f"the grid is through: {budgeted} points"
    return "its one trial is done" if trials == 1 else f"all {trials} trials are done"


def past_limits_in_a_row(connection: Connection, name: str) -> int:
    """How many configurations past the limits were drawn since one that was not. Raises StudyGone."""
    counted = select(studies.c.past_limits_in_a_row).where(studies.c.name == name)
    in_a_row = connection.execute(counted).scalar()
    if in_a_row is None:
        raise StudyGone(name)
    return in_a_row


def hold_sender(connection: Connection, name: str, sender: str, seconds: float) -> bool:
    """Become, or stay, the one who draws a study in MLflow for some seconds; False if it is somebody else."""
    row = connection.execute(
        update(studies)
        .where(
            studies.c.name == name,
            or_(
                studies.c.sender.is_(None),
                studies.c.sender == sender,
                studies.c.sender_expires < now_seconds(),
            ),
        )
        .values(sender=sender, sender_expires=now_seconds() + seconds)
        .returning(studies.c.name)
    ).first()
    return row is not None


def drop_sender(connection: Connection, name: str, sender: str) -> None:
    """Let somebody else draw."""
    connection.execute(
        update(studies)
        .where(studies.c.name == name, studies.c.sender == sender)
        .values(sender=None, sender_expires=None)
    )


def note_drawn(connection: Connection, name: str, experiment_id: str | None, run_id: str | None) -> None:
    """Where MLflow draws a study."""
    connection.execute(
        update(studies).where(studies.c.name == name).values(experiment_id=experiment_id, run_id=run_id)
    )


def note_run(connection: Connection, place_id: int, run_id: str | None) -> None:
    """Where MLflow draws a place."""
    connection.execute(update(places).where(places.c.id == place_id).values(run_id=run_id))
