"""How much of its time a worker spends beside training: on claims, metrics, checkpoints and results.

A worker of this process trains a real study in a store of its own. What counts as beside is all the time in
which the training loop waits for it: the store, the sampler, copies for checkpoints, files of results.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sweeper.worker
from benchmarks.common import machine, parse, parser, spread, table
from benchmarks.material import draw_rows, write_study
from sweeper.events import Event
from sweeper.home import Home
from sweeper.session import open_study
from sweeper.study import Study
from sweeper.worker import Options, work


@dataclass
class Spent:
    """Seconds of a worker: from the first trial to the last event, and of those beside training.

    Args:
        events: how often the worker was told something.
        beside: seconds in which it answered, by the kind of event; ``claim`` is before a trial.
    """

    total: float
    events: int
    beside: dict[str, float]

    @property
    def share(self) -> float:
        """Of the whole time, in percent."""
        return 100 * sum(self.beside.values()) / self.total


@contextmanager
def watched() -> Iterator[Spent]:
    """Let a clock run while the training loop of this process waits for its worker."""
    spent = Spent(0.0, 0, {})
    real = sweeper.worker.train

    def train(pack: Any, data: Any, problem: Any, supply: Any, *, device: Any) -> Iterator[Event]:
        def claim() -> Any:
            started = time.perf_counter()
            job = supply()
            _add(spent, "claim", started)
            return job

        began = time.perf_counter()
        for event in real(pack, data, problem, claim, device=device):
            started = time.perf_counter()
            spent.events += 1
            yield event
            _add(spent, type(event).__name__, started)
        spent.total += time.perf_counter() - began

    sweeper.worker.train = train
    try:
        yield spent
    finally:
        sweeper.worker.train = real


def _add(spent: Spent, kind: str, started: float) -> None:
    spent.beside[kind] = spent.beside.get(kind, 0.0) + time.perf_counter() - started


def measure(study: Study, folder: Path, pack: int) -> Spent:
    """One study, trained to its end by a worker of this process, in a store of its own."""
    home = Home.from_environment({"SWEEPER_HOME": str(folder)})
    session = open_study(study, home)
    with watched() as spent:
        work(session, Options("cpu", pack), threading.Event())
    return spent


def study_of(settings: argparse.Namespace, folder: Path) -> Study:
    """The quickstart's study over the rows of a folder, with its evaluations."""
    folder.mkdir()
    draw_rows(settings, folder)
    train = {"evaluations_per_epoch": settings.evaluations}
    return write_study(folder, settings, train=train, trials=settings.trials)


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=3, rows=1024, validation_rows=256)
    made.set_defaults(threads=1)
    made.add_argument("--trials", type=int, default=4, help="of each study (default: 4)")
    made.add_argument("--evaluations", type=int, default=3, help="an epoch (default: 3)")
    made.add_argument("--pack", type=int, default=1, help="trials that are trained together (default: 1)")
    settings = parse(made)
    print(machine(settings))
    found = []
    with tempfile.TemporaryDirectory() as name:
        study = study_of(settings, Path(name) / "rows")
        for number in range(settings.rounds):
            found.append(measure(study, Path(name) / f"home-{number}", settings.pack))
            print(f"round {number + 1} done", flush=True)
    kinds = sorted({kind for spent in found for kind in spent.beside})
    rows = [
        [kind, spread([100 * spent.beside.get(kind, 0.0) / spent.total for spent in found], 3)]
        for kind in kinds
    ]
    rows.append(["all", spread([spent.share for spent in found], 3)])
    print(
        f"{settings.trials} trials, {settings.evaluations} evaluations each, packs of {settings.pack}: "
        f"{spread([spent.total for spent in found], 1)} seconds\n"
        + table(["beside training", "% of the time"], rows)
    )


if __name__ == "__main__":
    main()
