"""One worker process on some machine of a cluster: started, looked after, told to end.

    supervisor = Supervisor()                       # where the cluster has placed it
    supervisor.start(order)
    while supervisor.look().state == RUNNING: ...

It knows nothing of the cluster. All calls return at once, and any of them may be made again.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

IDLE, RUNNING, ENDED = "idle", "running", "ended"
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""On a busy machine, threads that spin while they wait for others make training several times slower."""
_REFUSED = 2
_KILL_SECONDS = 5.0


@dataclass(frozen=True)
class Order:
    """What to run, and what must hold where it runs.

    Args:
        study: its name.
        arguments: of ``sweeper.worker``, behind the name of the study.
        environment: variables on top of those of the supervisor; passwords among them, so none is ever shown.
        log: what the worker prints is added to this file.
        shared: a file that is seen here if this machine shares the artifact folder.
        host: the only machine on which the worker may run; None for any.
    """

    study: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    log: str
    shared: str
    host: str | None = None


@dataclass(frozen=True)
class Report:
    """How it is.

    Args:
        state: ``idle`` before the first start, ``running`` or ``ended``.
        machine: its name.
        code: the exit code of a worker that has ended; negative for a signal.
        said: what the worker said was wrong; empty if nothing.
    """

    state: str
    machine: str
    code: int | None = None
    said: str = ""


class Supervisor:
    """Holds at most one worker process, which hands its trials back when the supervisor's process ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._order: Order | None = None
        self._begins = 0
        self._ended: Report | None = None
        self.asked_at = time.monotonic()
        """When anybody last asked for anything."""

    def start(self, order: Order) -> Report:
        """Start a worker, unless one is running."""
        if self.look().state == RUNNING:
            return self.look()
        self._ended = None
        refusal = _refusal(order)
        if refusal is not None:
            return self._end(_REFUSED, refusal)
        # What this process itself asks of the store, when a worker has died, is asked with the same password.
        os.environ.update({key: value for key, value in order.environment.items() if key.startswith("PG")})
        try:
            self._process = self._started(order)
        except OSError as error:
            return self._end(1, f"the worker cannot be started: {error}")
        self._order = order
        return self.look()

    def _started(self, order: Order) -> subprocess.Popen[bytes]:
        Path(order.log).parent.mkdir(parents=True, exist_ok=True)
        with open(order.log, "ab") as log:
            self._begins = log.tell()
            # Its end of the pipe closes with this process, however that ends.
            return subprocess.Popen(
                [sys.executable, "-m", "sweeper.worker", order.study, "--leashed", *order.arguments],
                env={**PASSIVE, **os.environ, **order.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def look(self) -> Report:
        """How the worker is. Where one died, the trials that it held are free again."""
        self.asked_at = time.monotonic()
        return self._now()

    def _now(self) -> Report:
        if self._ended is not None:
            return self._ended
        if self._process is None:
            return Report(IDLE, socket.gethostname())
        code = self._process.poll()
        if code is None:
            return Report(RUNNING, socket.gethostname())
        if code != 0:
            self._free_trials("lost")
        assert self._order is not None
        return self._end(code, last_error(Path(self._order.log), self._begins))

    def is_running(self) -> bool:
        """Whether there is a worker, without counting as a question."""
        return self._now().state == RUNNING

    def hand_back(self) -> Report:
        """Ask the worker to hand its trials back and end; a second call changes nothing."""
        if self.look().state == RUNNING and self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        return self.look()

    def kill(self) -> Report:
        """End the worker at once; that its trials stopped is nobody's failure."""
        if self.look().state != RUNNING or self._process is None:
            return self.look()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            code = self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:  # a driver or a file system holds it: it trains no more
            return self.look()
        self._free_trials("handed_back")
        return self._end(code, "")

    def _end(self, code: int, said: str) -> Report:
        self._ended = Report(ENDED, socket.gethostname(), code, said)
        return self._ended

    def _free_trials(self, outcome: str) -> None:
        """Only processes of this machine can see that the worker is gone; others wait for its leases."""
        from sweeper.errors import SweeperError
        from sweeper.ledger import Ledger

        assert self._order is not None
        with suppress(SweeperError):  # then the leases run out
            ledger = Ledger(self._order.environment["SWEEPER_STORE"])
            ledger.reap_dead(self._order.study, outcome)
            ledger.close()


def last_error(log: Path, begins: int) -> str:
    """What a worker said was wrong, without the word ``error`` in front of it; empty if it said nothing.

    Args:
        begins: where in the log its own part does, in bytes.
    """
    try:
        text = log.read_bytes()[begins:].decode(errors="replace")
    except OSError:
        return ""
    said = [line.removeprefix("error: ") for line in text.splitlines() if line.startswith("error: ")]
    return said[-1] if said else ""


def _refusal(order: Order) -> str | None:
    """Why a worker cannot run here, or None."""
    from sweeper.ledger.processes import host_id

    if order.host is not None and host_id() != order.host:
        return (
            f"the store is a SQLite file, which one machine can use, and {socket.gethostname()} is another: "
            "set SWEEPER_STORE to a PostgreSQL that all nodes reach"
        )
    if not Path(order.shared).exists():
        return (
            f"{socket.gethostname()} does not see the artifact folder {Path(order.shared).parents[1]}: set "
            "SWEEPER_ARTIFACTS to a folder that all nodes share under the same path"
        )
    return None
