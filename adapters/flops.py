"""What a token costs to train on, in closed form, before anything is built.

A product of ``[n, a]`` and ``[a, b]`` counts 2·n·a·b. With L equal layers of p = 4·d² + 2·d·f weights in
their linears (d wide, f in the FFN), a token costs 2·p·L through all layers, and 2·p a layer backward through
those above the lowest site: a frozen weight has no gradient of its own. Each weight of the adapter costs 6:
forward, and two products backward. The products of attention, which grow with the texts, LayerNorms,
activations, the head and the optimizer are not counted, nor is what a cache saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapters.architectures import hidden_size, layer_count
from adapters.config import AdapterConfig
from adapters.count import parameters_in
from adapters.depth import EMBEDDED, depth_of


@dataclass(frozen=True)
class Shape:
    """A transformer's shape: its layers, their width d, and the width f of their FFNs."""

    layers: int
    width: int
    ffn_width: int

    @property
    def attention_parameters(self) -> int:
        """Weights of the four linears of attention in one layer."""
        return 4 * self.width * self.width

    @property
    def ffn_parameters(self) -> int:
        """Weights of the two linears of the FFN in one layer."""
        return 2 * self.width * self.ffn_width


def shape_of(config: Any) -> Shape:
    """The shape of a backbone, out of its configuration.

    Raises:
        ValueError: the family does not say how wide its FFN is.
    """
    width = hidden_size(config)
    for name in ("intermediate_size", "hidden_dim", "n_inner"):
        if hasattr(config, name):
            return Shape(layer_count(config), width, int(getattr(config, name) or 4 * width))
    raise ValueError(f"{type(config).__name__} does not say how wide its FFN is")


def flops_per_token(adapter: AdapterConfig | None, backbone_config: Any) -> int:
    """Floating-point operations of a training step, a token of its texts.

    Args:
        adapter: None for a head alone, for which the backbone only runs forward.

    Raises:
        ValueError: the backbone's family does not say how wide its FFN is.
        AdapterError: a layer index is out of range.
    """
    shape = shape_of(backbone_config)
    a_layer = shape.attention_parameters + shape.ffn_parameters
    forward = 2 * shape.layers * a_layer
    if adapter is None:
        return forward
    own = 6 * parameters_in(adapter, backbone_config)
    lowest = depth_of(adapter, backbone_config)
    if lowest.layer == shape.layers:  # a ladder reads the backbone and feeds nothing back
        return forward + own
    backward = 2 * (shape.layers - 1 - lowest.layer) * a_layer
    if lowest.half == 0:  # of its own layer, the FFN lies above it
        backward += 2 * shape.ffn_parameters
    if adapter.method == "prompt" and lowest == EMBEDDED:  # it lies below the attention of its layer, too
        backward += 2 * shape.attention_parameters
    return forward + backward + own
