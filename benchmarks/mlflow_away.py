"""How much slower training gets while MLflow is down, answers with errors, or is slow.

    python -m benchmarks.mlflow_away

One study is trained by one worker of one thread, as `sweeper run` does it, against a real MLflow server. A
proxy before it passes all on, then closes every connection, answers HTTP 500 or delays every piece of data,
then passes all on again: a block of some seconds each, in an order that is drawn. From one evaluation to the
next the work is always the same, one step and a few rows. What it takes is compared with its median in the
two blocks beside, in which MLflow was well: in processor time of the thread that trains, and by the clock.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.common import machine, parse, parser, table
from benchmarks.material import draw_rows, write_study
from sweeper.control import stop_study
from sweeper.errors import NothingSucceededError
from sweeper.home import Home
from sweeper.session import Session, open_study
from tests.faults.outages import compared
from tests.faults.servers import Proxy, mlflow_behind_proxy

WELL = "pass"
AWAY = {"down": "down", "error": "answers 500", "slow": "slow"}
SEARCH = {
    "bottleneck_dim": 24,
    "activation": "gelu",
    "initialization": "kaiming",
    "placement": "pfeiffer",
    "layers": "upper_third",
    "learning_rate": {"from": 1e-5, "to": 1e-4, "log": True},
}
"""Trials that differ in nothing that takes time."""
EPOCHS = 150
_TRIAL_SECONDS = 1.0
"""A trial takes longer on any machine: there are to be enough of them."""
_LEAST = 3
"""A block with fewer intervals is left out."""
_SAMPLE_SECONDS = 0.01
_RESAMPLES = 1000


@dataclass(frozen=True)
class Block:
    """A time in which MLflow was in one mode, in seconds since 1970."""

    mode: str
    start: float
    end: float


@dataclass(frozen=True)
class Interval:
    """From one evaluation of a trial to its next, in seconds since 1970; ``cpu``: processor seconds in it."""

    start: float
    end: float
    cpu: float


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=10, rows=16, validation_rows=16)
    made.set_defaults(threads=1)
    made.add_argument("--block-seconds", type=float, default=6.0, help="of one mode (default: 6)")
    settings = parse(made)
    if not settings.block_seconds > 0:
        made.error(f"--block-seconds must be above 0, not {settings.block_seconds}")
    print(machine(settings), flush=True)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    modes = planned(settings.rounds, settings.seed)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "rows").mkdir()
        (top / "server").mkdir()
        draw_rows(settings, top / "rows")
        trials = 1 + int(len(modes) * settings.block_seconds / _TRIAL_SECONDS)
        study = write_study(top / "rows", settings, search=SEARCH, train={"epochs": EPOCHS}, trials=trials)
        with mlflow_behind_proxy(top / "server") as (proxy, address, real):
            ours = {"SWEEPER_HOME": str(top / "home"), "MLFLOW_TRACKING_URI": address}
            session = open_study(study, Home.from_environment(ours))
            with (
                trained(session, study.path, top / "said") as run,
                Sampled(first_worker(session, run)) as used,
            ):
                blocks = list(played(proxy, modes, settings.block_seconds, run))
                stop_study(session.ledger, session.name)
            missing, twice = compared(session, real)
        intervals = intervals_of(session, used)
        session.ledger.close()
    print(f"{len(intervals)} intervals; of all points MLflow lacks {missing}, and has {twice} twice")
    print(describe(blocks, intervals, settings.seed))
    if missing or twice:
        raise SystemExit("error: MLflow does not show what the ledger has")


def planned(rounds: int, seed: int) -> list[str]:
    """Every outage once a round, in an order that is drawn, and between any two a block without."""
    draw, modes = random.Random(seed), [WELL]
    for _ in range(rounds):
        for mode in draw.sample(list(AWAY), len(AWAY)):
            modes += [mode, WELL]
    return modes


@contextmanager
def trained(session: Session, file: Path, said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`sweeper run` with one worker; it is to end after the block, and well.

    Raises:
        SystemExit: it did not end, or otherwise than by being stopped.
    """
    command = [sys.executable, "-m", "sweeper", "run", str(file), "--workers", "1", "--pack", "1"]
    environment = {**os.environ, **session.home.environment(), "OMP_NUM_THREADS": "1"}
    with said.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
        process.wait(120)
    finally:
        process.terminate()
        process.wait()
    if process.returncode not in (0, NothingSucceededError.exit_code):  # stopped in its first trial
        raise SystemExit(f"error: `sweeper run` ended with {process.returncode}\n{said.read_text()[-2000:]}")


def first_worker(session: Session, run: subprocess.Popen[bytes]) -> int:
    """The process id of the worker, once it has evaluated; its main thread trains."""
    while not session.ledger.curves(session.name):
        if run.poll() is not None:
            raise SystemExit("error: `sweeper run` ended before its first evaluation")
        time.sleep(0.1)
    below = psutil.Process(run.pid).children(recursive=True)
    (worker,) = [each for each in below if "sweeper.worker" in (each.name(), *each.cmdline())]
    return worker.pid


