"""The fault tests for longer: `make soak`, or ``python -m tests.faults.soak --scale 0.1`` for a part of it.

Prints a table of what was tried and what came of it, and exits with 1 if anything was lost, twice or wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults import outages, scenarios
from tests.faults.servers import Postgres, postgres
from tests.faults.tally import Tally
from tests.fork_server import fork_server

Run = Callable[[Path], Tally]


def runs(database: Postgres, scale: float) -> Iterator[tuple[str, Run]]:
    """Each row of the table, by name. ``scale`` makes the counts smaller, never below the tests'."""

    def times(count: int, least: int) -> int:
        return max(least, round(count * scale))

    server = fork_server()
    for kind in ("sqlite", "postgresql"):

        def store(kind: str = kind) -> str | None:
            return None if kind == "sqlite" else database.database()

        kills, trials = times(200, 6), times(500, 15)
        yield (
            f"kills-{kind}",
            lambda f, s=store, k=kills, n=trials: scenarios.killed(server, f, s(), n, k),
        )
        yield (
            f"stops-{kind}",
            lambda f, s=store: scenarios.stalled(server, f, s(), times(20, 2), times(80, 2)),
        )
        for workers in (1, 2, 4, 8):
            yield (
                f"race-{workers}-{kind}",
                lambda f, s=store, w=workers: scenarios.raced(server, f, s(), times(100, 8), w),
            )
        yield f"clocks-{kind}", lambda f, s=store: scenarios.clock_off(server, f, s(), times(30, 6))
        yield (
            f"coordinators-{kind}",
            lambda f, s=store: scenarios.repeated(
                lambda folder: scenarios.coordinators(server, folder, s(), 6), f, times(5, 1)
            ),
        )
    yield "interruptions", lambda f: scenarios.interrupted(server, f, None, times(20, 3))
    yield "restarts", lambda f: scenarios.restarted(server, f, database, times(60, 12), times(10, 2))
    yield "mlflow", lambda f: outages.mlflow_away(server, f, times(40, 8))
    yield "checkpoints", lambda f: outages.torn(server, f, None, times(40, 4))
    yield "disk", lambda f: outages.disk_full(server, f, database)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sweeper-soak-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def said_count(count: int, unit: str) -> str:
    """``1 study``, ``2 studies``, ``3 crashes``."""
    if count == 1:
        return f"1 {unit}"
    if unit.endswith("y"):
        return f"{count} {unit[:-1]}ies"
    return f"{count} {unit}{'es' if unit.endswith('sh') else 's'}"


def table(found: list[Tally]) -> str:
    """As Markdown."""
    head = "| fault | tried | results of | lost | twice | failed | wrong | at most, at 95 % |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for one in found:
        tried = said_count(one.tries, one.unit)
        bound = f"{100 * one.bound:.3g} %" if one.is_right else "-"
        figures = f"{one.lost} | {one.duplicates} | {one.failed} | {one.wrong} | {bound}"
        lines.append(f"| {one.fault} | {tried} | {one.results} of {one.wanted} | {figures} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the counts (default: 1)")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    given = parser.parse_args()
    found: list[Tally] = []
    broken = 0
    with postgres() as database:
        for name, run in runs(database, given.scale):
            if given.only not in name:
                continue
            began = time.monotonic()
            print(f"{name} …", file=sys.stderr, flush=True)
            with _folder() as folder:
                try:
                    found.append(run(folder))
                except AssertionError as error:  # what must hold does not; the other rows are still wanted
                    broken += 1
                    print(f"{name}: {error}", file=sys.stderr, flush=True)
                    continue
            said = f", {found[-1].said}" if found[-1].said else ""
            seconds = time.monotonic() - began
            print(
                f"{name}: {'right' if found[-1].is_right else 'WRONG'}, {seconds:.0f} s{said}",
                file=sys.stderr,
            )
    print(table(found))
    return int(broken > 0 or not all(one.is_right for one in found))


if __name__ == "__main__":
    sys.exit(main())
