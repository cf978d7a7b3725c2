"""How long the same trials take from nothing to the last accuracy, by AdapterHub and by this project.

Trials are drawn once, with the seed, from the quickstart's space, and trained for one epoch without pruning.
Everything is counted: starting processes, loading, tokenising, training, evaluating. In each round every
column runs once, in turn. With --folder every measurement is kept there as it ends: the same command goes on
from where it was stopped, at any moment, and prints the table of all of them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import cores, machine, parse, parser
from benchmarks.makespan.columns import Columns, Results
from benchmarks.makespan.kept import Kept, KeptError, measured_for
from benchmarks.makespan.report import report
from benchmarks.makespan.trials import SPACES, Trial, draw, inexact
from benchmarks.material import backbone_folder, draw_rows, write_study
from sweeper.backbone import load_config

NAMES = ("a", "b", "c", "d", "e", "e2")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    made = parser(__doc__, rounds=3, rows=1024, validation_rows=256)
    add = made.add_argument
    add("--space", choices=SPACES, default="quickstart", help="with layers as they are, all, or upper ones")
    add("--trials", type=int, default=24)
    add("--columns", default=",".join(NAMES), help=f"which of them (default: {','.join(NAMES)})")
    add("--pack", type=int, default=4, help="slots of a pack in (d) and (e) (default: 4)")
    add("--workers", type=int, default=cores(), help="processes in (e2) (default: one a core)")
    add("--full", action="store_true", help="all rows there are")
    add("--pooling", choices=["cls", "mean"], default="cls", help="of this project; AdapterHub's is cls")
    add("--dtype", choices=["float32", "bfloat16"], default="float32")
    add(
        "--theirs",
        type=Path,
        default=Path(".venv-adapterhub/bin/python"),
        help="Python with AdapterHub's adapters",
    )
    add("--json", type=Path, help="write every round to this file")
    add("--folder", type=Path, help="keep every measurement here; the same command goes on from them")
    settings = parse(made, arguments)
    settings.columns = settings.columns.split(",")
    unknown = [name for name in settings.columns if name not in NAMES]
    if unknown:
        made.error(f"there is no column {unknown[0]!r}; known: {', '.join(NAMES)}")
    if {"a", "b"} & set(settings.columns) and not settings.theirs.is_file():
        made.error(f"{settings.theirs}: no such file; `make .venv-adapterhub/installed` makes it")
    for name in ("trials", "pack", "workers"):
        if getattr(settings, name) < 1:
            made.error(f"--{name} must be 1 or more")
    if settings.folder:
        try:
            settings.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            made.error(f"--folder {settings.folder}: {error.strerror}")
    settings.search = SPACES[settings.space]
    return settings


def measure(
    columns: Columns, trials: list[Trial], settings: argparse.Namespace, kept: Kept | None
) -> dict[str, list[Results]]:
    """Every column once a round, in turn, with a line for each; what is kept is not measured again."""
    rounds: dict[str, list[Results]] = {name: [] for name in settings.columns}
    for number in range(1, settings.rounds + 1):
        for name in settings.columns:
            found = kept.get(number, name) if kept else None
            if kept and not found:
                print(f"round {number} of {settings.rounds}, ({name}) ...", flush=True)
            done = found or columns.run(name, trials)
            if kept and not found:
                kept.add(number, name, done)
            rounds[name].append(done)
            print(f"round {number}, ({name}): {done.seconds:.1f} s{', kept' * bool(found)}", flush=True)
            if done.versions and len(rounds[name]) == 1:
                print("  " + ", ".join(f"{k} {v}" for k, v in done.versions.items()), flush=True)
    return rounds


def write_json(path: Path, trials: list[Trial], rounds: dict[str, list[Results]]) -> None:
    """Every trial, and every column's rounds."""
    done = {name: [vars(one) for one in results] for name, results in rounds.items()}
    content = {"trials": [trial.to_dict() for trial in trials], "rounds": done}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is not kept, and print all; the exit code."""
    settings = parsed(arguments)
    try:
        run(settings)
    except KeptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped" + ": the same command goes on" * bool(settings.folder), file=sys.stderr)
        return 130
    return 0


def run(settings: argparse.Namespace) -> None:
    """Measure and print.

    Raises:
        KeptError: what the folder keeps was measured for something else, or cannot be read.
    """
    print(machine(settings))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = draw_rows(settings, folder, full=settings.full)
        study = write_study(folder, settings, search=settings.search, pooling=settings.pooling)
        config = load_config(study.backbone)
        trials = draw(study, settings.trials, config)
        columns = Columns(settings, folder, backbone_folder(settings, folder), config)
        hub = bool({"a", "b"} & set(settings.columns))
        print(
            f"{len(trials)} trials of the space '{settings.space}', one epoch over {rows['train']:,} rows, "
            f"{rows['validation']:,} to validate, {settings.dtype}; {settings.rounds} rounds, columns in turn"
        )
        if hub:
            print("AdapterHub trains with the backbone's dropout on, as its documents do; this project never")
            print("\n".join(inexact(trials)) or "every trial has its equal in AdapterHub")
        kept = None
        if settings.folder:
            about = measured_for(settings, study, trials, folder)
            kept = Kept(settings.folder, about, columns.their_versions() if hub else {})
            print(f"measurements kept in {settings.folder}: {kept.count}")
        rounds = measure(columns, trials, settings, kept)
        print("\n" + report(rounds, {name: meaning for name, (meaning, _) in columns.columns.items()}))
        if kept:
            print(kept.runs(settings.rounds, settings.columns))
        if settings.json:
            write_json(settings.json, trials, rounds)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the processes under way end too
    sys.exit(main())
