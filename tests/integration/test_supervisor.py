"""A worker under a supervisor, as a cluster places it: handed back, killed, refused, and never orphaned."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sweeper.engine.supervisor import ENDED, IDLE, RUNNING, Order, Report, Supervisor
from sweeper.home import Home
from sweeper.ledger.processes import host_id
from sweeper.session import Session, open_study
from sweeper.study import load_study
from tests.command_line import ROOT
from tests.faults.processes import wait_until
from tests.tiny_folder import write_study


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A study of one trial that takes longer than any test."""
    folder = tmp_path_factory.mktemp("supervised")
    path = write_study(folder, budget={"trials": 1}, train={"epochs": 5000})
    return open_study(load_study(path), Home.from_environment({"SWEEPER_HOME": str(folder / "sweeps")}))


@pytest.fixture
def order(session: Session) -> Order:
    shared = session.home.artifacts / "tiny" / ".shared"
    shared.parent.mkdir(parents=True, exist_ok=True)
    shared.touch()
    environment = {**session.home.environment(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = ("--device", "cpu", "--threads", "1", "--cache-bytes", "0")
    return Order("tiny", arguments, environment, str(session.home.logs / "one.log"), str(shared), host_id())


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.kill()


def workers() -> list[psutil.Process]:
    """Those that this process has started; a database of other tests may be its child, too."""
    return [child for child in psutil.Process().children() if "sweeper.worker" in child.cmdline()]


def is_running(session: Session) -> bool:
    return any(view.state == "running" for view in session.ledger.trials("tiny"))


def test_a_worker_hands_back_when_asked_and_when_killed_its_trials_are_free(
    session: Session, order: Order, supervisor: Supervisor
) -> None:
    assert supervisor.look().state == IDLE and supervisor.hand_back().state == IDLE
    assert supervisor.start(order).state == RUNNING
    [worker] = workers()
    assert supervisor.start(order).state == RUNNING and workers() == [worker]
    wait_until(lambda: is_running(session))
    supervisor.hand_back()
    wait_until(lambda: supervisor.hand_back().state == ENDED)
    assert (supervisor.look().code, supervisor.look().said) == (0, "")
    assert not is_running(session) and not worker.is_running()
    assert supervisor.start(order).state == RUNNING
    wait_until(lambda: is_running(session))
    assert (supervisor.kill().state, supervisor.kill().code) == (ENDED, -9)
    # At once, and without a loss: the lease of a minute has hardly begun.
    assert not is_running(session)
    assert [session.ledger.times_lost(view.place_id) for view in session.ledger.trials("tiny")] == [0, 0]


def test_a_worker_ends_when_its_supervisor_is_gone(session: Session, order: Order) -> None:
    code = (
        "import sys, time; from sweeper.engine.supervisor import *; supervisor = Supervisor()\n"
        f"supervisor.start({order.__class__.__name__}({order.study!r}, {order.arguments!r}, "
        f"{dict(order.environment)!r}, {order.log!r}, {order.shared!r}))\n"
        "print(supervisor._process.pid, flush=True); time.sleep(1000)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    wait_until(lambda: is_running(session))
    parent.kill()
    parent.communicate()
    wait_until(lambda: not worker.is_running())
    assert not is_running(session)


def test_what_a_worker_refuses_and_where_it_may_not_run_is_said(
    order: Order, supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(changed: Order) -> Report:
        supervisor.start(changed)
        wait_until(lambda: supervisor.look().state == ENDED)
        return supervisor.look()

    other = ended(replace(order, host="another machine"))
    assert other.code == 2 and "the store is a SQLite file, which one machine can use" in other.said
    unseen = ended(replace(order, shared=str(tmp_path / "artifacts" / "tiny" / ".shared")))
    assert unseen.code == 2 and f"does not see the artifact folder {tmp_path / 'artifacts'}" in unseen.said
    (tmp_path / "file").touch()
    assert "cannot be started" in ended(replace(order, log=str(tmp_path / "file" / "log"))).said
    # What frees the trials of a dead worker asks the store in this process, and libpq reads its variables.
    monkeypatch.setenv("PGAPPNAME", "of the node")
    environment = {**order.environment, "PGAPPNAME": "of the order"}
    unknown = ended(replace(order, study="unknown", environment=environment))
    assert os.environ["PGAPPNAME"] == "of the order"
    assert unknown.code == 2 and unknown.said.startswith("the store has no study 'unknown'")
    assert "SWEEPER_STORE" not in repr(order)
