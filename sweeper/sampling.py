"""The sampler that draws one trial, and the points of a grid. Nothing here reads or writes anything.

Samplers are Optuna's own, by their names and options, seeded from the study's seed and the trial's number: a
worker that starts again does not repeat its draws, and what is drawn depends on the known trials, not
on which worker asks.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sweeper import space
from sweeper.study.schema import Choice, Sampler, Study

if TYPE_CHECKING:
    import optuna


def sampler_of(
    study: Study, seed: int, number: int, *, at_random: bool = False
) -> optuna.samplers.BaseSampler:
    """The sampler of a study for one trial.

    Args:
        seed: the study's.
        number: the trial's.
        at_random: draw this one at random, whatever the study's sampler.
    """
    if at_random:
        return build(Sampler("random"), seed, number, conditional=False)
    return build(study.sampler, seed, number, conditional=isinstance(study.search.get("method"), Choice))


def build(sampler: Sampler, seed: int, number: int, *, conditional: bool) -> optuna.samplers.BaseSampler:
    """A sampler by its name and options.

    Args:
        conditional: some parameters are only there beside certain values of others; then tpe models those
            that occur together as a group, unless ``group`` or ``multivariate`` says no.

    Raises:
        ValueError: no sampler has this name.
    """
    from optuna import exceptions, samplers

    options: dict[str, Any] = {name: value for name, value in sampler.options.items() if value is not None}
    seeded = derived_seed(seed, number)
    grouped = options.get("group", conditional and options.get("multivariate") is not False)
    if sampler.name == "tpe" and grouped:
        options |= {"group": True, "multivariate": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
        match sampler.name:
            case "tpe":
                return samplers.TPESampler(seed=seeded, **options)
            # Every point of a grid is fixed on its place: what is enqueued beside it may leave some to draw.
            case "random" | "grid":
                return samplers.RandomSampler(seed=seeded)
            case "gp":
                return samplers.GPSampler(seed=seeded, warn_independent_sampling=False, **options)
            case "nsgaii":
                return samplers.NSGAIISampler(seed=seeded, **options)
    raise ValueError(f"no sampler is named {sampler.name!r}")


def derived_seed(seed: int, number: int) -> int:
    """A seed of 32 bits, as NumPy's are, from the study's seed and a trial's number."""
    digest = hashlib.sha256(f"sampler/{seed}/{number}".encode()).digest()[:8]
    return int.from_bytes(digest, "big") % 2**32


def grid_points(
    study: Study, first: space.Params, count: int, allows: Callable[[space.Params], bool]
) -> list[space.Params]:
    """The first points of a study's grid: ``first``, then the others in an order drawn from its seed.

    A longer list of the same study begins with the shorter one, so that a budget may grow.

    Args:
        first: a point of the space that comes before the others; left out among them.
        count: how many at most; the list is shorter where the grid has fewer.
        allows: whether a point is within the study's limits; others are none of the grid.
    """
    values = {name: _values(spec) for name, spec in space.distributions(study).items()}
    size = math.prod(len(each) for each in values.values())
    step, start = _stride(size, study.seed)
    found = [first] if allows(first) else []
    for index in range(size):
        if len(found) >= count:
            break
        point = _point(values, (start + index * step) % size)
        if point != first and allows(point):
            found.append(point)
    return found[:count]


class _Steps(Sequence[float]):
    """The values of a range with a step, of which there may be a billion: each is computed when asked for."""

    def __init__(self, spec: optuna.distributions.FloatDistribution) -> None:
        assert spec.step is not None
        self._low, self._high, self._step = spec.low, spec.high, spec.step

    def __len__(self) -> int:
        return round((self._high - self._low) / self._step) + 1

    def __getitem__(self, index: Any) -> Any:
        return min(self._low + index * self._step, self._high)


def _values(spec: optuna.distributions.BaseDistribution) -> Sequence[Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(spec, CategoricalDistribution):
        return list(spec.choices)
    if isinstance(spec, IntDistribution):
        return range(spec.low, spec.high + 1, spec.step)
    assert isinstance(spec, FloatDistribution)
    return _Steps(spec)


def _point(values: dict[str, Sequence[Any]], index: int) -> space.Params:
    point: space.Params = {}
    for name, each in values.items():
        index, position = divmod(index, len(each))
        point[name] = each[position]
    return point


def _stride(size: int, seed: int) -> tuple[int, int]:
    """A step and a start that visit each of ``size`` points once, far from the one before."""
    start = derived_seed(seed, 0) % size
    step = max(1, int(size * 0.6180339887) + derived_seed(seed, 1) % max(1, size // 7))
    while math.gcd(step, size) != 1:
        step += 1
    return step, start
