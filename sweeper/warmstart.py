"""Finished trials of earlier studies, for the sampler of a new one to learn from; none of them is its own.

They are taken when the study begins and kept with its Optuna study, so that every worker draws from the same,
whatever becomes of the earlier studies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sweeper import space
from sweeper.errors import SweeperError, UsageError
from sweeper.front import values_of
from sweeper.study import Fixed, Study, from_dict
from sweeper.study.search import encode

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sweeper.ledger import Ledger, TrialView


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


def take(ledger: Ledger, study: Study) -> Taken:
    """The complete trials of the studies that ``warm_start`` names, where the spaces agree.

    Raises:
        UsageError: the store has no such study; with the line that names it.
    """
    taken = Taken()
    for index, name in enumerate(study.warm_start):
        row = ledger.find_study(name) if name != study.name else None
        if row is None:
            known = [other for other in ledger.studies() if other != study.name]
            there = f"it has {', '.join(known)}" if known else "it has no other study"
            raise UsageError(
                f"warm_start[{index}]: the store has no earlier study {name!r}; {there}",
                study.path,
                study.line("warm_start", index),
            )
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
    own = study.train.to_dict()
    params: dict[str, Any] = {}
    for name, value in configured.items():
        spec = study.search.get(name)
        value = encode(tuple(value)) if isinstance(value, list) else value
        if spec is None or isinstance(spec, Fixed):
            mine = encode(spec.value) if spec is not None else own.get(name, value)
            if mine != value:
                return f"{name} is {mine} here"
        elif not space.contains(name, spec, value):
            return f"{name} is outside of this space"
        else:
            params[name] = value
    if set(params) != set(space.distributions(study)):
        return "they lack parameters of this space"
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
        made = create_trial(params=dict(trial["params"]), distributions=spaces, values=list(trial["values"]))
        made.number = index - len(trials)
        found.append(made)
    return found
