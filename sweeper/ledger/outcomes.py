"""What training gave: metrics of evaluations, results of places, and what Optuna and MLflow know of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, and_, delete, func, insert, literal, select, true, update

from sweeper.ledger.database import now_seconds
from sweeper.ledger.guards import guard, lost
from sweeper.ledger.places import release, runs_with
from sweeper.ledger.records import REPEAT_OF, TRAINED_ALIKE, Claim, MetricRow, Result, Untold
from sweeper.ledger.schema import ENDED, IS_OBJECTIVE, UNSHOWN, attempts, metrics, places, results, studies

_AT_ONCE = 500


def record_metrics(
    connection: Connection,
    claim: Claim,
    evaluation: int,
    step: int,
    epoch: float,
    values: Mapping[str, float],
) -> None:
    """Write down an evaluation. Raises LeaseLost."""
    bad = [key for key, value in values.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"{bad[0]} is not finite: such an evaluation ends the trial, and is not recorded")
    held = connection.execute(
        update(places).where(guard(claim)).values(version=places.c.version + 1).returning(places.c.id)
    ).first()
    if held is None:
        raise lost(claim)
    there = connection.execute(
        select(metrics.c.id)
        .where(
            metrics.c.place_id == claim.place_id,
            metrics.c.attempt == claim.attempt,
            metrics.c.evaluation == evaluation,
        )
        .limit(1)
    ).first()
    if there is None and values:
        time = connection.execute(select(now_seconds())).scalar_one()
        connection.execute(
            insert(metrics),
            [
                {
                    "place_id": claim.place_id,
                    "attempt": claim.attempt,
                    "evaluation": evaluation,
                    "step": step,
                    "epoch": epoch,
                    "time": time,
                    "key": key,
                    "value": value,
                }
                for key, value in values.items()
            ],
        )


def record_result(connection: Connection, claim: Claim, result: Result) -> None:
    """End a place. Does nothing if this claim did so before. Raises LeaseLost."""
    ended = connection.execute(
        update(places)
        .where(guard(claim))
        .values(
            state=result.state,
            lease_expires=None,
            told=places.c.trial_id.is_(None),
            version=places.c.version + 1,
        )
        .returning(places.c.id)
    ).first()
    if ended is None:
        done = select(places.c.id).where(
            places.c.id == claim.place_id, places.c.token == claim.token, places.c.state.in_(ENDED)
        )
        if connection.execute(done).first() is None:
            raise lost(claim)
        return
    started = select(attempts.c.started_at).where(attempts.c.token == claim.token).scalar_subquery()
    connection.execute(
        insert(results).values(
            place_id=claim.place_id,
            attempt=claim.attempt,
            state=result.state,
            objective=result.objective,
            metrics=dict(result.metrics),
            seconds=now_seconds() - started,
            device_seconds=result.device_seconds,
            files=dict(result.files),
            reason=result.reason,
            recorded_at=now_seconds(),
        )
    )
    connection.execute(
        update(attempts)
        .where(attempts.c.token == claim.token)
        .values(outcome=result.state, reason=result.reason, ended_at=now_seconds(), seen_at=now_seconds())
    )


def curves(connection: Connection, study: str) -> dict[int, list[float]]:
    """The objective of every evaluation, by search place: that of the attempt that counts."""
    rows = connection.execute(
        select(metrics.c.place_id, metrics.c.value)
        .join(places, and_(places.c.id == metrics.c.place_id, places.c.attempt == metrics.c.attempt))
        .where(places.c.study == study, places.c.kind == "search", IS_OBJECTIVE)
        .order_by(metrics.c.place_id, metrics.c.evaluation)
    )
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row.place_id, []).append(row.value)
    return found


def points(connection: Connection, study: str, keys: Sequence[str]) -> dict[int, list[tuple[float, ...]]]:
    """Several values of every evaluation that has them all, by search place, of the attempt that counts."""
    rows = connection.execute(
        select(metrics.c.place_id, metrics.c.evaluation, metrics.c.key, metrics.c.value)
        .join(places, and_(places.c.id == metrics.c.place_id, places.c.attempt == metrics.c.attempt))
        .where(places.c.study == study, places.c.kind == "search", metrics.c.key.in_(keys))
        .order_by(metrics.c.place_id, metrics.c.evaluation)
    )
    found: dict[int, dict[int, dict[str, float]]] = {}
    for row in rows:
        found.setdefault(row.place_id, {}).setdefault(row.evaluation, {})[row.key] = row.value
    return {
        place: [
            tuple(values[key] for key in keys)
            for values in by_evaluation.values()
            if len(values) == len(keys)
        ]
        for place, by_evaluation in found.items()
    }


def numbers(connection: Connection, study: str) -> dict[int, tuple[int, str]]:
    """Number and state of every trial of the search that has a number, by place."""
    rows = connection.execute(
        select(places.c.id, places.c.trial_number, places.c.state).where(
            places.c.study == study, places.c.kind == "search", places.c.trial_number.is_not(None)
        )
    )
    return {row.id: (row.trial_number, row.state) for row in rows}


def curve(connection: Connection, place_id: int) -> list[float]:
    """The objective of every evaluation of one place."""
    rows = connection.execute(
        select(metrics.c.value)
        .join(places, and_(places.c.id == metrics.c.place_id, places.c.attempt == metrics.c.attempt))
        .where(metrics.c.place_id == place_id, IS_OBJECTIVE)
        .order_by(metrics.c.evaluation)
    )
    return [row.value for row in rows]


def untold(connection: Connection, study: str) -> list[Untold]:
    """Results that Optuna is still to be told, in the order of their trials."""
    rows = connection.execute(
        select(
            places.c.id,
            places.c.trial_id,
            places.c.adapter_parameters,
            places.c.head_parameters,
            results.c.state,
            results.c.objective,
            results.c.metrics,
        )
        .join(results, results.c.place_id == places.c.id)
        .where(places.c.study == study, places.c.told.is_(False), places.c.trial_id.is_not(None))
        .order_by(places.c.trial_number)
    ).all()
    return [
        Untold(
            row.id,
            row.trial_id,
            row.state,
            row.objective,
            tuple(curve(connection, row.id)),
            {**row.metrics, "trainable_parameters": float(row.adapter_parameters + row.head_parameters)},
        )
        for row in rows
    ]


def mark_told(connection: Connection, place_id: int) -> None:
    """Optuna knows a result."""
    connection.execute(update(places).where(places.c.id == place_id).values(told=true()))


def record_repeat(
    connection: Connection, claim: Claim, configuration: str, states: Sequence[str]
) -> int | None:
    """Train no configuration twice: returns the number of the trial that was, or is being, trained alike.

    One that was gives the place its result and its curve; for one that runs the place waits, see
    :func:`sweeper.ledger.places.reserve`. None, and nothing done, if there is neither. Raises LeaseLost.

    Args:
        states: how one that was has ended. The default configuration is no repeat of one that was pruned.
    """
    # One at a time in a study: of two that draw the same, the second sees the first.
    own = select(studies.c.name).where(studies.c.name == claim.study)
    connection.execute(own.with_for_update(key_share=True))
    row = connection.execute(
        select(places.c.trial_number, places.c.attempt.label("counts"), results)
        .join(results, results.c.place_id == places.c.id)
        .where(
            places.c.study == claim.study,
            places.c.kind == "search",
            places.c.configuration == configuration,
            places.c.state.in_(states),
        )
        .order_by(places.c.trial_number)
        .limit(1)
    ).first()
    if row is None:
        return _wait_for_running(connection, claim, configuration)
    if row.place_id == claim.place_id:
        return None
    reason = f"{REPEAT_OF}{row.trial_number}"
    record_result(connection, claim, Result(row.state, row.objective, row.metrics, 0.0, row.files, reason))
    same = (metrics.c.evaluation, metrics.c.step, metrics.c.epoch, metrics.c.key, metrics.c.value)
    copied = (
        select(literal(claim.place_id), literal(claim.attempt), now_seconds(), *same)
        .where(metrics.c.place_id == row.place_id, metrics.c.attempt == row.counts)
        .order_by(metrics.c.id)
    )
    columns = ["place_id", "attempt", "time", *(column.name for column in same)]
    held = (
        select(metrics.c.id)
        .where(metrics.c.place_id == claim.place_id, metrics.c.attempt == claim.attempt)
        .limit(1)
    )
    if connection.execute(held).first() is None:
        connection.execute(insert(metrics).from_select(columns, copied, include_defaults=False))
    return row.trial_number


def _wait_for_running(connection: Connection, claim: Claim, configuration: str) -> int | None:
    """Free a place while another trial of its configuration runs; returns the number of that one."""
    twin = connection.execute(
        select(places.c.trial_number)
        .where(runs_with(places, claim.study, configuration), places.c.id != claim.place_id)
        .order_by(places.c.trial_number)
        .limit(1)
    ).scalar()
    if twin is not None:
        release(connection, claim, "handed_back", f"trial {twin}{TRAINED_ALIKE}")
    return twin


def _hold(connection: Connection, claim: Claim) -> None:
    """Keep others from the place of a claim until the transaction ends. Raises LeaseLost."""
    if connection.execute(select(places.c.id).where(guard(claim)).with_for_update()).first() is None:
        raise lost(claim)


def adopt_metrics(connection: Connection, claim: Claim, attempt: int, evaluations: int) -> None:
    """Take over the first evaluations of an earlier attempt, which this one goes on from. Raises LeaseLost.

    Times and what MLflow shows of them stay, so that nothing is drawn twice.
    """
    _hold(connection, claim)
    there = select(metrics.c.id).where(
        metrics.c.place_id == claim.place_id, metrics.c.attempt == claim.attempt
    )
    if evaluations == 0 or connection.execute(there.limit(1)).first() is not None:
        return
    same = [column for column in metrics.c if column.name not in ("id", "attempt")]
    copied = (
        select(literal(claim.attempt), *same)
        .where(
            metrics.c.place_id == claim.place_id,
            metrics.c.attempt == attempt,
            metrics.c.evaluation <= evaluations,
        )
        .order_by(metrics.c.id)
    )
    columns = ["attempt", *(column.name for column in same)]
    connection.execute(insert(metrics).from_select(columns, copied, include_defaults=False))


def forget_metrics(connection: Connection, claim: Claim) -> None:
    """Delete the evaluations of a claim's attempt. Raises LeaseLost."""
    _hold(connection, claim)
    own = and_(metrics.c.place_id == claim.place_id, metrics.c.attempt == claim.attempt)
    connection.execute(delete(metrics).where(own))


