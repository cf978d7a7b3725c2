"""What happened in a study, in order: who worked on what, and every evaluation of the objective."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, case, func, select

from sweeper.ledger.database import now_seconds
from sweeper.ledger.records import LOST, REPEAT_OF, TRAINED_ALIKE, says_refused
from sweeper.ledger.schema import IN_STUDY, attempts, metrics, places


@dataclass(frozen=True)
class AttemptRow:
    """One execution of a trial by one worker.

    Args:
        trial: its name, such as ``trial-0007`` or ``reference-head``; None if it never became one.
        started_at, ended_at: seconds since 1970 by the database's clock; of one that goes on, until now, and
            of one whose lease ran out, until its worker was last seen.
        outcome: how it ended (see ``schema.attempts``); ``running`` if it goes on.
        reason: why, in words; None where there is nothing to say.
    """

    place_id: int
    attempt: int
    trial: str | None
    worker: str
    host: str
    device: str
    started_at: float
    ended_at: float
    outcome: str
    reason: str | None = None

    @property
    def was_trained(self) -> bool:
        """Whether anything was computed: not past the limits, no repeat, not sent to wait for its like."""
        reason = self.reason or ""
        alike = reason.startswith(REPEAT_OF) or reason.endswith(TRAINED_ALIKE)
        return not alike and self.outcome != "past_limits" and not says_refused(reason)


@dataclass(frozen=True)
class Evaluation:
    """The objective at one evaluation, counted from 1, of the attempt that counts."""

    place_id: int
    evaluation: int
    epoch: float
    value: float


def attempt_rows(connection: Connection, study: str) -> list[AttemptRow]:
    """Every attempt at a study's trials and references, oldest first; none at what confirms them."""
    is_lost = and_(attempts.c.ended_at.is_(None), places.c.lease_expires < now_seconds())
    reached = case((is_lost, attempts.c.seen_at), else_=now_seconds())
    query = (
        select(
            attempts,
            places.c.label,
            func.coalesce(attempts.c.ended_at, reached).label("until"),
            case((is_lost, LOST), (attempts.c.ended_at.is_(None), "running"), else_="ended").label(
                "standing"
            ),
        )
        .join(places, places.c.id == attempts.c.place_id)
        .where(places.c.study == study, places.c.kind.in_(IN_STUDY))
        .order_by(attempts.c.started_at, attempts.c.id)
    )
    return [
        AttemptRow(
            place_id=row.place_id,
            attempt=row.attempt,
            trial=row.label or (None if row.trial_number is None else f"trial-{row.trial_number:04d}"),
            worker=row.worker,
            host=row.host,
            device=row.device,
            started_at=row.started_at,
            ended_at=row.until,
            outcome=row.outcome or row.standing,
            reason=row.reason,
        )
        for row in connection.execute(query)
    ]


def evaluations(connection: Connection, study: str) -> list[Evaluation]:
    """The objective of every evaluation of a study, references included, in order."""
    query = (
        select(metrics.c.place_id, metrics.c.evaluation, metrics.c.epoch, metrics.c.value)
        .join(places, and_(places.c.id == metrics.c.place_id, places.c.attempt == metrics.c.attempt))
        .where(places.c.study == study, metrics.c.key == "objective")
        .order_by(metrics.c.place_id, metrics.c.evaluation)
    )
    return [Evaluation(*row) for row in connection.execute(query)]
