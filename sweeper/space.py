"""From a study to the space that Optuna draws from, and from what was drawn to a configuration.

Optuna's parameters are flat and its choices scalars, so an explicit set of layers is a JSON string there,
such as ``"[0, 2, 4]"``. Only what varies is a parameter; fixed values come in with :func:`configuration`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.architectures import check_fits, hidden_size, layer_count
from adapters.config import AdapterConfig, fields_of
from adapters.count import adapter_parameters
from adapters.depth import Depth, enters
from adapters.errors import AdapterError
from sweeper.errors import SweeperError, UsageError
from sweeper.study.schema import Choice, Fixed, Range, Spec, Study, Value
from sweeper.study.search import WHOLE_FIELDS, encode
from sweeper.trainconfig import TrainConfig
from sweeper.words import short

if TYPE_CHECKING:
    import optuna

_REDUCTIONS = {"bottleneck": 16, "ladder": 8}
"""What part of the backbone's width the default bottleneck of a method is."""

Params = dict[str, str | int | float]


@dataclass(frozen=True)
class Configuration:
    """All that one trial is, apart from its seed."""

    adapter: AdapterConfig
    train: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """Every field of adapter and training by its name, as plain JSON values."""
        return {**self.adapter.to_dict(), **self.train.to_dict()}


def distributions(study: Study) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's distribution of every parameter that varies, in drawing order."""
    return {name: _distribution(name, study.search[name]) for name in study.searched}


def _distribution(name: str, spec: Spec) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(spec, Range):
        if name in WHOLE_FIELDS:
            step = 1 if spec.step is None else int(spec.step)
            return IntDistribution(int(spec.low), int(spec.high), log=spec.log, step=step)
        low, high = float(spec.low), float(spec.high)
        return FloatDistribution(low, high, log=spec.log, step=spec.step)
    assert isinstance(spec, Choice)
    return CategoricalDistribution([encode(value) for value in spec.values])


def suggest(trial: optuna.Trial, study: Study) -> Params:
    """Draw every parameter that varies, those that the trial has fixed included."""
    params: dict[str, Any] = {}
    for name in study.searched:
        spec = study.search[name]
        if isinstance(spec, Choice):
            params[name] = trial.suggest_categorical(name, [encode(value) for value in spec.values])
        elif isinstance(spec, Range) and name in WHOLE_FIELDS:
            step = 1 if spec.step is None else int(spec.step)
            params[name] = trial.suggest_int(name, int(spec.low), int(spec.high), step=step, log=spec.log)
        elif isinstance(spec, Range):
            low, high = float(spec.low), float(spec.high)
            params[name] = trial.suggest_float(name, low, high, step=spec.step, log=spec.log)
    return params


def configuration(study: Study, params: Mapping[str, Any]) -> Configuration:
    """The configuration of a trial: what was drawn, and the fixed values around it.

    Args:
        params: a value for every parameter that varies, as :func:`suggest` and the store keep them.

    Raises:
        SweeperError: a parameter is missing, unknown or outside its space.
    """
    check_params(study, params)
    fixed = {name: spec.value for name, spec in study.search.items() if isinstance(spec, Fixed)}
    values = {**fixed, **params}
    adapter = AdapterConfig.from_dict({name: values[name] for name in fields_of(values["method"])})
    settings = {name: getattr(study.train, name) for name in TrainConfig().to_dict()}
    searched = {name: values[name] for name in settings if name in values}
    return Configuration(adapter, TrainConfig.from_dict({**settings, **searched}))


def check_params(study: Study, params: Mapping[str, Any]) -> None:
    """Raise a SweeperError unless the parameters are one point of the study's space."""
    spaces = distributions(study)
    for name in (*params, *spaces):
        if name not in spaces:
            raise SweeperError(f"{short(name)} is not a parameter of this study; it has: {', '.join(spaces)}")
        if name not in params:
            raise SweeperError(f"the parameter {name} is missing")
        if not contains(name, study.search[name], params[name]):
            raise SweeperError(f"{name} is {short(params[name])}, which is outside of {spaces[name]}")


def contains(name: str, spec: Spec, value: Any) -> bool:
    """Whether a value, as the store keeps it, is one that a parameter may have."""
    if isinstance(spec, Choice):
        return any(
            encode(v) == value and isinstance(value, str) == isinstance(encode(v), str) for v in spec.values
        )
    assert isinstance(spec, Range)
    if isinstance(value, bool) or not isinstance(value, int if name in WHOLE_FIELDS else (int, float)):
        return False
    if not spec.low <= value <= spec.high:
        return False
    steps = (value - spec.low) / spec.step if spec.step else 0.0
    return abs(steps - round(steps)) < 1e-8


