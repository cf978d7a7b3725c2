"""The same trial alone and in a pack: how far apart their final metrics are, and a picture of it.

Trials are drawn with the seed from the quickstart's space, each with its own epochs and batch size, so that
slots are freed and filled at any moment. Each is trained alone, and once more in a pack of 2 to 8 slots, with
whichever neighbours the shuffle gives it. In fp32 the two may differ by rounding.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.pack import Pack
from benchmarks.common import machine, parse, parser
from benchmarks.makespan.report import interval
from benchmarks.makespan.trials import draw
from benchmarks.material import Material, draw_rows, prepare_material, write_study
from sweeper.backbone import load_config
from sweeper.events import Exhausted, Failed, Finished
from sweeper.slot import Job
from sweeper.train import train

EPOCHS, BATCH_SIZES, SLOTS = (1, 2), (8, 16, 32), (2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Pair:
    """A trial's accuracy in per cent and its validation loss, alone and packed."""

    number: int
    slots: int
    accuracy: tuple[float, float]
    loss: tuple[float, float]

    @property
    def points(self) -> float:
        """Accuracy packed minus alone."""
        return self.accuracy[1] - self.accuracy[0]


def jobs_of(material: Material, count: int, seed: int, config: object) -> list[Job]:
    """The trials, each with epochs and a batch size of its own."""
    generator = random.Random(seed)
    jobs = []
    for trial in draw(material.study, count, config):
        own = replace(trial.train, epochs=generator.choice(EPOCHS), batch_size=generator.choice(BATCH_SIZES))
        jobs.append(replace(trial, train=own).job())
    return jobs


def run(pack: Pack, jobs: Sequence[Job], material: Material) -> dict[int, Finished]:
    """Train some trials through a pack; how each ended, by its number."""
    waiting = list(reversed(jobs))
    finished: dict[int, Finished] = {}

    def supply() -> Job | None:
        return waiting.pop() if waiting else None

    for event in train(pack, material.data, material.problem, supply, device=material.device):
        if isinstance(event, Failed):
            raise SystemExit(f"error: trial {event.job.number} failed:\n{event.traceback_text}")
        if isinstance(event, Exhausted):
            raise SystemExit(f"error: packs of {pack.slots} need more memory than there is: {event.reason}")
        if isinstance(event, Finished):
            assert event.job.number is not None
            finished[event.job.number] = event
    return finished


def groups(jobs: Sequence[Job], seed: int) -> list[tuple[int, list[Job]]]:
    """The trials shuffled, in groups of three packs' worth, with the K of each group."""
    generator = random.Random(seed + 1)
    left = generator.sample(list(jobs), len(jobs))
    made = []
    while left:
        slots = generator.choice(SLOTS)
        made.append((slots, left[: 3 * slots]))
        left = left[3 * slots :]
    return made


def compare(material: Material, jobs: Sequence[Job], seed: int) -> tuple[list[Pair], list[int]]:
    """Every trial both ways: the pairs of those that ended, and the numbers of those that diverged."""
    backbone = material.load_backbone()
    alone = run(Pack(backbone), jobs, material)
    print(f"{len(alone)} trials trained alone", flush=True)
    pairs, diverged = [], []
    for slots, group in groups(jobs, seed):
        for number, packed in run(Pack(backbone, slots=slots), group, material).items():
            single = alone[number]
            outcomes = {single.outcome, packed.outcome}
            if outcomes == {"complete"}:
                accuracy = 100 * single.metrics["accuracy"], 100 * packed.metrics["accuracy"]
                loss = single.metrics["validation/loss"], packed.metrics["validation/loss"]
                pairs.append(Pair(number, slots, accuracy, loss))
            elif len(outcomes) == 2:
                where = "alone" if packed.outcome == "complete" else "packed"
                raise SystemExit(f"error: trial {number} diverged only {where}")
            else:
                diverged.append(number)
        print(f"{len(group)} trials in packs of {slots}", flush=True)
    return pairs, diverged


def report(pairs: Sequence[Pair], diverged: Sequence[int], rows: int) -> str:
    """The differences in words."""
    points = [pair.points for pair in pairs]
    sizes = [abs(point) for point in points]
    losses = [abs(pair.loss[1] - pair.loss[0]) for pair in pairs]
    equal = sum(point == 0 for point in points)
    return "\n".join(
        [
            f"{len(pairs)} pairs, {len(diverged)} trials diverged both ways; a row of validation is "
            f"{100 / rows:.2f} points",
            f"accuracy, packed minus alone: mean {interval(points)} points (95 %), {equal} pairs are equal",
            f"size of the difference: mean {statistics.fmean(sizes):.3f}, "
            f"median {statistics.median(sizes):.3f}, largest {max(sizes):.3f} points",
            f"validation loss: mean difference {statistics.fmean(losses):.2e}, largest {max(losses):.2e}, "
            f"{losses.count(0.0)} pairs equal to the last bit",
        ]
    )


def picture(pairs: Sequence[Pair], path: Path) -> None:
    """Packed over alone, a dot a trial, coloured by the slots of its pack."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    figure, axes = pyplot.subplots(figsize=(5, 5), dpi=150)
    values = [value for pair in pairs for value in pair.accuracy]
    ends = [min(values) - 1, max(values) + 1]
    axes.plot(ends, ends, color="0.7", linewidth=1, zorder=0)
    dots = axes.scatter(
        [pair.accuracy[0] for pair in pairs],
        [pair.accuracy[1] for pair in pairs],
        c=[pair.slots for pair in pairs],
        s=18,
        alpha=0.8,
    )
    figure.colorbar(dots, label="slots of the pack")
    axes.set(
        xlabel="validation accuracy alone, %",
        ylabel="the same trial packed, %",
        xlim=ends,
        ylim=ends,
        aspect="equal",
    )
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def arguments() -> argparse.Namespace:
    """The command line, checked. One round is all: a trial's result does not change from one to the next."""
    made = parser(__doc__, rounds=1, rows=384, validation_rows=500)
    made.add_argument("--pairs", type=int, default=64, help="trials, each trained twice (default: 64)")
    made.add_argument(
        "--out", type=Path, default=Path("scatter.png"), help="the picture (default: scatter.png)"
    )
    settings = parse(made)
    if settings.pairs < 1 or not settings.out.resolve().parent.is_dir():
        made.error("--pairs must be 1 or more, and the folder of --out must be there")
    return settings


def main() -> None:
    """Measure, print and draw; each round draws trials of its own."""
    settings = arguments()
    print(machine(settings))
    pairs: list[Pair] = []
    diverged: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = draw_rows(settings, folder)
        material = prepare_material(write_study(folder, settings), settings.device, folder)
        config = load_config(material.study.backbone)
        jobs = jobs_of(material, settings.pairs * settings.rounds, settings.seed, config)
        for number in range(settings.rounds):
            part = jobs[number * settings.pairs : (number + 1) * settings.pairs]
            found, lost = compare(material, part, settings.seed + number)
            pairs += found
            diverged += lost
    print(report(pairs, diverged, rows["validation"]))
    picture(pairs, settings.out)
    print(f"drawn to {settings.out}")


if __name__ == "__main__":
    main()
