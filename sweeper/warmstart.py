"""Finished trials of earlier studies, for the sampler of a new one to learn from; none of them is its own.

They are taken when the study begins and kept with its Optuna study, so that every worker draws from the same,
whatever becomes of the earlier studies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from adapters.fields import DEFAULTS
from sweeper import space
from sweeper.errors import SweeperError, UsageError
from sweeper.front import values_of
from sweeper.limits import Limits
from sweeper.study import Fixed, Range, Spec, Study, from_dict
from sweeper.study.layerbits import bits_of, is_bit
from sweeper.study.schema import Value
from sweeper.study.search import encode

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeper.ledger import Ledger, StudyRow, TrialView


@dataclass
class Taken:
    """What is taken over, as plain JSON values.

    Args:
        trials: ``{"params": …, "values": …, "excess": …}`` each; the last by how much past each limit.
        notes: a sentence for each earlier study: what was taken, what was left, and why.
    """

    trials: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"trials": self.trials, "notes": self.notes}


def find_earlier(ledger: Ledger | None, study: Study) -> list[StudyRow]:
    """The studies that ``warm_start`` names; of no ledger, none is there.

    Raises:
        UsageError: the store has no such study; with the line that names it.
    """
    found = []
    for index, name in enumerate(study.warm_start):
        row = ledger.find_study(name) if ledger is not None and name != study.name else None
        if row is None:
            known = [other for other in ledger.studies() if other != study.name] if ledger is not None else []
            there = f"it has {', '.join(known)}" if known else "it has no other study"
            raise UsageError(
                f"warm_start[{index}]: the store has no earlier study {name!r}; {there}",
                study.path,
                study.line("warm_start", index),
            )
        found.append(row)
    return found


def take(ledger: Ledger, limits: Limits) -> Taken:
    """The complete trials of the studies that ``warm_start`` names, where the spaces agree.

    What is known of a trial before it is trained is that of this study, over its own backbone and head.

    Args:
        limits: of the study that takes them.

    Raises:
        UsageError: as :func:`find_earlier`.
    """
    taken, study = Taken(), limits.study
    for name, row in zip(study.warm_start, find_earlier(ledger, study), strict=True):
        old = from_dict(row.spec, row.path)
        layers = cache(partial(_layer_count, old))
        left: Counter[str] = Counter()
        before = len(taken.trials)
        for view in ledger.trials(name):
            if view.kind != "search" or view.state != "complete":
                continue
            params = _translated(study, old, view, layers)
            found = params if isinstance(params, str) else _measured(limits, params, view)
            if isinstance(found, str):
                left[found] += 1
            else:
                taken.trials.append(found)
        why = "".join(f"; left {count}: {reason}" for reason, count in left.most_common())
        taken.notes.append(f"warm start from {name}: {len(taken.trials) - before} trials taken{why}")
    return taken


def _layer_count(study: Study) -> int:
    from adapters.architectures import layer_count
    from sweeper.backbone import load_config

    return layer_count(load_config(study.backbone))


def _measured(limits: Limits, params: space.Params, view: TrialView) -> dict[str, Any] | str:
    """A point of the study's space with its objectives, and by how much it is past each limit; or why not."""
    given, wanted = limits.study.limits.given, [each.metric for each in limits.study.objectives]
    adapter = space.configuration(limits.study, params).adapter
    known = limits.known_before(adapter, {*given, *wanted})
    values = values_of(wanted, {**view.metrics, **{name: float(known[name]) for name in known}}, None)
    if values is None:
        return "they lack an objective of this study"
    excess = {name: known[name] - limit for name, limit in given.items()}
    return {"params": params, "values": list(values), "excess": excess}


def _translated(study: Study, old: Study, view: TrialView, count: Callable[[], int]) -> space.Params | str:
    """A trial of an earlier study as a point of this one's space; or why it is none."""
    try:
        configured = space.configuration(old, view.params).to_dict()
    except SweeperError:
        return "their parameters cannot be read"
    method = str(configured["method"])
    if method not in space.method_names(study.search["method"]):
        return f"the method {method} is not in this space"
    if any(old.frozen[name] != study.frozen.get(name) for name in configured.get("adapters", ())):
        return "the adapters that they are made of are others"
    keys = space.keys_of(study.search, method)
    fallback = {**DEFAULTS[method], **study.train.to_dict()}
    params: dict[str, Any] = {}
    for name, value in configured.items():
        key = next((key for key in keys if space.field_of(key) == name), None)
        if name == "layers":
            layers = _as_drawn(study, method, value, count)
            if isinstance(layers, dict):
                params |= layers
                continue
            value = layers
        if name == "adapters":
            value = encode(tuple(value))
        spec = None if key is None else study.search[key]
        value = _named(study, spec, value) if name == "placement" else value
        if key is None or spec is None or isinstance(spec, Fixed):
            mine = encode(spec.value) if isinstance(spec, Fixed) else fallback.get(name, value)
            if mine != value:
                return f"{name} is {mine} here"
        elif is_bit(key) or not space.contains(key, spec, value):
            return f"{name} is outside of this space"
        else:
            params[key] = value
    return params


def _listed(spec: Spec) -> tuple[Value, ...]:
    """The values that a name or a set of layers may have: no range has such."""
    assert not isinstance(spec, Range)
    return (spec.value,) if isinstance(spec, Fixed) else spec.values


def _named(study: Study, spec: Spec | None, value: Any) -> Any:
    """A placement by the name that this study has for it, if it has one."""
    names = () if spec is None else _listed(spec)
    return next((name for name in names if space.placement_of(study, name) == value), value)


def _as_drawn(study: Study, method: str, layers: Any, count: Callable[[], int]) -> Any:
    """A set of layers as this study draws it: a bit each, or the form in which its space has it.

    Where it has neither, as the store keeps it. ``count`` is asked only if a named set and a list have to be
    compared.
    """
    from adapters.architectures import layer_indices

    kept = encode(tuple(layers)) if isinstance(layers, list) else layers
    bits = bits_of(study.search, method)
    spec = study.search.get(space.key_of(study.search, method, "layers") or "")
    default = Fixed(DEFAULTS[method]["layers"])
    others = () if bits else _listed(default if spec is None else spec)
    if kept in [encode(other) for other in others]:
        return kept

    def indices(chosen: Any) -> tuple[int, ...]:
        return layer_indices(chosen, count()) if isinstance(chosen, str) else tuple(chosen)

    mine = indices(layers)
    if bits and set(mine) <= set(bits):
        return {key: layer in mine for layer, key in bits.items()}
    return next((encode(other) for other in others if indices(other) == mine), kept)


def frozen(study: Study, trials: Sequence[Mapping[str, Any]]) -> list[FrozenTrial]:
    """What was taken over, as Optuna's trials, with a number before all of the study's own.

    It is the same for all: of those below -1, Optuna's intersection of search spaces would see none.
    """
    from optuna.trial import create_trial

    spaces = space.distributions(study)
    found = []
    for trial in trials:
        params = dict(trial["params"])
        own = {name: spaces[name] for name in spaces if name in params}  # of several methods, those of one
        missing = space.layers_missing(study, params)
        # As the study's own trials have it: a Gaussian process asks for the same constraints of all, in one
        # order.
        past = {name: float(by) for name, by in trial.get("excess", {}).items()}
        past |= {} if missing is None else {space.NO_LAYER: float(missing)}
        constraints = dict(sorted(past.items())) or None
        made = create_trial(
            params=params, distributions=own, values=list(trial["values"]), constraints=constraints
        )
        made.number = -1
        found.append(made)
    return found
