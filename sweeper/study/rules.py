"""The small sections of a study file: task, train, objective, limits, budget, sampler, pruner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sweeper.metrics import METRICS
from sweeper.study.node import SECTIONS, Node
from sweeper.study.schema import (
    KINDS,
    POOLINGS,
    Budget,
    Choice,
    Fixed,
    Limits,
    Objective,
    Plugin,
    Range,
    Spec,
    Task,
    TrainSettings,
)
from sweeper.study.search import ADAPTER_FIELDS, FIXED_TRAIN_FIELDS
from sweeper.trainconfig import TrainConfigError
from sweeper.words import nearest, short

SAMPLERS: dict[str, dict[str, int]] = {"tpe": {"n_startup_trials": 10}, "random": {}}
PRUNERS: dict[str, dict[str, int]] = {
    "successive_halving": {"minimum": 1, "reduction_factor": 3},
    "median": {"minimum": 1, "n_startup_trials": 5},
    "none": {},
}
"""The names, and their options with the defaults. Pruners count in evaluations."""
_SMALLEST = {"n_startup_trials": 1, "minimum": 1, "reduction_factor": 2}
_LATER_KINDS = {
    name: f"{name} is not supported by this version" for name in ("token_classification", "causal_lm")
}


def read_task(node: Node) -> Task:
    """The section ``task``."""
    node.mapping(SECTIONS["task"])
    kind = node.required("kind", "classification or regression").one_of(KINDS, later=_LATER_KINDS)
    text_node = node.required("text", "the column of the texts, or two columns for sentence pairs")
    if isinstance(text_node.value, list):
        if len(text_node.value) not in (1, 2):
            text_node.fail(f"must be one column or two, not {len(text_node.value)}")
        text = tuple(text_node.child(index).text() for index in range(len(text_node.value)))
    else:
        text = (text_node.text(),)
    if len(set(text)) < len(text):
        text_node.fail(f"names the column {short(text[0])} twice; a pair needs two columns")
    label = node.required("label", "the column of the labels")
    if label.text() in text:
        label.fail(
            f"{short(label.value)} is also a column of task.text; the label would be read from the text"
        )
    pooling = node.optional("pooling")
    return Task(kind, text, label.text(), pooling.one_of(POOLINGS) if pooling else "cls")


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


def read_objective(node: Node, kind: str) -> Objective:
    """The section ``objective``: one metric of the task's kind, and its direction."""
    if isinstance(node.value, list):
        node.fail("several objectives are not supported by this version; write one {metric: …, direction: …}")
    node.mapping(SECTIONS["objective"])
    metric_node = node.required("metric", f"one of {', '.join(METRICS[kind])}")
    metric = metric_node.text()
    if metric not in METRICS[kind]:
        others = [other for other in METRICS if metric in METRICS[other]]
        if others:
            metric_node.fail(f"{metric} is for {others[0]}; a {kind} has {', '.join(METRICS[kind])}")
        metric_node.fail(f"{short(metric)} is not known{nearest(metric, METRICS[kind])}")
    better = METRICS[kind][metric]
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
    parameters = node.optional("trainable_parameters")
    return Limits(parameters.integer(minimum=1) if parameters else None)


def read_budget(node: Node) -> Budget:
    """The section ``budget``."""
    node.mapping(SECTIONS["budget"])
    trials = node.required("trials", "how many trials to run, such as 30").integer(minimum=1)
    hours_node, failures, repeats = (node.optional(key) for key in ("hours", "failures", "repeats"))
    hours = hours_node.number() if hours_node else None
    if hours_node is not None and hours is not None and hours <= 0:
        hours_node.fail(f"must be above 0, not {short(hours_node.value)}")
    return Budget(
        trials,
        hours,
        failures.integer(minimum=1) if failures else None,
        repeats.boolean() if repeats else False,
    )


def read_plugin(node: Node | None, known: Mapping[str, Mapping[str, int]], default: str) -> Plugin:
    """A name, or ``{name: NAME, option: value}``; the options that are not given get their defaults."""
    if node is None:
        return Plugin(default, dict(known[default]))
    if isinstance(node.value, str):
        name = node.one_of(known)
        return Plugin(name, dict(known[name]))
    if not isinstance(node.value, dict):
        node.fail(f"must be a name, or a mapping with the key 'name', not {node.described()}")
    name = node.required("name", f"one of {', '.join(known)}").one_of(known)
    node.mapping(("name", *known[name]))
    options = dict(known[name])
    for key in options:
        if (option := node.optional(key)) is not None:
            options[key] = option.integer(minimum=_SMALLEST[key])
    return Plugin(name, options)


def read_sampler(node: Node | None) -> Plugin:
    """The section ``sampler``: tpe unless it says otherwise."""
    return read_plugin(node, SAMPLERS, "tpe")


def read_pruner(node: Node | None, train: TrainSettings, search: Mapping[str, Spec]) -> Plugin:
    """The section ``pruner``: none unless it says otherwise. A pruner that could never act is refused."""
    pruner = read_plugin(node, PRUNERS, "none")
    if node is None or pruner.name == "none":
        return pruner
    evaluations = largest("epochs", search, train) * train.evaluations_per_epoch
    if pruner.options["minimum"] >= evaluations:
        at = node.child("minimum") if isinstance(node.value, dict) and node.has("minimum") else node
        at.fail(
            f"a trial has {evaluations} evaluation{'s' * (evaluations > 1)}, none early enough to prune at; "
            "raise train.evaluations_per_epoch, lower the pruner's minimum, or write 'pruner: none'"
        )
    return pruner


def largest(name: str, search: Mapping[str, Spec], train: TrainSettings) -> int:
    """The largest value that a whole number of the training may take in a study."""
    spec = search.get(name, Fixed(getattr(train, name)))
    if isinstance(spec, Range):
        return int(spec.high)
    values = spec.values if isinstance(spec, Choice) else (spec.value,)
    return max(value for value in values if isinstance(value, int))
