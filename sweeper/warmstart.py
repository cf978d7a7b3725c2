"""Finished trials of earlier studies, for the sampler of a new one to learn from; none of them is its own.

They are taken when the study begins and kept with its Optuna study, so that every worker draws from the same,
whatever becomes of the earlier studies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters.fields import DEFAULTS
from sweeper import space
from sweeper.errors import SweeperError, UsageError
from sweeper.front import values_of
from sweeper.study import Fixed, Study, from_dict
from sweeper.study.search import encode

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeper.ledger import Ledger, StudyRow, TrialView


@dataclass
class Taken:
    """What is taken over, as plain JSON values.

    Args:
        trials: ``{"params": …, "values": …}`` each.
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


def take(ledger: Ledger, study: Study) -> Taken:
    """The complete trials of the studies that ``warm_start`` names, where the spaces agree.

    Raises:
        UsageError: as :func:`find_earlier`.
    """
    taken = Taken()
    for name, row in zip(study.warm_start, find_earlier(ledger, study), strict=True):
        old = from_dict(row.spec, row.path)
        left: Counter[str] = Counter()
        before = len(taken.trials)
        for view in ledger.trials(name):
            if view.kind != "search" or view.state != "complete":
                continue
            found = _translated(study, old, view)
            if isinstance(found, str):
                left[found] += 1
            else:
                taken.trials.append(found)
        why = "".join(f"; left {count}: {reason}" for reason, count in left.most_common())
        taken.notes.append(f"warm start from {name}: {len(taken.trials) - before} trials taken{why}")
    return taken


def _translated(study: Study, old: Study, view: TrialView) -> dict[str, Any] | str:
    """A trial of an earlier study as a point of this one's space, with its objectives; or why it is none."""
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
        value = encode(tuple(value)) if isinstance(value, list) else value
        spec = None if key is None else study.search[key]
        if key is None or spec is None or isinstance(spec, Fixed):
            mine = encode(spec.value) if isinstance(spec, Fixed) else fallback.get(name, value)
            if mine != value:
                return f"{name} is {mine} here"
        elif not space.contains(key, spec, value):
            return f"{name} is outside of this space"
        else:
            params[key] = value
    known: Mapping[str, float] = view.metrics
    values = values_of([each.metric for each in study.objectives], known, view.trainable_parameters)
    if values is None:
        return "they lack an objective of this study"
    return {"params": params, "values": list(values)}


def frozen(study: Study, trials: Sequence[Mapping[str, Any]]) -> list[FrozenTrial]:
    """What was taken over, as Optuna's trials; their numbers lie below 0, before all of the study's own."""
    from optuna.trial import create_trial

    spaces = space.distributions(study)
    found = []
    for index, trial in enumerate(trials):
        params = dict(trial["params"])
        own = {name: spaces[name] for name in spaces if name in params}  # of several methods, those of one
        made = create_trial(params=params, distributions=own, values=list(trial["values"]))
        made.number = index - len(trials)
        found.append(made)
    return found
