"""From a study to the space that Optuna draws from, and from what was drawn to a configuration.

Optuna's parameters are flat and its choices scalars, so an explicit set of layers is a JSON string there,
such as ``"[0, 2, 4]"``. Only what varies is a parameter; fixed values come in with :func:`configuration`.
What needs torch is imported where it is needed: commands that only read a study start without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.config import AdapterConfig, Part, fields_of
from adapters.fields import DEFAULTS
from sweeper.errors import SweeperError
from sweeper.study.layerbits import bits_of, is_bit, layers_on
from sweeper.study.schema import Choice, Fixed, Range, Spec, Study, Value
from sweeper.study.search import (
    PARTS_FIELD,
    WHOLE_FIELDS,
    encode,
    field_of,
    key_of,
    keys_of,
    method_names,
)
from sweeper.trainconfig import TrainConfig
from sweeper.words import short

if TYPE_CHECKING:
    import optuna


_REDUCTIONS = {"bottleneck": 16, "compacter": 16, "ladder": 8, "mam": 2, "stack": 16}
"""What part of the backbone's width the default bottleneck of a method is."""
DEFAULT_METHOD = "bottleneck"
"""The method of trial 0, if the space holds it; else the first that is listed."""

NO_LAYER = "layers"
"""The constraint of a study with a bit a layer, beside its limits: one of them at least is set."""

Params = dict[str, str | int | float]


@dataclass(frozen=True)
class Configuration:
    """All that one trial is, apart from its seed.

    Args:
        frozen: of a composition, the folders of the adapters that it is made of, as the study file has them.
    """

    adapter: AdapterConfig
    train: TrainConfig
    frozen: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Every field of adapter and training by its name, as plain JSON values; adapters by folders."""
        named = {PARTS_FIELD: list(self.frozen)} if self.frozen else {}
        return {**self.adapter.to_dict(), **named, **self.train.to_dict()}


def distributions(study: Study) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's distribution of every parameter that varies, in drawing order."""
    return {name: _distribution(name, study.search[name]) for name in study.searched}


def _distribution(name: str, spec: Spec) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(spec, Range):
        if field_of(name) in WHOLE_FIELDS:
            step = 1 if spec.step is None else int(spec.step)
            return IntDistribution(int(spec.low), int(spec.high), log=spec.log, step=step)
        low, high = float(spec.low), float(spec.high)
        return FloatDistribution(low, high, log=spec.log, step=spec.step)
    assert isinstance(spec, Choice)
    return CategoricalDistribution([encode(value) for value in spec.values])


def suggest(trial: optuna.Trial, study: Study) -> Params:
    """Draw every parameter that varies, those that the trial has fixed included: the method first.

    Of several methods, only the parameters of the one that was drawn.
    """
    params: dict[str, Any] = {}
    for name in study.searched:
        spec = study.search[name]
        if name != "method" and name not in keys_of(study.search, _method(study, params)):
            continue
        if isinstance(spec, Choice):
            params[name] = trial.suggest_categorical(name, [encode(value) for value in spec.values])
        elif isinstance(spec, Range) and field_of(name) in WHOLE_FIELDS:
            step = 1 if spec.step is None else int(spec.step)
            params[name] = trial.suggest_int(name, int(spec.low), int(spec.high), step=step, log=spec.log)
        elif isinstance(spec, Range):
            low, high = float(spec.low), float(spec.high)
            params[name] = trial.suggest_float(name, low, high, step=spec.step, log=spec.log)
    return params


def configuration(study: Study, params: Mapping[str, Any]) -> Configuration:
    """The configuration of a trial: what was drawn, and the fixed values around it.

    A placement of the study's own is written out, so that the configuration needs no study. Where the bit of
    every layer is off it is the head alone, which :func:`layers_missing` keeps from being trained.

    Args:
        params: a value for every parameter that varies, as :func:`suggest` and the store keep them.

    Raises:
        SweeperError: a parameter is missing, unknown or outside its space.
    """
    check_params(study, params)
    values = {name: spec.value for name, spec in study.search.items() if isinstance(spec, Fixed)}
    values |= params
    method = str(values["method"])
    keys = {field: key_of(study.search, method, field) for field in fields_of(method)}
    given: dict[str, Any] = {field: values[key] for field, key in keys.items() if key is not None}
    frozen: tuple[str, ...] = ()
    if PARTS_FIELD in given:
        frozen = folders_of(given[PARTS_FIELD])
        given[PARTS_FIELD] = parts_of(study, frozen)
    if "placement" in given:
        given["placement"] = placement_of(study, given["placement"])
    layers = layers_on(study.search, method, values)
    if layers is not None:
        given["layers"] = tuple(layers)
    adapter = AdapterConfig(method="head") if layers == [] else AdapterConfig.from_dict(given)
    settings = {name: getattr(study.train, name) for name in TrainConfig().to_dict()}
    searched = {name: values[name] for name in settings if name in values}
    return Configuration(adapter, TrainConfig.from_dict({**settings, **searched}), frozen)


def folders_of(value: Any) -> tuple[str, ...]:
    """A set of adapters, as a space or the store has it."""
    return tuple(json.loads(value)) if isinstance(value, str) else tuple(value)


def parts_of(study: Study, folders: tuple[str, ...]) -> tuple[Part, ...]:
    return tuple(study.frozen[folder].part for folder in folders)


def placement_of(study: Study, name: Any) -> Any:
    """A placement as an adapter's configuration has it: one of the study's own by its pairs."""
    return study.placements.get(name, name)


