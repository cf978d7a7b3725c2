"""What goes into the ledger and comes out of it, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweeper.errors import SweeperError, UsageError

PAUSED, STOPPED = "paused", "stopped"
"""What a user may have said of a study, besides letting it go on."""
LOST, OUT_OF_MEMORY, RAISED = "lost", "out_of_memory", "raised"
"""The classes of failure of an attempt: its worker died or hung, it did not fit even alone, it raised."""

NO_MODULE, PAST_THE_LIMIT = "no layer carries a module", " past the limit"
"""Why a configuration was never trained: the whole reason, or the end of it."""
REPEAT_OF, TRAINED_ALIKE = "repeat of trial ", " is being trained with the same configuration"
"""Why a configuration is not trained a second time: the beginning of the reason, or the end of it."""


def says_refused(reason: str | None) -> bool:
    """Whether a reason is that a configuration was past a limit."""
    return reason is not None and (reason == NO_MODULE or reason.endswith(PAST_THE_LIMIT))


class StudyGone(UsageError, KeyError):
    """The store has no such study, or no longer: it was deleted."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the store has no study {name!r}, or no longer: `sweeper status` lists those that it has"
        )


class LeaseLost(SweeperError):
    """A write with a token that is no longer the place's: another worker has it, or its result is there."""


@dataclass(frozen=True)
class WorkerIdentity:
    """Which process works, so that others on its host can tell when it is gone.

    Args:
        name: unique, for people.
        host: of the process table that ``pid`` belongs to (see ``processes.host_id``).
        process_started: tells the process from a later one with the same number.
    """

    name: str
    host: str
    pid: int
    process_started: float
    device: str


@dataclass(frozen=True)
class Claim:
    """A place that a worker holds while its lease lasts.

    Args:
        kind: ``search``, or ``reference``, ``confirm`` or ``full`` for runs outside of Optuna, which have a
            ``label``.
        token: fences every write of this attempt.
        attempt: counted from 1.
        fixed_params: what the sampler is not to draw; None if it draws everything.
        trial_number, trial_id, params: of the trial that an earlier attempt attached, else None.
        budgeted: False for what was enqueued or is a retry: its parameters were asked for.
    """

    study: str
    place_id: int
    kind: str
    label: str | None
    token: str
    attempt: int
    lease_seconds: float
    fixed_params: dict[str, Any] | None = None
    trial_number: int | None = None
    trial_id: int | None = None
    params: dict[str, Any] | None = None
    budgeted: bool = True

    @property
    def name(self) -> str:
        """``trial-0007`` or ``reference-head``; the place's number before the trial has one."""
        if self.label is not None:
            return self.label
        return f"place {self.place_id}" if self.trial_number is None else f"trial-{self.trial_number:04d}"


@dataclass(frozen=True)
class Attached:
    """What a claim is to train: the trial that it became.

    Args:
        trial_number, trial_id: Optuna's; None for a reference.
        params: of the search, flat, as Optuna keeps them.
        configuration: 64 hex digits, equal for equal configurations.
    """

    trial_number: int | None
    trial_id: int | None
    params: Mapping[str, Any]
    configuration: str
    adapter_parameters: int
    head_parameters: int


@dataclass(frozen=True)
class Result:
    """How a place ended.

    Args:
        state: ``complete``, ``pruned`` or ``failed``.
        objective: of the evaluation that counts; None if there was none.
        metrics: of the same evaluation, by bare name, all finite.
        device_seconds: the trial's share of its pack's time.
        files: sha256 of each file, by its path relative to the artifact folder.
        reason: why it was pruned or failed, or what it repeats.
    """

    state: str
    objective: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    device_seconds: float = 0.0
    files: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class NewStudy:
    """What is written down of a study when it begins, and never changed but for its budget.

    Args:
        spec: ``Study.to_dict()``.
        path, text: of the study file.
        dtype: what every worker computes in: never ``auto``.
        data_report: ``TaskData.report``; ``label_names`` by class number, None for a regression.
        versions: of the libraries, by name.
        command, git_commit: what started it.
    """

    name: str
    spec: Mapping[str, Any]
    path: str
    text: str
    dtype: str
    backbone_fingerprint: str
    backbone_parameters: int
    data_fingerprint: str
    data_report: Mapping[str, Any]
    label_names: list[str] | None
    versions: Mapping[str, str]
    command: str
    git_commit: str | None


