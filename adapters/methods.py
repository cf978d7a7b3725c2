"""The methods, a row each: its paper, where its modules act, and how they are made, filled and counted.

The file of a method names its paper in full, which of it is followed, and where it differs; MAM has none of
its own, and is below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adapters import points
from adapters.architectures import check_fits
from adapters.bitfit import BitFit
from adapters.bottleneck import Bottleneck
from adapters.compacter import Compacter, PHMLinear, Rule
from adapters.composition import Composition
from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.ia3 import IA3
from adapters.initialize import fills_of, initialize
from adapters.loreft import LoReFT
from adapters.lowrank import DoRA, LoRA
from adapters.points import Place, Point
from adapters.prefix import Prefix
from adapters.prompt import Prompt
from adapters.shape import Shape, measuring, shape_of

Shapes = dict[str, list[int]]


@dataclass(frozen=True)
class Method:
    """One row.

    Args:
        paper: what it follows.
        places: the places of a configuration in a backbone, from the bottom up.
        make: the module of one place, all zero; the module that all share is None where there is none.
        shapes: the shape of each tensor of that module, without building it.
        fill: gives a module its initial weights.
        identity: whether the backbone computes the same at the start, under the default initialization.
    """

    paper: str
    places: Callable[[AdapterConfig, Shape], tuple[Place, ...]]
    make: Callable[[AdapterConfig, Shape, Place, nn.Module | None], nn.Module]
    shapes: Callable[[AdapterConfig, Shape, Place], Shapes]
    fill: Callable[[AdapterConfig, nn.Module, torch.Generator], None]
    identity: bool = True


def places_in(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    """Where the modules of an adapter act, from the bottom up.

    Raises:
        AdapterError: the family lacks a linear that it names, or a layer is out of range.
    """
    return METHODS[config.method].places(config, shape)


def shared_module(config: AdapterConfig, shape: Shape) -> tuple[str, nn.Module] | None:
    """What the modules of an adapter share, or what it has besides them, all zero, by its name."""
    if config.method == "compacter":
        return "rule", Rule(config.phm_dim)
    if config.method == "prompt":
        return "soft_prompt", Prompt(config.prompt_length, shape.hidden_size)
    return None


def state_shapes(config: AdapterConfig, shape: Shape) -> Shapes:
    """The shape of every tensor in the state dict of an adapter with modules at places; no ladder."""
    found: Shapes = {}
    if config.method == "compacter":
        found["rule.weight"] = [config.phm_dim] * 3
    if config.method == "prompt":
        found["soft_prompt.vectors"] = [config.prompt_length, shape.hidden_size]
    row = METHODS[config.method]
    for place in row.places(config, shape):
        found |= {f"{place.key}.{name}": size for name, size in row.shapes(config, shape, place).items()}
    return found


def check(config: AdapterConfig, backbone_config: Any) -> Shape:
    """Check that an adapter fits into a backbone; returns the sizes that it needs of it.

    Raises:
        AdapterError: an unknown family, a placement or a linear that it lacks, a layer out of range, or a
            size that is too large; `field` names it.
    """
    check_fits(config, backbone_config)
    shape = shape_of(measuring(config), backbone_config)
    for part in config.parts:
        check(part.config, shape)
    check_sizes(config, shape)
    places_in(config, shape)
    return shape


def check_sizes(config: AdapterConfig, shape: Shape) -> None:
    """Raise AdapterError if a size of the configuration does not fit into the backbone."""
    width = shape.hidden_size
    if config.method == "compacter":
        units = config.bottleneck_dim
        for field, what, size in (
            ("phm_dim", "the backbone's hidden size", width),
            ("bottleneck_dim", "bottleneck_dim", units),
        ):
            if size % config.phm_dim:
                raise AdapterError(f"phm_dim {config.phm_dim} does not divide {what} {size}", field)
    if config.method == "loreft" and config.rank > width:
        raise AdapterError(f"rank {config.rank} is above the backbone's hidden size {width}", "rank")
    if config.method in ("lora", "dora"):
        for place in places_in(config, shape):
            narrow = min(_linear(shape, place))
            if config.rank > narrow:
                message = f"rank {config.rank} is above {narrow}, the narrower side of {place.key}"
                raise AdapterError(message, "rank")


def _linear(shape: Shape, place: Place) -> tuple[int, int]:
    assert isinstance(place, Point)
    return shape.linears[place.name]


def _bottleneck(config: AdapterConfig, shape: Shape, place: Place, shared: nn.Module | None) -> nn.Module:
    return Bottleneck(
        shape.hidden_size,
        config.bottleneck_dim,
        config.activation,
        config.scaling,
        config.dropout,
        config.learned_scaling == "channel",
        config.stochastic_depth or 0.0,
    )


def _bottleneck_shapes(config: AdapterConfig, shape: Shape, place: Place) -> Shapes:
    width, units = shape.hidden_size, config.bottleneck_dim
    found = {
        "down.weight": [units, width],
        "down.bias": [units],
        "up.weight": [width, units],
        "up.bias": [width],
    }
    return {**found, "channels": [width]} if config.learned_scaling == "channel" else found


def _fill_bottleneck(config: AdapterConfig, module: nn.Module, generator: torch.Generator) -> None:
    assert isinstance(module, Bottleneck)
    initialize(config.initialization, module.down, module.up, generator)
    if module.channels is not None:
        nn.init.ones_(module.channels)


def _low_rank(config: AdapterConfig, shape: Shape, place: Place, shared: nn.Module | None) -> nn.Module:
    kind = DoRA if config.method == "dora" else LoRA
    return kind(*_linear(shape, place), config.rank, config.alpha, config.dropout)


def _low_rank_shapes(config: AdapterConfig, shape: Shape, place: Place) -> Shapes:
    inputs, outputs = _linear(shape, place)
    found = {"down.weight": [config.rank, inputs], "up.weight": [outputs, config.rank]}
    return {**found, "magnitude": [outputs]} if config.method == "dora" else found


@torch.no_grad()
def _fill_low_rank(config: AdapterConfig, module: nn.Module, generator: torch.Generator) -> None:
    assert isinstance(module, LoRA)
    fill_down, fill_up = fills_of(config.initialization)
    fill_down(module.down.weight, generator)
    fill_up(module.up.weight, generator)


def _scaled_width(shape: Shape, place: Place) -> int:
    inputs, outputs = _linear(shape, place)
    return inputs if isinstance(place, Point) and place.hook == "input" else outputs


def _compacter(config: AdapterConfig, shape: Shape, place: Place, shared: nn.Module | None) -> nn.Module:
    assert isinstance(shared, Rule)
    return Compacter(
        shared,
        shape.hidden_size,
        config.bottleneck_dim,
        config.phm_dim,
        config.phm_rank,
        config.activation,
        config.scaling,
        config.dropout,
    )


def _compacter_shapes(config: AdapterConfig, shape: Shape, place: Place) -> Shapes:
    width, units, n, rank = shape.hidden_size, config.bottleneck_dim, config.phm_dim, config.phm_rank
    return {
        "down.left": [n, units // n, rank],
        "down.right": [n, rank, width // n],
        "down.bias": [units],
        "up.left": [n, width // n, rank],
        "up.right": [n, rank, units // n],
        "up.bias": [width],
    }


@torch.no_grad()
def _fill_compacter(config: AdapterConfig, module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, Rule):
        nn.init.normal_(module.weight, std=0.01, generator=generator)
        return
    assert isinstance(module, Compacter)
    for linear, fill in zip((module.down, module.up), fills_of(config.initialization), strict=True):
        assert isinstance(linear, PHMLinear)
        for term in linear.left:
            fills_of("xavier")[0](term, generator)
        for term in linear.right:
            fill(term, generator)


def _fill_itself(config: AdapterConfig, module: nn.Module, generator: torch.Generator) -> None:
    assert isinstance(module, (LoReFT, Prefix, Prompt))
    module.fill(generator)


def _fill_ones(config: AdapterConfig, module: nn.Module, generator: torch.Generator) -> None:
    assert isinstance(module, IA3)
    nn.init.ones_(module.scale)


def _fill_nothing(config: AdapterConfig, module: nn.Module, generator: torch.Generator) -> None:
    """It starts at zero."""


def _no_module(config: AdapterConfig, shape: Shape, place: Place, shared: nn.Module | None) -> nn.Module:
    raise AssertionError("no places, so nothing is made")


def _mam_places(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    both = [*points.on_attention(config, shape), *points.beside_ffn(config, shape)]
    return tuple(sorted(both, key=lambda place: (place.layer, points.is_in_ffn(place))))


def _mam(config: AdapterConfig, shape: Shape, place: Place, shared: nn.Module | None) -> nn.Module:
    """A prefix in attention or a bottleneck parallel to the FFN: the MAM adapter of He et al. 2022, "Towards
    a Unified View of Parameter-Efficient Transfer Learning", with its prefix of 30 and its scaling of 4.

    Where it differs: the prefix is :class:`Prefix`, and theirs the output of a network.
    """
    if isinstance(place, Point):
        return Prefix(config.prefix_length, shape.key_width)
    return _bottleneck(config, shape, place, shared)


def _mam_shapes(config: AdapterConfig, shape: Shape, place: Place) -> Shapes:
    if isinstance(place, Point):
        return _prefix_shapes(config, shape, place)
    return _bottleneck_shapes(config, shape, place)


def _fill_mam(config: AdapterConfig, module: nn.Module, generator: torch.Generator) -> None:
    (_fill_itself if isinstance(module, Prefix) else _fill_bottleneck)(config, module, generator)


def _prefix_shapes(config: AdapterConfig, shape: Shape, place: Place) -> Shapes:
    size = [config.prefix_length, shape.key_width]
    return {"keys": size, "values": size}


_METHODS: dict[str, Method] = {
    "bottleneck": Method(
        "Houlsby et al. 2019; Pfeiffer et al. 2021; He et al. 2022; Steitz and Roth 2024",
        points.placed, _bottleneck, _bottleneck_shapes, _fill_bottleneck,
    ),
    "ladder": Method("Sung et al. 2022", points.nowhere, _no_module, lambda *_: {}, _fill_nothing),
    "lora": Method("Hu et al. 2021", points.on_linears, _low_rank, _low_rank_shapes, _fill_low_rank),
    "dora": Method("Liu et al. 2024", points.on_linears, _low_rank, _low_rank_shapes, _fill_low_rank),
    "ia3": Method(
        "Liu et al. 2022",
        points.on_linears,
        lambda config, shape, place, shared: IA3(_scaled_width(shape, place)),
        lambda config, shape, place: {"scale": [_scaled_width(shape, place)]},
        _fill_ones,
    ),
    "compacter": Method(
        "Karimi Mahabadi et al. 2021", points.placed, _compacter, _compacter_shapes, _fill_compacter
    ),
    "loreft": Method(
        "Wu et al. 2024",
        points.behind_layers,
        lambda config, shape, place, shared: LoReFT(shape.hidden_size, config.rank, config.dropout),
        lambda config, shape, place: {
            "rotation": [config.rank, shape.hidden_size],
            "source.weight": [config.rank, shape.hidden_size],
            "source.bias": [config.rank],
        },
        _fill_itself,
    ),
    "prefix": Method(
        "Li and Liang 2021",
        points.on_attention,
        lambda config, shape, place, shared: Prefix(config.prefix_length, shape.key_width),
        _prefix_shapes,
        _fill_itself,
        identity=False,
    ),
    "prompt": Method(
        "Lester et al. 2021", points.nowhere, _no_module, lambda *_: {}, _fill_itself, identity=False
    ),
    "mam": Method("He et al. 2022", _mam_places, _mam, _mam_shapes, _fill_mam, identity=False),
    "bitfit": Method(
        "Ben Zaken et al. 2022",
        points.on_biases,
        lambda config, shape, place, shared: BitFit(_bias(shape, place)),
        lambda config, shape, place: {"bias": [_bias(shape, place)]},
        _fill_nothing,
    ),
    "head": Method("none: the head alone", points.nowhere, _no_module, lambda *_: {}, _fill_nothing),
}  # fmt: skip
COMPOSITION = Composition(_METHODS)
_composed = (COMPOSITION.places, COMPOSITION.make, COMPOSITION.shapes, COMPOSITION.fill)
METHODS: Mapping[str, Method] = {
    **_METHODS,
    "fuse": Method("Pfeiffer et al. 2021", *_composed, identity=False),
    "stack": Method("Pfeiffer et al. 2020", *_composed, identity=False),
}


def _bias(shape: Shape, place: Place) -> int:
    assert isinstance(place, Point)
    return shape.biases[place.path]


__all__ = [
    "COMPOSITION",
    "METHODS",
    "Method",
    "check",
    "check_sizes",
    "places_in",
    "shared_module",
    "state_shapes",
]
