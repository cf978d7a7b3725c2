"""Many simulated workers on one store: each claims, draws, reports and records; only the training is missing.

A few processes play many workers each: a worker that waits for its next evaluation costs nothing, and a few
threads and their pooled connections serve whoever is due. Waits count from the moment a worker would have
acted, so what stands in the queue is in them.
"""

from __future__ import annotations

import heapq
import multiprocessing
import queue
import random
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.scale.stores import EVALUATIONS, HEAD_PARAMETERS, home_of, make_study
from sweeper.asktell import Trials
from sweeper.ledger import Attached, Ledger, Result, WorkerIdentity
from sweeper.study import Study, from_dict

THREADS = 4
"""Of a process: as many as its ledger has connections."""
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
        lease_seconds: of a claim; a heartbeat is written every thirtieth of it.
    """

    workers: int
    processes: int
    trials: int
    trial_seconds: float
    compress: float
    sampler: str
    lease_seconds: float
    seed: int


@dataclass(frozen=True)
class Played:
    """What came of it: seconds by what was done, the trials claimed, the time it took, connections seen."""

    waits: dict[str, list[float]]
    claims: int
    seconds: float
    connections: int


def play(url: str, name: str, fleet: Fleet) -> Played:
    """Let a fleet work on a new study to its end.

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
    found, connections = [], 0
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
    complete = ledger.count(name, "complete")
    ledger.close()
    if complete != fleet.trials:
        raise SystemExit(f"error: {fleet.trials} trials were asked for, {complete} are complete")
    waits: dict[str, list[float]] = {}
    for played, _, _ in found:
        for key, seconds in played.items():
            waits.setdefault(key, []).extend(seconds)
    seconds = max(end for _, _, end in found) - min(start for _, start, _ in found)
    return Played(waits, len(waits["claim"]), seconds, connections)


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
    answers.put((players.waits, start, time.monotonic()))


class _Players:
    """The workers of one process, each a generator that yields the seconds until it acts again."""

    def __init__(self, url: str, study: Study, fleet: Fleet, index: int) -> None:
        self._study, self._fleet = study, fleet
        self._ledger = Ledger(url, patience_seconds=120.0)
        self._trials = Trials(home_of(url), study)
        self._sampler = threading.Lock()
        self._lock = threading.Condition()
        self._now = threading.local()
        self._due: list[tuple[float, int, _Step]] = []
        self._at_work = 0
        self.waits: dict[str, list[float]] = {}
        self._errors: list[BaseException] = []
        now = time.monotonic()
        for number in range(index, fleet.workers, fleet.processes):
            self._due.append((now, number, self._work(number)))
        heapq.heapify(self._due)
        self._ledger.study(study.name)

    def run(self) -> None:
        """Until nothing is left to do."""
        threads = [threading.Thread(target=self._serve) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _serve(self) -> None:
        while True:
            with self._lock:
                while not self._due or self._due[0][0] > time.monotonic():
                    if self._errors or (not self._due and not self._at_work):
                        self._lock.notify_all()
                        return
                    until = self._due[0][0] - time.monotonic() if self._due else 1.0
                    self._lock.wait(max(0.001, until))
                due, number, step = heapq.heappop(self._due)
                self._at_work += 1
            try:
                self._act(due, number, step)
            except BaseException as error:
                self._errors.append(error)

    def _act(self, due: float, number: int, step: _Step) -> None:
        self._now.due = due
        try:
            pause = next(step)
            again = True
        except StopIteration:
            again = False
        finally:
            with self._lock:
                self._at_work -= 1
        with self._lock:
            if again:
                heapq.heappush(self._due, (time.monotonic() + pause, number, step))
            self._lock.notify_all()

    def _note(self, what: str, since: float) -> None:
        self.waits.setdefault(what, []).append(time.monotonic() - since)

    def _work(self, number: int) -> _Step:
        """One worker, from its first claim to the end of the study."""
        me = WorkerIdentity(f"worker-{number}", "simulated", number, 0.0, "cpu")
        source = random.Random(f"{self._fleet.seed}/{number}")
        ledger, name = self._ledger, self._study.name
        while True:
            due = self._now.due
            started = time.monotonic()
            claim = ledger.reserve(name, me, self._fleet.lease_seconds)
            if claim is None:
                if ledger.end_if_done(name):
                    return
                yield 1.0
                continue
            self._note("reserve", started)
            started = time.monotonic()
            trial, trial_id = self._trials.create(claim)
            self._note("create", started)
            with self._sampler:
                started = time.monotonic()
                params = self._trials.fill_in(trial, trial_id)
                self._note("ask", started)
            started = time.monotonic()
            digest = f"{trial:064x}"
            ledger.attach(claim, Attached(trial, trial_id, params, digest, 18_816, HEAD_PARAMETERS))
            self._note("attach", started)
            self._note("claim", due)
            length = source.lognormvariate(0.0, 0.7) * self._fleet.trial_seconds / self._fleet.compress
            yield from self._train(claim, length, source)
            due = self._now.due
            started = time.monotonic()
            value = source.uniform(0.6, 0.9)
            ledger.record_result(claim, Result("complete", value, {"accuracy": value}, length))
            self._note("record", started)
            started = time.monotonic()
            self._tell()
            self._note("tell", started)
            self._note("end", due)

    def _train(self, claim: Any, length: float, source: random.Random) -> _Step:
        """Heartbeats, and an evaluation at each sixth of the trial."""
        beat = self._fleet.lease_seconds / 30 / self._fleet.compress
        for evaluation in range(1, EVALUATIONS + 1):
            left = length / EVALUATIONS
            while left > beat:
                yield beat
                left -= beat
                started = time.monotonic()
                self._ledger.heartbeat([claim], {claim.place_id: (evaluation, EVALUATIONS)})
                self._note("heartbeat", started)
            yield left
            value = source.uniform(0.5, 0.9)
            values = {"objective": value, "accuracy": value, "validation/loss": 1 - value}
            started = time.monotonic()
            self._ledger.record_metrics(claim, evaluation, 100 * evaluation, evaluation, values)
            self._note("evaluation", started)

    def _tell(self) -> None:
        for untold in self._ledger.untold(self._study.name):
            with self._sampler:
                self._trials.tell(untold)
            self._ledger.mark_told(untold.place_id)
