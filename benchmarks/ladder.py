"""Trials an hour of ladders against bottlenecks: `make bench-ladder`.

Both are drawn from the quickstart's space with modules in all layers, trained on its backbone and its films
for one epoch, one trial after the other in one process, with what the frozen backbone computes of the films
kept, as a worker keeps it. The two methods take turns. A trial is all of it: its modules, its steps, its
evaluation on the validation rows. Building what is kept is timed by itself: it is paid once a study.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from adapters import AdapterConfig
from adapters.depth import Depth, reads
from adapters.pack import Pack
from sweeper.backbone import load_backbone, load_tokenizer
from sweeper.cache import FrozenCache, Layout
from sweeper.data import TaskData, prepare, read_tables
from sweeper.events import Finished
from sweeper.slot import Job, Problem
from sweeper.study import Study, from_dict
from sweeper.train import train
from sweeper.trainconfig import TrainConfig

QUICKSTART = Path(__file__).resolve().parent.parent / "studies" / "quickstart"
METHODS = ("bottleneck", "ladder")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    settings = options(arguments)
    torch.set_num_threads(settings.threads)
    study = films(settings)
    pack = Pack(load_backbone(study.backbone, "float32", "cpu"))
    print(f"{processor()}, {settings.threads} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="bench-ladder-") as folder:
        data = prepare(study, read_tables(study), load_tokenizer(study.backbone), Path(folder))
        tokens = len(data.train.input_ids) + len(data.validation.input_ids)
        print(f"{len(data.train):,} training and {len(data.validation):,} validation rows, {tokens:,} tokens")
        kept = with_states(Path(folder), data, pack)
        compare(settings, pack, kept)
    return 0


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1000, help="training rows (default: 1000)")
    parser.add_argument("--validation-rows", type=int, default=250, help="(default: 250)")
    parser.add_argument("--rounds", type=int, default=5, help="trials of each method (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="as a worker of several has (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    settings = parser.parse_args(arguments)
    if min(settings.rows, settings.validation_rows, settings.rounds, settings.threads) < 1:
        parser.error("--rows, --validation-rows, --rounds and --threads must be 1 or more")
    if not (QUICKSTART / "films.tsv").is_file():
        parser.error(
            "the quickstart's data is not there; `python -m sweeper.quickstart studies/quickstart` fetches it"
        )
    return settings


def films(settings: argparse.Namespace) -> Study:
    """As many films as were asked for, with the quickstart's backbone."""
    rows = settings.rows + settings.validation_rows
    return from_dict(
        {
            "study": "films",
            "backbone": {"model": str((QUICKSTART / "backbone").resolve())},
            "task": {"kind": "classification", "text": "sentence", "label": "label", "pooling": "mean"},
            "data": {
                "train": {"path": str((QUICKSTART / "films.tsv").resolve()), "rows": rows},
                "validation": settings.validation_rows / rows,
            },
            "search": {"bottleneck_dim": 24},
            "train": {"max_length": 64},
            "objective": {"metric": "accuracy"},
            "budget": {"trials": 1},
            "seed": settings.seed,
        },
        QUICKSTART / "films.yaml",
    )


def drawn(method: str, chance: random.Random) -> tuple[AdapterConfig, float]:
    """A configuration of the quickstart's space, in all layers, and its learning rate."""
    values = {
        "bottleneck_dim": round(4 * 32 ** chance.random()),
        "activation": chance.choice(("relu", "gelu", "silu", "tanh")),
        "initialization": chance.choice(
            ("zero_up", "normal", "truncated_normal", "kaiming", "xavier", "orthogonal")
        ),
    }
    placement = chance.choice(("pfeiffer", "houlsby", "attention", "parallel"))
    rate = 5e-4 * 20 ** chance.random()
    if method == "bottleneck":
        values["placement"] = placement
    return AdapterConfig.from_dict({"method": method, **values}), rate


def with_states(folder: Path, data: TaskData, pack: Pack) -> dict[str, TaskData]:
    """For each method the data with the states that its trials read, computed once."""
    kept = {}
    for method in METHODS:
        depths: set[Depth] = set(reads(AdapterConfig(method=method, bottleneck_dim=1), pack.backbone.config))
        tokens = len(data.train.input_ids) + len(data.validation.input_ids)
        layout = Layout(
            method, "films", "float32", pack.hidden_size, tokens, tuple(sorted(depths, reverse=True))
        )
        started = time.perf_counter()
        kept[method] = FrozenCache(folder / "frozen", layout).attach(data, pack, lambda _: None)
        seconds = time.perf_counter() - started
        print(f"kept for {method}: {layout.bytes / 1e6:,.0f} MB, computed in {seconds:.1f} s")
    return kept


def compare(settings: argparse.Namespace, pack: Pack, data: dict[str, TaskData]) -> None:
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    accuracies: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(-1, settings.rounds):
        for method in METHODS:
            config, rate = drawn(method, random.Random(settings.seed + max(0, number)))
            job = Job(1, max(0, number), 1, config, TrainConfig(epochs=1, learning_rate=rate), settings.seed)
            taken, finished = timed(pack, data[method], job)
            if number >= 0:  # the first round warms up
                seconds[method].append(taken)
                accuracies[method].append(finished.metrics["accuracy"])
    for method in METHODS:
        hourly = [3600 / taken for taken in seconds[method]]
        print(
            f"{method}: {spread(seconds[method], 3)} s a trial, {spread(hourly, 0)} trials an hour, "
            f"{flops(pack, data[method], method):.3g} FLOPs a trial, "
            f"validation accuracy {spread(accuracies[method], 3)}"
        )
    ratios = [bottleneck / ladder for bottleneck, ladder in zip(*seconds.values(), strict=True)]
    print(f"ladder against bottleneck: {spread(ratios, 1)} times the trials an hour")


def timed(pack: Pack, data: TaskData, job: Job) -> tuple[float, Finished]:
    """Seconds of a whole trial, and how it ended."""
    jobs = [job]
    problem = Problem("classification", "mean", 2, "accuracy", True)
    started = time.perf_counter()
    events = list(train(pack, data, problem, lambda: jobs.pop() if jobs else None, device="cpu"))
    seconds = time.perf_counter() - started
    (finished,) = (event for event in events if isinstance(event, Finished))
    return seconds, finished


def flops(pack: Pack, data: TaskData, method: str) -> float:
    """Of the matrix products of a trial of the default configuration."""
    config = AdapterConfig(method=method, bottleneck_dim=24)
    with FlopCounterMode(display=False) as counter:
        timed(pack, data, Job(1, 0, 1, config, TrainConfig(epochs=1), 0))
    return float(counter.get_total_flops())


def spread(values: Sequence[float], digits: int) -> str:
    """Median and range."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def processor() -> str:
    """The name of the processor, and how many of its cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
