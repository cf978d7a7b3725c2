"""How the ledger looks in MLflow: the tags, parameters, metrics and data sets of its runs.

Everything here is computed from the ledger alone and comes out the same each time, so that drawing it again
changes nothing. ``tracking`` does the drawing.
"""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper import space
from sweeper.ledger import MetricRow, StudyRow, TrialView
from sweeper.ledger.schema import ENDED
from sweeper.study import Source, Study
from sweeper.study.layerbits import columns, is_bit
from sweeper.tracking import note
from sweeper.tracking.views import OBJECTIVE, SIZES, STATE_TAG
from sweeper.trainconfig import TrainConfig

STUDY_TAG, PLACE_TAG, TRIAL_TAG, KIND_TAG = "sweeper.study", "sweeper.place", "sweeper.trial", "sweeper.kind"
REASON_TAG, PARENT_TAG, NOTE_TAG = "sweeper.reason", "mlflow.parentRunId", "mlflow.note.content"
# The page of such an experiment lists runs; without it, it is about prompts and traces.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
STATUS = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "complete": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
    "cancelled": "KILLED",
}
"""MLflow's word for each state of a trial."""
FINAL = ("FINISHED", "KILLED", "FAILED")
_BEGUN_TAG = "sweeper.begun"
_CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}
_LONGEST_TAG, _LONGEST_PARAM = 5000, 6000


@dataclass(frozen=True)
class Point:
    """One value of a metric. ``time`` is in seconds since 1970, ``step`` the evaluation, counted from 1."""

    key: str
    value: float
    time: float
    step: int


@dataclass(frozen=True)
class DataSet:
    """One split as MLflow keeps it. ``context`` is ``training``, ``validation`` or ``testing``."""

    name: str
    digest: str
    source_type: str
    source: str
    profile: str
    context: str


def common_tags(row: StudyRow, study: Study) -> dict[str, str]:
    """What all runs of a study have: what made them, of which versions."""
    tags = {
        STUDY_TAG: row.name,
        "sweeper.seed": str(study.seed),
        "sweeper.command": row.command,
        "sweeper.dtype": row.dtype,
        "sweeper.backbone": row.backbone_fingerprint,
        "sweeper.data": row.data_fingerprint,
        "mlflow.source.name": row.command,
        "mlflow.source.type": "LOCAL",
        **{f"sweeper.version.{name}": version for name, version in row.versions.items()},
    }
    if row.git_commit is not None:
        tags |= {"sweeper.git_commit": row.git_commit, "mlflow.source.git.commit": row.git_commit}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a process whose user has no name, as in a container
        tags["mlflow.user"] = "unknown"
    return _cut(tags)


def own_tags(row: StudyRow) -> dict[str, str]:
    """What tells the runs of a study from those of another one of its name."""
    return {STUDY_TAG: row.name, _BEGUN_TAG: repr(row.created_at)}


def trial_key(trial: TrialView) -> tuple[str, str]:
    """What tells one child run from another: the place, and the trial or reference that is in it."""
    return str(trial.place_id), str(trial.number) if trial.number is not None else trial.label or ""


def trial_tags(study: Study, trial: TrialView) -> dict[str, str]:
    """What the child run of a trial has besides the common tags."""
    place, number = trial_key(trial)
    tags = {
        PLACE_TAG: place,
        TRIAL_TAG: number,
        KIND_TAG: trial.kind,
        "sweeper.trial_seed": str(space.trial_seed(study, number)),
        "sweeper.attempts": str(trial.attempts),
        "sweeper.device": trial.device or "",
    }
    if trial.retry_of is not None:
        tags["sweeper.retry_of"] = f"trial-{trial.retry_of:04d}"
    if trial.reason is not None:
        tags |= {REASON_TAG: trial.reason, NOTE_TAG: note.plain(trial.reason)}
    return _cut(tags)


def state_tags(trial: TrialView, best: TrialView | None) -> dict[str, str]:
    """How a trial stands: ``best``, or its state. Another trial's end can change it."""
    return {STATE_TAG: "best" if best is not None and trial.place_id == best.place_id else trial.state}


def trial_params(study: Study, trial: TrialView) -> dict[str, str]:
    """Every field of the adapter and of its training; of a reference, which has no adapter, the latter.

    What was drawn is there by the name that the study draws it by, such as ``lora.rank`` or ``layers.3``, and
    a placement by the name that the study gives it.
    """
    if trial.kind == "search":
        return configuration_params(study, trial.params)
    names = TrainConfig().to_dict()
    values = {name: trial.params.get(name, getattr(study.train, name)) for name in names}
    return {name: _param(value) for name, value in values.items()}


