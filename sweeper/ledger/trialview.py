"""The ledger as people and scripts see it: trials, status, time used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, case, func, select

from sweeper.front import Point, front_of, fronts, objectives_of, upward, values_of
from sweeper.ledger import confirmation
from sweeper.ledger.database import now_seconds
from sweeper.ledger.records import PAUSED, StudyGone, TrialView
from sweeper.ledger.schema import IN_STUDY, attempts, metrics, places, results, studies
from sweeper.ledger.studyrows import beyond_budget

STATES = ("waiting", "running", "complete", "pruned", "failed", "cancelled")
_HOW_IT_RUNS = ("objective", "learning_rate", "examples_per_second", "peak_memory_bytes")

# A lease that ran out is a trial that waits, whether or not somebody noticed.
_STATE = case(
    (and_(places.c.state == "running", places.c.lease_expires < now_seconds()), "waiting"),
    else_=places.c.state,
)


def trials(
    connection: Connection, study: str, place_id: int | None = None, kinds: Sequence[str] = IN_STUDY
) -> list[TrialView]:
    """References first, then the trials by number, then the places that wait for one; or one place."""
    begun = (
        select(func.count())
        .where(
            attempts.c.place_id == places.c.id,
            attempts.c.trial_number.is_not_distinct_from(places.c.trial_number),
        )
        .correlate(places)
        .scalar_subquery()
    )
    old = places.alias("old")
    retry_of = select(old.c.trial_number).where(old.c.id == places.c.retry_of).scalar_subquery()
    query = (
        select(
            places,
            retry_of.label("retried_number"),
            _STATE.label("seen_state"),
            begun.label("begun"),
            studies.c.backbone_parameters,
            results.c.objective,
            results.c.metrics,
            results.c.seconds,
            results.c.device_seconds,
            results.c.files,
            results.c.reason,
            results.c.recorded_at,
            attempts.c.started_at,
            attempts.c.device,
            attempts.c.host,
        )
        .join(studies, studies.c.name == places.c.study)
        .outerjoin(results, results.c.place_id == places.c.id)
        .outerjoin(attempts, and_(attempts.c.place_id == places.c.id, attempts.c.attempt == places.c.attempt))
        .where(places.c.study == study)
    )
    query = query.where(places.c.id == place_id if place_id is not None else places.c.kind.in_(kinds))
    latest = _latest_metrics(connection, study, place_id)
    spec = connection.execute(select(studies.c.spec).where(studies.c.name == study)).scalar()
    names = [each["metric"] for each in objectives_of(spec)] if spec else []
    views = [_view(row, latest.get(row.id, {}), names) for row in connection.execute(query)]
    return sorted(views, key=_order)


def _order(view: TrialView) -> tuple[int, int]:
    if view.kind != "search":
        return 0, view.position
    return (2, view.position) if view.number is None else (1, view.number)


def _latest_metrics(connection: Connection, study: str, place_id: int | None) -> dict[int, dict[str, float]]:
    """The last evaluation of every place that runs, or of one."""
    each = metrics.alias("each")
    latest = (
        select(func.max(each.c.evaluation))
        .where(each.c.place_id == places.c.id, each.c.attempt == places.c.attempt)
        .correlate(places)
        .scalar_subquery()
    )
    query = (
        select(metrics.c.place_id, metrics.c.key, metrics.c.value)
        .select_from(metrics)
        .join(places, and_(places.c.id == metrics.c.place_id, places.c.attempt == metrics.c.attempt))
        .where(places.c.study == study, places.c.state == "running", metrics.c.evaluation == latest)
    )
    rows = connection.execute(query if place_id is None else query.where(places.c.id == place_id))
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row.place_id, {})[row.key] = row.value
    return found


def _view(row: Any, latest: dict[str, float], names: list[str]) -> TrialView:
    ended = row.recorded_at is not None
    running = row.seen_state == "running"
    bare = {key: value for key, value in latest.items() if "/" not in key and key not in _HOW_IT_RUNS}
    adapter, head = row.adapter_parameters, row.head_parameters
    trainable = None if adapter is None else adapter + head
    found = values_of(names, row.metrics, trainable) if ended and len(names) > 1 else None
    return TrialView(
        study=row.study,
        place_id=row.id,
        position=row.position,
        kind=row.kind,
        label=row.label,
        number=row.trial_number,
        state=row.seen_state,
        params=row.params or row.fixed_params or {},
        objective=row.objective if ended else latest.get("objective") if running else None,
        metrics=row.metrics if ended else bare if running else {},
        adapter_parameters=adapter,
        head_parameters=head,
        trainable_parameters=trainable,
        trainable_percent=None if trainable is None else 100.0 * trainable / row.backbone_parameters,
        attempts=row.begun if row.attempt else 0,
        seconds=row.seconds,
        device_seconds=row.device_seconds,
        reason=row.reason,
        mlflow_run_id=row.run_id,
        attempt=row.attempt,
        files=row.files or {},
        started_at=row.started_at,
        ended_at=row.recorded_at,
        device=row.device,
        host=row.host,
        version=row.version,
        retry_of=row.retried_number,
        objectives=None if found is None else dict(zip(names, found, strict=True)),
        configuration=row.configuration,
    )


def best(
    views: Sequence[TrialView], objectives: Sequence[Mapping[str, str]], count: int | None = 1
) -> list[TrialView]:
    """The best complete trials of the search, best first; of equals the smaller one, then the earlier.

    Of the trials of one configuration the best stands for all. With several objectives those of the front
    come first, in the order of the first objective, and then those that only they dominate, and so on.
    """
    done = _by_first(views, objectives)
    if len(objectives) > 1:
        sorted_fronts = fronts(_points(done, objectives))
        done = [done[position] for front in sorted_fronts for position in front]
    by_configuration: dict[str | None, TrialView] = {}
    for view in done:
        by_configuration.setdefault(view.configuration, view)
    return list(by_configuration.values())[:count]


def front(views: Sequence[TrialView], objectives: Sequence[Mapping[str, str]]) -> list[TrialView]:
    """The complete trials that none dominates, in the order of the first objective; of equals one."""
    done = _by_first(views, objectives)
    return [done[position] for position in front_of(_points(done, objectives))]


def _by_first(views: Sequence[TrialView], objectives: Sequence[Mapping[str, str]]) -> list[TrialView]:
    sign = -1.0 if objectives[0]["direction"] == "maximize" else 1.0
    done = [v for v in views if v.kind == "search" and v.state == "complete" and v.objective is not None]
    done = [view for view in done if len(objectives) == 1 or view.objectives is not None]
    return sorted(
        done, key=lambda view: (sign * (view.objective or 0.0), view.trainable_parameters or 0, view.number)
    )


def _points(views: Sequence[TrialView], objectives: Sequence[Mapping[str, str]]) -> list[Point]:
    directions = [each["direction"] for each in objectives]
    return [
        upward((view.objectives or {objectives[0]["metric"]: view.objective or 0.0}).values(), directions)
        for view in views
    ]


def status(connection: Connection, study: str) -> dict[str, Any]:
    """What ``status --json`` prints. References are in none of its counts. Raises StudyGone.

    ``confirming`` stands there once `confirm` was run: how many of its trainings ended, of how many.
    """
    row = connection.execute(select(studies).where(studies.c.name == study)).first()
    if row is None:
        raise StudyGone(study)
    counts, at_work = _counts(connection, study)
    budget = dict(row.spec["budget"])
    budget["trials"] += beyond_budget(connection, study)
    objectives = objectives_of(row.spec)
    several = len(objectives) > 1
    # Of one objective the database finds the best: to read ten thousand trials takes a second or two.
    views = trials(connection, study) if several else _first(connection, study, objectives[0])
    found = best(views, objectives)
    state = "running" if at_work else "waiting" if row.ended_at is None else "ended"
    confirming = confirmation.progress(connection, study)
    return {
        "study": study,
        "state": PAUSED if row.control == PAUSED else state,
        "trials": counts,
        "budget": {key: budget[key] for key in ("trials", "hours", "failures")} | _more_budget(budget),
        "best": found[0].to_json() if found else None,
        **_front_json(views, objectives),
        "ended_because": row.ended_because,
        **({"confirming": confirming} if confirming else {}),
    }


def _counts(connection: Connection, study: str) -> tuple[dict[str, int], bool]:
    """Trials of the search by their state, and whether anything runs."""
    seen = select(places.c.kind, _STATE.label("state")).where(
        places.c.study == study, places.c.kind.in_(IN_STUDY)
    )
    each = seen.subquery()
    rows = connection.execute(
        select(each.c.kind, each.c.state, func.count().label("number")).group_by(each.c.kind, each.c.state)
    ).all()
    counts = dict.fromkeys(STATES, 0) | {row.state: row.number for row in rows if row.kind == "search"}
    return counts, any(row.state == "running" for row in rows)


def _first(connection: Connection, study: str, objective: Mapping[str, str]) -> list[TrialView]:
    """The trial that ``best`` puts first, if any is complete."""
    value = results.c.objective
    first = (
        select(places.c.id)
        .join(results, results.c.place_id == places.c.id)
        .where(places.c.study == study, places.c.kind == "search", places.c.state == "complete")
        .where(value.is_not(None))
        .order_by(
            value.desc() if objective["direction"] == "maximize" else value,
            func.coalesce(places.c.adapter_parameters + places.c.head_parameters, 0),
            places.c.trial_number,
        )
        .limit(1)
    )
    place_id = connection.execute(first).scalar()
    return [] if place_id is None else trials(connection, study, place_id)


def _more_budget(budget: Mapping[str, Any]) -> dict[str, Any]:
    """The other ways of a study to its end, where it has them."""
    terminator = budget.get("terminator")
    named = {**budget, "terminator": terminator and terminator["name"]}
    return {key: named[key] for key in ("target", "patience", "terminator") if named.get(key) is not None}


def _front_json(
    views: Sequence[TrialView], objectives: Sequence[Mapping[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    """The front of a study with several objectives."""
    if len(objectives) == 1:
        return {}
    return {"front": [view.to_json() for view in front(views, objectives)]}


def steps(connection: Connection, study: str) -> dict[str, tuple[int, int]]:
    """Steps done and steps in all of every running trial, by its name."""
    rows = connection.execute(
        select(places.c.label, places.c.trial_number, attempts.c.steps_done, attempts.c.steps_total)
        .join(attempts, attempts.c.token == places.c.token)
        .where(places.c.study == study, places.c.state == "running", attempts.c.steps_total.is_not(None))
    )
    return {
        row.label or f"trial-{row.trial_number:04d}": (row.steps_done, row.steps_total)
        for row in rows
        if row.label is not None or row.trial_number is not None
    }


def hours_used(connection: Connection, study: str) -> float:
    """How long anybody has worked on a study: pauses do not count, and several workers count once.

    An attempt that goes on counts until it was last seen: its worker may be dead.
    """
    rows = connection.execute(
        select(
            attempts.c.started_at,
            func.coalesce(attempts.c.ended_at, attempts.c.seen_at).label("until"),
        )
        .join(places, places.c.id == attempts.c.place_id)
        .where(places.c.study == study, places.c.kind.in_(IN_STUDY))
        .order_by(attempts.c.started_at)
    )
    seconds, reached = 0.0, float("-inf")
    for row in rows:
        seconds += max(0.0, row.until - max(row.started_at, reached))
        reached = max(reached, row.until)
    return seconds / 3600.0
