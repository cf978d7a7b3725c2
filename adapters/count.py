"""Parameter counts in closed form, before anything is built."""

from __future__ import annotations

from adapters.architectures import layer_indices, sites
from adapters.config import AdapterConfig


def module_parameters(hidden_size: int, bottleneck_dim: int) -> int:
    """Parameters of one bottleneck module: 2·d·m weights, m + d biases."""
    return 2 * hidden_size * bottleneck_dim + hidden_size + bottleneck_dim


def ladder_parameters(hidden_size: int, bottleneck_dim: int, rungs: int) -> int:
    """Parameters of a ladder: d·m + m and m·m + m a rung, a gate between two of them, m·d + d to go up."""
    units = bottleneck_dim
    rung = hidden_size * units + units + units * units + units
    return rungs * rung + rungs - 1 + units * hidden_size + hidden_size


def adapter_parameters(config: AdapterConfig, hidden_size: int, layer_count: int) -> int:
    """Parameters of a whole adapter: those of one module, times its sites; or those of a ladder.

    Raises:
        AdapterError: a layer index is out of range.
    """
    if config.method == "ladder":
        rungs = len(layer_indices(config.layers, layer_count)) + 1
        return ladder_parameters(hidden_size, config.bottleneck_dim, rungs)
    return len(sites(config, layer_count)) * module_parameters(hidden_size, config.bottleneck_dim)
