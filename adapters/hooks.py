"""What the hooks of inserted adapters compute. One hook a site; no state; nothing is copied on the way.

Hooks are partials of the functions below, so that a deep copy of a model takes its own adapters along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from adapters.adapter import Adapter
from adapters.architectures import HookPoint
from adapters.bottleneck import Bottleneck
from adapters.errors import AdapterError

Delta = Callable[[Tensor], Tensor]


class Segment(NamedTuple):
    """The tokens `start:stop` of a flat input, for one adapter's module."""

    adapter: Adapter
    module: Bottleneck
    start: int
    stop: int


def register(module: nn.Module, point: HookPoint, delta: Delta) -> RemovableHandle:
    """Put the hook of one site on its module, with `delta` giving what to add."""
    if point.hook == "residual":
        return module.register_forward_pre_hook(partial(_add_to_residual, delta))
    hooks = {"after": _add_after, "beside": _add_beside, "norm": _add_inside_norm}
    return module.register_forward_hook(partial(hooks[point.hook], delta))


def register_ladder(adapter: Adapter, layers: Sequence[nn.Module], end: nn.Module) -> list[RemovableHandle]:
    """Let a ladder read the input of some layers, and add its result to the output of the last module.

    What is read is kept from one hook to the other, and forgotten when the forward pass reaches the end.
    """
    kept: dict[int, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(partial(_keep_input, kept, number), with_kwargs=True)
        for number, layer in enumerate(layers)
    ]
    return [*handles, end.register_forward_hook(partial(_add_ladder, adapter, kept))]


def whole(adapter: Adapter, module: Bottleneck) -> Delta:
    """A delta of one module over all tokens."""
    return partial(_whole_delta, adapter, module)


def routed(segments: Iterable[Segment]) -> Delta:
    """A delta over a flat input [1, tokens, d]: each module on its own tokens, zero elsewhere."""
    owners: list[Segment | None] = []
    sizes: list[int] = []
    position = 0
    for segment in sorted(segments, key=lambda segment: segment.start):
        if segment.start > position:
            owners.append(None)
            sizes.append(segment.start - position)
        owners.append(segment)
        sizes.append(segment.stop - segment.start)
        position = segment.stop
    return partial(_routed_delta, tuple(owners), tuple(sizes), position)


def _add_after(delta: Delta, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    return output + delta(output)


def _add_beside(delta: Delta, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    return output + delta(arguments[0])


def _add_to_residual(delta: Delta, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    sublayer_input, residual = arguments
    return sublayer_input, residual + delta(residual)


def _add_inside_norm(delta: Delta, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    normalised: Tensor = module.forward(arguments[0] + delta(output))  # not a call: this hook would run again
    return normalised


def _keep_input(
    kept: dict[int, Tensor], number: int, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    kept[number] = arguments[0] if arguments else named["hidden_states"]


def _add_ladder(
    adapter: Adapter, kept: dict[int, Tensor], module: nn.Module, arguments: tuple[Any, ...], output: Tensor
) -> Tensor:
    assert adapter.side is not None
    lower = [kept[number].to(output.device) for number in sorted(kept)]
    kept.clear()
    delta: Tensor = adapter.side([*lower, output], adapter.generator)
    return output + delta


def _whole_delta(adapter: Adapter, module: Bottleneck, hidden_states: Tensor) -> Tensor:
    result: Tensor = module(hidden_states, adapter.generator)
    return result


def _routed_delta(
    owners: tuple[Segment | None, ...], sizes: tuple[int, ...], end: int, hidden_states: Tensor
) -> Tensor:
    shape = hidden_states.shape
    if len(shape) != 3 or shape[0] != 1 or shape[1] < end:
        raise AdapterError(f"routes up to token {end} need a flat input [1, tokens, d], not {list(shape)}")
    if shape[1] > end:
        owners, sizes = (*owners, None), (*sizes, shape[1] - end)
    if len(owners) == 1:
        return _segment_delta(owners[0], hidden_states)
    # One split and one concatenation: in the backward pass, the slice of each segment would fill a gradient
    # of full size with zeros, while a split concatenates once.
    pieces = zip(owners, hidden_states.split(sizes, dim=1), strict=True)
    return torch.cat([_segment_delta(owner, piece) for owner, piece in pieces], dim=1)


def _segment_delta(segment: Segment | None, hidden_states: Tensor) -> Tensor:
    if segment is None:
        return torch.zeros_like(hidden_states)  # backbone alone: nothing is added, its own gradient flows on
    return _whole_delta(segment.adapter, segment.module, hidden_states)
