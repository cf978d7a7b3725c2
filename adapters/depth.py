"""How deep a backbone stays frozen below an adapter, and the hidden states at that depth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

from adapters.architectures import Site, is_flat, layer_count, layer_indices, sites
from adapters.config import AdapterConfig
from adapters.fields import AFTER_PREFIX

States = tuple[Tensor, ...]
"""What the backbone computes up to a depth, ``[tokens, hidden_size]`` each; see :class:`Depth`."""


TOKENS, INPUT, ATTENTION, FFN = range(-1, 3)
"""The parts of a layer that lie below a cut: none, its attention, its attention and its FFN. Behind TOKENS
not even the embedding of the words does."""


class Depth(NamedTuple):
    """A cut through a backbone: everything below it is frozen and the same for all adapters above it.

    Behind TOKENS nothing is computed. Behind INPUT there is one tensor, what the layer reads. Behind
    ATTENTION and FFN the cut lies at the last projection of that sublayer, and there are two: the residual
    that is added to it, and what the projection put out. Depths compare: a deeper one is larger. The layer
    behind the last one is the end of the backbone.

    Args:
        layer: from 0.
        behind: TOKENS (of layer 0 alone), INPUT, ATTENTION or FFN.
    """

    layer: int
    behind: int

    @property
    def tensors(self) -> int:
        """How many tensors the states at this depth are."""
        return (0, 1, 2, 2)[self.behind - TOKENS]

    @property
    def layers(self) -> float:
        """What lies below it, in layers; attention counts as a third of one, as it does by its weights."""
        return self.layer + (0.0, 0.0, 1 / 3, 1.0)[self.behind - TOKENS]

    @property
    def key(self) -> str:
        """A name for files, such as ``layer_3_ffn`` or ``layer_6``."""
        return f"layer_{self.layer}{('_tokens', '', '_attention', '_ffn')[self.behind - TOKENS]}"


EMBEDDED = Depth(0, INPUT)
"""The input of the first layer: above it lies all that costs anything."""
FROM_TOKENS = Depth(0, TOKENS)
"""Of an adapter that changes how texts are embedded: it takes tokens, and no states."""


_FROM_LAYERS = {
    "lora": INPUT, "dora": INPUT, "ia3": INPUT, "prefix": INPUT, "mam": INPUT, "bitfit": INPUT, "loreft": FFN,
}  # fmt: skip
"""Where in its lowest layer a method without a placement begins. What acts on a linear reads what the frozen
states behind it no longer hold; what edits the output of a layer does not."""


def depth_of(config: AdapterConfig | None, backbone_config: Any) -> Depth:
    """The deepest cut below the lowest site of an adapter; without any site the end of the backbone.

    Raises:
        AdapterError: a layer index is out of range.
    """
    layers = layer_count(backbone_config)
    if config is not None and config.parts:
        inside = [part.config for part in config.parts] + [own for own in [config.own] if own is not None]
        return min(depth_of(own, backbone_config) for own in inside)
    if config is not None and (config.method == "prompt" or config.positions == AFTER_PREFIX):
        return FROM_TOKENS
    if config is not None and config.method in _FROM_LAYERS:
        return Depth(layer_indices(config.layers, layers)[0], _FROM_LAYERS[config.method])
    used = sites(config, layers) if config is not None else ()
    if not used:
        return Depth(layers, INPUT)
    return min(Depth(site.layer, _behind(site)) for site in used)


def reads(config: AdapterConfig | None, backbone_config: Any) -> tuple[Depth, ...]:
    """The depths at which an adapter takes over what the backbone alone has computed, from the bottom up.

    One for an adapter inside the backbone: there its texts enter, or at any depth below. A ladder needs them
    all: the input of each of its layers, and the end of the backbone.

    Raises:
        AdapterError: a layer index is out of range.
    """
    if config is None or config.method != "ladder":
        return (depth_of(config, backbone_config),)
    layers = layer_count(backbone_config)
    return (*(Depth(layer, INPUT) for layer in layer_indices(config.layers, layers)), Depth(layers, INPUT))


def enters(config: AdapterConfig | None, backbone_config: Any) -> tuple[Depth, ...]:
    """The depths at which the texts of an adapter enter a run: those that it reads.

    Of a backbone that runs on padded texts, which is not cut: the lowest alone.

    Raises:
        AdapterError: a layer index is out of range.
    """
    return reads(config, backbone_config) if is_flat(backbone_config) else (EMBEDDED,)


def deepest(available: Iterable[Depth], limit: Depth) -> Depth | None:
    """The deepest of some depths that is not beyond a limit, or None."""
    return max((depth for depth in available if depth <= limit), default=None)


def _behind(site: Site) -> int:
    """How much of its layer is the same whatever a module at a site does."""
    if site.sublayer == "ffn":
        return FFN
    return ATTENTION if site.wiring == "after" else INPUT
