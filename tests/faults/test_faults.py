"""Each fault of ``scenarios`` a few times; `make soak` runs the same ones for longer."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.faults import outages, scenarios
from tests.faults.processes import begin, ended, start
from tests.faults.servers import Postgres, postgres
from tests.fork_server import fork_server


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    return fork_server()


@pytest.fixture
def store(url: str) -> str:
    """Of each kind."""
    return url


def test_workers_killed_at_random(server: ForkServerContext, tmp_path: Path, store: str) -> None:
    found = scenarios.killed(server, tmp_path, store, trials=8, kills=6)
    assert found.is_right and found.tries >= 1, found


def test_a_worker_that_was_stopped_past_its_lease_changes_nothing(
    server: ForkServerContext, tmp_path: Path, store: str
) -> None:
    found = scenarios.stalled(server, tmp_path, store, rounds=2, trials=2)
    assert found.is_right and found.tries >= 1, found


def test_racing_workers_train_each_trial_once(server: ForkServerContext, tmp_path: Path, store: str) -> None:
    found = scenarios.raced(server, tmp_path, store, trials=8, workers=4)
    assert found.is_right, found


def test_clocks_that_are_wrong_take_no_lease(
    server: ForkServerContext, tmp_path: Path, own_postgres: Postgres
) -> None:
    found = scenarios.clock_off(server, tmp_path, own_postgres.database(), trials=6)
    assert found.is_right, found


def test_interrupted_studies_come_to_the_same_bits(server: ForkServerContext, tmp_path: Path) -> None:
    found = scenarios.interrupted(server, tmp_path, None, interruptions=3)
    assert found.is_right and found.tries == 3, found


def test_two_runs_at_once_all_killed_and_run_again(server: ForkServerContext, tmp_path: Path) -> None:
    found = scenarios.coordinators(server, tmp_path, None, trials=6)
    assert found.is_right, found


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


def test_a_postgresql_that_stops_and_starts_ends_no_worker(
    server: ForkServerContext, tmp_path: Path, own_postgres: Postgres
) -> None:
    found = scenarios.restarted(server, tmp_path, own_postgres, trials=8, times=2)
    assert found.is_right and found.tries == 2, found


def test_a_worker_whose_store_stays_away_says_so(
    server: ForkServerContext, tmp_path: Path, own_postgres: Postgres
) -> None:
    session = begin(scenarios.short_study(tmp_path, 1000), tmp_path / "away", own_postgres.database())
    log = tmp_path / "worker.log"
    worker = start(server, session, None, *scenarios.ALONE, log=log, patience_seconds=1.0)
    scenarios.wait_until(lambda: session.ledger.count(session.name, "complete") >= 1)
    own_postgres.stop()
    try:
        assert ended(worker) == 4
    finally:
        own_postgres.start()
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: the store postgresql") and "check that its server runs" in last


def test_an_mlflow_that_is_down_answers_errors_and_is_slow_shows_all_of_it_once(
    server: ForkServerContext, tmp_path: Path
) -> None:
    found = outages.mlflow_away(server, tmp_path, trials=4)
    assert found.is_right and found.tries >= 1, found


def test_checkpoints_that_are_torn_or_missing_load_nothing_wrong(
    server: ForkServerContext, tmp_path: Path
) -> None:
    found = outages.torn(server, tmp_path, None, rounds=4)
    assert found.is_right, found


def test_a_full_disk_costs_checkpoints_and_then_ends_the_worker_with_a_sentence(
    server: ForkServerContext, tmp_path: Path, own_postgres: Postgres
) -> None:
    found = outages.disk_full(server, tmp_path, own_postgres)
    assert found.is_right, found