def default_params(study: Study, hidden_size: int) -> Params:
    """The parameters of trial 0: where the literature starts from, or the nearest point of the space.

    That is AdapterConfig's defaults with a bottleneck of a sixteenth of the backbone's width, for a ladder an
    eighth (Sung et al. 2022), trained as TrainConfig's defaults say. A number that the space lacks becomes
    the nearest one in it; a name that the space lacks becomes the first that is listed.
    """
    method = _method(study)
    adapter = AdapterConfig(method=method, bottleneck_dim=max(1, hidden_size // _REDUCTIONS[method]))
    wanted = Configuration(adapter, TrainConfig()).to_dict()
    return {name: _nearest_in(name, study.search[name], wanted[name]) for name in study.searched}


def _nearest_in(name: str, spec: Spec, wanted: Any) -> str | int | float:
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
    return int(value) if name in WHOLE_FIELDS else float(value)


def size(study: Study) -> int | None:
    """How many configurations the space holds; None if a continuous range makes it infinite."""
    count = 1
    for name in study.searched:
        spec = study.search[name]
        if isinstance(spec, Choice):
            count *= len(spec.values)
        elif isinstance(spec, Range):
            if spec.step is None and name not in WHOLE_FIELDS:
                return None
            count *= 1 + round((spec.high - spec.low) / (spec.step or 1))
    return count


def extremes(study: Study, backbone_config: Any) -> tuple[int, int]:
    """The fewest and the most parameters that an adapter of the space has in this backbone."""
    width, layers = hidden_size(backbone_config), layer_count(backbone_config)
    counts = [adapter_parameters(config, width, layers) for _, config in _corners(study)]
    return min(counts), max(counts)


def depths(study: Study, backbone_config: Any) -> dict[tuple[Depth, ...], float]:
    """How many trials of the budget are expected to read each set of depths of the backbone.

    Every placement and set of layers counts alike; the reference, a head alone, begins at the end.
    """
    found = [enters(config, backbone_config) for _, config in _corners(study)]
    each = study.budget.trials / len(found)
    uses = {depths: each * found.count(depths) for depths in found}
    return {**uses, enters(None, backbone_config): 1.0}


def _method(study: Study) -> str:
    spec = study.search["method"]
    assert isinstance(spec, Fixed)
    return str(spec.value)


def _ends(spec: Spec) -> tuple[Value, ...]:
    """The values of a choice; of a range its two ends, between which nothing is larger or smaller."""
    if isinstance(spec, Fixed):
        return (spec.value,)
    return spec.values if isinstance(spec, Choice) else (spec.low, spec.high)


def _corners(study: Study) -> Iterator[tuple[dict[str, int], AdapterConfig]]:
    """Every adapter that differs in size or in sites, the sizes only at their ends.

    With each goes the position of its value in the list it came from, for the line of an error.
    """
    names = [name for name in ("bottleneck_dim", "placement", "layers") if name in study.search]
    for combination in itertools.product(*(enumerate(_ends(study.search[name])) for name in names)):
        values: dict[str, Any] = {name: value for name, (_, value) in zip(names, combination, strict=True)}
        yield (
            {name: index for name, (index, _) in zip(names, combination, strict=True)},
            AdapterConfig(method=_method(study), **values),
        )


def check_space(study: Study, backbone_config: Any) -> None:
    """Check that every adapter of the space fits into the backbone.

    Raises:
        UsageError: with the line of the value: a bottleneck wider than the hidden size, a layer that the
            backbone lacks, a placement that its family has no sites for, an unknown family, or a limit that
            no adapter meets.
    """
    for indices, config in _corners(study):
        try:
            check_fits(config, backbone_config)
        except AdapterError as error:
            raise UsageError(str(error), study.path, _line_of(study, error.field, indices)) from error
    smallest, _ = extremes(study, backbone_config)
    limit = study.limits.trainable_parameters
    if limit is not None and smallest > limit:
        raise UsageError(
            f"limits.trainable_parameters is {limit}, but the smallest adapter of the space has {smallest}; "
            "raise the limit, or allow a smaller bottleneck_dim or fewer layers",
            study.path,
            study.line("limits", "trainable_parameters"),
        )


def _line_of(study: Study, field: str | None, indices: Mapping[str, int]) -> int | None:
    if field is None:
        return study.line("backbone", "model")
    spec = study.search[field]
    if isinstance(spec, Range):
        return study.line("search", field, ("from", "to")[indices[field]])
    return study.line("search", field, indices.get(field, 0))


def make_sampler(study: Study, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that draws one trial, seeded by the study's seed and the trial's number.

    A sampler of its own for each trial, so that a worker that starts again does not repeat its draws, and
    what is drawn depends on the trials that are known, not on which worker asks.
    """
    from optuna.samplers import RandomSampler, TPESampler

    seed = _stable_hash("sampler", study.seed, number) % 2**32  # NumPy's seeds have 32 bits
    if study.sampler.name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=study.sampler.options["n_startup_trials"])


def trial_seed(study: Study, number: int | str) -> int:
    """The seed of a trial's training, from 0 to 2**63 - 1; a reference run has its label for a number."""
    return _stable_hash("trial", study.seed, number) % 2**63


def _stable_hash(*parts: object) -> int:
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