def configuration_params(study: Study, params: Mapping[str, Any]) -> dict[str, str]:
    """Every field of an adapter and of its training, by the parameters of the search."""
    values = {**space.configuration(study, dict(params)).to_dict(), **params}
    # The bits of a method's layers are one column, which is called as they are: ``lora.layers``.
    values |= dict.fromkeys(columns(filter(is_bit, params)), values.get("layers", []))
    return {name: _param(value) for name, value in values.items()}


def study_params(row: StudyRow, study: Study) -> dict[str, str]:
    """What all trials share. Not the budget: that may grow, while MLflow's parameters never change."""
    shared = {
        "backbone": study.backbone.model,
        "backbone_parameters": row.backbone_parameters,
        "task": study.task.kind,
        "pooling": study.task.pooling,
        "metric": study.objective.metric,
        "direction": study.objective.direction,
        "dtype": row.dtype,
        "seed": study.seed,
        "sampler": study.sampler.name,
        "pruner": study.pruner.name,
        "max_length": study.train.max_length,
    }
    if study.backbone.revision is not None:
        shared["revision"] = study.backbone.revision
    return {name: _param(value) for name, value in shared.items()}


def curve_points(rows: Iterable[MetricRow]) -> list[Point]:
    """The metrics of evaluations, as recorded."""
    return [Point(row.key, row.value, row.time, row.evaluation) for row in rows]


def size_points(row: StudyRow, trial: TrialView) -> list[Point]:
    """The parameter counts, that are known before training; none before the trial is."""
    counts = {name: getattr(trial, name) for name in (*SIZES, "head_parameters")}
    return [Point(key, float(count), row.created_at, 0) for key, count in counts.items() if count is not None]


def result_points(trial: TrialView, rows: Sequence[MetricRow]) -> list[Point]:
    """What makes the latest value of each metric that of the result, pruned trials included.

    Args:
        rows: all metric rows of the place, oldest first. The last may be of an attempt that does not count,
            of another evaluation than that whose weights were kept, or copied behind the end of a repeat.
    """
    if trial.state not in ENDED or trial.ended_at is None:
        return []
    latest: dict[str, MetricRow] = {}
    for row in rows:  # of those of one evaluation, the first is drawn
        if row.key not in latest or latest[row.key].evaluation < row.evaluation:
            latest[row.key] = row
    step = max((row.evaluation for row in rows), default=0)
    result = {**trial.metrics, OBJECTIVE: trial.objective, "seconds": trial.seconds}
    result["device_seconds"] = trial.device_seconds
    # Of points at one step the latest is shown, by the millisecond.
    after = max([trial.ended_at, *(row.time + 0.001 for row in rows)])
    return [
        Point(key, value, after, step)
        for key, value in result.items()
        if value is not None and (key not in latest or latest[key].value != value)
    ]


def progress_points(trials: Iterable[TrialView], direction: str) -> list[Point]:
    """How a study went, by the number of its trials that had ended: the best so far, and how they ended."""
    ended = sorted(
        (trial for trial in trials if trial.kind == "search" and trial.ended_at is not None),
        key=lambda trial: (trial.ended_at, trial.place_id),
    )
    better = max if direction == "maximize" else min
    counts = dict.fromkeys(("trials_complete", "trials_pruned", "trials_failed"), 0)
    best: float | None = None
    points = []
    for step, trial in enumerate(ended, start=1):
        time = trial.ended_at or 0.0
        if f"trials_{trial.state}" in counts:
            counts[f"trials_{trial.state}"] += 1
        if trial.state == "complete" and trial.objective is not None:
            best = trial.objective if best is None else better(best, trial.objective)
        points += [Point(key, float(count), time, step) for key, count in counts.items()]
        if best is not None:
            points.append(Point("best_objective", best, time, step))
    return points


def data_sets(row: StudyRow, study: Study) -> list[DataSet]:
    """The splits of a study's data."""
    rows = row.data_report["rows"]
    return [_data_set(row, study, split, rows[split]) for split in _CONTEXTS if split in rows]


def _data_set(row: StudyRow, study: Study, split: str, rows: int) -> DataSet:
    source = getattr(study.data, split)
    drawn = {} if isinstance(source, Source) else {"fraction": source}
    source = source if isinstance(source, Source) else study.data.train
    name, kind = source.hub or Path(source.written or "").name, "hugging_face" if source.hub else "local"
    where = {key: value for key, value in source.to_dict().items() if value is not None}
    report = {key: values.get(split) for key, values in row.data_report.items() if isinstance(values, dict)}
    return DataSet(
        name=f"{name} ({split})",
        digest=hashlib.sha256(f"{row.data_fingerprint}/{split}".encode()).hexdigest()[:16],
        source_type=kind,
        source=json.dumps({**where, **drawn}),
        profile=json.dumps({"num_rows": rows, **report}),
        context=_CONTEXTS[split],
    )


def _param(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:_LONGEST_PARAM]


def _cut(tags: dict[str, str]) -> dict[str, str]:
    return {key: value[:_LONGEST_TAG] for key, value in tags.items()}
