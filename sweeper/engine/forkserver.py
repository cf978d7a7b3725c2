"""Workers that begin at once: forked from a process that has imported what they import.

    with fork_server(["cpu"]) as server:    # before this process starts threads or computes
        worker = server.start(["sst2"], environment={}, log=Path("cpu.log"))
        worker.poll()

To import torch and transformers takes a process seconds, as long as a short trial. A coordinator imports them
anyway, and forks the server from which its workers are forked.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkContext, ForkProcess, ForkServerContext
from pathlib import Path
from typing import Any

import psutil

from sweeper.imports import uncollected

_POLL_SECONDS = 0.05


@contextmanager
def fork_server(devices: Sequence[str]) -> Iterator[ForkServer | None]:
    """A server of workers on these devices, which outlive it; None where each has to begin from nothing.

    That is where there is CUDA, which bears no fork once anybody asked for it, even for workers on the CPU;
    in a process that has threads; and elsewhere than on Linux.
    """
    from torch import cuda

    has_cuda = set(devices) != {"cpu"} or cuda.is_available()
    if has_cuda or sys.platform != "linux" or threading.active_count() > 1:
        yield None
        return
    with uncollected():
        import sweeper.worker.process  # noqa: F401
    with started(multiprocessing.get_context("fork")) as server:
        yield server


@contextmanager
def started(context: ForkContext | ForkServerContext) -> Iterator[ForkServer]:
    """A server in a process that a context makes, and that has imported what workers import."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, ours), name="forkserver")
    process.start()
    theirs.close()
    try:
        yield ForkServer(ours)
    finally:
        ours.close()
        process.join()


class ForkServer:
    """The coordinator's end: asks for workers, and hears how they end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._codes: dict[int, int] = {}
        self._is_gone = False

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> ForkedWorker | None:
        """Start a worker in a process group of its own; None if the server is gone or can fork no more.

        Args:
            arguments: of ``sweeper.worker``.
            environment: variables on top of those of the coordinator.
            log: what the worker prints is added to this file.
        """
        order = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
        with suppress(OSError):
            self._connection.send_bytes(json.dumps(order).encode())
        while (message := self._heard()) is not None:
            if "code" not in message:
                return ForkedWorker(self, message["pid"]) if message["pid"] else None
        return None

    def code(self, pid: int) -> int | None:
        """With what a worker ended, negative for a signal; None while it runs."""
        while not self._is_gone and self._connection.poll():
            self._heard()
        if self._is_gone and not _is_running(pid):
            self._codes.setdefault(pid, -signal.SIGKILL)  # nobody knows
        return self._codes.get(pid)

    def _heard(self) -> dict[str, int] | None:
        """The next message; None if there will be no more."""
        try:
            message: dict[str, int] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self._is_gone = True
            return None
        if "code" in message:
            self._codes[message["pid"]] = message["code"]
        return message


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class ForkedWorker:
    """A worker process, with what ``subprocess.Popen`` has that a coordinator uses."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._server.code(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it runs on after so many seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("sweeper.worker", timeout or 0.0)
            time.sleep(_POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _serve(connection: Connection, other: Connection) -> None:
    """The server: forks a worker for each order, tells how each ended, and ends behind the last of them."""
    from sweeper.worker.process import HAND_BACK

    other.close()
    os.setsid()  # of Ctrl-C in a terminal only the coordinator hears
    _speak_into(os.devnull)  # who reads what the coordinator says is not kept waiting for the workers
    # The server ends with its coordinator. A worker hears of a signal once it knows what to do then.
    signal.pthread_sigmask(signal.SIG_BLOCK, HAND_BACK)
    try:
        _fork_on_order(connection)
    finally:
        connection.close()


def _fork_on_order(connection: Connection) -> None:
    context = multiprocessing.get_context("fork")
    workers: dict[int, ForkProcess] = {}
    while True:
        ready = wait([connection, *workers])
        for sentinel in [sentinel for sentinel in workers if sentinel in ready]:
            worker = workers.pop(sentinel)
            worker.join()
            _tell(connection, pid=worker.pid, code=worker.exitcode)
        if connection not in ready:
            continue
        try:
            order = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        worker = context.Process(target=_work, args=(connection, order))
        try:
            worker.start()
        except OSError:  # no more processes, or no memory for one
            _tell(connection, pid=0)
            continue
        assert worker.pid is not None
        workers[worker.sentinel] = worker
        with suppress(OSError):  # it has done so itself
            os.setpgid(worker.pid, worker.pid)
        _tell(connection, pid=worker.pid)


def _tell(connection: Connection, **message: int | None) -> None:
    with suppress(OSError):  # the coordinator is gone
        connection.send_bytes(json.dumps(message).encode())


def _work(connection: Connection, order: Mapping[str, Any]) -> None:
    """A worker, as ``python -m sweeper.worker`` is one."""
    from sweeper.worker.process import main

    connection.close()
    with suppress(OSError):  # the server has done so
        os.setpgid(0, 0)
    with suppress(OSError):
        Path("/proc/self/comm").write_text("sweeper.worker", encoding="ascii")
    _speak_into(order["log"])
    os.environ.update(order["environment"])
    sys.exit(main(order["arguments"]))


def _speak_into(file: str) -> None:
    """Let what this process says go to the end of a file, and nothing come in."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing != 0:
        os.dup2(nothing, 0)
        os.close(nothing)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
