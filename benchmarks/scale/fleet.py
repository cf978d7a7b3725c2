"""Many simulated workers on one store: each claims, draws, reports and records; only the training is missing.

A few processes play many workers each, one after the other as they are due, over the two connections that a
real worker keeps: a worker that waits for its next evaluation costs nothing. Waits count from the moment a
worker would have acted, so what stands in the queue is in them.
"""

from __future__ import annotations

import heapq
import multiprocessing
import queue
import random
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.scale.stores import EVALUATIONS, HEAD_PARAMETERS, home_of, make_study
from sweeper.asktell import Trials
from sweeper.ledger import Attached, Claim, Ledger, Result, WorkerIdentity
from sweeper.pace import BEATS_A_LEASE, idle_seconds
from sweeper.study import Study, from_dict

_Step = Generator[float, None, None]


@dataclass(frozen=True)
class Fleet:
    """What is simulated.

    Args:
        workers, processes: how many workers, and in how many processes they are played.
        trials: of the study.
        trial_seconds: the median length of a trial; lengths are log-normal, 95 % are within a factor of 4.
        compress: how many times faster than the clock training goes.
        sampler: ``tpe`` or ``random``.
        seconds: after which the study is stopped, as its user would; None lets it go on to its end.
        lease_seconds: of a claim; a heartbeat, which reads the study's control word as well, comes every
            thirtieth of it.
    """

    workers: int
    processes: int
    trials: int
    trial_seconds: float
    compress: float
    sampler: str
    lease_seconds: float
    seed: int
    seconds: float | None = None


@dataclass(frozen=True)
class Played:
    """What came of it: the trials claimed, the time it took, connections seen.

    Args:
        waits: seconds by what was done.
        cpu: processor seconds of the clients, for each call of the same kind.
    """

    waits: dict[str, list[float]]
    cpu: dict[str, list[float]]
    claims: int
    seconds: float
    connections: int


def play(url: str, name: str, fleet: Fleet) -> Played:
    """Let a fleet work on a new study.

    Raises:
        SystemExit: a process failed, or a trial was lost or done twice.
    """
    study = make_study(url, name, fleet.trials, fleet.sampler, fleet.seed)
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(fleet.processes), context.Queue()
    processes = [
        context.Process(target=_process, args=(url, study.to_dict(), fleet, index, ready, answers))
        for index in range(fleet.processes)
    ]
    for process in processes:
        process.start()
    found: list[tuple[dict[str, list[float]], dict[str, list[float]], float, float]] = []
    connections = 0
    while len(found) < len(processes):
        connections = max(connections, count_connections(url))
        try:
            found.append(answers.get(timeout=1.0))
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise SystemExit("error: a process of the fleet failed") from None
    for process in processes:
        process.join()
    ledger = Ledger(url)
    counts = ledger.status(name)["trials"]
    ledger.close()
    ended = sum(len(answer[0].get("record", ())) for answer in found)
    left = fleet.trials - ended
    if counts["complete"] != ended or counts["waiting"] != left or (left and fleet.seconds is None):
        raise SystemExit(f"error: {ended} of {fleet.trials} trials were ended, and there are {counts}")
    waits, cpu = _joined([answer[0] for answer in found]), _joined([answer[1] for answer in found])
    seconds = max(end for *_, end in found) - min(start for *_, start, _ in found)
    return Played(waits, cpu, len(waits["attach"]), seconds, connections)


