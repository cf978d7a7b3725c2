"""`fuse` and `stack` make a composition out of adapters that are there.

`average.average` makes one adapter of the same kind out of several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapters.adapter import Adapter, build
from adapters.config import AdapterConfig, Part, fields_of
from adapters.errors import AdapterError
from adapters.files import digest


def fuse(parts: Sequence[Adapter], generator: torch.Generator, **fields: Any) -> Adapter:
    """A fusion of adapters, ready to be trained; they are copied, and left as they are.

    Args:
        parts: at least two, for one backbone; the methods that `fields.PARTS` allows.
        generator: a CPU generator that draws the initial weights.
        fields: of `AdapterConfig`: `value_matrix`, `temperature`, `dropout`.

    Raises:
        AdapterError: they cannot be fused; the message says why.
    """
    return _composed({"method": "fuse", **fields}, parts, generator)


def stack(parts: Sequence[Adapter], config: AdapterConfig, generator: torch.Generator) -> Adapter:
    """A bottleneck on top of frozen adapters, ready to be trained; they are copied, and left as they are.

    Args:
        parts: from the bottom up, at least one, for one backbone; the methods that `fields.PARTS` allows.
        config: of the bottleneck.
        generator: a CPU generator that draws the initial weights.

    Raises:
        AdapterError: they cannot be stacked; the message says why.
    """
    if not isinstance(config, AdapterConfig) or config.method != "bottleneck":
        what = config.method if isinstance(config, AdapterConfig) else type(config).__name__
        raise AdapterError(f"what is trained on top of a stack is a bottleneck, not a {what}", "method")
    own = {name: getattr(config, name) for name in fields_of("bottleneck")[1:]}
    return _composed({"method": "stack", **own}, parts, generator)


def _composed(fields: Mapping[str, Any], parts: Sequence[Adapter], generator: torch.Generator) -> Adapter:
    for part in parts:
        if not isinstance(part, Adapter):
            raise AdapterError(f"expected an Adapter, not {type(part).__name__}", "adapters")
    named = {digest(part): part for part in parts}
    if len(named) < len(parts):
        raise AdapterError(f"a {fields['method']} holds the same adapter twice", "adapters")
    config = AdapterConfig(
        **fields, adapters=tuple(Part(part.config, weights) for weights, part in named.items())
    )
    # A shape of them that was measured serves the others, too.
    shape = next((part.shape for part in parts if part.shape.linears), parts[0].shape)
    return build(config, shape, generator, parts=named)
