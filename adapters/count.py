"""Parameter counts in closed form, before anything is built."""

from __future__ import annotations

from adapters.architectures import sites
from adapters.config import AdapterConfig


def module_parameters(hidden_size: int, bottleneck_dim: int) -> int:
    """Parameters of one bottleneck module: 2·d·m weights, m + d biases."""
    return 2 * hidden_size * bottleneck_dim + hidden_size + bottleneck_dim


def adapter_parameters(config: AdapterConfig, hidden_size: int, layer_count: int) -> int:
    """Parameters of a whole adapter: those of one module, times its sites.

    Raises:
        AdapterError: a layer index is out of range.
    """
    return len(sites(config, layer_count)) * module_parameters(hidden_size, config.bottleneck_dim)