def _joined(some: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The lists of several processes, put together key by key."""
    return {key: [value for each in some for value in each.get(key, ())] for each in some for key in each}


def count_connections(url: str) -> int:
    """Connections to the database that clients have open, without the one that asks; 0 on SQLite."""
    from sqlalchemy import NullPool, create_engine, text

    if url.startswith("sqlite"):
        return 0
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        query = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(connection.execute(text(query)).scalar_one())


def _process(url: str, spec: dict[str, Any], fleet: Fleet, index: int, ready: Barrier, answers: Any) -> None:
    from pathlib import Path

    study = from_dict(spec, Path("unused.yaml"), "")
    players = _Players(url, study, fleet, index)
    ready.wait(300)
    start = time.monotonic()
    players.run()
    answers.put((players.waits, players.cpu, start, time.monotonic()))


class _Players:
    """The workers of one process, each a generator that yields the seconds until it acts again."""

    def __init__(self, url: str, study: Study, fleet: Fleet, index: int) -> None:
        self._study, self._fleet = study, fleet
        self._ledger = Ledger(url, patience_seconds=120.0)
        self._trials = Trials(home_of(url), study)
        self._numbers = range(index, fleet.workers, fleet.processes)
        self._due = 0.0
        self.waits: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}
        self._ledger.study(study.name)

    def run(self) -> None:
        """Until nothing is left to do."""
        now = time.monotonic()
        queue = [(now, number, self._work(number)) for number in self._numbers]
        heapq.heapify(queue)
        stop_at = now + (self._fleet.seconds or float("inf"))
        while queue:
            if time.monotonic() > stop_at:
                self._ledger.stop(self._study.name)
                stop_at = float("inf")
            self._due, number, step = heapq.heappop(queue)
            time.sleep(max(0.0, self._due - time.monotonic()))
            with suppress(StopIteration):
                pause = next(step)
                heapq.heappush(queue, (time.monotonic() + pause, number, step))

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Note how long a call takes, and the processor seconds that it costs the client."""
        started, cpu = time.monotonic(), time.process_time()
        yield
        self._note(what, started)
        self.cpu.setdefault(what, []).append(time.process_time() - cpu)

    def _note(self, what: str, since: float) -> None:
        self.waits.setdefault(what, []).append(time.monotonic() - since)

    def _work(self, number: int) -> _Step:
        """One worker, from its first claim to the end of the study."""
        me = WorkerIdentity(f"worker-{number}", "simulated", number, 0.0, "cpu")
        source = random.Random(f"{self._fleet.seed}/{number}")
        ledger, name, idle_since = self._ledger, self._study.name, 0.0
        kind = "first claim"
        while True:
            due = self._due
            with self._timed("reserve"):
                ledger.reap_dead(name)
                claim = ledger.reserve(name, me, self._fleet.lease_seconds)
            if claim is None:
                if ledger.end_if_done(name):
                    return
                idle_since = idle_since or due
                yield idle_seconds(time.monotonic() - idle_since)
                self._note("idle", self._due)
                continue
            with self._timed("create"):
                trial, trial_id = self._trials.create(claim)
            with self._timed("ask"):
                params = self._trials.fill_in(trial, trial_id)
            with self._timed("attach"):
                digest = f"{trial:064x}"
                ledger.attach(claim, Attached(trial, trial_id, params, digest, 18_816, HEAD_PARAMETERS))
            self._note(kind, due)
            kind = "claim"
            length = source.lognormvariate(0.0, 0.7) * self._fleet.trial_seconds / self._fleet.compress
            if not (yield from self._train(claim, length, source)):
                ledger.release(claim)
                return
            due = self._due
            value = source.uniform(0.6, 0.9)
            with self._timed("record"):
                ledger.record_result(claim, Result("complete", value, {"accuracy": value}, length))
            with self._timed("tell"):
                self._tell()
            self._note("end", due)

    def _train(self, claim: Claim, length: float, source: random.Random) -> Generator[float, None, bool]:
        """Heartbeats, and an evaluation at each sixth of the trial; False if the study was stopped."""
        beat = self._fleet.lease_seconds / BEATS_A_LEASE / self._fleet.compress
        for evaluation in range(1, EVALUATIONS + 1):
            left = length / EVALUATIONS
            while left > beat:
                yield beat
                left -= beat
                with self._timed("heartbeat"):
                    self._ledger.heartbeat([claim], {claim.place_id: (evaluation, EVALUATIONS)})
                    control = self._ledger.control(self._study.name)
                if control is not None:
                    return False
            yield left
            value = source.uniform(0.5, 0.9)
            values = {"objective": value, "accuracy": value, "validation/loss": 1 - value}
            with self._timed("evaluation"):
                self._ledger.record_metrics(claim, evaluation, 100 * evaluation, evaluation, values)
                control = self._ledger.control(self._study.name)
            if control is not None and evaluation < EVALUATIONS:
                return False
        return True

    def _tell(self) -> None:
        for untold in self._ledger.untold(self._study.name):
            self._trials.tell(untold)
            self._ledger.mark_told(untold.place_id)
