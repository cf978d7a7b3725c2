"""A coordinator and what is not its own: workers of others, and what a worker elsewhere said."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from sweeper.engine.coordinator import RESTARTS, Moment, Signals, others_end
from sweeper.engine.crew import WorkerOptions
from sweeper.engine.fleet import Fleet, _Member
from sweeper.engine.supervisor import ENDED, Report
from sweeper.errors import SweeperError
from sweeper.ledger import Result, StudyRow, WorkerIdentity
from sweeper.study import RaySettings
from sweeper.worker.process import hand_back_on_signals
from tests.fork_server import fork_server
from tests.made_study import MadeStudy, home_in

ELSEWHERE = WorkerIdentity("elsewhere:1:ab", "elsewhere", 1, 0.0, "cuda:0")


class Followed:
    """As much of a session as a coordinator needs to look on."""

    def __init__(self, made: MadeStudy) -> None:
        self.name, self.home, self.ledger = made.name, made.home, made.ledger

    @property
    def row(self) -> StudyRow:
        return self.ledger.study(self.name)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeStudy]:
    study = MadeStudy(home_in(tmp_path))
    study.run_next()
    study.run_next()  # the head alone
    yield study
    study.ledger.close()


def test_what_others_still_train_of_a_study_that_has_ended_is_waited_for(made: MadeStudy) -> None:
    session: Any = Followed(made)
    signals = Signals(session)
    claim = made.ledger.reserve("films", ELSEWHERE)
    assert claim is not None
    assert list(others_end(session, signals, 0.01)) == []  # it goes on: its workers end it
    made.ledger.end_over_budget("films", "its hours are used up")
    moments = others_end(session, signals, 0.01)
    assert next(moments).workers == 0
    made.ledger.record_result(claim, Result("complete", 0.9))
    assert list(moments) == []


def waiting(made: MadeStudy) -> tuple[Signals, Generator[Moment, None, bool]]:
    """The wait for what another machine trains of a study that has ended, under way."""
    session: Any = Followed(made)
    signals = Signals(session)
    assert made.ledger.reserve("films", ELSEWHERE) is not None
    made.ledger.end_over_budget("films", "its hours are used up")
    moments = others_end(session, signals, 0.01)
    next(moments)
    return signals, moments


@pytest.mark.parametrize("signalled", [False, True])
def test_a_study_that_goes_on_while_it_is_waited_for_is_gone_on_with(
    made: MadeStudy, signalled: bool
) -> None:
    signals, moments = waiting(made)
    made.ledger.enqueue("films", {"bottleneck_dim": 8})
    signals.count = int(signalled)
    with pytest.raises(StopIteration) as ended:
        next(moments)
    assert ended.value.value is not signalled


def test_of_a_dead_worker_elsewhere_the_lease_is_waited_for_and_no_longer(made: MadeStudy) -> None:
    session: Any = Followed(made)
    claim = made.ledger.reserve("films", ELSEWHERE, lease_seconds=-1.0)
    assert claim is not None
    made.ledger.end_over_budget("films", "its hours are used up")
    before = made.ledger.trial("films", claim.place_id)
    made.ledger.mark_place_shown(claim.place_id, before.version)
    assert list(others_end(session, Signals(session), 0.01)) == []
    assert claim.place_id in made.ledger.unshown_places("films")  # so that its run in MLflow is closed


def test_a_signal_ends_the_waiting(made: MadeStudy) -> None:
    signals, moments = waiting(made)
    signals.count = 1
    assert list(moments) == []


def test_a_worker_is_told_to_hand_back_any_number_of_times_and_killed_by_a_second_sigterm() -> None:
    context = fork_server()
    hears, says = context.Pipe(duplex=False)
    process = context.Process(target=_told, args=(says,))
    process.start()
    assert process.pid is not None and hears.recv_bytes() == b"ready"
    # As a service manager and the coordinator do it: the whole tree is told to end, and the coordinator
    # tells its workers besides.
    os.kill(process.pid, signal.SIGTERM)
    assert hears.recv_bytes() == b"stops"
    for _ in range(3):
        os.kill(process.pid, signal.SIGUSR1)
    process.join(0.5)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == -signal.SIGTERM


def _told(says: Connection) -> None:
    stop = threading.Event()
    hand_back_on_signals(stop)
    says.send_bytes(b"ready")
    stop.wait()
    says.send_bytes(b"stops")
    time.sleep(60)


def test_why_a_worker_elsewhere_cannot_be_started_is_said(made: MadeStudy) -> None:
    session: Any = Followed(made)
    settings = RaySettings(num_gpus=None, num_cpus=1.0, resources={}, max_workers=None)
    cluster: Any = None
    fleet = Fleet(session, cluster, settings, WorkerOptions(), print)
    member = _Member("worker", None, deaths=RESTARTS)
    why = "the worker cannot be started: [Errno 13] Permission denied: '/sweeps'"
    with pytest.raises(
        SweeperError, match=r"before any trial ended: the worker cannot be started: \[Errno 13\]"
    ):
        fleet._count_death(member, Report(ENDED, "node", 1, why))
    with pytest.raises(SweeperError, match=r"before any trial ended: see .*-ray-worker\.log there"):
        fleet._count_death(member, Report(ENDED, "node", -9))
