"""The corners of a space against a backbone: what is smallest, largest, deepest, and whether all of it fits.

Nothing that a study may draw is larger, smaller or elsewhere than one of its corners.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.fields import AFTER_PREFIX, DEFAULTS
from sweeper import space
from sweeper.errors import UsageError
from sweeper.study.layerbits import bits_of
from sweeper.study.schema import Fixed, Range, Study, Value
from sweeper.study.search import PARTS_FIELD, key_of, method_names

if TYPE_CHECKING:
    from adapters.depth import Depth
    from sweeper.limits import Limits

_SIZES = (
    *("bottleneck_dim", "placement", "layers", "learned_scaling", "rank", "targets", "prefix_length"),
    *("positions", "prompt_length", "phm_dim", "phm_rank", PARTS_FIELD, "value_matrix"),
)
"""The fields that an adapter's size or its sites depend on."""


_BITS = "bits"
"""In place of a key, for the line of an error about a layer that has a bit."""
_ALLOW = "raise the limit, or allow a smaller bottleneck_dim or fewer layers"


def _located(study: Study) -> Iterator[tuple[dict[str, int], AdapterConfig]]:
    """Every adapter that differs in size or in sites, the sizes only at their ends.

    With each goes the position of its value in the list it came from, for the line of an error, by its key.
    """
    for number, method in enumerate(method_names(study.search["method"])):
        fields = {field: key_of(study.search, method, field) for field in _SIZES if field in DEFAULTS[method]}
        keys = {field: key for field, key in fields.items() if key is not None}
        ends: list[tuple[Value, ...]] = [space.ends(study.search[key]) for key in keys.values()]
        bits = tuple(bits_of(study.search, method))
        if bits:  # each layer alone, and all
            keys["layers"] = _BITS
            ends.append((*((layer,) for layer in bits), bits))
        for combination in itertools.product(*(enumerate(each) for each in ends)):
            values: dict[str, Any] = {
                field: value for field, (_, value) in zip(keys, combination, strict=True)
            }
            if "placement" in values:
                values["placement"] = space.placement_of(study, values["placement"])
            if PARTS_FIELD in values:
                values[PARTS_FIELD] = space.parts_of(study, space.folders_of(values[PARTS_FIELD]))
            positions = {key: index for key, (index, _) in zip(keys.values(), combination, strict=True)}
            yield {**positions, "method": number}, AdapterConfig(method=method, **values)


def every(study: Study) -> Iterator[AdapterConfig]:
    """Every adapter that differs in size or in sites, the sizes only at their ends."""
    return (config for _, config in _located(study))


def check_space(study: Study, backbone_config: Any) -> None:
    """Check that every adapter of the space fits into the backbone.

    Raises:
        UsageError: with the line of the value: a bottleneck wider than the hidden size, a layer that the
            backbone lacks, a placement that its family has no sites for, an unknown family, or a limit that
            no adapter meets.
    """
    from adapters.flops import flops_per_token
    from adapters.methods import check

    for indices, config in _located(study):
        try:
            check(config, backbone_config)
        except AdapterError as error:
            line = _line_of(study, config.method, error.field, indices)
            raise UsageError(str(error), study.path, line) from error
    _check_between(study, backbone_config)
    _check_positions(study, backbone_config)
    smallest, _ = extremes(study, backbone_config)
    limit = study.limits.trainable_parameters
    if limit is not None and smallest > limit:
        raise _past(study, "trainable_parameters", f"the smallest adapter of the space has {smallest}")
    most = study.limits.flops_per_token
    if most is not None:
        cheapest = min(flops_per_token(config, backbone_config) for _, config in _located(study))
        if cheapest > most:
            raise _past(study, "flops_per_token", f"the cheapest adapter of the space costs {cheapest}")


def check_head(limits: Limits) -> None:
    """Check that an adapter of the space meets the limits with its head, which the labels decide on.

    Raises:
        UsageError: with the line of the limit.
    """
    study, head = limits.study, limits.head_parameters
    limit = study.limits.trainable_parameters
    if limit is not None:
        smallest, _ = extremes(study, limits.backbone_config)
        if smallest + head > limit:
            has = f"the smallest adapter of the space has {smallest} and the head {head}"
            raise _past(study, "trainable_parameters", has)
    given = study.limits.given
    if len(given) > 1 and not any(limits.within(config) for config in every(study)):
        raise UsageError(
            f"no adapter of the space is within {' and '.join(given)} at once, though some are within each; "
            f"{_ALLOW}",
            study.path,
            study.line("limits"),
        )


def _past(study: Study, name: str, least: str) -> UsageError:
    """That a limit is below the least that the space has."""
    message = f"limits.{name} is {study.limits.given[name]}, but {least}; {_ALLOW}"
    return UsageError(message, study.path, study.line("limits", name))


