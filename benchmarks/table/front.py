"""Two objectives on the table, with pruning and without: how much of the true front is found, at equal cost.

    python -m benchmarks.table.front --table benchmarks/table/trec.csv --picture docs/front.svg

The objectives are the accuracy and the trainable parameters. What is measured is the hypervolume of the front
that a search ends with, in accuracy above the table's worst and in the logarithm of the size up to twice its
largest, as a share of that of the table's own front. A front is chosen by what the search has seen, one
training of a trial; its members then count with what they are worth, the mean over the seeds.

A search draws no more trials than its cost would pay for if each were pruned at its first evaluation, those
that repeat another among them: the budget of a study counts them, too. Without an end, a sampler that has
settled on a few configurations would draw them over and over, at no cost.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.common import cores, processor, table
from benchmarks.table.replay import HIDDEN_SIZE, Task, parse, quartiles, repeated, table_at
from benchmarks.table.simulate import Complete, Table, search
from sweeper import space
from sweeper.front import front_of, upward
from sweeper.study import Study, from_dict

OBJECTIVES = [{"metric": "accuracy"}, {"metric": "trainable_parameters"}]
SEARCHES = {
    "random": ("random", "none"),
    "random, successive_halving": ("random", "successive_halving"),
    "tpe": ("tpe", "none"),
    "tpe, successive_halving": ("tpe", "successive_halving"),
}
"""What is compared, by name: a sampler and a pruner of the study file, with their defaults."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay, print, and draw."""
    settings = parse(__doc__, arguments, parallel=[4])
    results = repeated(_one, SEARCHES, settings)
    print(f"machine: {processor()}, {cores()} cores; {settings.seeds} seeds a search")
    print(report(settings, results))
    if settings.picture:
        from benchmarks.table.picture import draw

        draw(settings.picture, results, settings.parallel, "hypervolume in %", False)
    return 0


def _one(task: Task) -> tuple[str, int, list[float]]:
    path, file, name, parallel, seed, cost = task
    there, study = table_at(path), two_objectives(file, *SEARCHES[name])
    first = space.default_params(study, HIDDEN_SIZE)
    ended = search(there, study, first, parallel, seed, cost * there.full_steps, cost * there.evaluations)
    return name, parallel, shares(there, study, ended, cost)


def two_objectives(file: Path, sampler: str, pruner: str) -> Study:
    """The study of the grid, which trades accuracy against size."""
    text = file.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return from_dict({**content, "objective": OBJECTIVES, "sampler": sampler, "pruner": pruner}, file, text)


def shares(there: Table, study: Study, ended: Sequence[Complete], cost: int) -> list[float]:
    """The hypervolume after 1, 2, … trainings' cost, as a share of that of the table's own front."""
    whole = volume(there, there.worths())
    directions = [objective.direction for objective in study.objectives]
    curve = []
    for trainings in range(1, cost + 1):
        so_far = [one for one in ended if one.steps <= trainings * there.full_steps]
        front = [
            so_far[position] for position in front_of([upward(one.values, directions) for one in so_far])
        ]
        curve.append(volume(there, [(one.mean, one.trainable_parameters) for one in front]) / whole)
    return curve


def volume(there: Table, points: Sequence[tuple[float, int]]) -> float:
    """The area of (accuracy, log of the size) that some points dominate, see the top of this file."""
    largest = math.log(2 * there.largest)
    area, reached = 0.0, there.worst
    # From the smallest to the largest: each adds what it is better than all smaller ones.
    for size, accuracy in sorted((size, -accuracy) for accuracy, size in points):
        if -accuracy > reached:
            area += (-accuracy - reached) * (largest - math.log(size))
            reached = -accuracy
    return area


def report(settings: argparse.Namespace, results: dict[tuple[str, int], list[list[float]]]) -> str:
    """A line for each search: the median share with its quartiles."""
    costs = [cost for cost in (3, 5, 8, 12, 25, 50) if cost <= settings.cost] or [settings.cost]
    header = ["K, search", *(f"after {cost} trainings" for cost in costs)]
    lines = [
        [f"{parallel:2d}  {name}", *(quartiles([curve[cost - 1] for curve in curves], 1) for cost in costs)]
        for (name, parallel), curves in sorted(results.items(), key=lambda item: item[0][1])
    ]
    return table(header, lines)


if __name__ == "__main__":
    sys.exit(main())
