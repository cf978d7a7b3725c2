"""Floating-point operations of a training step, in closed form.

A product of ``[n, a]`` and ``[a, b]`` counts 2·n·a·b. With L layers of p = 4·d² + 2·d·f parameters in their
linears (d wide, f in the FFN), T tokens, and texts of n tokens each:

- forward through every layer: 2·p·L·T, and 4·d·Σn² for the products of attention (scores, and their values);
- backward through what lies above the lowest site, which is s whole layers up: 2·p·(L − s)·T and
  8·d·Σn²·(L − s), for the gradients of activations. A frozen weight has no gradient of its own.

Adapters, heads, LayerNorms, activations and the optimizer are not counted, nor is anything that a kernel
computes twice. So what is achieved is a little more than what these figures say, never less.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from adapters.architectures import hidden_size, layer_count, layers_passed, sites
from adapters.config import AdapterConfig


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
        ValueError: the family does not say how wide its FFN is, or passes its layers several times.
    """
    if len(layers_passed(config)) != layer_count(config):
        raise ValueError(f"{type(config).__name__} passes its layers several times, which is not counted")
    width = hidden_size(config)
    for name in ("intermediate_size", "hidden_dim", "n_inner"):
        if hasattr(config, name):
            return Shape(layer_count(config), width, int(getattr(config, name) or 4 * width))
    raise ValueError(f"{type(config).__name__} does not say how wide its FFN is")


def forward_flops(shape: Shape, lengths: Iterable[int], layers: int) -> int:
    """Through some whole layers, for texts of these lengths."""
    tokens, squares = _sums(lengths)
    linears = 2 * tokens * (shape.attention_parameters + shape.ffn_parameters)
    return layers * (linears + 4 * shape.width * squares)


def backward_flops(shape: Shape, lengths: Iterable[int], adapter: AdapterConfig) -> int:
    """Through the frozen layers above the lowest site of an adapter."""
    lengths = list(lengths)
    tokens, _ = _sums(lengths)
    lowest = sites(adapter, shape.layers)[0]
    above = shape.layers - 1 - lowest.layer
    attention = above * 2 * sum(4 * shape.width * length * length for length in lengths)
    linears = above * 2 * tokens * (shape.attention_parameters + shape.ffn_parameters)
    if lowest.sublayer == "attention":
        # Of its own layer, the FFN lies above it.
        linears += 2 * tokens * shape.ffn_parameters
    return attention + linears


def step_flops(
    shape: Shape, lengths: Iterable[int], adapter: AdapterConfig, *, cached_layers: int = 0
) -> int:
    """Forward and backward of one trial's step through the frozen part.

    Args:
        lengths: tokens of each text of the step.
        cached_layers: layers at the bottom that are not run, because what they give is known.
    """
    lengths = list(lengths)
    return forward_flops(shape, lengths, shape.layers - cached_layers) + backward_flops(
        shape, lengths, adapter
    )


def _sums(lengths: Iterable[int]) -> tuple[int, int]:
    """The tokens, and the sum of the squares of the lengths."""
    lengths = list(lengths)
    return sum(lengths), sum(length * length for length in lengths)
