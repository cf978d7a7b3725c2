"""What the hooks of inserted adapters compute. One hook a site; nothing is copied on the way.

Hooks are partials of the functions below, so that a deep copy of a model takes its own adapters along. They
have no state but what one of them reads for another within a forward pass, and that is each thread's own: see
`kept.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from adapters.adapter import Adapter
from adapters.architectures import HookPoint
from adapters.errors import AdapterError
from adapters.kept import Kept
from adapters.positions import register_after
from adapters.prefix import Prefix, PrefixHandle

Delta = Callable[[Tensor], Tensor]
Change = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""``(the backbone's module, its input, its output)`` to what its output becomes."""

_LAYER_END = "sweeper_layer_end"


class Segment(NamedTuple):
    """The tokens `start:stop` of a flat input, for one adapter's module."""

    adapter: Adapter
    module: nn.Module
    start: int
    stop: int


class Handle(Protocol):
    """What takes a hook off again."""

    def remove(self) -> None:
        """Take it off."""


def register(
    module: nn.Module,
    point: HookPoint,
    adapter: Adapter,
    own: nn.Module,
    backbone: Any,
    reads: nn.Module | None = None,
) -> Handle:
    """Put the hook of one place on a module of the backbone, for all tokens that it sees.

    Args:
        reads: of the hook "across", the module whose input the adapter's module takes.
    """
    if point.hook == "positions":
        return register_after(adapter.config.prefix_length, module)
    if point.hook == "prefix":
        assert isinstance(own, Prefix)
        return PrefixHandle(module, own, backbone)
    if point.hook in _CHANGES:
        return _register_change(module, point, partial(_whole_change, adapter, own))
    return _register_delta(module, point, partial(_whole_delta, adapter, own), reads)


def register_routed(
    module: nn.Module, point: HookPoint, segments: Iterable[Segment], reads: nn.Module | None = None
) -> Handle:
    """Put the hook of one place on a module of the backbone: each adapter's module acts on its own tokens."""
    owners, sizes, end = _division(segments)
    if point.hook in _CHANGES:
        return _register_change(module, point, partial(_routed_change, owners, sizes, end))
    return _register_delta(module, point, partial(_routed_delta, owners, sizes, end), reads)


def leave_layer(layer: nn.Module, hidden_states: Tensor) -> Tensor:
    """What leaves a layer that was run by its halves, with the changes that its call would make."""
    change: tuple[Change] | None = layer.__dict__.get(_LAYER_END)
    return hidden_states if change is None else change[0](layer, hidden_states, hidden_states)


class _Handles(tuple[RemovableHandle, ...]):
    """Several hooks as one."""

    def remove(self) -> None:
        """Take them off."""
        for handle in self:
            handle.remove()


def _register_delta(module: nn.Module, point: HookPoint, delta: Delta, reads: nn.Module | None) -> Handle:
    if reads is not None:
        kept = Kept()
        put = module.register_forward_hook(partial(_add_across, delta, kept))
        return _Handles((reads.register_forward_pre_hook(partial(_keep_read, kept)), put))
    if point.hook == "residual":
        return module.register_forward_pre_hook(partial(_add_to_residual, delta))
    hooks = {"after": _add_after, "beside": _add_beside, "norm": _add_inside_norm}
    return module.register_forward_hook(partial(hooks[point.hook], delta))


def _register_change(module: nn.Module, point: HookPoint, change: Change) -> Handle:
    """ "change": what the module puts out; "input": what it reads; "layer": what a whole layer puts out."""
    if point.hook == "input":
        return module.register_forward_pre_hook(partial(_change_input, change))
    handle = module.register_forward_hook(partial(_change_output, change))
    return handle if point.hook == "change" else _LayerHandle(module, handle, change)


class _LayerHandle:
    """The hook of a layer, which acts too where the layer is run by its halves: see `leave_layer`."""

    def __init__(self, layer: nn.Module, handle: RemovableHandle, change: Change) -> None:
        self._layer = layer
        self._handle = handle
        layer.__dict__[_LAYER_END] = (change,)

    def remove(self) -> None:
        """Take it off."""
        self._handle.remove()
        self._layer.__dict__.pop(_LAYER_END, None)


_CHANGES = ("change", "input", "layer")


def register_ladder(adapter: Adapter, layers: Sequence[nn.Module], end: nn.Module) -> list[RemovableHandle]:
    """Let a ladder read the input of some layers, and add its result to the output of the last module.

    What is read is kept from one hook to the other, and forgotten when the forward pass reaches the end.
    """
    kept = Kept()
    handles = [
        layer.register_forward_pre_hook(partial(_keep_input, kept, number), with_kwargs=True)
        for number, layer in enumerate(layers)
    ]
    return [*handles, end.register_forward_hook(partial(_add_ladder, adapter, kept))]


def _division(segments: Iterable[Segment]) -> tuple[tuple[Segment | None, ...], tuple[int, ...], int]:
    """Whose the tokens of a flat input are, how many each, and where the last one ends."""
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
    return tuple(owners), tuple(sizes), position