def count(connection: Connection, study: str, state: str) -> int:
    """How many trials of the search are in a state; those that are tried once more are not counted."""
    retry = places.alias("retry")
    # Once for all of them: no index leads from a place to its retry.
    retried = select(retry.c.retry_of).where(retry.c.study == study, retry.c.retry_of.is_not(None))
    return connection.execute(
        select(func.count())
        .select_from(places)
        .where(
            places.c.study == study,
            places.c.kind == "search",
            places.c.state == state,
            places.c.id.not_in(retried),
        )
    ).scalar_one()


def unshown_metrics(connection: Connection, place_id: int) -> list[MetricRow]:
    """Rows of a place that MLflow does not show yet, oldest first.

    What an evaluation gave is shown as it was first recorded: an attempt that went on from before it makes it
    again, and a picture cannot be taken back.
    """
    columns = [column for column in metrics.c if column.name != "shown"]
    first = metrics.alias("first")
    recorded_before = select(first.c.id).where(
        first.c.place_id == metrics.c.place_id,
        first.c.evaluation == metrics.c.evaluation,
        first.c.key == metrics.c.key,
        first.c.id < metrics.c.id,
    )
    rows = connection.execute(
        select(*columns)
        .where(metrics.c.place_id == place_id, UNSHOWN, ~recorded_before.exists())
        .order_by(metrics.c.id)
    )
    return [MetricRow(**row._mapping) for row in rows]


