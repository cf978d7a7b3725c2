"""Claiming: who holds which place. Every transition is one guarded statement.

A place is waiting, or running under a token and a lease, or ended. Whoever writes shows the token: once the
place was taken from a worker, its token fits no row any more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Double, Text, and_, bindparam, insert, or_, select, update
from sqlalchemy.sql import ColumnElement, FromClause
from sqlalchemy.sql.dml import ReturningUpdate

from sweeper.ledger.database import now_seconds
from sweeper.ledger.failing import expire
from sweeper.ledger.guards import close_attempt, freed, guard, lost
from sweeper.ledger.records import Attached, Claim, WorkerIdentity
from sweeper.ledger.schema import IN_STUDY, attempts, places, studies
from sweeper.ledger.studyrows import BEGUN, BESIDE_BUDGET


def reserve(
    connection: Connection,
    study: str,
    worker: WorkerIdentity,
    lease_seconds: float,
    token: str,
    kind: str | None = None,
    beside_budget: bool = False,
) -> Claim | None:
    """Take the first place that is free, or expired, while the study goes on; None if none is left.

    A trial that had begun is finished though the study has ended meanwhile, unless its user stopped it.
    What was enqueued or is a retry comes first. A trial whose configuration another one is being trained with
    waits for the result of that one, unless the budget wants repeats. With a ``kind`` that is none of the
    study's own, its places are taken whether or not the study has ended. With ``beside_budget`` none is taken
    that the budget counts.
    """
    if kind is None:
        # Nobody looks while another takes the first place: what follows sees that it is on its way. That is
        # before all else, since nothing behind it waits for a lock.
        connection.execute(_FIRST_WITHOUT_NUMBER, {"of_study": study})
    expire(connection, study)
    of_study = _TAKE_BESIDE_BUDGET if beside_budget else _TAKE_OF_STUDY
    taken = connection.execute(
        of_study if kind is None else _TAKE_OF_KIND,
        {
            "of_study": study,
            "of_kind": kind,
            "for_seconds": lease_seconds,
            "token": token,
            "worker": worker.name,
        },
    ).first()
    if taken is None:
        return None
    connection.execute(
        insert(attempts).values(
            place_id=taken.id,
            attempt=taken.attempt,
            token=token,
            worker=worker.name,
            host=worker.host,
            pid=worker.pid,
            process_started=worker.process_started,
            device=worker.device,
            trial_number=taken.trial_number,
            started_at=now_seconds(),
            seen_at=now_seconds(),
        )
    )
    return _claim(taken, lease_seconds)


def runs_with(
    table: FromClause, study: str | ColumnElement[str], configuration: str | ColumnElement[str]
) -> ColumnElement[bool]:
    """Whether a place, of the table or an alias of it, is a trial of a configuration that runs."""
    return and_(
        table.c.study == study,
        table.c.kind == "search",
        table.c.state == "running",
        table.c.configuration == configuration,
    )


_STUDY: ColumnElement[str] = bindparam("of_study", type_=Text)


def _goes_on() -> ColumnElement[bool]:
    """The study was neither paused nor stopped; and it has not ended, but for what had begun before."""
    return (
        select(studies.c.name)
        .where(
            studies.c.name == _STUDY,
            studies.c.control.is_(None),
            or_(studies.c.ended_at.is_(None), BEGUN),
        )
        .correlate(places)
        .exists()
    )


_FIRST_WITHOUT_NUMBER = (
    select(places.c.id)
    .where(
        places.c.study == _STUDY,
        places.c.position == 0,
        places.c.trial_number.is_(None),
        places.c.fixed_params.is_not(None),
    )
    .with_for_update()
)


def _first_has_its_number() -> ColumnElement[bool]:
    """Nobody overtakes the first place on its way to a number: the default configuration is trial 0.

    Those that come first otherwise do not, either, while it waits.
    """
    first = places.alias("first")
    on_its_way = select(first.c.id).where(
        first.c.study == _STUDY,
        first.c.position == 0,
        or_(first.c.state == "running", and_(first.c.state == "waiting", ~places.c.budgeted)),
        first.c.trial_number.is_(None),
        first.c.fixed_params.is_not(None),
    )
    return ~on_its_way.exists()


def _trained_by_nobody() -> ColumnElement[bool]:
    """No trial of the same configuration runs, or the budget wants repeats.

    A place that never was a trial has no configuration: none runs with it.
    """
    twin = places.alias("twin")
    alike = select(twin.c.id).where(runs_with(twin, _STUDY, places.c.configuration)).correlate(places)
    repeats = studies.c.spec["budget"]["repeats"].as_boolean()
    return or_(~alike.exists(), select(studies.c.name).where(studies.c.name == _STUDY, repeats).exists())


def take(*rules: ColumnElement[bool]) -> ReturningUpdate[Any]:
    """The statement that takes the first free place for which all rules hold."""
    free = (
        select(places.c.id)
        .where(places.c.study == _STUDY, places.c.state == "waiting", *rules)
        .order_by(places.c.budgeted, places.c.position)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        update(places)
        .where(places.c.id == free, places.c.state == "waiting")
        .values(
            state="running",
            attempt=places.c.attempt + 1,
            token=bindparam("token"),
            worker=bindparam("worker"),
            lease_expires=now_seconds() + bindparam("for_seconds", type_=Double),
        )
        .returning(*places.c)
    )


# Built once: it takes longer than all the rest of a claim, in which nobody else may write to SQLite.
RULES = {
    "kind": places.c.kind.in_(IN_STUDY),
    "goes on": _goes_on(),
    "first": _first_has_its_number(),
    "twin": _trained_by_nobody(),
}
_TAKE_OF_STUDY = take(*RULES.values())
_TAKE_BESIDE_BUDGET = take(*RULES.values(), or_(BESIDE_BUDGET, BEGUN))
_TAKE_OF_KIND = take(places.c.kind == bindparam("of_kind", type_=Text))


def held(connection: Connection, study: str, token: str, lease_seconds: float) -> Claim | None:
    """The claim of a token, if it is still good: what an earlier call reserved and could not say."""
    row = connection.execute(
        select(places).where(places.c.study == study, places.c.token == token, places.c.state == "running")
    ).first()
    return None if row is None else _claim(row, lease_seconds)


def _claim(row: Any, lease_seconds: float) -> Claim:
    return Claim(
        study=row.study,
        place_id=row.id,
        kind=row.kind,
        label=row.label,
        token=row.token,
        attempt=row.attempt,
        lease_seconds=lease_seconds,
        fixed_params=row.fixed_params,
        trial_number=row.trial_number,
        trial_id=row.trial_id,
        params=row.params,
        budgeted=row.budgeted,
    )


def attach(connection: Connection, claim: Claim, attached: Attached) -> None:
    """Write down which trial a claim became. Raises LeaseLost."""
    row = connection.execute(
        update(places)
        .where(guard(claim))
        .values(
            trial_number=attached.trial_number,
            trial_id=attached.trial_id,
            params=dict(attached.params),
            configuration=attached.configuration,
            adapter_parameters=attached.adapter_parameters,
            head_parameters=attached.head_parameters,
            version=places.c.version + 1,
        )
        .returning(places.c.id)
    ).first()
    if row is None:
        raise lost(claim)
    connection.execute(
        update(attempts).where(attempts.c.token == claim.token).values(trial_number=attached.trial_number)
    )
    drawn = claim.kind == "search" and claim.fixed_params is None and claim.trial_number is None
    if drawn:
        # Only where it changes something: every worker would wait for the others at this one row.
        connection.execute(
            update(studies)
            .where(studies.c.name == claim.study, studies.c.past_limits_in_a_row != 0)
            .values(past_limits_in_a_row=0)
        )


def heartbeat(
    connection: Connection, claims: Sequence[Claim], steps: Mapping[int, tuple[int, int | None]]
) -> list[Claim]:
    """Renew the leases of claims; returns those that are lost."""
    gone = []
    for claim in sorted(
        claims, key=lambda claim: claim.place_id
    ):  # one order, so that no two wait for each other
        renewed = connection.execute(
            update(places)
            .where(guard(claim))
            .values(lease_expires=now_seconds() + claim.lease_seconds)
            .returning(places.c.id)
        ).first()
        if renewed is None:
            gone.append(claim)
            continue
        done, total = steps.get(claim.place_id, (0, None))
        connection.execute(
            update(attempts)
            .where(attempts.c.token == claim.token)
            .values(seen_at=now_seconds(), steps_done=done, steps_total=total)
        )
    return gone


def release(connection: Connection, claim: Claim, outcome: str, reason: str | None) -> None:
    """Free a place whose claim comes to nothing. Raises LeaseLost."""
    values: dict[str, Any] = freed()
    if outcome == "past_limits":
        # Its next trial is another one; what was fixed would be past the limits again.
        values |= {"fixed_params": None, "trial_number": None, "trial_id": None}
    row = connection.execute(
        update(places).where(guard(claim)).values(**values).returning(places.c.id)
    ).first()
    if row is None:
        raise lost(claim)
    close_attempt(connection, claim.token, outcome, reason, now_seconds())
    if outcome == "past_limits":
        connection.execute(
            update(studies)
            .where(studies.c.name == claim.study)
            .values(past_limits_in_a_row=studies.c.past_limits_in_a_row + 1)
        )


def running(connection: Connection, study: str, host: str) -> list[Any]:
    """``place_id, token, host, pid, process_started, worker`` of every claim of a host's workers."""
    return list(
        connection.execute(
            select(
                attempts.c.place_id,
                attempts.c.token,
                attempts.c.host,
                attempts.c.pid,
                attempts.c.process_started,
                attempts.c.worker,
            )
            .join(places, and_(places.c.id == attempts.c.place_id, places.c.token == attempts.c.token))
            .where(places.c.study == study, places.c.state == "running", attempts.c.host == host)
        ).all()
    )


def new_token() -> str:
    """A name for an attempt that nobody can guess or repeat."""
    return secrets.token_hex(16)