def _sum(frozen: Tensor, own: Tensor) -> Tensor:
    """What the backbone computed, and what an adapter's module adds to it.

    Without gradients the sum takes the place of the second, which nobody else holds: in a large batch, memory
    for a third tensor costs as much as the sum itself. What the backbone computed stays as it is.
    """
    if torch.is_grad_enabled() or own.dtype != frozen.dtype:
        return frozen + own
    return own.add_(frozen)


def _add_after(delta: Delta, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    return _sum(output, delta(output))


def _add_beside(delta: Delta, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    return _sum(output, delta(arguments[0]))


def _add_to_residual(delta: Delta, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    sublayer_input, residual = arguments
    return sublayer_input, _sum(residual, delta(residual))


def _add_inside_norm(delta: Delta, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
    changed = _sum(arguments[0], delta(output))
    normalised: Tensor = module.forward(changed)  # not a call: this hook would run again
    return normalised


def _keep_read(kept: Kept, module: nn.Module, arguments: tuple[Any, ...]) -> None:
    kept.values[0] = arguments[0]


def _add_across(
    delta: Delta, kept: Kept, module: nn.Module, arguments: tuple[Any, ...], output: Tensor
) -> Tensor:
    own = delta(kept.values.pop(0))
    rows = own.shape[1]
    if rows == output.shape[1]:
        return _sum(output, own)
    # Of the last tokens a run knows what the sublayer makes, and nothing is added; see `adapters.layerwise`.
    return torch.cat([_sum(output[:, :rows], own), output[:, rows:]], dim=1)


def _keep_input(
    kept: Kept, number: int, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    kept.values[number] = arguments[0] if arguments else named["hidden_states"]


def _add_ladder(
    adapter: Adapter, kept: Kept, module: nn.Module, arguments: tuple[Any, ...], output: Tensor
) -> Tensor:
    assert adapter.side is not None
    lower = [kept.values[number].to(output.device) for number in sorted(kept.values)]
    kept.values.clear()
    delta: Tensor = adapter.side([*lower, output], adapter.generator)
    return output + delta


def _change_output(change: Change, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    if isinstance(output, tuple):
        return (_change_output(change, module, arguments, output[0]), *output[1:])
    inputs: Tensor = arguments[0] if arguments else output
    if inputs.ndim != 3 or inputs.shape[1] == output.shape[1]:
        return change(module, inputs, output)
    # Of the last tokens a run knows what the FFN makes: they are not computed here, and nothing of theirs is
    # changed; see `adapters.layerwise`.
    rows = min(inputs.shape[1], output.shape[1])
    if rows == 0:
        return output
    return torch.cat([change(module, inputs[:, :rows], output[:, :rows]), output[:, rows:]], dim=1)


def _change_input(change: Change, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    inputs, *others = arguments
    return (change(module, inputs, inputs) if inputs.shape[1] else inputs, *others)


def _whole_change(
    adapter: Adapter, own: nn.Module, hooked: nn.Module, inputs: Tensor, outputs: Tensor
) -> Tensor:
    changed: Tensor = own.change(hooked, inputs, outputs, adapter.generator)  # type: ignore[operator]
    return changed


def _routed_change(
    owners: tuple[Segment | None, ...],
    sizes: tuple[int, ...],
    end: int,
    hooked: nn.Module,
    inputs: Tensor,
    outputs: Tensor,
) -> Tensor:
    owners, sizes = _over(owners, sizes, end, outputs)
    changed = [
        mine if owner is None else _whole_change(owner.adapter, owner.module, hooked, read, mine)
        for owner, read, mine in zip(
            owners, inputs.split(sizes, dim=1), outputs.split(sizes, dim=1), strict=True
        )
    ]
    return changed[0] if len(changed) == 1 else torch.cat(changed, dim=1)


def _whole_delta(adapter: Adapter, module: nn.Module, hidden_states: Tensor) -> Tensor:
    result: Tensor = module(hidden_states, adapter.generator)
    return result


def _routed_delta(
    owners: tuple[Segment | None, ...], sizes: tuple[int, ...], end: int, hidden_states: Tensor
) -> Tensor:
    owners, sizes = _over(owners, sizes, end, hidden_states)
    if len(owners) == 1:
        return _segment_delta(owners[0], hidden_states)
    # One split and one concatenation: in the backward pass, the slice of each segment would fill a gradient
    # of full size with zeros, while a split concatenates once.
    pieces = zip(owners, hidden_states.split(sizes, dim=1), strict=True)
    return torch.cat([_segment_delta(owner, piece) for owner, piece in pieces], dim=1)


def _over(
    owners: tuple[Segment | None, ...], sizes: tuple[int, ...], end: int, hidden_states: Tensor
) -> tuple[tuple[Segment | None, ...], tuple[int, ...]]:
    """Owners and sizes up to the last token of a flat input."""
    shape = hidden_states.shape
    if len(shape) != 3 or shape[0] != 1 or shape[1] < end:
        raise AdapterError(f"routes up to token {end} need a flat input [1, tokens, d], not {list(shape)}")
    if shape[1] > end:
        owners, sizes = (*owners, None), (*sizes, shape[1] - end)
    return owners, sizes


def _segment_delta(segment: Segment | None, hidden_states: Tensor) -> Tensor:
    if segment is None:
        return torch.zeros_like(hidden_states)  # backbone alone: nothing is added, its own gradient flows on
    return _whole_delta(segment.adapter, segment.module, hidden_states)
