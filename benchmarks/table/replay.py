"""Searches replayed on the table: regret against cost, for each sampler and pruner.

    python -m benchmarks.table.replay --table benchmarks/table/trec.csv --picture docs/search.svg

Regret is what the table's best configuration is worth, minus what the best complete trial is worth: each
the mean over the seeds, while the search has seen one training of a trial alone. Cost is in training steps of
all trials together, shown in trainings to the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import cores, processor, table, three_quartiles
from benchmarks.table.make import HERE
from benchmarks.table.rows import read_rows
from benchmarks.table.simulate import Found, Table, run
from sweeper import space
from sweeper.study import Study, from_dict

HIDDEN_SIZE = 384
"""Of the backbone that the table was trained on: the default configuration follows from it."""
Curve = list[float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay, print, and draw."""
    settings = parse(__doc__, arguments, parallel=[1, 4, 16])
    results = repeated(_one, SEARCHES, settings)
    there = table_at(settings.table)
    print(f"machine: {processor()}, {cores()} cores")
    print(describe(there, settings))
    print(report(there, settings, results))
    if settings.picture:
        from benchmarks.table.picture import draw

        draw(settings.picture, results, settings.parallel, "regret in points", True)
    return 0


def parse(
    description: str | None, arguments: Sequence[str] | None, *, parallel: Sequence[int]
) -> argparse.Namespace:
    """The command line of a replay, checked.

    Args:
        parallel: how many trials there are at once, unless the command line says so.
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--table", type=Path, default=HERE / "trec.csv", help="the CSV file that make wrote")
    add("--study", type=Path, help="study file of its grid (default: the YAML file beside the table)")
    add("--seeds", type=int, default=100, help="repeats of each search (default: 100)")
    add(
        "--parallel",
        type=int,
        nargs="+",
        default=parallel,
        help=f"trials at once (default: {' '.join(map(str, parallel))})",
    )
    add("--cost", type=int, default=25, help="trainings to the end that a search may cost (default: 25)")
    add("--processes", type=int, default=cores(), help="(default: one a core)")
    add("--picture", type=Path, help="an SVG or PNG file to draw")
    settings = made.parse_args(arguments)
    for name in ("seeds", "cost", "processes"):
        if getattr(settings, name) < 1:
            made.error(f"--{name} must be 1 or more, not {getattr(settings, name)}")
    if not settings.table.is_file():
        made.error(f"{settings.table}: no such file; `python -m benchmarks.table.make` makes it")
    settings.study = settings.study or settings.table.with_suffix(".yaml")
    if not settings.study.is_file():
        made.error(f"{settings.study}: no such file; name the study file of the grid with --study")
    return settings


def halving(reduction_factor: int) -> dict[str, Any]:
    """Successive halving from the first evaluation on."""
    return {"name": "successive_halving", "minimum": 1, "reduction_factor": reduction_factor}


SEARCHES: dict[str, tuple[str, Any]] = {
    "random": ("random", "none"),
    "tpe": ("tpe", "none"),
    "tpe, halving by 2": ("tpe", halving(2)),
    "tpe, halving by 3": ("tpe", halving(3)),
    "tpe, hyperband by 2": ("tpe", {"name": "hyperband", "reduction_factor": 2}),
    "tpe, median": ("tpe", "median"),
    "random, halving by 2": ("random", halving(2)),
}
"""What is compared, by name: a sampler and a pruner, as a study file has them."""
DEFAULT = "tpe, halving by 2"


Task = tuple[Path, Path, str, int, int, int]
"""Table, study file, search, trials at once, seed, and cost in trainings."""


def repeated(
    one: Callable[[Task], tuple[str, int, Curve]], searches: Iterable[str], settings: argparse.Namespace
) -> dict[tuple[str, int], list[Curve]]:
    """For each search and number of trials at once: what ``one`` makes of each seed, in several processes."""
    tasks = [
        (settings.table, settings.study, name, parallel, seed, settings.cost)
        for name in searches
        for parallel in settings.parallel
        for seed in range(settings.seeds)
    ]
    found: dict[tuple[str, int], list[Curve]] = {}
    with multiprocessing.get_context("spawn").Pool(settings.processes) as pool:
        for name, parallel, curve in pool.imap(one, tasks, chunksize=10):
            found.setdefault((name, parallel), []).append(curve)
    return found


@cache
def table_at(path: Path) -> Table:
    """The table in a file, read once a process."""
    return Table(read_rows(path))


def _one(task: Task) -> tuple[str, int, Curve]:
    path, file, name, parallel, seed, cost = task
    there, study = table_at(path), read_grid(file, *SEARCHES[name])
    first = space.default_params(study, HIDDEN_SIZE)
    found = run(there, study, first, parallel, seed, cost * there.full_steps)
    return name, parallel, regret(there, found, cost)


def read_grid(file: Path, sampler: str = "random", pruner: Any = "none") -> Study:
    """The study of the grid with a sampler and a pruner; neither its data nor its backbone need be there."""
    text = file.read_text(encoding="utf-8")
    return from_dict({**yaml.safe_load(text), "sampler": sampler, "pruner": pruner}, file, text)


def regret(there: Table, found: Sequence[Found], cost: int) -> Curve:
    """After 1, 2, … trainings' cost; before any trial is complete, as much as the worst configuration's."""
    curve = []
    for trainings in range(1, cost + 1):
        so_far = [one.mean for one in found if one.steps <= trainings * there.full_steps]
        curve.append(there.best - (so_far[-1] if so_far else there.worst))
    return curve


def describe(there: Table, settings: argparse.Namespace) -> str:
    """What is in the table, and how far one training tells its configurations apart."""
    some, whole = (ceiling(there, min(count, len(there))) for count in (100, len(there)))
    return (
        f"{len(there)} configurations, {there.evaluations} evaluations, {there.full_steps} steps a training; "
        f"the best is worth {there.best:.4f}, with a standard error of {there.standard_error:.4f}, the worst "
        f"{there.worst:.4f}; {settings.seeds} seeds a search\n"
        f"trained once each, in full, the winner is within one standard error of it in {some:.0%} of repeats "
        f"among 100 configurations, in {whole:.0%} among all {len(there)}; {there.near} are so near by what "
        "they are worth"
    )


def report(there: Table, settings: argparse.Namespace, results: dict[tuple[str, int], list[Curve]]) -> str:
    """A line for each search: median regret with its quartiles in points, and how many came close enough."""
    costs = [cost for cost in (5, 12, 20, 50, 100) if cost <= settings.cost] or [settings.cost]
    header = ["K, search", *(f"after {cost} trainings" for cost in costs), "within one s.e."]
    lines = []
    for (name, parallel), curves in sorted(results.items(), key=lambda item: item[0][1]):
        cells = [quartiles([curve[cost - 1] for curve in curves]) for cost in costs]
        # An eighth of 100 trainings is 12.5: the last whole one before it.
        at = min(12, settings.cost) - 1
        close = sum(curve[at] <= there.standard_error + 1e-12 for curve in curves) / len(curves)
        lines.append([f"{parallel:2d}  {name}", *cells, f"{close:.0%}"])
    lines_below = [against_random(results, parallel) for parallel in settings.parallel]
    return "\n".join([table(header, lines), *lines_below])


def against_random(results: dict[tuple[str, int], list[Curve]], parallel: int) -> str:
    """At which cost the median regret of the default search is below that of random search, or above."""
    medians = [
        [statistics.median(values) for values in zip(*results[name, parallel], strict=True)]
        for name in (DEFAULT, "random")
    ]
    pairs = list(enumerate(zip(*medians, strict=True), start=1))
    above = [str(cost) for cost, (mine, theirs) in pairs if mine > theirs]
    below = [str(cost) for cost, (mine, theirs) in pairs if mine < theirs]
    return (
        f"{parallel:2d} at once: the median regret of {DEFAULT} is below that of random after "
        f"{', '.join(below) or 'no'} trainings, above it after {', '.join(above) or 'none'}"
    )


def ceiling(there: Table, count: int, repeats: int = 2000) -> float:
    """How often the best of so many configurations, trained once each, is within one standard error."""
    source = random.Random(0)
    regrets = [there.best - there.one_shot(count, source) for _ in range(repeats)]
    return sum(each <= there.standard_error + 1e-12 for each in regrets) / repeats


def quartiles(values: Sequence[float], digits: int = 2) -> str:
    """Median and quartiles in hundredths: ``1.20 (0.70 to 2.10)``."""
    points = [f"{100 * value:.{digits}f}" for value in three_quartiles(values)]
    return f"{points[1]} ({points[0]} to {points[2]})"


if __name__ == "__main__":
    sys.exit(main())
