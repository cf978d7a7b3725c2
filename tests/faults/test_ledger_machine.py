"""The ledger against its model, on both databases; and the same against ledgers without their guards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import and_
from sqlalchemy.exc import DBAPIError

from sweeper.ledger import Claim, LeaseLost, Ledger, failing, outcomes
from sweeper.ledger import places as claims
from sweeper.ledger.schema import places
from tests.faults.ledger_machine import LedgerMachine

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@pytest.fixture
def machine(url: str) -> type[LedgerMachine]:
    store = Ledger(url)
    store.create()

    class Machine(LedgerMachine):
        ledger = store

    return Machine


def drive(machine: type[LedgerMachine], runs: int, steps: int, shrink: bool = True) -> None:
    """Let the machine make so many runs of so many steps; raises what differs from the model."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    given = settings(
        max_examples=runs, stateful_step_count=steps, deadline=None, database=None, derandomize=True,
        suppress_health_check=QUIET, phases=phases, report_multiple_bugs=False, print_blob=False,
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=given)


def test_the_ledger_does_what_its_model_does(machine: type[LedgerMachine]) -> None:
    drive(machine, runs=8, steps=30)


def without_token(claim: Claim) -> Any:
    return and_(places.c.id == claim.place_id, places.c.state == "running")


def without_state(claim: Claim) -> Any:
    return and_(places.c.id == claim.place_id, places.c.token == claim.token)


def without_any(claim: Claim) -> Any:
    return places.c.id == claim.place_id


GUARDED = (claims, failing, outcomes)
CAUGHT = (AssertionError, LeaseLost, DBAPIError)
"""The model differs, or a constraint of the tables does."""


@pytest.mark.parametrize("mutant", [without_token, without_state, without_any])
def test_without_its_guard_the_ledger_is_caught(
    mutant: Callable[[Claim], Any], machine: type[LedgerMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in GUARDED:
        assert hasattr(module, "guard")
        monkeypatch.setattr(module, "guard", mutant)
    with pytest.raises(CAUGHT):
        drive(machine, runs=250, steps=40, shrink=False)


@pytest.mark.parametrize(
    ("module", "name", "instead"),
    [
        (claims, "expire", lambda connection, study: 0),
        (
            claims,
            "_TAKE_OF_STUDY",
            claims.take(*(rule for name, rule in claims.RULES.items() if name != "first")),
        ),
    ],
)
def test_without_a_rule_the_ledger_is_caught(
    module: Any, name: str, instead: Any, machine: type[LedgerMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, instead)
    with pytest.raises(CAUGHT):
        drive(machine, runs=250, steps=40, shrink=False)
