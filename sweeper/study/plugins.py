"""The sections ``sampler`` and ``pruner``, and ``budget.terminator``: a name with options.

Samplers, pruners and their options have Optuna's names; pruners count in evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.study.node import Node
from sweeper.study.schema import Choice, Fixed, Objective, Plugin, Range, Spec, TrainSettings
from sweeper.study.search import WHOLE_FIELDS
from sweeper.words import short


@dataclass(frozen=True)
class Option:
    """One option: its default (None: as Optuna decides), what it is, and where it begins and ends."""

    default: int | float | bool | None
    kind: type = int
    low: float = 1
    high: float | None = None

    def read(self, node: Node) -> int | float | bool:
        """The value that a study file gives. Raises UsageError."""
        if self.kind is bool:
            return node.boolean()
        value = node.integer(minimum=int(self.low)) if self.kind is int else node.number()
        if value < self.low or (self.high is not None and value > self.high):
            upper = f" to {self.high:g}" if self.high is not None else " or more"
            node.fail(f"must be {self.low:g}{upper}, not {short(node.value)}")
        return value


SAMPLERS: dict[str, dict[str, Option]] = {
    "tpe": {
        "n_startup_trials": Option(10),
        "n_ei_candidates": Option(24),
        "multivariate": Option(None, bool),
        "group": Option(None, bool),
        "constant_liar": Option(True, bool),
    },
    "random": {},
    "grid": {},
    "gp": {"n_startup_trials": Option(10), "deterministic_objective": Option(False, bool)},
    "nsgaii": {
        "population_size": Option(50, low=2),
        "mutation_prob": Option(None, float, 0.0, 1.0),
        "crossover_prob": Option(0.9, float, 0.0, 1.0),
        "swapping_prob": Option(0.5, float, 0.0, 1.0),
    },
}
PRUNERS: dict[str, dict[str, Option]] = {
    "successive_halving": {"minimum": Option(1), "reduction_factor": Option(2, low=2)},
    "hyperband": {"minimum": Option(1), "maximum": Option(None), "reduction_factor": Option(3, low=2)},
    "median": {"minimum": Option(1), "n_startup_trials": Option(5)},
    "none": {},
}
TERMINATORS: dict[str, dict[str, Option]] = {
    "emmr": {
        "warm_up_trials": Option(10, low=0),
        "n_initial_trials": Option(20),
        "threshold_ratio": Option(0.01, float, 1e-9, 1.0),
    },
}
"""The names, and their options."""


def read_plugin(node: Node | None, known: Mapping[str, Mapping[str, Option]], default: str) -> Plugin:
    """A name, or ``{name: NAME, option: value}``; the options that are not given get their defaults."""
    if node is None:
        return Plugin(default, _defaults(known[default]))
    if isinstance(node.value, str):
        name = node.one_of(known)
        return Plugin(name, _defaults(known[name]))
    if not isinstance(node.value, dict):
        node.fail(f"must be a name, or a mapping with the key 'name', not {node.described()}")
    name = node.required("name", f"one of {', '.join(known)}").one_of(known)
    node.mapping(("name", *known[name]))
    options = _defaults(known[name])
    for key, option in known[name].items():
        if (value := node.optional(key)) is not None:
            options[key] = option.read(value)
    return Plugin(name, options)


def _defaults(options: Mapping[str, Option]) -> dict[str, Any]:
    return {name: option.default for name, option in options.items()}


def read_sampler(node: Node | None, search: Mapping[str, Spec]) -> Plugin:
    """The section ``sampler``: tpe unless it says otherwise. A grid over what has no steps is refused."""
    sampler = read_plugin(node, SAMPLERS, "tpe")
    if node is None:
        return sampler
    if sampler.name == "tpe" and sampler.options["group"] and sampler.options["multivariate"] is False:
        node.child("multivariate").fail("must be true, or left out, where group is true")
    if sampler.name == "grid":
        if isinstance(search["method"], Choice):
            node.fail("a grid has one method; use tpe or random for several, or a study for each")
        for name, spec in search.items():
            if isinstance(spec, Range) and spec.step is None and (name not in WHOLE_FIELDS or spec.log):
                node.fail(
                    f"a grid has no points in search.{name}: write a list there, or a range with a step"
                )
    return sampler


def read_pruner(
    node: Node | None,
    train: TrainSettings,
    search: Mapping[str, Spec],
    objectives: Sequence[Objective],
) -> Plugin:
    """The section ``pruner``: successive halving unless it says otherwise, or none where it could never act.

    A pruner that was asked for and could never act is refused.
    """
    evaluations = largest("epochs", search, train) * train.evaluations_per_epoch
    pruner = read_plugin(node, PRUNERS, "successive_halving" if evaluations > 1 else "none")
    if node is None or pruner.name == "none":
        return pruner
    if pruner.name == "median" and len(objectives) > 1:
        node.fail("several objectives have no median; use successive_halving or hyperband")
    options = dict(pruner.options)
    if "maximum" in options:
        options["maximum"] = evaluations if options["maximum"] is None else options["maximum"]
    if int(options["minimum"] or 1) >= evaluations:
        at = node.child("minimum") if isinstance(node.value, dict) and node.has("minimum") else node
        at.fail(
            f"a trial has {evaluations} evaluation{'s' * (evaluations > 1)}, none early enough to prune at; "
            "raise train.evaluations_per_epoch, lower the pruner's minimum, or write 'pruner: none'"
        )
    if int(options.get("maximum") or evaluations) < int(options["minimum"] or 1):
        node.child("maximum").fail(f"must be at least the minimum, {options['minimum']}")
    return Plugin(pruner.name, options)


def largest(name: str, search: Mapping[str, Spec], train: TrainSettings) -> int:
    """The largest value that a whole number of the training may take in a study."""
    spec = search.get(name, Fixed(getattr(train, name)))
    if isinstance(spec, Range):
        return int(spec.high)
    values = spec.values if isinstance(spec, Choice) else (spec.value,)
    return max(value for value in values if isinstance(value, int))


def least_complete(terminator: Plugin) -> int:
    """How many trials are complete before a terminator looks at a study for the first time."""
    return int(terminator.options["warm_up_trials"]) + int(terminator.options["n_initial_trials"])
