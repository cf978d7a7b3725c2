"""What a 12-trial study reaches on a task, and what it costs: `make bench-tasks DATA=FOLDER`.

FOLDER holds `sst2/` (train.tsv, validation.tsv, test.tsv: sentence, label) and `trec/` (train.jsonl,
test.jsonl: question, category). Each study runs through the command line in a folder of its own, from
nothing to its winner; the test files are there, and no study reads them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import cores, processor

HERE = Path(__file__).resolve().parent
BACKBONE = HERE.parent.parent / "studies" / "quickstart" / "backbone"
STUDIES = {path.stem: path for path in sorted(HERE.glob("*.yaml"))}


def main() -> int:
    """Run the studies that were asked for, one after the other, and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each task")
    parser.add_argument("--model", type=Path, default=BACKBONE, help="directory of the backbone")
    parser.add_argument("--tasks", nargs="+", choices=sorted(STUDIES), default=sorted(STUDIES))
    parser.add_argument(
        "--folder", type=Path, help="keep the studies here, and go on with those that are there"
    )
    settings = parser.parse_args()
    for needed in (settings.model, *(settings.data / task for task in settings.tasks)):
        if not needed.is_dir():
            parser.error(f"{needed}: no such folder")
    print(f"machine: {processor()}, {cores()} cores")
    with tempfile.TemporaryDirectory() as scratch:
        for task in settings.tasks:
            folder = (settings.folder or Path(scratch)).resolve() / task
            best, trials = run(task, settings, folder)
            print(line(task, best, trials), flush=True)
    return 0


def run(task: str, settings: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One study through the command line: its best trial, and all trials."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(STUDIES[task], folder)
    for file in sorted((settings.data / task).iterdir()):
        # Only the bytes: what is read-only there is not so here, and the command may be given again.
        shutil.copyfile(file, folder / file.name)
    shutil.copytree(settings.model, folder / "backbone", dirs_exist_ok=True)
    sweeper(folder, "run", f"{task}.yaml")
    best, trials = (json.loads(sweeper(folder, command, task, "--json")) for command in ("best", "trials"))
    return best, trials


def sweeper(folder: Path, *arguments: str) -> str:
    """One command in a folder; what it prints, with its messages passed through."""
    environment = {**os.environ, "SWEEPER_HOME": str(folder / "sweeps")}
    command = [sys.executable, "-m", "sweeper", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} ended with exit code {done.returncode}")
    return done.stdout


def line(task: str, best: dict[str, Any], trials: list[dict[str, Any]]) -> str:
    """The result of a study in one line."""
    states = [trial["state"] for trial in trials if trial["number"] is not None]
    head = next(trial["objective"] for trial in trials if trial["number"] is None)
    default = next(trial["objective"] for trial in trials if trial["number"] == 0)
    minutes = sum(trial["device_seconds"] or 0.0 for trial in trials) / 60
    return (
        f"{task}: best validation accuracy {best['objective']:.2%} (trial {best['number']}) with "
        f"{best['trainable_parameters']:,} trainable parameters, {best['trainable_percent']:.2f} % of the "
        f"backbone; default configuration {default:.2%}, head alone {head:.2%}; {len(states)} trials, "
        f"{states.count('pruned')} of them pruned, in {minutes:.1f} minutes of training"
    )


if __name__ == "__main__":
    raise SystemExit(main())
