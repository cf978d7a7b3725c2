"""Parameter counts in closed form, before anything is built."""

from __future__ import annotations

import math
from typing import Any

from adapters.architectures import layer_indices
from adapters.composition import is_frozen
from adapters.config import AdapterConfig
from adapters.methods import state_shapes
from adapters.shape import Shape, is_measured, measuring, shape_of


def module_parameters(hidden_size: int, bottleneck_dim: int) -> int:
    """Parameters of one bottleneck module: 2·d·m weights, m + d biases."""
    return 2 * hidden_size * bottleneck_dim + hidden_size + bottleneck_dim


def ladder_parameters(hidden_size: int, bottleneck_dim: int, rungs: int) -> int:
    """Parameters of a ladder: d·m + m and m·m + m a rung, a gate between two of them, m·d + d to go up."""
    units = bottleneck_dim
    rung = hidden_size * units + units + units * units + units
    return rungs * rung + rungs - 1 + units * hidden_size + hidden_size


def parameters_in(config: AdapterConfig, backbone_config: Any) -> int:
    """Trained parameters of an adapter for a backbone.

    Args:
        backbone_config: its Hugging Face configuration, or a `Shape`.

    Raises:
        AdapterError: a layer index is out of range, or the family lacks what the method acts on.
    """
    shape = shape_of(measuring(config), backbone_config)
    if config.method == "ladder":
        rungs = len(layer_indices(config.layers, shape.num_hidden_layers)) + 1
        return ladder_parameters(shape.hidden_size, config.bottleneck_dim, rungs)
    shapes = state_shapes(config, shape).items()
    return sum(math.prod(size) for name, size in shapes if not is_frozen(name))


def frozen_parameters_in(config: AdapterConfig, backbone_config: Any) -> int:
    """Parameters of the frozen parts of a composition, which its file holds, too; 0 of any other adapter.

    Arguments and errors as for :func:`parameters_in`.
    """
    if not config.parts:
        return 0
    shapes = state_shapes(config, shape_of(measuring(config), backbone_config)).items()
    return sum(math.prod(size) for name, size in shapes if is_frozen(name))


def adapter_parameters(config: AdapterConfig, hidden_size: int, layer_count: int) -> int:
    """Parameters of an adapter that depends on the backbone's width and layers alone.

    Raises:
        AdapterError: a layer index is out of range.
        ValueError: its method depends on more: see `parameters_in`.
    """
    if is_measured(measuring(config)):
        raise ValueError(f"the size of {config.method} depends on the backbone's linears: use parameters_in")
    return parameters_in(config, Shape("bert", hidden_size, layer_count))
