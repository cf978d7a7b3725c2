"""Trials an hour of ladders against bottlenecks, with what the frozen backbone computes of the texts kept.

Both are drawn from the quickstart's space with modules in all layers, and trained for one epoch, one trial
after the other in one process. The two methods take turns with the same draws; a ladder is over so soon that
it trains its trial several times and counts the mean. A trial is all of it: its modules, its steps, its
evaluation on the validation rows. Computing what is kept is timed by itself: it is paid once a study.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import optuna
from torch.utils.flop_counter import FlopCounterMode

from adapters.config import AdapterConfig, fields_of
from adapters.depth import reads
from adapters.pack import Pack
from benchmarks.common import machine, megabytes, parse, parser, spread, table
from benchmarks.material import Material, draw_rows, prepare_material, write_study
from sweeper import space
from sweeper.cache import FrozenCache, Layout
from sweeper.data import TaskData
from sweeper.events import Finished
from sweeper.slot import Job
from sweeper.train import train

REPEATS = {"bottleneck": 1, "ladder": 5}
"""The methods, and how often each trains the trial of a round."""


def draw(material: Material, rounds: int, seed: int) -> dict[str, list[Job]]:
    """The trial of every round for each method: a ladder of the same draw has all but its placement."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawing = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    jobs: dict[str, list[Job]] = {method: [] for method in REPEATS}
    for number in range(rounds):
        drawn = space.configuration(material.study, space.suggest(drawing.ask(), material.study))
        for method in REPEATS:
            values = {**drawn.adapter.to_dict(), "method": method}
            common = [name for name in fields_of(method) if name in values]
            adapter = AdapterConfig.from_dict({name: values[name] for name in common})
            jobs[method].append(Job(number, number, 1, adapter, drawn.train, seed))
    return jobs


def keep(method: str, material: Material, pack: Pack, folder: Path) -> tuple[TaskData, Layout]:
    """The data with all the states that trials of a method read."""
    config = pack.backbone.config
    placements = material.study.search["placement"].to_json()
    several = placements if isinstance(placements, list) else [placements]
    found = [AdapterConfig(bottleneck_dim=1, placement=one) for one in several]
    configs = found if method == "bottleneck" else [AdapterConfig(method=method, bottleneck_dim=1)]
    depths = {depth for one in configs for depth in reads(one, config)}
    data = material.data
    tokens = len(data.train.input_ids) + len(data.validation.input_ids)
    layout = Layout(method, "rows", "float32", pack.hidden_size, tokens, tuple(sorted(depths, reverse=True)))
    return FrozenCache(folder / "frozen", layout).attach(data, pack, lambda _: None), layout


def timed(pack: Pack, data: TaskData, material: Material, job: Job) -> tuple[float, Finished]:
    """Seconds of a whole trial, and how it ended."""
    jobs = [job]
    started = time.perf_counter()
    events = list(
        train(pack, data, material.problem, lambda: jobs.pop() if jobs else None, device=material.device)
    )
    seconds = time.perf_counter() - started
    (finished,) = (event for event in events if isinstance(event, Finished))
    return seconds, finished


def flops(pack: Pack, data: TaskData, material: Material, job: Job) -> float:
    """Of the products of a trial."""
    with FlopCounterMode(display=False) as counter:
        timed(pack, data, material, job)
    return float(counter.get_total_flops())


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=5, rows=1000, validation_rows=250)
    made.set_defaults(threads=1)
    settings = parse(made)
    print(machine(settings))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_rows(settings, folder)
        study = write_study(folder, settings, search={"layers": "all"})
        material = prepare_material(study, settings.device, folder)
        pack = Pack(material.load_backbone())
        kept: dict[str, TaskData] = {}
        for method in REPEATS:
            started = time.perf_counter()
            kept[method], layout = keep(method, material, pack, folder)
            seconds = time.perf_counter() - started
            print(f"kept for {method}: {megabytes(layout.bytes)}, computed in {seconds:.1f} s", flush=True)
        print(compare(settings, material, pack, kept), flush=True)


def compare(settings: argparse.Namespace, material: Material, pack: Pack, kept: dict[str, TaskData]) -> str:
    """Let the methods take turns; a line for each, and one for the ratio."""
    jobs = draw(material, settings.rounds, settings.seed)
    seconds: dict[str, list[float]] = {method: [] for method in REPEATS}
    accuracies: dict[str, list[float]] = {method: [] for method in REPEATS}
    for method in REPEATS:
        timed(pack, kept[method], material, jobs[method][0])  # warms up
    for number in range(settings.rounds):
        for method, repeats in REPEATS.items():
            job = jobs[method][number]
            trials = [timed(pack, kept[method], material, job) for _ in range(repeats)]
            seconds[method].append(statistics.mean(taken for taken, _ in trials))
            accuracies[method].append(100 * trials[0][1].metrics["accuracy"])
    rows = [
        [
            method,
            spread(seconds[method]),
            spread([3600 / taken for taken in seconds[method]], 0),
            f"{flops(pack, kept[method], material, jobs[method][0]) / 1e9:,.0f}",
            spread(accuracies[method], 1),
        ]
        for method in REPEATS
    ]
    header = ["method", "seconds a trial", "trials an hour", "GFLOP of the first", "accuracy, %"]
    ratios = [one / other for one, other in zip(seconds["bottleneck"], seconds["ladder"], strict=True)]
    return (
        f"{settings.rows:,} training and {settings.validation_rows:,} validation rows, {settings.rounds} "
        f"rounds: median (range)\n{table(header, rows)}\n"
        f"a ladder's trials an hour are {spread(ratios, 1)} times a bottleneck's"
    )


if __name__ == "__main__":
    main()
