"""A study of many trials: how long the views, the pruner's curves and the sampler take on it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from benchmarks.scale.stores import EVALUATIONS, HEAD_PARAMETERS, home_of, make_study
from sweeper import space
from sweeper.asktell import Trials
from sweeper.ledger import Ledger, WorkerIdentity, schema
from sweeper.study import Study

Filled = tuple[int, tuple[space.Params, list[float]], bool]
"""The number of a trial, its parameters and curve, and whether it is complete."""
FREE = 200
"""Places that nobody has taken."""
_SIMULATED = WorkerIdentity("simulated", "simulated", 1, 0.0, "cpu")
_AT_ONCE = 500
_PLACE_COLUMNS = (
    "state", "attempt", "token", "lease_expires", "worker", "trial_number", "trial_id", "params",
    "configuration", "adapter_parameters", "head_parameters", "told", "version",
)  # fmt: skip


def fill(url: str, name: str, trials: int, running: int = 0, sampler: str = "tpe", seed: int = 0) -> Study:
    """A study with so many complete trials in ledger and Optuna, as workers would have written them.

    The rows are written many at a time; a test compares them with what workers write.

    Args:
        running: trials beyond those, that somebody trains.
    """
    study = make_study(url, name, trials + running + FREE, sampler, seed)
    drawn = [_draw(study, number, seed) for number in range(trials + running)]
    ledger = Ledger(url)
    for start in range(0, len(drawn), _AT_ONCE):
        chunk = range(start, min(start + _AT_ONCE, len(drawn)))
        ledger.database.write(_fill, study, [(number, drawn[number], number < trials) for number in chunk])
    ledger.close()
    return study


def _draw(study: Study, number: int, seed: int) -> tuple[space.Params, list[float]]:
    """Parameters from the space, and a curve."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    source = random.Random(f"{seed}/{number}")
    params: dict[str, Any] = {}
    for key, distribution in space.distributions(study).items():
        if isinstance(distribution, CategoricalDistribution):
            params[key] = source.choice(distribution.choices)
        elif isinstance(distribution, IntDistribution):
            params[key] = source.randint(distribution.low, distribution.high)
        else:
            assert isinstance(distribution, FloatDistribution)
            params[key] = source.uniform(distribution.low, distribution.high)
    end = source.uniform(0.6, 0.9)
    return params, [end * (1 - 0.4 / index) for index in range(1, EVALUATIONS + 1)]


def _fill(connection: Connection, study: Study, chunk: list[Filled]) -> None:
    now = time.time()
    ids = _fill_optuna(connection, study, chunk)
    positions = [number for number, _, _ in chunk]
    found = select(schema.places.c.position, schema.places.c.id).where(
        schema.places.c.study == study.name, schema.places.c.position.in_(positions)
    )
    by_position = {row.position: row.id for row in connection.execute(found)}
    place, attempts, metrics, results = schema.places, [], [], []
    set_place = update(place).where(place.c.id == bindparam("place")).values(
        {name: bindparam(f"new_{name}") for name in _PLACE_COLUMNS}
    )  # fmt: skip
    rows = []
    for number, (params, curve), is_over in chunk:
        place_id, state = by_position[number], "complete" if is_over else "running"
        token = f"{place_id:032x}"  # of all studies in the store
        values = (
            state, 1, token, None if is_over else now + 86_400.0, _SIMULATED.name, number, ids[number],
            params, f"{number:064x}", 18_816, HEAD_PARAMETERS, is_over, EVALUATIONS + 2 if is_over else 2,
        )  # fmt: skip
        new = {f"new_{name}": value for name, value in zip(_PLACE_COLUMNS, values, strict=True)}
        rows.append({"place": place_id, **new})
        end = {"ended_at": now, "outcome": "complete"} if is_over else {"ended_at": None, "outcome": None}
        attempts.append(
            {"place_id": place_id, "attempt": 1, "token": token, "worker": _SIMULATED.name,
             "host": _SIMULATED.host, "pid": 1, "process_started": 0.0, "device": "cpu",
             "trial_number": number, "started_at": now - 60.0, "seen_at": now, **end}
        )  # fmt: skip
        for evaluation, value in enumerate(curve if is_over else curve[:1], start=1):
            measured = {
                "accuracy": value,
                "objective": value,
                "validation/loss": 1 - value,
                "train/loss": 0.5,
            }
            metrics += [
                {"place_id": place_id, "attempt": 1, "evaluation": evaluation, "step": 100 * evaluation,
                 "epoch": float(evaluation), "time": now, "key": key, "value": amount}
                for key, amount in measured.items()
            ]  # fmt: skip
        if is_over:
            results.append(
                {"place_id": place_id, "attempt": 1, "state": "complete", "objective": curve[-1],
                 "metrics": {"accuracy": curve[-1]}, "seconds": 60.0, "device_seconds": 60.0, "files": {},
                 "recorded_at": now}
            )  # fmt: skip
    connection.execute(set_place, rows)
    for table, some in ((schema.attempts, attempts), (schema.metrics, metrics), (schema.results, results)):
        if some:
            connection.execute(insert(table), some)