def _check_between(study: Study, backbone_config: Any) -> None:
    """What the ends of a range do not show: a compacter's sizes are multiples of its Kronecker factors."""
    from adapters.methods import check

    if "compacter" not in method_names(study.search["method"]):
        return
    key = key_of(study.search, "compacter", "bottleneck_dim")
    spec = study.search[key] if key is not None else None
    factors = key_of(study.search, "compacter", "phm_dim")
    default = Fixed(DEFAULTS["compacter"]["phm_dim"])
    factor_spec = study.search[factors] if factors is not None else default
    widths = space.ends(spec if spec is not None else Fixed(DEFAULTS["compacter"]["bottleneck_dim"]))
    between: range = range(0)
    if isinstance(factor_spec, Range):
        between = range(int(factor_spec.low), int(factor_spec.high) + 1, int(factor_spec.step or 1))
        for each, width in itertools.product(between, widths):
            config = AdapterConfig(method="compacter", bottleneck_dim=int(str(width)), phm_dim=each)
            try:
                check(config, backbone_config)
            except AdapterError as error:
                raise UsageError(
                    f"{error}; give a list of those that do, or a step that leaves the others out",
                    study.path,
                    _line_of(study, "compacter", "phm_dim", {str(factors): 0}),
                ) from error
    for factor in between or space.ends(factor_spec):
        if isinstance(spec, Range) and int(spec.step or 1) % int(str(factor)):
            raise UsageError(
                f"phm_dim {factor} must divide every bottleneck_dim of a compacter; give the range "
                f"a step that is "
                f"a multiple of it, or a list of multiples",
                study.path,
                _line_of(study, "compacter", "bottleneck_dim", {str(key): 0}),
            )


def _check_positions(study: Study, backbone_config: Any) -> None:
    """A prompt takes positions, and so may a prefix: the longest text has to have room behind it."""
    from sweeper.backbone import position_limit

    limit = position_limit(getattr(backbone_config, "config", backbone_config))
    for indices, config in _located(study):
        takes = config.method == "prompt" or config.positions == AFTER_PREFIX
        if not takes or limit is None:
            continue
        field = f"{config.method}_length"
        length = getattr(config, field)
        if length + study.train.max_length > limit:
            raise UsageError(
                f"a {config.method} of {length} and texts of {study.train.max_length} tokens are more than "
                f"the backbone's {limit} positions: lower {field} or train.max_length",
                study.path,
                _line_of(study, config.method, field, indices),
            )


def _line_of(study: Study, method: str, field: str | None, indices: Mapping[str, int]) -> int | None:
    if field is None:
        return study.line("backbone", "model")
    key = _BITS if field == "layers" and _BITS in indices else key_of(study.search, method, field)
    if key is None:
        return study.line("search", "method")
    is_range = key != _BITS and isinstance(study.search[key], Range)
    end: str | int = ("from", "to")[indices[key]] if is_range else indices.get(key, 0)
    ends = (_BITS, end) if key == _BITS else (end,)
    under = ("search", "method", method, field)
    if under in study.lines:
        return study.line(*under, *ends)
    return study.line("search", field, *ends)


def extremes(study: Study, backbone_config: Any) -> tuple[int, int]:
    """The fewest and the most parameters that an adapter of the space has in this backbone."""
    from adapters.count import parameters_in

    counts = [parameters_in(config, backbone_config) for _, config in _located(study)]
    return min(counts), max(counts)


def depths(study: Study, backbone_config: Any) -> dict[tuple[Depth, ...], float]:
    """How many trials of the budget are expected to read each set of depths of the backbone.

    Every placement and set of layers counts alike; the reference, a head alone, begins at the end. Of a bit a
    layer, half of the draws begin at the lowest layer, half of the others at the next.
    """
    from adapters.depth import enters

    uses: dict[tuple[Depth, ...], float] = {}
    for _, config in _located(study):
        read = enters(config, backbone_config)
        uses[read] = uses.get(read, 0.0) + _likely(study, config)
    each = study.budget.trials / sum(uses.values())
    expected = {read: each * weight for read, weight in uses.items() if weight}
    return {**expected, enters(None, backbone_config): 1.0}


def _likely(study: Study, config: AdapterConfig) -> float:
    """How much a corner counts among the draws; of bits, one layer stands for all draws that begin there."""
    bits = tuple(bits_of(study.search, config.method))
    if not bits:
        return 1.0
    if config.method == "ladder" or len(config.layers) > 1:  # a ladder reads each of its layers
        return float((config.method == "ladder") == (len(config.layers) > 1))
    return 0.5 ** (1 + bits.index(int(config.layers[0]))) / (1 - 0.5 ** len(bits))
