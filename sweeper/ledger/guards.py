"""What every write of a worker shows, and what is left of a claim that ends without a result."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, and_, update
from sqlalchemy.sql import ColumnElement

from sweeper.ledger.records import Claim, LeaseLost
from sweeper.ledger.schema import attempts, places


def guard(claim: Claim) -> ColumnElement[bool]:
    """True for the place of a claim, as long as the claim is good."""
    return and_(places.c.id == claim.place_id, places.c.token == claim.token, places.c.state == "running")


def lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"{claim.name} was taken from this worker: its lease ran out")


def freed() -> dict[str, Any]:
    """The values of a place that waits again."""
    return {
        "state": "waiting",
        "token": None,
        "lease_expires": None,
        "worker": None,
        "version": places.c.version + 1,
    }


def close_attempt(
    connection: Connection, token: str, outcome: str, reason: str | None, ended_at: Any
) -> None:
    """Write down how an attempt ended."""
    connection.execute(
        update(attempts)
        .where(attempts.c.token == token)
        .values(outcome=outcome, reason=reason, ended_at=ended_at)
    )
