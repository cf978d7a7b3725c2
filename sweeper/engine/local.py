"""The workers of this machine, started, watched and ended by a coordinator.

    for moment in run_workers(session, ["cpu"], show=Tracker(...).show):
        display.update(moment)

The coordinator holds nothing that would be lost with it: its workers finish without it, and starting it again
goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sweeper.device import DTYPES
from sweeper.engine.coordinator import (
    ERRORS,
    POLL_SECONDS,
    RESTARTS,
    Ending,
    Moment,
    Signals,
    is_over,
    moment_of,
    others_end,
    places_of,
    trials_left,
)
from sweeper.engine.crew import Post, WorkerOptions, posts
from sweeper.engine.forkserver import ForkedWorker, ForkServer
from sweeper.engine.showing import Showing
from sweeper.engine.supervisor import PASSIVE, last_error
from sweeper.errors import SweeperError
from sweeper.ledger.records import LOST
from sweeper.ledger.schema import ENDED
from sweeper.session import Session


def run_workers(
    session: Session,
    devices: Sequence[str],
    *,
    show: Callable[[], object] | None = None,
    options: WorkerOptions | None = None,
    server: ForkServer | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> Generator[Moment, None, Ending]:
    """Run a study on some devices until it has ended.

    The first SIGINT or SIGTERM makes the workers hand their trials back and end, the second kills them. Both
    are caught only while the generator runs, in the main thread.

    Args:
        devices: such as ``["cuda:0", "cuda:1"]``.
        show: draws in MLflow what it lacks; called from a thread every few seconds, and at the end.
        options: how many workers there are, and what they are told.
        server: forks the workers; None starts each from nothing.

    Yields:
        the study, a few times a second.

    Returns:
        how it ended.

    Raises:
        UsageError, UnreachableError: what a worker ended with.
        SweeperError: workers died again and again before any trial ended.
    """
    signals = Signals(session)
    with signals.caught(), Showing(show, interrupts=lambda: signals.count) as showing:
        options = options or WorkerOptions()
        begins = not is_over(session, options.confirm)
        while begins or (not options.confirm and (yield from others_end(session, signals, poll_seconds))):
            begins = False
            crew = _Crew(session, options, server)
            try:
                yield from _watch(session, crew, devices, signals, poll_seconds)
            finally:
                crew.end()
        yield moment_of(session, 0, signals.count > 0, options.confirm)
    return Ending(signals.count > 0, showing.error)


def _watch(
    session: Session, crew: _Crew, devices: Sequence[str], signals: Signals, poll_seconds: float
) -> Iterator[Moment]:
    left = trials_left(session, crew.options.confirm)
    rows = sum(session.row.data_report["rows"].values())
    for post in posts(devices, crew.options, left, _backbone_bytes(session), rows):
        crew.start(post)
    stopping = False
    while crew.workers:
        if signals.count > 1:
            crew.kill()
            return
        if signals.count == 1 and not stopping:
            stopping = True
            crew.hand_back()
        crew.collect(restart=not stopping)
        yield moment_of(session, len(crew.workers), stopping, crew.options.confirm)
        signals.wait(poll_seconds)


def _backbone_bytes(session: Session) -> int:
    return session.row.backbone_parameters * DTYPES[session.row.dtype].itemsize


@dataclass
class _Process:
    """A worker process, where its part of the log begins, and how often its post was left in a row.

    Args:
        ended: how many trials had ended when it was started.
    """

    post: Post
    process: subprocess.Popen[bytes] | ForkedWorker
    log: Path
    begins: int
    deaths: int = 0
    ended: int = 0


@dataclass
class _Crew:
    """The worker processes of one coordinator."""

    session: Session
    options: WorkerOptions
    server: ForkServer | None = None
    workers: list[_Process] = field(default_factory=list)

    def start(self, post: Post, deaths: int = 0, ended: int = 0) -> None:
        """Start a worker in a process group of its own: Ctrl-C in a terminal reaches only the coordinator."""
        threads = [] if post.threads is None else ["--threads", str(post.threads)]
        given = [self.session.name, "--device", post.device, *threads, *self.options.arguments()]
        environment = self.session.home.environment()
        with _log(self.session, post) as log:
            path, begins = Path(log.name), log.tell()
            forked = self.server.start(given, environment, path) if self.server is not None else None
            process = forked or subprocess.Popen(
                [sys.executable, "-m", "sweeper.worker", *given],
                env={**PASSIVE, **os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.workers.append(_Process(post, process, path, begins, deaths, ended))

    def collect(self, restart: bool) -> None:
        """Look after workers that ended: done, wrong, or dead and to be started again.

        Raises:
            SweeperError: of the class that the worker ended with, or because workers die again and again.
        """
        for worker in list(self.workers):
            code = worker.process.poll()
            if code is None:
                continue
            self.workers.remove(worker)
            if code == 0:
                continue
            if code in ERRORS:
                raise ERRORS[code](_last_error(worker))
            self.session.ledger.reap_dead(self.session.name, LOST if restart else "handed_back")
            if restart:
                self._restart(worker, code)

    def _restart(self, worker: _Process, code: int) -> None:
        ended = sum(view.state in ENDED for view in places_of(self.session, self.options.confirm))
        deaths = 1 if ended > worker.ended else worker.deaths + 1
        if deaths > RESTARTS:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise SweeperError(
                f"the worker on {worker.post.device} ended {how}, {deaths} times in a row before any "
                f"trial ended: see {worker.log}"
            )
        self.start(worker.post, deaths, ended)

    def hand_back(self) -> None:
        """Ask every worker to hand its trials back and end."""
        for worker in self.workers:
            worker.process.send_signal(signal.SIGUSR1)  # not SIGTERM: it may be the second one that comes

    def kill(self) -> None:
        """End every worker at once; that their trials stopped is nobody's failure."""
        for worker in self.workers:
            try:
                os.killpg(worker.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for worker in self.workers:
            worker.process.wait()
        self.workers.clear()
        self.session.ledger.reap_dead(self.session.name, "handed_back")

    def end(self, seconds: float = 30.0) -> None:
        """Leave no worker behind when the coordinator gives up."""
        if not self.workers:
            return
        self.hand_back()
        for worker in self.workers:
            try:
                worker.process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        self.kill()


def _log(session: Session, post: Post) -> IO[bytes]:
    folder = session.home.logs
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / f"{session.name}-{post.name}.log", "ab")
    except OSError as error:
        raise SweeperError(f"the log of a worker cannot be written: {error}") from error


def _last_error(worker: _Process) -> str:
    """What a worker said was wrong."""
    said = last_error(worker.log, worker.begins)
    return said or f"the worker on {worker.post.device} ended: see {worker.log}"