def layers_missing(study: Study, params: Mapping[str, Any]) -> int | None:
    """How many layers a draw lacks that an adapter needs: 1 if the bit of every layer is off, else 0 or less.

    None in a study whose layers are no bits.
    """
    if not any(is_bit(key) for key in study.search):
        return None
    layers = layers_on(study.search, _method(study, params), params)
    return 0 if layers is None else 1 - len(layers)


def check_params(study: Study, params: Mapping[str, Any]) -> None:
    """Raise a SweeperError unless the parameters are one point of the study's space."""
    spaces = distributions(study)
    for name, value in params.items():
        if name not in spaces:
            raise SweeperError(f"{short(name)} is not a parameter of this study; it has: {', '.join(spaces)}")
        if not contains(name, study.search[name], value):
            raise SweeperError(f"{name} is {short(value)}, which is outside of {spaces[name]}")
    if "method" in spaces and "method" not in params:
        raise SweeperError("the parameter method is missing")
    method = _method(study, params)
    wanted = keys_of(study.search, method)
    for name in spaces:
        if name in wanted and name not in params:
            raise SweeperError(f"the parameter {name} is missing")
        if name in params and name not in wanted:
            raise SweeperError(f"{name} means nothing to the method {method}")


def contains(name: str, spec: Spec, value: Any) -> bool:
    """Whether a value, as the store keeps it, is one that a parameter may have."""
    if isinstance(spec, Choice):
        return any(
            encode(v) == value and isinstance(value, str) == isinstance(encode(v), str) for v in spec.values
        )
    assert isinstance(spec, Range)
    if isinstance(value, bool) or not isinstance(
        value, int if field_of(name) in WHOLE_FIELDS else (int, float)
    ):
        return False
    if not spec.low <= value <= spec.high:
        return False
    steps = (value - spec.low) / spec.step if spec.step else 0.0
    return abs(steps - round(steps)) < 1e-8


def default_params(study: Study, hidden_size: int) -> Params:
    """The parameters of trial 0: where the literature starts from, or the nearest point of the space.

    That is the method's defaults with a bottleneck of a sixteenth of the backbone's width, for a ladder an
    eighth (Sung et al. 2022), trained as TrainConfig's defaults say. A number that the space lacks becomes
    the nearest one in it; a name that the space lacks becomes the first that is listed.
    """
    methods = method_names(study.search["method"])
    method = methods[0] if DEFAULT_METHOD not in methods else DEFAULT_METHOD
    needed: dict[str, Any] = {}
    if method in _REDUCTIONS:
        needed["bottleneck_dim"] = max(1, hidden_size // _REDUCTIONS[method])
    parts_key = key_of(study.search, method, PARTS_FIELD)
    if PARTS_FIELD in DEFAULTS[method] and parts_key is not None:
        needed[PARTS_FIELD] = parts_of(study, folders_of(ends(study.search[parts_key])[0]))
    wanted = Configuration(AdapterConfig(method=method, **needed), TrainConfig()).to_dict()
    return {
        name: _nearest_in(name, study.search[name], wanted[field_of(name)])
        for name in study.searched
        if name in keys_of(study.search, method)
    }


def _nearest_in(name: str, spec: Spec, wanted: Any) -> str | int | float:
    if is_bit(name):
        return True  # all layers
    if isinstance(spec, Choice):
        numbers = [value for value in spec.values if isinstance(value, (int, float))]
        if numbers:
            return min(numbers, key=lambda value: abs(value - wanted))
        return wanted if wanted in spec.values else encode(spec.values[0])
    assert isinstance(spec, Range)
    value = min(max(wanted, spec.low), spec.high)
    if spec.step is not None:
        value = spec.low + round((value - spec.low) / spec.step) * spec.step
        value = min(value, spec.high)
    return int(value) if field_of(name) in WHOLE_FIELDS else float(value)


def size(study: Study) -> int | None:
    """How many configurations the space holds; None if a continuous range makes it infinite."""
    sizes = [_size_of(study, method) for method in method_names(study.search["method"])]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _size_of(study: Study, method: str) -> int | None:
    """How many configurations of one method the space holds."""
    count = 1
    for name in keys_of(study.search, method):
        spec = study.search[name]
        if isinstance(spec, Choice) and name != "method":
            count *= len(spec.values)
        elif isinstance(spec, Range):
            if spec.step is None and field_of(name) not in WHOLE_FIELDS:
                return None
            count *= 1 + round((spec.high - spec.low) / (spec.step or 1))
    bits = 2 ** len(bits_of(study.search, method))
    return count if bits == 1 else count // bits * (bits - 1)  # one layer at least has a module


def ends(spec: Spec) -> tuple[Value, ...]:
    """The values of a choice; of a range its two ends, between which nothing is larger or smaller."""
    if isinstance(spec, Fixed):
        return (spec.value,)
    return spec.values if isinstance(spec, Choice) else (spec.low, spec.high)


def _method(study: Study, params: Mapping[str, Any]) -> str:
    """The method of a trial, from its parameters or from the space that has only one."""
    spec = study.search["method"]
    return str(spec.value) if isinstance(spec, Fixed) else str(params["method"])


def trial_seed(study: Study, number: int | str) -> int:
    """The seed of a trial's training, from 0 to 2**63 - 1; a reference run has its label for a number."""
    return _stable_hash("trial", study.seed, number) % 2**63


def _stable_hash(*parts: object) -> int:
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
