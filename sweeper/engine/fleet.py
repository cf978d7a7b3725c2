"""The workers of a study on a cluster: placed as there is room, looked after, ended.

    with connected("auto") as cluster:
        for moment in run_on_cluster(session, cluster, settings, show=..., say=print): ...

What is lost with the coordinator is nothing: its workers finish without it, and starting it again finds them.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

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
    trials_left,
)
from sweeper.engine.crew import WorkerOptions
from sweeper.engine.ray import AWAY, Answer, Failed, RayCluster, request, said
from sweeper.engine.showing import Showing
from sweeper.engine.supervisor import IDLE, RUNNING, Order, Report
from sweeper.errors import SweeperError
from sweeper.ledger import store_file
from sweeper.ledger.processes import host_id
from sweeper.ledger.schema import ENDED
from sweeper.session import Session
from sweeper.study import RaySettings

PENDING = 4
"""So many more workers than there are ask for room at a time, at least; later as many as there are."""
PATIENCE_SECONDS = 20.0
"""After so long without any room somebody is told."""
_END_SECONDS, _AWAY_SECONDS, _KILL_SECONDS = 30.0, 10.0, 10.0
_PASSED_ON = ("PG", "HF_")
"""Variables that reach the workers beside our own: how PostgreSQL and the hub are reached."""


def run_on_cluster(
    session: Session,
    cluster: RayCluster,
    settings: RaySettings,
    *,
    show: Callable[[], object] | None = None,
    options: WorkerOptions | None = None,
    say: Callable[[str], object] = lambda text: None,
    poll_seconds: float = POLL_SECONDS,
) -> Generator[Moment, None, Ending]:
    """Run a study on a cluster until it has ended; signals do what they do in ``local.run_workers``.

    Args:
        settings: settled.
        show: draws in MLflow what it lacks; called from a thread every few seconds, and at the end.
        options: what the workers are told; how many there are, the cluster and the settings say.
        say: told what the cluster does, in a sentence.

    Yields:
        the study, a few times a second.

    Returns:
        how it ended.

    Raises:
        UsageError, UnreachableError: what a worker ended with.
        SweeperError: workers died again and again before any trial ended, or cannot begin on a node.
    """
    signals = Signals(session)
    with signals.caught(), Showing(show, interrupts=lambda: signals.count) as showing:
        begins = not is_over(session)
        while begins or (yield from others_end(session, signals, poll_seconds)):
            begins = False
            fleet = Fleet(session, cluster, settings, options or WorkerOptions(), say)
            try:
                yield from _watch(fleet, signals, poll_seconds)
            finally:
                fleet.end()
        yield moment_of(session, 0, signals.count > 0)
    return Ending(signals.count > 0, showing.error)


def _watch(fleet: Fleet, signals: Signals, poll_seconds: float) -> Iterator[Moment]:
    fleet.adopt()
    while True:
        if signals.count > 1:
            fleet.kill()
            return
        if signals.count == 1 and not fleet.stopping:
            fleet.hand_back()
        fleet.look()
        if not fleet.stopping:
            fleet.scale()
        if not fleet.workers:
            return
        yield moment_of(fleet.session, fleet.running, fleet.stopping)
        signals.wait(poll_seconds)


@dataclass
class _Member:
    """An actor, and what is known of the worker in it."""

    name: str
    actor: Any
    asked: Any = None
    """A call whose answer has not come yet."""
    machine: str | None = None
    """Where it is; None until there is room for it."""
    deaths: int = 0
    away_since: float | None = None
    stopping: bool = False


@dataclass
class Fleet:
    """The actors of one study."""

    session: Session
    cluster: RayCluster
    settings: RaySettings
    options: WorkerOptions
    say: Callable[[str], object]
    workers: list[_Member] = field(default_factory=list)
    stopping: bool = False
    _ended: int = 0
    _failures: int = 0
    _waits_since: float | None = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        row = self.session.row
        about = json.dumps([row.name, row.created_at, row.data_fingerprint])
        self._namespace = f"sweeper-{row.name}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
        self._shared = self.session.home.artifacts / row.name / ".shared"
        try:
            self._shared.parent.mkdir(parents=True, exist_ok=True)
            self._shared.touch()
        except OSError as error:
            raise SweeperError(f"the artifact folder cannot be written: {error}") from error

    @property
    def running(self) -> int:
        """How many have been placed and not ended."""
        return sum(member.machine is not None for member in self.workers)

    def adopt(self) -> None:
        """Take over what an earlier coordinator has left running."""
        found = self.cluster.find(self._namespace)
        self.workers += [_Member(name, actor) for name, actor in sorted(found.items())]
        if found:
            self.say(f"{len(found)} worker{'s' * (len(found) > 1)} of this study found on the cluster")

    def scale(self) -> None:
        """Ask for as many more workers as there are trials for, and for no more than that."""
        wanted, pending = self._wanted(), [member for member in self.workers if member.machine is None]
        room = max(PENDING, self.running) - len(pending)
        for _ in range(min(wanted - len(self.workers), room)):
            name = f"worker-{secrets.token_hex(4)}"
            actor = self.cluster.place(self._namespace, name, self.settings)
            self.workers.append(_Member(name, actor, self.cluster.ask(actor, "start", self._order(name))))
        surplus = len(self.workers) - wanted
        for member in [member for member in pending if member.away_since is None][: max(0, surplus)]:
            self._remove(member)
        self._tell_of_waiting()

    def _wanted(self) -> int:
        if is_over(self.session):
            return 0
        needed = max(1, -(-trials_left(self.session) // (self.options.pack or 1)))
        return min(needed, self.settings.max_workers or needed)

    def _tell_of_waiting(self) -> None:
        if self.running or not self.workers:
            self._waits_since = time.monotonic()
        elif self._waits_since is not None and time.monotonic() - self._waits_since > PATIENCE_SECONDS:
            self._waits_since = None
            asked = said(request(self.settings))
            self.say(f"no node of the Ray cluster has room for a worker, which asks for {asked}: waiting")

    def look(self) -> None:
        """Ask every actor how its worker is, without waiting, and act on what has come back.

        Raises:
            SweeperError: of the class that a worker ended with, or because workers die again and again.
        """
        for member in self.workers:
            if member.asked is None:
                member.asked = self.cluster.ask(member.actor, "look")
        answers = self.cluster.answers([member.asked for member in self.workers])
        for member in list(self.workers):
            if member.asked in answers:
                answer, member.asked = answers[member.asked], None
                self._take(member, answer)

    def _take(self, member: _Member, answer: Answer) -> None:
        if isinstance(answer, Report):
            self._failures = 0
            member.away_since = None
            self._take_report(member, answer)
        elif answer == AWAY:
            self._is_away(member)
        else:
            self._remove(member)
            if isinstance(answer, Failed):
                self._failures += 1
                if self._failures > RESTARTS:
                    raise SweeperError(
                        "a worker cannot begin on the Ray cluster; does every node have this version of "
                        f"adapter-sweeper? {answer.reason}"
                    )

    def _is_away(self, member: _Member) -> None:
        now = time.monotonic()
        if member.away_since is None:
            member.away_since = now
            if member.machine is not None and not self.stopping:
                self.say(f"a worker on {member.machine} is gone or out of reach: Ray places it again")
        member.machine = None
        # One that cannot be told to end: its process ends, and the worker in it hands its trials back.
        if self.stopping and now - member.away_since > _AWAY_SECONDS:
            self._remove(member)

    def _take_report(self, member: _Member, report: Report) -> None:
        member.machine = report.machine
        if report.state == RUNNING:
            if self.stopping and not member.stopping:
                member.stopping = True
                self.cluster.ask(member.actor, "hand_back")
            return
        code = report.code or 0
        if self.stopping or (report.state != IDLE and code == 0):
            self._remove(member)
        elif code in ERRORS:
            self._remove(member)
            raise ERRORS[code](
                report.said or f"the worker on {report.machine} ended: see {self._log(member.name)}"
            )
        else:
            if report.state != IDLE:
                self._count_death(member, report)
            member.asked = self.cluster.ask(member.actor, "start", self._order(member.name))

    def _count_death(self, member: _Member, report: Report) -> None:
        code = report.code or 0
        ended = sum(view.state in ENDED for view in self.session.ledger.trials(self.session.name))
        if ended > self._ended:
            for other in self.workers:
                other.deaths = 0
        self._ended = ended
        member.deaths += 1
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if member.deaths > RESTARTS:
            raise SweeperError(
                f"the worker on {report.machine} ended {how}, {member.deaths} times in a row before any "
                f"trial ended: {report.said or f'see {self._log(member.name)} there'}"
            )
        self.say(f"the worker on {report.machine} ended {how}, and is started again")

    def hand_back(self) -> None:
        """Ask every worker to hand its trials back and end; those that wait for room need not come."""
        self.stopping = True
        for member in list(self.workers):
            if member.machine is None and member.away_since is None:
                self._remove(member)
            elif member.machine is not None:
                member.stopping = True
                self.cluster.ask(member.actor, "hand_back")

    def kill(self) -> None:
        """End every worker at once; that their trials stopped is nobody's failure."""
        asked = [
            self.cluster.ask(member.actor, "kill") for member in self.workers if member.machine is not None
        ]
        self.cluster.answers(asked, _KILL_SECONDS)
        for member in list(self.workers):
            self._remove(member)

    def end(self) -> None:
        """Leave no worker behind when the coordinator gives up."""
        if not self.workers:
            return
        self.hand_back()
        until = time.monotonic() + _END_SECONDS
        while self.workers and time.monotonic() < until:
            self.look()
            time.sleep(POLL_SECONDS)
        self.kill()

    def _remove(self, member: _Member) -> None:
        self.cluster.remove(member.actor)
        self.workers.remove(member)

    def _log(self, name: str) -> str:
        return str(self.session.home.logs / f"{self.session.name}-ray-{name}.log")

    def _order(self, name: str) -> Order:
        session, gpus = self.session, self.settings.num_gpus or 0
        where = ["--device", "cuda:0"] if gpus else ["--device", "cpu", "--threads", str(self._threads())]
        environment = {key: value for key, value in os.environ.items() if key.startswith(_PASSED_ON)}
        ours = session.home.environment()
        del ours["MLFLOW_TRACKING_URI"]  # only the coordinator draws
        return Order(
            study=session.name,
            arguments=(*where, *self.options.arguments()),
            environment={**environment, **ours},
            log=self._log(name),
            shared=str(self._shared),
            host=host_id() if store_file(session.home.store_url) is not None else None,
        )

    def _threads(self) -> int:
        return max(1, int(self.settings.num_cpus))
