"""Train every configuration of a grid in full, with several seeds: every evaluation, in one CSV file.

    python -m benchmarks.table.make --data DIR --folder DIR --out benchmarks/table/trec.csv

A study a seed goes through the engine that `sweeper run` uses; the grid is enqueued, nothing is pruned.
`--folder` keeps the studies: the same command goes on from where it was stopped, at any moment. The rows are
drawn once, from the training split alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import QUICKSTART
from benchmarks.table.rows import Row, write_rows
from sweeper.engine.crew import WorkerOptions
from sweeper.engine.local import run_workers
from sweeper.home import Home
from sweeper.ledger import Ledger, TrialView
from sweeper.session import Session, open_study
from sweeper.space import Params
from sweeper.study import Study, load_study
from sweeper.study.schema import Choice
from sweeper.study.search import encode

HERE = Path(__file__).resolve().parent
REPORT_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing of the table, and write all that there is when it is whole."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--data", type=Path, required=True, help="folder whose train.jsonl the rows are drawn from")
    add("--folder", type=Path, required=True, help="where the studies are kept, so that they can go on")
    add("--out", type=Path, required=True, help="the CSV file")
    add("--study", type=Path, default=HERE / "trec.yaml", help="study file of the grid (default: TREC's)")
    add("--model", type=Path, default=QUICKSTART / "backbone", help="directory of the backbone")
    add("--seeds", type=int, default=3, help="how often each configuration is trained (default: 3)")
    add("--rows", type=int, default=1800, help="training rows (default: 1800)")
    add("--validation-rows", type=int, default=1000, help="(default: 1000)")
    add("--workers", type=int, default=None, help="worker processes (default: as `sweeper run`)")
    settings = made.parse_args(arguments)
    for needed in (settings.data / "train.jsonl", settings.model / "config.json", settings.study):
        if not needed.is_file():
            made.error(f"{needed}: no such file")
    for name in ("seeds", "rows", "validation_rows"):
        if getattr(settings, name) < 1:
            made.error(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(settings, name)}")
    rows: list[Row] = []
    for seed in range(settings.seeds):
        study = prepare(settings, seed)
        session, done = train(study, settings, seed)
        if not done:
            print("stopped: the same command goes on", file=sys.stderr)
            return 130
        rows += evaluations(session, seed)
    write_rows(settings.out, rows)
    print(f"{settings.out}: {len(rows)} trainings of {len(rows) // settings.seeds} configurations")
    return 0


def prepare(settings: argparse.Namespace, seed: int) -> Study:
    """The study of one seed in a folder of its own, with its rows and its backbone beside it."""
    folder = settings.folder.resolve() / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "backbone").exists():
        shutil.copytree(settings.model, folder / "backbone")
    draw_rows(settings, folder)
    content = yaml.safe_load(settings.study.read_text(encoding="utf-8"))
    content |= {"study": f"{content['study']}-{seed}", "seed": seed}
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return load_study(folder / "study.yaml")


def draw_rows(settings: argparse.Namespace, folder: Path) -> None:
    """The same rows for every seed: only how they are trained on differs.

    Raises:
        SystemExit: there are fewer rows than were asked for.
    """
    lines = (settings.data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    wanted = settings.rows + settings.validation_rows
    if len(lines) < wanted:
        raise SystemExit(f"error: {wanted} rows are asked for, but there are {len(lines)}: ask for fewer")
    random.Random(0).shuffle(lines)
    parts = {"train": lines[: settings.rows], "validation": lines[settings.rows : wanted]}
    for part, chosen in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(f"{line}\n" for line in chosen), encoding="utf-8")


def grid(study: Study) -> list[Params]:
    """Every combination of the choices of a study, as Optuna would keep them.

    Raises:
        SystemExit: something varies that is no choice.
    """
    values = {}
    for name in study.searched:
        spec = study.search[name]
        if not isinstance(spec, Choice):
            raise SystemExit(f"error: {name} is a range: a grid has choices alone")
        values[name] = [encode(value) for value in spec.values]
    return [
        dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())
    ]


def enqueue_missing(ledger: Ledger, study: Study) -> None:
    """Add a place for each configuration of the grid that has none. Trial 0 is one of them."""
    there = {key(view.params) for view in ledger.trials(study.name) if view.kind == "search"}
    for params in grid(study):
        if key(params) not in there:
            ledger.enqueue(study.name, params)


def key(params: Any) -> str:
    """Equal for equal parameters."""
    return json.dumps(params, sort_keys=True)


def train(study: Study, settings: argparse.Namespace, seed: int) -> tuple[Session, bool]:
    """Train the grid of one seed to its end, saying now and then how far it is; False if it was stopped."""
    home = Home.from_environment({"SWEEPER_HOME": str(settings.folder.resolve() / f"seed-{seed}" / "sweeps")})
    session = open_study(study, home)
    enqueue_missing(session.ledger, study)
    options = WorkerOptions(workers=settings.workers, pack=1)
    started, reported = time.monotonic(), 0.0
    for moment in run_workers(session, ["cpu"], options=options, poll_seconds=2.0):
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            ended = sum(view.ended_at is not None for view in moment.trials)
            minutes = (reported - started) / 60
            print(f"{study.name}: {ended} of {len(moment.trials)}, {minutes:.1f} minutes", flush=True)
    return session, session.row.ended_at is not None


def evaluations(session: Session, seed: int) -> list[Row]:
    """A row for each configuration: what its evaluations gave, of the attempt that counts.

    Raises:
        SystemExit: a trial failed. One that diverged is a row that ends early.
    """
    rows = []
    metric = session.study.objective.metric
    for view in session.ledger.trials(session.name):
        if view.kind != "search":
            continue
        if view.state not in ("complete", "pruned"):
            raise SystemExit(f"error: {view.name} of {session.name} is {view.state}: {view.reason}")
        rows.append(_row(session, seed, view, metric))
    return rows


def _row(session: Session, seed: int, view: TrialView, metric: str) -> Row:
    own = [
        row
        for row in session.ledger.metric_rows(view.place_id)
        if row.attempt == view.attempt and row.key == metric
    ]
    own.sort(key=lambda row: row.evaluation)
    return Row(
        seed=seed,
        params=view.params,
        trainable_parameters=view.trainable_parameters or 0,
        steps=tuple(row.step for row in own),
        values=tuple(row.value for row in own),
    )


if __name__ == "__main__":
    sys.exit(main())