class Sampled:
    """Processor time of a process's main thread, read again and again. Use it as a context manager."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/task/{pid}/schedstat")
        self._times: list[float] = []
        self._used: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampled:
        self._thread.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            try:
                nanoseconds = int(self._file.read_text(encoding="ascii").split()[0])
            except (FileNotFoundError, ProcessLookupError):
                return  # it has ended
            self._times.append(time.time())
            self._used.append(nanoseconds / 1e9)

    def at(self, times: Sequence[float]) -> list[float]:
        """Processor seconds at some times, in between those that were seen; NaN before and after."""
        found = np.interp(times, self._times, self._used, left=np.nan, right=np.nan)
        return [float(value) for value in found]


def played(
    proxy: Proxy, modes: Sequence[str], seconds: float, run: subprocess.Popen[bytes]
) -> Iterator[Block]:
    """One mode after the other."""
    for number, mode in enumerate(modes):
        proxy.set(mode)
        start = time.time()
        time.sleep(seconds)
        yield Block(mode, start, time.time())
        if run.poll() is not None:
            raise SystemExit(f"error: `sweeper run` ended in block {number + 1} of {len(modes)}")
        if number % 10 == 0:
            print(f"block {number + 1} of {len(modes)}", flush=True)


def intervals_of(session: Session, used: Sampled) -> list[Interval]:
    """The times between evaluations of a trial that lie within what was sampled, by the ledger's clock."""
    found = []
    for view in session.ledger.trials(session.name):
        rows = [row for row in session.ledger.metric_rows(view.place_id) if row.key == "objective"]
        times = [row.time for row in rows]
        cpu = used.at(times)
        found += [
            Interval(times[at], times[at + 1], cpu[at + 1] - cpu[at])
            for at in range(len(rows) - 1)
            if rows[at].attempt == rows[at + 1].attempt and np.isfinite(cpu[at + 1] - cpu[at])
        ]
    return sorted(found, key=lambda interval: interval.start)


def relative(
    blocks: Sequence[Block], intervals: Sequence[Interval], cpu: bool
) -> dict[str, list[list[float]]]:
    """Each interval by the median of those in the blocks beside its own, by mode and block.

    Those that lie over a change of modes are in no block.
    """
    inside = [
        [
            each.cpu if cpu else each.end - each.start
            for each in intervals
            if block.start <= each.start and each.end <= block.end
        ]
        for block in blocks
    ]
    found: dict[str, list[list[float]]] = {mode: [] for mode in AWAY}
    for at, block in enumerate(blocks):
        if block.mode == WELL:
            continue
        beside = inside[at - 1] + inside[at + 1]
        if min(len(inside[at - 1]), len(inside[at]), len(inside[at + 1])) >= _LEAST:
            well = statistics.median(beside)
            found[block.mode].append([seconds / well for seconds in inside[at]])
    return found


def more(by_block: Sequence[Sequence[float]], seed: int) -> tuple[float, float, float]:
    """The median in % above 1, and its 95 % interval by drawing whole blocks again."""
    draw = random.Random(seed)

    def percent(some: Sequence[Sequence[float]]) -> float:
        return 100 * (float(np.median(np.concatenate(some))) - 1)

    drawn = sorted(percent(draw.choices(by_block, k=len(by_block))) for _ in range(_RESAMPLES))
    low, high = drawn[round(0.025 * (_RESAMPLES - 1))], drawn[round(0.975 * (_RESAMPLES - 1))]
    return percent(by_block), low, high


def describe(blocks: Sequence[Block], intervals: Sequence[Interval], seed: int) -> str:
    """A line for each state of the server."""
    well = [
        each
        for block in blocks
        if block.mode == WELL
        for each in intervals
        if block.start <= each.start and each.end <= block.end
    ]
    cpu, clock = relative(blocks, intervals, True), relative(blocks, intervals, False)
    rows = [["well", f"{sum(block.mode == WELL for block in blocks)}", f"{len(well)}", "", ""]]
    for name, modes in {**{name: [mode] for mode, name in AWAY.items()}, "any of these": list(AWAY)}.items():
        by_cpu, by_clock = ([block for mode in modes for block in found[mode]] for found in (cpu, clock))
        if not by_cpu:
            raise SystemExit(f"error: no block of {name!r} has {_LEAST} intervals: ask for longer ones")
        rows.append([name, f"{len(by_cpu)}", f"{sum(map(len, by_cpu))}",
                     _shown(more(by_cpu, seed)), _shown(more(by_clock, seed))])  # fmt: skip
    middle = [statistics.median(each) for each in ([i.cpu for i in well], [i.end - i.start for i in well])]
    head = f"between evaluations while MLflow is well: {middle[0]:.3f} processor seconds, {middle[1]:.3f} s\n"
    return head + table(
        ["MLflow", "blocks", "intervals", "% more processor time", "% more by the clock"], rows
    )


def _shown(found: tuple[float, float, float]) -> str:
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*found)


if __name__ == "__main__":
    main()
