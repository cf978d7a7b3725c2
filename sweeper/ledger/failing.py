"""Attempts that come to nothing, and how often a place is tried again: bounded by the class of failure."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, and_, func, insert, select, update

from sweeper.ledger.database import now_seconds
from sweeper.ledger.guards import close_attempt, freed, guard, lost
from sweeper.ledger.records import LOST, OUT_OF_MEMORY, RAISED, Claim
from sweeper.ledger.schema import ENDED, attempts, places, results

RETRIES: Mapping[str, int] = {LOST: 3, OUT_OF_MEMORY: 1, RAISED: 1}
"""How often a place is tried again after each class of failure.

Workers are lost for reasons that are seldom the trial's. What raised, or did not fit alone, computes the same
again: one more try is for what came from outside, such as a file that was away or another user of the memory.
"""


def fail(connection: Connection, claim: Claim, failure: str, reason: str) -> bool:
    """An attempt raised or did not fit: free its place for another one, or end it if its retries are used up.

    Args:
        failure: ``raised`` or ``out_of_memory``.

    Returns:
        whether the place has ended, now or by an earlier call.

    Raises:
        LeaseLost: the claim is no longer good.
    """
    row = connection.execute(
        update(places).where(guard(claim)).values(**freed()).returning(places.c.id)
    ).first()
    if row is None:
        done = select(places.c.id).where(
            places.c.id == claim.place_id, places.c.attempt == claim.attempt, places.c.state.in_(ENDED)
        )
        if connection.execute(done).first() is None:
            raise lost(claim)
        return True
    close_attempt(connection, claim.token, failure, reason, now_seconds())
    if times(connection, claim.place_id, failure) <= RETRIES[failure]:
        return False
    _end(connection, claim.place_id, claim.attempt, reason)
    return True


def expire(connection: Connection, study: str) -> int:
    """Free the places whose lease ran out; returns how many."""
    late = and_(places.c.study == study, places.c.state == "running", places.c.lease_expires < now_seconds())
    rows = connection.execute(
        select(places.c.id, places.c.token).where(late).with_for_update(skip_locked=True)
    ).all()
    return sum(lose(connection, row.id, row.token, LOST) for row in rows)


def lose(connection: Connection, place_id: int, token: str, outcome: str) -> bool:
    """Take a place from the worker that has it; False if that has happened already.

    Args:
        outcome: ``lost`` (bounded: the place fails in the end), or ``handed_back`` on purpose.
    """
    row = connection.execute(
        update(places)
        .where(places.c.id == place_id, places.c.token == token, places.c.state == "running")
        .values(**freed())
        .returning(places.c.attempt)
    ).first()
    if row is None:
        return False
    reason = "its worker was lost" if outcome == LOST else None
    # Its time ends when it was last seen, not when somebody noticed.
    close_attempt(connection, token, outcome, reason, attempts.c.seen_at)
    if outcome == LOST and (deaths := times(connection, place_id, LOST)) > RETRIES[LOST]:
        reason = f"lost: {deaths} workers died or hung while they trained it"
        _end(connection, place_id, row.attempt, reason)
    return True


def times(connection: Connection, place_id: int, failure: str) -> int:
    """How many attempts at a place ended in a class of failure."""
    return connection.execute(
        select(func.count()).where(attempts.c.place_id == place_id, attempts.c.outcome == failure)
    ).scalar_one()


def _end(connection: Connection, place_id: int, attempt: int, reason: str) -> None:
    """End a place that was freed: nobody is to try it again."""
    connection.execute(
        update(places).where(places.c.id == place_id).values(state="failed", told=places.c.trial_id.is_(None))
    )
    started = select(attempts.c.started_at).where(
        attempts.c.place_id == place_id, attempts.c.attempt == attempt
    )
    connection.execute(
        insert(results).values(
            place_id=place_id,
            attempt=attempt,
            state="failed",
            metrics={},
            seconds=now_seconds() - started.scalar_subquery(),
            device_seconds=0.0,
            files={},
            reason=reason,
            recorded_at=now_seconds(),
        )
    )
