"""Workers that are forked begin, are told and end as those from nothing do, and outlive the rest."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeper.console import Output
from sweeper.engine.coordinator import Ending, Moment, moment_of
from sweeper.engine.forkserver import ForkedWorker, ForkServer, fork_server
from sweeper.home import Home
from sweeper.running import _watch
from sweeper.session import Session, open_study
from sweeper.study import load_study
from tests.command_line import CommandLine
from tests.faults.processes import wait_until
from tests.fork_server import fork_server as of_tests
from tests.stores import states_of
from tests.tiny_folder import write_study

SECONDS = 120.0


def states(folder: Path) -> list[str]:
    return states_of(home(folder).store_url, "tiny")


def is_over(process: psutil.Process) -> bool:
    """Whether it has ended; who would reap it may be gone."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def in_a_coordinator(
    does: Callable[[ForkServer, Path], dict[str, Any]], folder: Path, before: Callable[[], object] = dict
) -> Any:
    """What something found out in a process of its own that has a server: this one has threads."""
    process = of_tests().Process(target=_coordinate, args=(does, folder, before))
    process.start()
    process.join(SECONDS)
    process.kill()
    assert process.exitcode == 0
    return json.loads((folder / "found.json").read_text())


def _coordinate(
    does: Callable[[ForkServer, Path], dict[str, Any]], folder: Path, before: Callable[[], object]
) -> None:
    before()
    with fork_server(["cpu"]) as server:
        assert server is not None
        open_study(load_study(folder / "study.yaml"), home(folder)).ledger.close()
        (folder / "found.json").write_text(json.dumps(does(server, folder)))


def home(folder: Path) -> Home:
    return Home.from_environment({"SWEEPER_HOME": str(folder / "sweeps")})


def started(server: ForkServer, folder: Path, study: str = "tiny") -> ForkedWorker:
    given = [study, "--device", "cpu", "--threads", "1", "--pack", "1"]
    worker = server.start(given, home(folder).environment(), folder / f"{study}.log")
    assert worker is not None
    return worker


def _begin_and_end(server: ForkServer, folder: Path) -> dict[str, Any]:
    wrong = started(server, folder, "other").wait(SECONDS)
    worker = started(server, folder)
    group = os.getpgid(worker.pid)
    wait_until(lambda: "running" in states(folder))
    several = started(server, folder)  # which hears it before it knows what to do then
    for one in (several, worker):
        one.send_signal(signal.SIGUSR1)
    handed_back = [worker.wait(SECONDS), several.wait(SECONDS)]
    after = states(folder)
    killed = started(server, folder)
    os.killpg(killed.pid, signal.SIGKILL)
    code = killed.wait(SECONDS)
    killed.send_signal(signal.SIGUSR1)  # reaches nobody
    terminated = started(server, folder)
    wait_until(lambda: "running" in states(folder))
    terminated.send_signal(signal.SIGTERM)
    return {
        "wrong": wrong,
        "own group": group == worker.pid,
        "handed back": handed_back,
        "after": after,
        "killed": code,
        "terminated": terminated.wait(SECONDS),
    }


def test_forked_workers_begin_and_end_as_those_from_nothing(tmp_path: Path) -> None:
    write_study(tmp_path, budget={"trials": 1}, train={"epochs": 5000})
    found = in_a_coordinator(_begin_and_end, tmp_path)
    assert "running" not in found.pop("after")
    expected = {"wrong": 2, "own group": True, "handed back": [0, 0], "killed": -9, "terminated": 0}
    assert found == expected
    said = (tmp_path / "other.log").read_text()
    assert "error: " in said and "other" in said
    assert "Traceback" not in (tmp_path / "tiny.log").read_text()


def _lose_the_server(server: ForkServer, folder: Path) -> dict[str, Any]:
    [process] = psutil.Process().children()
    worker = started(server, folder)
    wait_until(lambda: "running" in states(folder))
    process.kill()
    process.wait(SECONDS)
    runs = worker.poll() is None and psutil.pid_exists(worker.pid)
    another = server.start(["tiny"], {}, folder / "another.log")
    worker.send_signal(signal.SIGTERM)
    return {"runs": runs, "another": another, "code": worker.wait(SECONDS), "after": states(folder)}


def test_workers_outlive_a_server_that_is_killed_and_others_begin_from_nothing(tmp_path: Path) -> None:
    write_study(tmp_path, budget={"trials": 1}, train={"epochs": 5000})
    found = in_a_coordinator(_lose_the_server, tmp_path)
    assert "running" not in found.pop("after")
    assert found == {"runs": True, "another": None, "code": -9}


def _fork_only_the_server() -> None:
    start = ForkProcess.start

    def refused(process: ForkProcess) -> None:
        if process.name != "forkserver":
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        start(process)

    ForkProcess.start = refused  # type: ignore[method-assign]


def _ask_twice(server: ForkServer, folder: Path) -> dict[str, Any]:
    return {"workers": [server.start(["tiny"], {}, folder / "tiny.log") for _ in range(2)]}


def test_where_no_more_processes_can_be_forked_nobody_waits(tmp_path: Path) -> None:
    write_study(tmp_path, budget={"trials": 1})
    assert in_a_coordinator(_ask_twice, tmp_path, _fork_only_the_server) == {"workers": [None, None]}


def test_an_error_while_a_study_is_shown_ends_its_workers_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path, budget={"trials": 1})
    session, ended = open_study(load_study(tmp_path / "study.yaml"), home(tmp_path)), []

    def workers(session: Session, show: Callable[[], object]) -> Generator[Moment, None, Ending]:
        try:
            while True:
                yield moment_of(session, 1, False)
        finally:
            ended.append("workers")

    def view(session: Session, moment: Moment) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sweeper.running._view", view)
    with pytest.raises(OSError, match="No space left"):
        _watch(Output(), session, workers)
    assert ended == ["workers"]


def test_workers_outlive_a_coordinator_that_is_killed_and_their_server_ends_behind_them(
    tmp_path: Path,
) -> None:
    write_study(tmp_path, budget={"trials": 1}, train={"epochs": 5000})
    run = CommandLine(tmp_path).forked("run", "study.yaml", "--workers", "1")
    started: list[psutil.Process] = []
    try:
        wait_until(lambda: "running" in states(tmp_path))
        started = psutil.Process(run.pid).children(recursive=True)
        server, worker = started
        run.kill()
        run.communicate(timeout=SECONDS)  # which ends although the worker does not
        time.sleep(1.0)
        assert worker.is_running() and "running" in states(tmp_path)
        worker.terminate()
        wait_until(lambda: is_over(worker) and is_over(server))
        assert "running" not in states(tmp_path)
    finally:
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def test_where_workers_have_to_begin_from_nothing_there_is_no_server() -> None:
    with fork_server(["cuda:0"]) as server:
        assert server is None
    with fork_server(["cpu", "cuda:0"]) as server:
        assert server is None
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with fork_server(["cpu"]) as server:
            assert server is None
    finally:
        stop.set()
        thread.join()