@dataclass(frozen=True)
class StudyRow(NewStudy):
    """A study as the ledger holds it.

    Args:
        created_at, ended_at: seconds since 1970 by the database's clock.
        ended_because: a sentence; None while it goes on.
        experiment_id, run_id: of MLflow's picture of it, once there is one.
        control: ``paused``, ``stopped``, or None while nobody holds it up.
    """

    created_at: float
    ended_at: float | None
    ended_because: str | None
    experiment_id: str | None
    run_id: str | None
    control: str | None = None

    @property
    def is_paused(self) -> bool:
        """Nobody begins a trial, and those that run are handed back at their next evaluation."""
        return self.control == PAUSED

    @property
    def is_stopped(self) -> bool:
        """It has ended because its user said so, and goes on when its user says so."""
        return self.control == STOPPED


@dataclass(frozen=True)
class MetricRow:
    """One value of one evaluation."""

    id: int
    place_id: int
    attempt: int
    evaluation: int
    step: int
    epoch: float
    time: float
    key: str
    value: float


@dataclass(frozen=True)
class Untold:
    """A result that Optuna does not know yet. ``curve`` is the objective by evaluation.

    ``metrics`` are those of the result, with ``trainable_parameters``.
    """

    place_id: int
    trial_id: int
    state: str
    objective: float | None
    curve: tuple[float, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialView:
    """One place as people and scripts see it.

    Args:
        number: of the trial; None for a reference, and for a place that has no trial yet.
        label: ``reference-head`` of a reference, or what is confirmed and its seed; None for a trial.
        state: waiting, running, complete, pruned, failed or cancelled.
        params: flat, as Optuna keeps them; an explicit set of layers is a JSON string. Before there is a
            trial, those that are fixed.
        objective, metrics: of a trial that ended; while it runs, of its last evaluation.
        trainable_percent: of the backbone's parameters.
        attempts: how often it was begun.
        seconds: from claim to result.
        attempt: the one that counts, counted from 1; 0 before any.
        files: sha256 of each file, by its path relative to the artifact folder.
        version: grows with every change that is worth showing.
        retry_of: the number of the failed trial that this one tries once more.
        objectives: of a study with several: each by its metric; None where one is missing, and with one.
        configuration: a digest of all that is trained but its seed; None before there is a trial.
    """

    study: str
    place_id: int
    position: int
    kind: str
    label: str | None
    number: int | None
    state: str
    params: dict[str, Any]
    objective: float | None
    metrics: dict[str, float]
    adapter_parameters: int | None
    head_parameters: int | None
    trainable_parameters: int | None
    trainable_percent: float | None
    attempts: int
    seconds: float | None
    device_seconds: float | None
    reason: str | None
    mlflow_run_id: str | None
    attempt: int
    files: dict[str, str]
    started_at: float | None
    ended_at: float | None
    device: str | None
    host: str | None
    version: int
    retry_of: int | None = None
    objectives: dict[str, float] | None = None
    configuration: str | None = None

    @property
    def name(self) -> str | None:
        """``trial-0007`` or ``reference-head``; None before there is a trial."""
        return self.label if self.number is None else f"trial-{self.number:04d}"

    @property
    def was_refused(self) -> bool:
        """Whether its configuration was past a limit, and so never trained."""
        return self.state == "pruned" and says_refused(self.reason)

    def to_json(self) -> dict[str, Any]:
        """What ``trials --json`` prints; a reference has its ``label``, too, and a retry its ``retry_of``."""
        keys = (
            "number", "state", "params", "objective", "metrics", "adapter_parameters", "head_parameters",
            "trainable_parameters", "trainable_percent", "attempts", "seconds", "device_seconds", "reason",
            "mlflow_run_id",
        )  # fmt: skip
        shown = {key: getattr(self, key) for key in keys}
        more = {"label": self.label, "retry_of": self.retry_of, "objectives": self.objectives}
        return shown | {key: value for key, value in more.items() if value is not None}
