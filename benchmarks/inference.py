"""What one inserted adapter costs at inference, against the bare backbone and against AdapterHub's, in turns.

Both sides have the same backbone, rows, threads, wiring and number of parameters, each in a process of its
own, and take turns: while one runs a round, the other waits. A round runs every batch bare and with the
adapter, one directly after the other, in processor time; what the adapter costs is the median of those
differences.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.adapterhub.turns import BATCHES
from benchmarks.common import ROOT, machine, parse, parser, spread, table
from benchmarks.material import draw_rows
from benchmarks.processes import Answer, Side

PLACEMENTS = ("houlsby", "pfeiffer", "pfeiffer_original", "parallel")
HUB_NAMES = {
    "houlsby": "double_seq_bn",
    "pfeiffer": "seq_bn, original_ln_before=False",
    "pfeiffer_original": "seq_bn",
    "parallel": "par_bn",
}
HERE = Path(__file__).resolve().parent / "adapterhub"
Rounds = dict[tuple[str, int], list[tuple[Answer, Answer]]]


def start_sides(settings: argparse.Namespace, folder: Path) -> tuple[Side, Side]:
    """Both processes, with their backbones and adapters loaded.

    Raises:
        SystemExit: the adapters of the two differ in size.
    """
    common = ["--model", str(settings.model), "--data", str(folder / "train.tsv")]
    common += ["--placements", *settings.placements, "--bottleneck-dim", str(settings.bottleneck_dim)]
    common += ["--max-length", str(settings.max_length), "--threads", str(settings.threads)]
    hub = [str(Path(settings.theirs).absolute()), str(HERE / "inference_theirs.py")]
    own = [sys.executable, "-m", "benchmarks.adapterhub.inference_ours"]
    ours = Side("ours", own + common, folder, threads=settings.threads, ours=True)
    theirs = Side("theirs", hub + common, folder, threads=settings.threads, ours=False)
    if ours.about["adapter_parameters"] != theirs.about["adapter_parameters"]:
        raise SystemExit(f"error: the adapters differ in size: {ours.about}, {theirs.about}")
    return ours, theirs


def measure(ours: Side, theirs: Side, settings: argparse.Namespace) -> Rounds:
    """Every placement and batch size in turns, after a round of each that is not counted."""
    found: Rounds = {
        (placement, size): [] for placement in settings.placements for size in settings.batch_sizes
    }
    for placement, size in found:
        for side in (ours, theirs):
            side.round(f"{placement} {size}")
    for number in range(settings.rounds):
        for (placement, size), taken in found.items():
            mine, other = (side.round(f"{placement} {size}") for side in (ours, theirs))
            taken.append((mine, other))
        print(f"round {number + 1} done", flush=True)
    return found


def ratios(taken: list[tuple[Answer, Answer]]) -> list[float]:
    """What ours adds by what theirs adds, of each round."""
    return [mine["added"] / theirs["added"] for mine, theirs in taken]


def rows_of(found: Rounds) -> list[list[str]]:
    """A line for each placement and batch size."""
    lines = []
    for (placement, size), taken in found.items():
        mine, other = [one for one, _ in taken], [two for _, two in taken]
        share = [100 * one["added"] / one["bare"] for one in mine]
        theirs = [100 * two["added"] / two["bare"] for two in other]
        lines.append(
            [
                f"{placement} ({HUB_NAMES[placement]})",
                str(size),
                spread([one["bare"] for one in mine]),
                spread([one["added"] for one in mine]),
                spread([two["added"] for two in other]),
                f"{statistics.median(share):.1f}, {statistics.median(theirs):.1f}",
                spread(ratios(taken)),
            ]
        )
    return lines


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=7, rows=32 * BATCHES, validation_rows=2)
    made.set_defaults(threads=1)
    made.add_argument("--theirs", default=str(ROOT / ".venv-adapterhub/bin/python"),
        help="Python with AdapterHub's adapters")  # fmt: skip
    made.add_argument("--placements", nargs="+", choices=PLACEMENTS, default=list(PLACEMENTS))
    made.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 32])
    made.add_argument("--bottleneck-dim", type=int, default=24)
    settings = parse(made)
    if settings.shapes or settings.device != "cpu":
        made.error("measured with weights of a folder, on the CPU")
    if settings.rows < BATCHES * max(settings.batch_sizes):
        made.error(
            f"--rows must be at least {BATCHES * max(settings.batch_sizes)}: {BATCHES} batches a round"
        )
    print(machine(settings))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_rows(settings, folder)
        ours, theirs = start_sides(settings, folder)
        try:
            for side in (ours, theirs):
                print(f"{side.name}: " + ", ".join(f"{k} {v}" for k, v in side.about["versions"].items()))
            found = measure(ours, theirs, settings)
        finally:
            ours.close()
            theirs.close()
    header = ["placement (theirs)", "batch", "bare, ms", "ours adds, ms", "theirs adds, ms",
              "% ours, theirs", "ours / theirs"]  # fmt: skip
    print(table(header, rows_of(found)))


if __name__ == "__main__":
    main()
