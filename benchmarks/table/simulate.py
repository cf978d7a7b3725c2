"""One search on the table: the product's own sampler and pruner; the training is looked up."""

from __future__ import annotations

import heapq
import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.table.rows import Row
from sweeper import space
from sweeper.front import Point, values_of
from sweeper.pruning import Others, should_prune
from sweeper.sampling import sampler_of
from sweeper.study import Study

if TYPE_CHECKING:
    import optuna


class Table:
    """The rows by configuration. The mean over the seeds is what a configuration is worth."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows: dict[str, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(_key(row.params), []).append(row)
        self.full_steps = max(row.steps[-1] for row in rows)
        self.evaluations = max(len(row.values) for row in rows)
        # What diverged has no last value: it is worth its last finite one.
        self._means = {
            key: statistics.fmean(row.values[-1] for row in own) for key, own in self._rows.items()
        }
        self.best = max(self._means.values())
        winner = self._rows[max(self._means, key=lambda key: self._means[key])]
        self.standard_error = statistics.stdev(row.values[-1] for row in winner) / len(winner) ** 0.5
        self.worst = min(self._means.values())
        self.largest = max(row.trainable_parameters for row in rows)

    def __len__(self) -> int:
        return len(self._rows)

    def training(self, params: space.Params, source: random.Random) -> Row:
        """One training of a configuration, drawn among its seeds."""
        return source.choice(self._rows[_key(params)])

    def mean(self, params: Mapping[str, Any]) -> float:
        """What a configuration is worth."""
        return self._means[_key(params)]

    @property
    def near(self) -> int:
        """How many configurations are worth the best one's worth, but for its standard error."""
        least = self.best - self.standard_error - 1e-12
        return sum(mean >= least for mean in self._means.values())

    def one_shot(self, count: int, source: random.Random) -> float:
        """What the best of so many configurations is worth, chosen by one training of each to its end."""
        chosen = [source.choice(self._rows[key]) for key in source.sample(list(self._rows), count)]
        return self.mean(max(chosen, key=lambda row: row.values[-1]).params)

    def worths(self) -> list[tuple[float, int]]:
        """What each configuration is worth, and its trainable parameters."""
        return [(self._means[key], own[0].trainable_parameters) for key, own in self._rows.items()]


def _key(params: Any) -> str:
    return json.dumps({name: params[name] for name in sorted(params)})


@dataclass
class _Running:
    """A trial on its way: the training it gets, and how far it is."""

    number: int
    trial: optuna.Trial
    params: space.Params
    row: Row
    evaluation: int = 0


@dataclass(frozen=True)
class Found:
    """The best complete trial changed: after so many steps of all workers, what it is worth by the table."""

    steps: int
    mean: float


@dataclass(frozen=True)
class Complete:
    """A trial was trained to its end: after so many steps of all workers, its objectives, and its worth."""

    steps: int
    values: Point
    mean: float
    trainable_parameters: int


def run(table: Table, study: Study, first: space.Params, parallel: int, seed: int, steps: int) -> list[Found]:
    """Search until so many steps are spent; the winners on the way, see :func:`search`."""
    best: tuple[float, int] | None = None
    found = []
    for trial in search(table, study, first, parallel, seed, steps):
        sign = 1.0 if study.objective.direction == "maximize" else -1.0
        standing = (sign * trial.values[0], -trial.trainable_parameters)
        if best is None or standing > best:
            best = standing
            found.append(Found(trial.steps, trial.mean))
    return found


