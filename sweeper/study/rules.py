"""The small sections of a study file: task, train, objective, limits, budget, warm_start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sweeper.metrics import KNOWN_BEFORE, METRICS, RANGES
from sweeper.study.node import SECTIONS, Node
from sweeper.study.plugins import TERMINATORS, least_complete, read_plugin
from sweeper.study.schema import (
    POOLINGS,
    Budget,
    Fixed,
    Limits,
    Objective,
    Spec,
    Task,
    TrainSettings,
)
from sweeper.study.search import ADAPTER_FIELDS, FIXED_TRAIN_FIELDS
from sweeper.tasks import KINDS, TaskKind
from sweeper.trainconfig import TrainConfigError
from sweeper.words import nearest, short

MOST_TRIALS = 1_000_000
"""A place is written down for each when a study begins."""


def read_task(node: Node) -> Task:
    """The section ``task``."""
    node.mapping(SECTIONS["task"])
    kind = KINDS[node.required("kind", f"one of {', '.join(KINDS)}").one_of(tuple(KINDS))]
    text_node = node.required("text", "the column of the texts, or two columns for sentence pairs")
    text = _columns(text_node, 2 if kind.pairs else 1, "a pair needs two columns")
    return Task(kind.name, text, _label(node, kind, text), _pooling(node, kind), _separator(node, kind))


def _columns(node: Node, most: int, needs: str) -> tuple[str, ...]:
    """One column, or a list of them."""
    if not isinstance(node.value, list):
        return (node.text(),)
    if not 1 <= len(node.value) <= most:
        allowed = {1: "one column", 2: "one column or two"}.get(most, f"1 to {most} columns")
        node.fail(f"must be {allowed}, not {len(node.value)}")
    columns = tuple(node.child(index).text() for index in range(len(node.value)))
    for place, column in enumerate(columns):
        if column in columns[:place]:
            node.fail(f"names the column {short(column)} twice; {needs}")
    return columns


def _label(node: Node, kind: TaskKind, text: tuple[str, ...]) -> tuple[str, ...]:
    if not kind.label_columns:
        given = node.optional("label")
        if given is not None:
            given.fail(f"{kind.name} learns from the texts alone; take this key away")
        return ()
    label = node.required("label", "the column of the labels")
    if kind.label_columns > 1:
        columns = _columns(label, kind.label_columns, "each is a label of its own")
        if isinstance(label.value, list) and len(columns) == 1:
            label.fail(
                "one column holds lists of labels: write it without brackets; a single column of 0 and 1 is "
                "kind: classification"
            )
    else:
        columns = (label.text(),)
    for column in columns:
        if column in text:
            label.fail(
                f"{short(column)} is also a column of task.text; the label would be read from the text"
            )
    return columns


def _pooling(node: Node, kind: TaskKind) -> str:
    pooling = node.optional("pooling")
    if kind.reading is None:
        return pooling.one_of(POOLINGS) if pooling else "cls"
    if pooling is not None:
        pooling.fail(f"{kind.name} reads {kind.reads}: there is nothing to pool; take this key away")
    return kind.reading


def _separator(node: Node, kind: TaskKind) -> str | None:
    separator = node.optional("separator")
    if kind.separator is None:
        if separator is not None:
            separator.fail(f"is of no use to {kind.name}; take this key away")
        return None
    if separator is None:
        return kind.separator
    if not isinstance(separator.value, str) or not separator.value:
        separator.fail(f"must be a text such as '{kind.separator}', not {separator.described()}")
    return str(separator.value)


def read_train(node: Node | None, search: Mapping[str, Spec]) -> TrainSettings:
    """The section ``train``. A fixed value of the same name in ``search`` is taken over."""
    known = [field.name for field in fields(TrainSettings)]
    values: dict[str, Any] = {
        name: spec.value for name, spec in search.items() if name in known and isinstance(spec, Fixed)
    }
    if node is None:
        return TrainSettings(**values)
    node.mapping(known, dict.fromkeys(ADAPTER_FIELDS, "search"))
    for name, value in node.value.items():
        at = node.child(name)
        if name in search:
            at.fail("is in 'search' as well; keep it in one of them")
        if isinstance(value, (list, dict)) and name in FIXED_TRAIN_FIELDS:
            at.fail(f"must be one value, not {at.described()}; it is the same for all trials of a study")
        if isinstance(value, (list, dict)):
            at.fail(f"must be one value, not {at.described()}; a choice or a range belongs under 'search'")
        try:
            TrainSettings(**{name: value})
        except TrainConfigError as error:
            at.fail(str(error))
    return TrainSettings(**values, **node.value)


def read_objectives(node: Node, kind: str) -> tuple[Objective, ...]:
    """The section ``objective``: a metric with its direction, or a list of such for several objectives."""
    if not isinstance(node.value, list):
        return (_objective(node, kind, alone=True),)
    if not node.value:
        node.fail("is an empty list; write one {metric: …, direction: …}, or several")
    found = tuple(
        _objective(node.child(index), kind, alone=len(node.value) == 1) for index in range(len(node.value))
    )
    for index, objective in enumerate(found):
        if objective.metric in [other.metric for other in found[:index]]:
            node.child(index).fail(f"names {objective.metric} a second time")
    if found[0].metric in KNOWN_BEFORE:
        node.child(0).fail(
            f"{found[0].metric} is known before training; put what training measures first: "
            f"one of {', '.join(METRICS[kind])}"
        )
    return found


def _objective(node: Node, kind: str, alone: bool) -> Objective:
    known = METRICS[kind] if alone else {**METRICS[kind], **KNOWN_BEFORE}
    node.mapping(SECTIONS["objective"])
    metric_node = node.required("metric", f"one of {', '.join(known)}")
    metric = metric_node.text()
    if metric not in known:
        others = [other for other in METRICS if metric in METRICS[other]]
        if others:
            metric_node.fail(f"{metric} is for {others[0]}; a {kind} has {', '.join(METRICS[kind])}")
        if metric in KNOWN_BEFORE:
            metric_node.fail(
                f"{metric} is known before training, and nothing to search for alone; write a list of "
                "objectives with a metric first, or a limit under 'limits'"
            )
        metric_node.fail(f"{short(metric)} is not known{nearest(metric, known)}")
    better = known[metric]
    direction = node.optional("direction")
    if direction is not None and direction.one_of(("maximize", "minimize")) != better:
        direction.fail(
            f"{metric} is better the {'higher' if better == 'maximize' else 'lower'}; write {better}"
        )
    return Objective(metric, better)


def read_limits(node: Node | None) -> Limits:
    """The section ``limits``, which may be absent."""
    if node is None:
        return Limits()
    node.mapping(SECTIONS["limits"])
    found = {key: node.optional(key) for key in SECTIONS["limits"]}
    return Limits(**{key: at.integer(minimum=1) for key, at in found.items() if at is not None})


def read_budget(node: Node, objectives: Sequence[Objective], check_use: bool) -> Budget:
    """The section ``budget``.

    Args:
        check_use: refuse a part of it that could never end a study. Not of one that is in a store: earlier
            versions took it.
    """
    node.mapping(SECTIONS["budget"])
    trials = node.required("trials", "how many trials to run, such as 30").integer(1, MOST_TRIALS)
    hours_node, failures, repeats, target, patience, terminator = (
        node.optional(key) for key in ("hours", "failures", "repeats", "target", "patience", "terminator")
    )
    hours = hours_node.number() if hours_node else None
    if hours_node is not None and hours is not None and hours <= 0:
        hours_node.fail(f"must be above 0, not {short(hours_node.value)}")
    for at in (target, terminator):
        if at is not None and len(objectives) > 1:
            at.fail("is for one objective; with several, patience ends a study whose front stands still")
    if target is not None and check_use:
        _check_in_range(target, objectives[0].metric)
    rule = read_plugin(terminator, TERMINATORS, "emmr") if terminator else None
    if terminator is not None and rule is not None and check_use:
        least = least_complete(rule)
        if least > trials:
            terminator.fail(
                f"looks at the study once {least} trials are complete (warm_up_trials + n_initial_trials), "
                f"and budget.trials is {trials}: lower one of the two, or leave it out"
            )
    return Budget(
        trials,
        hours,
        failures.integer(minimum=1) if failures else None,
        repeats.boolean() if repeats else False,
        target.number() if target else None,
        patience.integer(minimum=1) if patience else None,
        rule,
    )


def _check_in_range(node: Node, metric: str) -> None:
    low, high = RANGES.get(metric, (-math.inf, math.inf))
    value = node.number()
    if not low <= value <= high:
        between = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        node.fail(f"is {short(value)}, which no {metric} reaches: it is {between}")


def read_warm_start(node: Node | None) -> tuple[str, ...]:
    """The section ``warm_start``: names of earlier studies, none unless it says otherwise."""
    if node is None:
        return ()
    if not isinstance(node.value, list):
        node.fail(f"must be a list of names of studies, such as [sst2-small], not {node.described()}")
    names = tuple(node.child(index).text() for index in range(len(node.value)))
    for index, name in enumerate(names):
        if name in names[:index]:
            node.child(index).fail(f"names the study {short(name)} a second time")
    return names
