"""What came out of a study, as plain values: what reports, figures, comparisons and notebooks are made of.

    results = read_results(ledger, "sst2")
    results.front[0].objective

Everything is read from the ledger, and nothing here draws or prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeper.finalists import LATENCY, default_of, preferred
from sweeper.front import front_of
from sweeper.session import REFERENCE_HEAD
from sweeper.study import Study, from_dict
from sweeper.terminal import number

if TYPE_CHECKING:
    from sweeper.ledger import AttemptRow, Ledger, TrialView

SIZE = "trainable_parameters"


@dataclass(frozen=True)
class Goal:
    """One objective of a study, and how to read its value off a trial."""

    metric: str
    direction: str
    value: Callable[[TrialView], float | None] = field(compare=False, repr=False)

    @property
    def maximize(self) -> bool:
        return self.direction == "maximize"

    def loss(self, trial: TrialView) -> float:
        """The value, turned so that less is better; infinity if there is none."""
        value = self.value(trial)
        if value is None:
            return float("inf")
        return -value if self.maximize else value


@dataclass(frozen=True)
class Finalist:
    """What ``confirm`` found of one finalist or reference, trained anew with other seeds.

    Args:
        name: of the trial, or what the reference is.
        mean, deviation: of the test metric over the seeds.
        low, high: the ends of the 95 % interval of the mean.
        values: the test metric of each seed.
        latency_ms: of one text, measured alone; None where it was not.
        is_reference: it is what the finalists are measured against.
    """

    name: str
    mean: float
    deviation: float
    low: float | None
    high: float | None
    values: tuple[float, ...]
    trainable_parameters: int | None = None
    latency_ms: float | None = None
    is_reference: bool = False


@dataclass(frozen=True)
class Results:
    """A study and everything that came of it.

    Args:
        study: its file, read.
        status: what ``status --json`` prints.
        goals: the objectives; the first is that by which trials are listed.
        trials: references first, then by number, then the places that wait.
        best: the confirmed winner, or else the best complete trial by the first objective; None if none has
            succeeded.
        curves: (epoch, objective) of each evaluation, by the place of the trial.
        hours: how long anybody worked on it; several workers count once.
        data_fingerprint: equal for studies of the same rows in the same tokens.
        data_digests: of each split, equal for the same rows; empty if the study began without them.
        backbone_fingerprint: equal for studies of the same weights.
        dtype: of the backbone, as it was settled when the study began.
        finalists: what ``confirm`` found of each; empty if it was not run.
        confirmed: its verdict, see ``finalists.verdict``.
    """

    study: Study
    status: Mapping[str, Any]
    backbone_parameters: int
    goals: tuple[Goal, ...]
    trials: tuple[TrialView, ...]
    best: TrialView | None
    curves: Mapping[int, tuple[tuple[float, float], ...]]
    attempts: tuple[AttemptRow, ...]
    hours: float = 0.0
    data_fingerprint: str = ""
    data_digests: Mapping[str, str] = field(default_factory=dict)
    backbone_fingerprint: str = ""
    dtype: str = ""
    finalists: tuple[Finalist, ...] = ()
    confirmed: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        return self.study.name

    @property
    def begun(self) -> tuple[TrialView, ...]:
        """The trials and references that somebody has begun, references first."""
        return tuple(t for t in self.trials if t.name is not None and t.attempt > 0)

    @property
    def searched(self) -> tuple[TrialView, ...]:
        """The trials of the search that have begun: neither references nor places that wait for a trial."""
        return tuple(t for t in self.trials if t.kind == "search" and t.number is not None)

    @property
    def complete(self) -> tuple[TrialView, ...]:
        """The trials of the search that were trained to the end, and have a value for every objective."""
        return tuple(
            t
            for t in self.searched
            if t.state == "complete" and all(goal.value(t) is not None for goal in self.goals)
        )

    @property
    def default(self) -> TrialView | None:
        """The configuration that the literature starts from (``default_of``); None if it is not complete."""
        found = default_of(self.searched)
        return None if found is None or found.state != "complete" else found

    @property
    def head(self) -> TrialView | None:
        """The head alone, without an adapter; None if it is not complete."""
        return next((t for t in self.trials if t.label == REFERENCE_HEAD and t.state == "complete"), None)

    @property
    def axes(self) -> tuple[Goal, ...]:
        """What the front trades against each other: with one objective, that and the size."""
        if len(self.goals) > 1:
            return self.goals
        return (*self.goals, Goal(SIZE, "minimize", lambda trial: trial.trainable_parameters))

    @property
    def front(self) -> tuple[TrialView, ...]:
        """The complete trials that no other beats in everything, best in the first objective first."""
        return tuple(non_dominated(self.complete, self.axes))

    @property
    def device_hours(self) -> float:
        """What all trials and references together took of their devices, as far as they have results."""
        return sum(trial.device_seconds or 0.0 for trial in self.trials) / 3600.0

    def top(self, count: int) -> tuple[TrialView, ...]:
        """The best complete trials, best first; of equals the smaller one, then the earlier."""
        goal = self.goals[0]
        order = sorted(
            self.complete, key=lambda t: (goal.loss(t), t.trainable_parameters or 0, t.number or 0)
        )
        return tuple(order[:count])


def non_dominated(trials: Sequence[TrialView], goals: Sequence[Goal]) -> list[TrialView]:
    """The trials that no other one beats: at least as good in every goal, and better in one.

    Of trials that are equal in every goal the smallest stands for all, of equally small ones the earliest,
    as in :func:`~sweeper.ledger.trialview.front`; the order is as there, too.
    """
    losses = {trial.place_id: tuple(goal.loss(trial) for goal in goals) for trial in trials}
    ordered = sorted(
        trials, key=lambda t: (losses[t.place_id][0], t.trainable_parameters or 0, t.number or 0)
    )
    points = [tuple(-loss for loss in losses[trial.place_id]) for trial in ordered]
    return [ordered[position] for position in front_of(points)]


def read_results(ledger: Ledger, name: str) -> Results:
    """Everything that the ledger has of a study.

    Raises:
        StudyGone: there is none of that name.
    """
    row = ledger.study(name)
    trials = tuple(ledger.trials(name))
    best, said = preferred(ledger, name)
    curves: dict[int, list[tuple[float, float]]] = {}
    for point in ledger.evaluations(name):
        curves.setdefault(point.place_id, []).append((point.epoch, point.value))
    return Results(
        study=from_dict(row.spec, row.path, row.text),
        status=ledger.status(name),
        backbone_parameters=row.backbone_parameters,
        goals=goals_of(row.spec),
        trials=trials,
        best=next(iter(best), None),
        confirmed=said,
        finalists=_finalists(said),
        curves={place: tuple(points) for place, points in curves.items()},
        attempts=tuple(ledger.attempts(name)),
        hours=ledger.hours_used(name),
        data_fingerprint=row.data_fingerprint,
        data_digests=row.data_report.get("digest", {}),
        backbone_fingerprint=row.backbone_fingerprint,
        dtype=row.dtype,
    )


def _finalists(said: Mapping[str, Any] | None) -> tuple[Finalist, ...]:
    """What was confirmed, and what it is compared with, in plain values; of one seed there is no interval."""
    if said is None:
        return ()
    beside = [said[name] for name in ("default", "head", "full") if said[name] is not None]
    names = {one["name"] for one in said["finalists"]}
    found = [*said["finalists"], *(one for one in beside if one["name"] not in names)]
    members = []
    for one in found:
        test = one["test"]
        low, high = test["interval"] or (None, None)
        reference = one["name"] not in names
        values = tuple(test["values"])
        members.append(
            Finalist(
                one["name"],
                test["mean"],
                test["sd"] or 0.0,
                low,
                high,
                values,
                one["trainable_parameters"],
                one[LATENCY],
                reference,
            )
        )
    return tuple(members)


def goals_of(spec: Mapping[str, Any]) -> tuple[Goal, ...]:
    """The objectives of a study as the ledger keeps it: one, or a list of several."""
    written = spec["objective"]
    if isinstance(written, Mapping):
        return (Goal(written["metric"], written["direction"], lambda trial: trial.objective),)
    return tuple(Goal(one["metric"], one["direction"], _reader(one["metric"])) for one in written)


def _reader(metric: str) -> Callable[[TrialView], float | None]:
    def read(trial: TrialView) -> float | None:
        value = trial.metrics.get(metric)
        return getattr(trial, metric, None) if value is None else value

    return read


def headline(results: Results) -> str:
    """Who won, by how much, at what size, in one line of plain text."""
    best, goal = results.best, results.goals[0]
    if best is None:
        return "no trial has succeeded" if results.status["state"] == "ended" else "no trial has ended yet"
    size = "" if best.trainable_parameters is None else f" with {best.trainable_parameters:,} parameters"
    share = "" if best.trainable_percent is None else f" ({best.trainable_percent:.3g} % of the backbone's)"
    return f"{best.name} reaches {goal.metric} {number(goal.value(best))}{size}{share}"


def trial_rows(results: Results) -> tuple[list[str], list[list[Any]]]:
    """The names of the columns and, for each trial that has begun, its values: for tables of any kind."""
    trials = results.begun
    params = list(dict.fromkeys([*results.study.searched, *(key for t in trials for key in t.params)]))
    goals = {goal.metric: goal for goal in results.goals if goal.metric != SIZE}
    fixed = (SIZE, "trainable_percent")
    more = ("seconds", "device_seconds", "attempts", "reason")
    rows = [
        [
            trial.name,
            trial.state,
            *(goal.value(trial) for goal in goals.values()),
            *(getattr(trial, key) for key in fixed),
            *(trial.params.get(name) for name in params),
            *(getattr(trial, key) for key in more),
        ]
        for trial in trials
    ]
    return ["trial", "state", *goals, *fixed, *params, *more], rows
