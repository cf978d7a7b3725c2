"""How far one store goes: the ledger alone, a fleet of simulated workers, a study of 10,000 trials.

    python -m benchmarks.scale                     # all of it, on a PostgreSQL server of its own, and SQLite
    python -m benchmarks.scale --only fleet --workers 1000

The store is real, and so are all that is written and the sampler; only the training is missing.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from benchmarks.common import cores, processor, spread, table
from benchmarks.scale.fleet import Fleet, Played, play
from benchmarks.scale.reading import asks, command, fill, views
from benchmarks.scale.stores import STORES
from benchmarks.scale.throughput import ledger_rate
from sweeper.study import from_dict

PARTS = ("throughput", "fleet", "reading")
QUICK = {"throughput_trials": 12, "processes": 2, "workers": 6, "trials": 8, "sizes": [20], "rounds": 1}
"""What --quick makes of the other options: enough to see that every part works."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, and print it."""
    settings = parse(arguments)
    print(machine())
    for name in settings.stores:
        for part in settings.only:
            if part == "fleet" and name == "sqlite":
                continue  # one host: a thousand workers have none
            with STORES[name]() as url:
                lines = {"throughput": throughput, "fleet": fleet, "reading": reading}[part](url, settings)
                for line in lines:
                    print(f"{name}: {line}", flush=True)
    print(f"load of the machine over the last 15 minutes: {os.getloadavg()[2]:.1f}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    add("--stores", nargs="+", choices=STORES, default=list(STORES), help="(default: both)")
    add("--rounds", type=int, default=5, help="of each measurement (default: 5)")
    add("--processes", type=int, default=8, help="that work on the ledger alone (default: 8)")
    add("--throughput-trials", type=int, default=400, help="trials of each such round (default: 400)")
    add("--workers", type=int, default=1000, help="simulated workers (default: 1000)")
    add("--fleet-processes", type=int, default=4, help="that play them (default: 4)")
    add("--trials", type=int, default=2000, help="of the fleet's study (default: 2000)")
    add("--trial-seconds", type=float, default=600.0, help="median length of a trial (default: 600)")
    add("--compress", type=float, default=10.0, help="how many times faster training goes (default: 10)")
    add("--seconds", type=float, help="after which the fleet's study is stopped (default: at its end)")
    add("--lease-seconds", type=float, default=60.0, help="(default: 60)")
    add("--samplers", nargs="+", choices=("tpe", "random"), default=["tpe", "random"])
    add("--sizes", type=int, nargs="+", default=[1000, 10000], help="trials of the studies that are read")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="a few workers and trials: whether all of it runs")
    settings = made.parse_args(arguments)
    if settings.quick:
        vars(settings).update(QUICK, fleet_processes=2, trial_seconds=1.0, compress=2.0)
    for name in ("rounds", "processes", "throughput_trials", "workers", "fleet_processes", "trials"):
        if getattr(settings, name) < 1:
            made.error(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(settings, name)}")
    for name in ("trial_seconds", "compress", "lease_seconds", "seconds"):
        if getattr(settings, name) is not None and not getattr(settings, name) > 0:
            made.error(f"--{name.replace('_', '-')} must be above 0, not {getattr(settings, name)}")
    if min(settings.sizes) < 1:
        made.error(f"--sizes must be 1 or more, not {min(settings.sizes)}")
    return settings


def machine() -> str:
    """The processor and the versions that matter."""
    names = ("adapter-sweeper", "optuna", "sqlalchemy", "psycopg")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return (
        f"machine: {processor()}, {cores()} cores\nversions: Python {platform.python_version()}, {versions}"
    )


def throughput(url: str, settings: argparse.Namespace) -> Iterable[str]:
    """The ledger alone."""
    rates = [
        ledger_rate(url, f"round-{number}", settings.processes, settings.throughput_trials)
        for number in range(settings.rounds)
    ]
    yield (
        f"{spread(rates, 0)} trials a second reserved, attached, recorded by {settings.processes} processes"
    )


def fleet(url: str, settings: argparse.Namespace) -> Iterable[str]:
    """Simulated workers, with each sampler."""
    for sampler in settings.samplers:
        simulated = Fleet(
            workers=settings.workers,
            processes=settings.fleet_processes,
            trials=settings.trials,
            trial_seconds=settings.trial_seconds,
            compress=settings.compress,
            sampler=sampler,
            lease_seconds=settings.lease_seconds,
            seed=settings.seed,
            seconds=settings.seconds,
        )
        yield from describe(simulated, play(url, f"fleet-{sampler}", simulated))


def describe(simulated: Fleet, played: Played) -> Iterable[str]:
    """What came of a fleet, in lines."""
    burst, results = played.waits["first claim"], len(played.waits.get("record", ()))
    yield (
        f"{simulated.workers} workers in {simulated.processes} processes, {simulated.sampler}: "
        f"{played.claims} claims and {results} results in {played.seconds:.0f} s, "
        f"the first {len(burst)} claims, all at once, {len(burst) / max(burst):.1f} a second; "
        f"{played.connections} connections at most"
    )
    header = ["seconds", "median", "p95", "p99", "count", "processor ms"]
    lines = [
        [what, *percentiles(waits), str(len(waits)), _milliseconds(played.cpu.get(what))]
        for what, waits in played.waits.items()
    ]
    yield "waits and calls\n" + table(header, lines)


def _milliseconds(seconds: Sequence[float] | None) -> str:
    """The mean; empty for what is no single call."""
    return f"{1000 * statistics.mean(seconds):.1f}" if seconds else ""


def percentiles(values: Sequence[float]) -> list[str]:
    """Median, 95th and 99th percentile."""
    if len(values) == 1:
        return [f"{values[0]:.3f}"] * 3
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return [f"{cuts[at]:.3f}" for at in (49, 94, 98)]


def reading(url: str, settings: argparse.Namespace) -> Iterable[str]:
    """Studies of many trials, of which a tenth more runs."""
    for size in settings.sizes:
        study = fill(url, f"read-{size}", size, running=size // 10, seed=settings.seed)
        for what, seconds in views(url, study.name, settings.rounds).items():
            yield f"{size:,} trials: {what} {spread(seconds, 3)} s"
        yield f"{size:,} trials: `sweeper status` {spread(command(url, study.name, settings.rounds), 3)} s"
        for sampler in settings.samplers:
            chosen = from_dict({**study.to_dict(), "sampler": sampler}, study.path)
            for what, seconds in asks(url, chosen, settings.rounds).items():
                yield f"{size:,} trials, {sampler}: {what} {spread(seconds, 3)} s"


if __name__ == "__main__":
    sys.exit(main())