def metric_rows(connection: Connection, place_id: int) -> list[MetricRow]:
    """Every row of a place, of all its attempts, oldest first."""
    columns = [column for column in metrics.c if column.name != "shown"]
    rows = connection.execute(select(*columns).where(metrics.c.place_id == place_id).order_by(metrics.c.id))
    return [MetricRow(**row._mapping) for row in rows]


def mark_metrics_shown(connection: Connection, ids: Sequence[int]) -> None:
    """MLflow shows these rows."""
    for start in range(0, len(ids), _AT_ONCE):
        chunk: Iterable[int] = ids[start : start + _AT_ONCE]
        connection.execute(update(metrics).where(metrics.c.id.in_(chunk)).values(shown=true()))


def unshown_places(connection: Connection, study: str) -> list[int]:
    """Places with a trial or a label that changed since MLflow last showed them."""
    rows = connection.execute(
        select(places.c.id)
        .where(places.c.study == study, places.c.version > places.c.shown)
        .order_by(places.c.position)
    )
    return [row.id for row in rows]


def mark_place_shown(connection: Connection, place_id: int, version: int) -> None:
    """MLflow shows a place as it was at a version (``TrialView.version``)."""
    connection.execute(
        update(places).where(places.c.id == place_id, places.c.shown < version).values(shown=version)
    )


def hide_all(connection: Connection, study: str) -> None:
    """Forget what MLflow shows, so that all of it is drawn anew."""
    own = select(places.c.id).where(places.c.study == study)
    # In the order of a heartbeat, and places before metrics, so that no two wait for each other.
    connection.execute(own.order_by(places.c.id).with_for_update())
    connection.execute(update(metrics).where(metrics.c.place_id.in_(own)).values(shown=False))
    connection.execute(update(places).where(places.c.study == study).values(shown=0, run_id=None))
