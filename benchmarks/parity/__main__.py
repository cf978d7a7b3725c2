"""The confirmed winner of a study against full fine-tuning, on the test rows.

    python -m benchmarks.parity --data DIR --folder DIR

DIR of the data holds ``sst2/`` (train.tsv, validation.tsv, test.tsv: sentence, label) and ``trec/``
(train.jsonl, test.jsonl: question, category). For each task: a study of ten trials, then ``confirm
--references``: its best configurations, the default configuration, the head alone and full fine-tuning (the
best of three learning rates), each under ``--seeds`` new seeds. ``--folder`` keeps the studies: the same
command goes on from where it was stopped, at any moment. On one core of a server both take some two hours.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import QUICKSTART, cores, processor, table
from benchmarks.tasks.run import sweeper

HERE = Path(__file__).resolve().parent
STUDIES = {path.stem: path for path in sorted(HERE.glob("*.yaml"))}
ALLOWED_POINTS, ALLOWED_PERCENT = 0.4, 3.6
"""Houlsby et al. (2019) on GLUE: what they lose against full fine-tuning, and the share that they train."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Study and confirm each task, and print what came of it."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--data", type=Path, required=True, help="folder with a folder for each task")
    add("--folder", type=Path, required=True, help="where the studies are kept, so that they can go on")
    add("--model", type=Path, default=QUICKSTART / "backbone", help="directory of the backbone")
    add("--tasks", nargs="+", choices=sorted(STUDIES), default=sorted(STUDIES))
    add("--top", type=int, default=2, help="finalists that are confirmed (default: 2)")
    add("--seeds", type=int, default=5, help="(default: 5)")
    add("--workers", type=int, help="worker processes (default: as `sweeper run`)")
    settings = made.parse_args(arguments)
    if settings.top < 1 or settings.seeds < 2:
        made.error("--top must be 1 or more, and --seeds 2 or more: one seed has no interval")
    for needed in (settings.model, *(settings.data / task for task in settings.tasks)):
        if not needed.is_dir():
            made.error(f"{needed}: no such folder")
    print(f"machine: {processor()}, {cores()} cores", flush=True)
    for task in settings.tasks:
        said, trials = run(task, settings)
        print(describe(task, said, trials), flush=True)
    return 0


def run(task: str, settings: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One study through the command line, and its confirmation: what that said, and the study's trials."""
    folder = settings.folder.resolve() / task
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(STUDIES[task], folder)
    for file in sorted((settings.data / task).iterdir()):
        # Only the bytes: what is read-only there is not so here, and the command may be given again.
        shutil.copyfile(file, folder / file.name)
    shutil.copytree(settings.model, folder / "backbone", dirs_exist_ok=True)
    workers = [] if settings.workers is None else ["--workers", str(settings.workers)]
    sweeper(folder, "run", f"{task}.yaml", *workers)
    name = f"{task}-parity"
    wanted = ["--top", str(settings.top), "--seeds", str(settings.seeds), "--references", "--json"]
    said = json.loads(sweeper(folder, "confirm", name, *wanted, *workers))
    return said, json.loads(sweeper(folder, "trials", name, "--json"))


def describe(task: str, said: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> str:
    """A line for each configuration, and the winner's distance from full fine-tuning."""
    rows = [("winner", said["winner"])]
    rows += [(row["name"], row) for row in said["finalists"] if row["name"] != said["winner"]["name"]]
    told = [said["winner"]["name"], *(name for name, _ in rows)]
    beside = [row for row in (said["default"], said["head"], said["full"]) if row is not None]
    rows += [(row["name"], row) for row in beside if row["name"] not in told]  # the default may be a finalist
    lines = [
        [
            name,
            f"{row['test']['mean']:.2%}",
            f"{row['test']['sd']:.2%}",
            "{:.2%} to {:.2%}".format(*row["test"]["interval"]),
            f"{row['trainable_parameters']:,}",
            f"{row['trainable_percent']:.2f} %",
        ]
        for name, row in rows
    ]
    searched = [trial for trial in trials if trial["number"] is not None]
    minutes = sum(trial["device_seconds"] or 0.0 for trial in searched) / 60
    pruned = sum(trial["state"] == "pruned" for trial in searched)
    return "\n".join(
        [
            f"{task}: {len(searched)} trials, {pruned} of them pruned, {minutes:.1f} minutes of training; "
            f"then {said['winner']['seeds']} new seeds each. The winner is {said['winner']['name']}: "
            f"{json.dumps(said['winner']['params'])}",
            table(["", f"test {said['metric']}", "s.d.", "95 % interval", "trained", "share"], lines),
            verdict(said),
        ]
    )


def verdict(said: Mapping[str, Any]) -> str:
    """Whether the winner is near enough to full fine-tuning, in a sentence."""
    if said["full"] is None:
        return "full fine-tuning failed at every learning rate: there is nothing to compare with"
    winner, full = said["winner"], said["full"]
    below, half = difference(full["test"]["values"], winner["test"]["values"])
    points, share = 100 * below, winner["trainable_percent"]
    reached = points <= ALLOWED_POINTS and share <= ALLOWED_PERCENT
    return (
        f"full fine-tuning (learning rate {full['params']['learning_rate']:g}) minus winner: {points:+.2f} "
        f"points (95 % interval {points - 100 * half:+.2f} to {points + 100 * half:+.2f}) at {share:.2f} % "
        f"of the parameters; asked for: at most {ALLOWED_POINTS} at {ALLOWED_PERCENT} %: "
        f"{'reached' if reached else 'missed'}"
    )


def difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The difference of two means, and half of its 95 % interval (Welch)."""
    from scipy.stats import t

    parts = [statistics.variance(values) / len(values) for values in (one, other)]
    apart = statistics.fmean(one) - statistics.fmean(other)
    if sum(parts) == 0:
        return apart, 0.0
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True)
    )
    return apart, float(t.ppf(0.975, freedom)) * math.sqrt(sum(parts))


if __name__ == "__main__":
    sys.exit(main())
