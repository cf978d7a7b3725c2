"""Training throughput of one trial: this project against AdapterHub's `adapters` 1.3.0, interleaved.

`make bench-adapterhub` makes both environments and runs this. Both sides train the same adapter (bottleneck
after the FFN of every layer, relu) with a classification head, in fp32, on the same rows, with as many
threads, each in a process of its own. They take turns: while one trains, the other waits for its next line.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch

from benchmarks.common import QUICKSTART, cores, processor
from benchmarks.material import read_rows, write_rows
from benchmarks.processes import Side

HERE = Path(__file__).resolve().parent
STUDY = """\
study: throughput
backbone: {{model: {model}}}
task: {{kind: classification, text: sentence, label: label, pooling: cls}}
data: {{train: train.tsv, validation: validation.tsv}}
search:
  bottleneck_dim: {bottleneck_dim}
train: {{max_length: {max_length}, dtype: float32}}
objective: {{metric: accuracy, direction: maximize}}
budget: {{trials: 1}}
"""
Rounds = list[dict[str, float]]


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--theirs", default=".venv-adapterhub/bin/python", help="Python with AdapterHub's adapters"
    )
    parser.add_argument(
        "--model", type=Path, default=QUICKSTART / "backbone", help="directory of a BERT backbone"
    )
    parser.add_argument(
        "--data", type=Path, help="folder with train.tsv (sentence, label); default: the quickstart's films"
    )
    parser.add_argument("--rows", type=int, default=1024, help="rows of an epoch, drawn once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--bottleneck-dim", type=int, default=24)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    settings = parser.parse_args()
    settings.model = settings.model.resolve()
    settings.data = settings.data / "train.tsv" if settings.data else QUICKSTART / "films.tsv"
    for needed in (settings.data, settings.model / "config.json"):
        if not needed.is_file():
            parser.error(f"{needed}: no such file")
    return settings


def draw(settings: argparse.Namespace, folder: Path) -> int:
    """Draw the rows both sides train on, write them with a study file, and say how many they are."""
    header, rows = read_rows(settings.data)
    random.Random(0).shuffle(rows)
    rows = rows[: settings.rows]
    one_of_each = list({row[header.index("label")]: row for row in rows}.values())
    for part, own in (("train", rows), ("validation", one_of_each)):
        write_rows(folder, part, header, own)
    text = STUDY.format(
        model=settings.model, bottleneck_dim=settings.bottleneck_dim, max_length=settings.max_length
    )
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return len(rows)


def start_sides(settings: argparse.Namespace, folder: Path) -> tuple[Side, Side]:
    """Both processes, ready to train."""
    common = ["--batch-size", str(settings.batch_size), "--bottleneck-dim", str(settings.bottleneck_dim)]
    common += ["--threads", str(settings.threads)]
    theirs = [str(Path(settings.theirs).absolute()), str(HERE / "theirs.py"), "--model", str(settings.model)]
    theirs += ["--data", str(folder / "train.tsv"), "--max-length", str(settings.max_length)]
    ours = [sys.executable, "-m", "benchmarks.adapterhub.ours", "--study", str(folder / "study.yaml")]
    return (
        Side("ours", ours + common, folder, threads=settings.threads, ours=True),
        Side("theirs", theirs + common, folder, threads=settings.threads, ours=False),
    )


def measure(ours: Side, theirs: Side, rows: int, settings: argparse.Namespace) -> dict[str, Rounds]:
    """Train in turns, after a short round of each that is not counted; the rounds of each column."""
    columns = {
        "ours": (ours, "every_step "),
        "kept": (ours, "kept "),
        "longest": (theirs, "longest "),
        "max_length": (theirs, "max_length "),
    }
    parameters = 0
    for side, way in columns.values():
        answer = side.round(f"{way}{min(rows, 2 * settings.batch_size)}")
        parameters = answer.get("adapter_parameters", parameters)
    if parameters != theirs.about["adapter_parameters"]:
        raise SystemExit(
            f"error: the adapters differ: {parameters}, {theirs.about['adapter_parameters']} parameters"
        )
    print(f"adapter parameters on both sides: {parameters:,}")
    _line("examples/s", "ours", "ours, kept", "AdapterHub, longest", "AdapterHub, max_length")
    rounds: dict[str, Rounds] = {name: [] for name in columns}
    for number in range(1, settings.rounds + 1):
        for name, (side, way) in columns.items():
            rounds[name].append(side.round(f"{way}{rows}"))
        _line(f"round {number}", *(f"{rows / done[-1]['seconds']:.1f}" for done in rounds.values()))
    medians = [statistics.median(rows / one["seconds"] for one in done) for done in rounds.values()]
    _line("median", *(f"{value:.1f}" for value in medians))
    return rounds


def report(rounds: dict[str, Rounds]) -> None:
    """Ratios of each round: by the clock, and by processor time, which other programs disturb less."""
    meanings = {
        "longest": "AdapterHub, batches padded to the longest row (a Trainer with a tokenizer)",
        "max_length": "AdapterHub, rows padded to 80 tokens (its own notebook)",
    }
    ours = {"ours": "ours", "kept": "ours, with the frozen part kept as in a study,"}
    for (name, meaning), (mine_name, own) in product(meanings.items(), ours.items()):
        print(f"\n{own} against {meaning}:")
        for key, what in (
            ("seconds", "examples a second"),
            ("cpu_seconds", "examples a second of processor time"),
        ):
            ratios = [
                other[key] / mine[key] for mine, other in zip(rounds[mine_name], rounds[name], strict=True)
            ]
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            print(f"  {middle:.2f} times the {what} (range {low:.2f} to {high:.2f})")


def _line(first: str, *cells: str) -> None:
    widths = (8, 11, 20, 23)
    print(
        f"{first:>10} " + " ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)), flush=True
    )


def main() -> None:
    """Measure and print."""
    settings = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = draw(settings, folder)
        print(f"machine: {processor()}, {cores()} cores")
        print(f"{rows:,} rows of {settings.data}, one epoch a round, sides take turns")
        print(
            f"batch {settings.batch_size}, bottleneck {settings.bottleneck_dim}, all layers, fp32, ", end=""
        )
        print(f"{settings.threads} threads a side")
        ours, theirs = start_sides(settings, folder)
        try:
            for side in (ours, theirs):
                print(f"{side.name}: " + ", ".join(f"{k} {v}" for k, v in side.about["versions"].items()))
            report(measure(ours, theirs, rows, settings))
        finally:
            ours.close()
            theirs.close()


if __name__ == "__main__":
    main()