def search(
    table: Table,
    study: Study,
    first: space.Params,
    parallel: int,
    seed: int,
    steps: int,
    trials: int | None = None,
) -> list[Complete]:
    """Search until so many steps are spent; the trials that were trained to their end, in that order.

    The study says which sampler and pruner; ``parallel`` trials are trained at once, all equally fast.
    Trial 0 has the parameters ``first`` and is never pruned; a configuration that was trained is not trained
    again, but has the same result at no cost; one that is being trained waits for that result, while another
    is drawn in its stead. So it is in the product. With ``trials``, no more are drawn than that, those that
    repeat another among them, as the product's budget counts them.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = replace(study, seed=seed)
    state = _State(table, study, first, random.Random(seed), trials)
    due: list[tuple[int, int, _Running]] = []
    for _ in range(parallel):
        state.begin(due, 0)
    spent = 0
    while due and spent < steps:
        clock, _, running = heapq.heappop(due)
        before = running.row.steps[running.evaluation - 1] if running.evaluation else 0
        spent += running.row.steps[running.evaluation] - before
        running.evaluation += 1
        if state.is_over(running, spent):
            state.begin(due, clock)
        else:
            heapq.heappush(due, (clock + _next_steps(running), running.number, running))
    return state.ended


def _next_steps(running: _Running) -> int:
    steps = running.row.steps
    return steps[running.evaluation] - (steps[running.evaluation - 1] if running.evaluation else 0)


class _State:
    """What the search knows: Optuna's trials, their curves, and those that are complete."""

    def __init__(
        self, table: Table, study: Study, first: space.Params, source: random.Random, trials: int | None
    ) -> None:
        import optuna

        self._trials = math.inf if trials is None else trials
        self._table, self._study, self._source = table, study, source
        self._directions = [objective.direction for objective in study.objectives]
        self._optuna = optuna.create_study(
            directions=[optuna.study.StudyDirection[each.upper()] for each in self._directions]
        )
        self._first = first
        self._curves: dict[int, list[Point]] = {}
        self._ended: dict[str, tuple[int, bool]] = {}
        self._waiting: dict[str, list[_Running]] = {}
        """By each configuration that is being trained: the trials that wait for its result."""
        self._complete: set[int] = set()
        self.ended: list[Complete] = []

    def begin(self, due: list[tuple[int, int, _Running]], clock: int) -> None:
        """Draw trials until one is to be trained, or nothing new comes any more."""
        for _ in range(1000):
            if len(self._curves) >= self._trials:
                return
            running = self._draw()
            key = _key(running.params)
            if key in self._ended:
                self._repeat(running)
            elif key in self._waiting:
                self._waiting[key].append(running)
            else:
                self._waiting[key] = []
                heapq.heappush(due, (clock + _next_steps(running), running.number, running))
                return

    def _repeat(self, running: _Running) -> None:
        """End a trial with the result and the curve of the one that was trained alike."""
        number, is_complete = self._ended[_key(running.params)]
        curve = self._curves[running.number] = self._curves[number]
        for evaluation, values in enumerate(curve, start=1):
            self._report(running, evaluation, values)
        self._tell(running, curve, is_complete)

    def _draw(self) -> _Running:
        number = len(self._curves)
        self._optuna.sampler = self._sampler(number)
        if number == 0:
            self._optuna.enqueue_trial(dict(self._first))
        trial = self._optuna.ask()
        params = space.suggest(trial, self._study)
        self._curves[number] = []
        return _Running(number, trial, params, self._table.training(params, self._source))

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The product's, a new one for each trial; what it knows of the space is kept from the last."""
        before, sampler = self._optuna.sampler, sampler_of(self._study, self._study.seed, number)
        if number and hasattr(before, "_search_space"):
            sampler._search_space = before._search_space  # type: ignore[attr-defined]
        return sampler

    def is_over(self, running: _Running, spent: int) -> bool:
        """Take an evaluation in; whether the trial has ended with it."""
        curve = self._curves[running.number]
        curve.append(self._values(running))
        self._report(running, running.evaluation, curve[-1])
        is_last = running.evaluation == len(running.row.values)
        is_pruned = not is_last and running.number != 0 and self._prunes(running.number)
        if not is_last and not is_pruned:
            return False
        # One that diverged ended before its last evaluation, and is told as pruned.
        is_complete = running.evaluation == self._table.evaluations
        key = _key(running.params)
        self._ended[key] = running.number, is_complete
        self._tell(running, curve, is_complete)
        for alike in self._waiting.pop(key):
            self._repeat(alike)
        if is_complete:
            mean, size = self._table.mean(running.params), running.row.trainable_parameters
            self.ended.append(Complete(spent, curve[-1], mean, size))
        return True

    def _values(self, running: _Running) -> Point:
        names = [objective.metric for objective in self._study.objectives]
        value, size = running.row.values[running.evaluation - 1], running.row.trainable_parameters
        values = values_of(names, {names[0]: value}, size)
        assert values is not None, f"the table has {names[0]} and sizes, and not all of {names}"
        return values

    def _prunes(self, number: int) -> bool:
        curves = {place: curve for place, curve in self._curves.items() if curve}
        others = Others(self._study.name, {}, self._complete)
        return should_prune(self._study.pruner, self._directions, curves, number, others)

    def _report(self, running: _Running, evaluation: int, values: Point) -> None:
        if len(values) == 1:  # Optuna has intermediate values for one objective alone
            running.trial.report(values[0], evaluation)

    def _tell(self, running: _Running, curve: Sequence[Point], is_complete: bool) -> None:
        from optuna.trial import TrialState

        state = TrialState.COMPLETE if is_complete else TrialState.PRUNED
        if is_complete:
            self._complete.add(running.number)
        storage = self._optuna._storage
        storage.set_trial_state_values(running.trial._trial_id, state, curve[-1])