def _fill_optuna(connection: Connection, study: Study, chunk: list[Filled]) -> dict[int, int]:
    """The trials in Optuna's tables; returns their ids by number."""
    from optuna.distributions import distribution_to_json
    from optuna.storages._rdb import models
    from optuna.trial import TrialState

    name = models.StudyModel.study_name == study.name
    study_id = connection.execute(select(models.StudyModel.study_id).where(name)).scalar_one()
    now, spaces = datetime.now(), space.distributions(study)
    connection.execute(
        insert(models.TrialModel),
        [
            {"number": number, "study_id": study_id, "datetime_start": now,
             "state": TrialState.COMPLETE if is_over else TrialState.RUNNING,
             "datetime_complete": now if is_over else None}
            for number, _, is_over in chunk
        ],
    )  # fmt: skip
    there = select(models.TrialModel.number, models.TrialModel.trial_id).where(
        models.TrialModel.study_id == study_id
    )
    ids = {row.number: row.trial_id for row in connection.execute(there)}
    params, finals, between, attributes = [], [], [], []
    written = {key: distribution_to_json(distribution) for key, distribution in spaces.items()}
    for number, (drawn, curve), is_over in chunk:
        own = {"trial_id": ids[number]}
        params += [
            {**own, "param_name": key, "param_value": spaces[key].to_internal_repr(value),
             "distribution_json": written[key]}
            for key, value in drawn.items()
        ]  # fmt: skip
        attributes += [
            {**own, "key": "place", "value_json": str(number + 1)},
            {**own, "key": "attempt", "value_json": "1"},
        ]
        if is_over:
            finals.append({**own, "objective": 0, "value": curve[-1], "value_type": "FINITE"})
            between += [
                {**own, "step": step, "intermediate_value": value, "intermediate_value_type": "FINITE"}
                for step, value in enumerate(curve, start=1)
            ]
    for model, some in (
        (models.TrialParamModel, params),
        (models.TrialUserAttributeModel, attributes),
        (models.TrialValueModel, finals),
        (models.TrialIntermediateValueModel, between),
    ):
        if some:
            connection.execute(insert(model), some)
    return ids


def views(url: str, name: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each view, by its name, in every round."""
    ledger = Ledger(url)
    calls: dict[str, Callable[[], Any]] = {
        "status": lambda: ledger.status(name),
        "trials": lambda: ledger.trials(name),
        "best": lambda: ledger.best(name),
        "a pruner's curves": lambda: ledger.curves(name),
    }
    found: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            found[key].append(_seconds(call))
    ledger.close()
    return found


def command(url: str, name: str, rounds: int) -> list[float]:
    """Seconds of ``sweeper status``, from the start of its process to its end."""
    asked = [sys.executable, "-m", "sweeper", "status", name]
    variables = {**os.environ, "SWEEPER_STORE": url}

    def call() -> None:
        subprocess.run(asked, env=variables, check=True, stdout=subprocess.DEVNULL)

    return [_seconds(call) for _ in range(rounds)]


def asks(url: str, study: Study, rounds: int) -> dict[str, list[float]]:
    """Seconds of a worker's first trial in Optuna, which loads all trials, and of each later one."""
    ledger = Ledger(url)
    found: dict[str, list[float]] = {"first": [], "create": [], "ask": []}
    for _ in range(2):
        trials = Trials(home_of(url), study)
        for index in range(rounds + 1):  # the first loads what is there
            claim = ledger.reserve(study.name, _SIMULATED, 86_400.0)
            if claim is None:
                raise SystemExit("error: the study has no free place left to ask for")
            started = time.perf_counter()
            number, trial_id = trials.create(claim)
            created = time.perf_counter()
            trials.fill_in(number, trial_id)
            asked = time.perf_counter()
            if index == 0:
                found["first"].append(asked - started)
            else:
                found["create"].append(created - started)
                found["ask"].append(asked - created)
    ledger.close()
    return found


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
