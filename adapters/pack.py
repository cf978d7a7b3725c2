"""Many adapters over one frozen backbone, a slot each.

A pack runs the batches of all its slots as one flat sequence of tokens: the frozen layers see them together,
each adapter sees its own slot's tokens alone. A trial alone is a pack of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, cat
from transformers import PreTrainedModel

from adapters.architectures import hidden_size, layer_count
from adapters.flat import Sequences, flat_forward, prepare
from adapters.insert import Adapter, activate, active, attach, remove, route


@dataclass(frozen=True)
class FlatBatch:
    """Some texts as one flat run of tokens.

    Args:
        input_ids: int64 ``[tokens]``.
        token_type_ids: int64 ``[tokens]``, or None.
        sequences: where each text lies in the run.
    """

    input_ids: Tensor
    token_type_ids: Tensor | None
    sequences: Sequences


class Pack:
    """A frozen backbone with room for ``slots`` adapters.

    Args:
        backbone: is frozen, put in eval mode and prepared for flat runs; otherwise left as it is.
        slots: how many adapters may be in it at once, at least 1.
    """

    def __init__(self, backbone: PreTrainedModel, slots: int = 1) -> None:
        if slots < 1:
            raise ValueError(f"a pack has at least one slot, not {slots}")
        self.backbone = backbone
        self.slots = slots
        self.hidden_size = hidden_size(backbone.config)
        self.layer_count = layer_count(backbone.config)
        self._adapters: dict[int, Adapter | None] = {}
        backbone.requires_grad_(False).eval()
        prepare(backbone)

    def put(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a free slot; None trains a head on the bare backbone."""
        if not 0 <= slot < self.slots or slot in self._adapters:
            raise ValueError(f"slot {slot} is taken or not among the {self.slots} of this pack")
        if adapter is not None:
            attach(self.backbone, adapter, _name(slot))
        self._adapters[slot] = adapter

    def clear(self, slot: int) -> Adapter | None:
        """Take the adapter of a slot out again; the slot is free after it."""
        adapter = self._adapters.pop(slot)
        if adapter is not None:
            remove(self.backbone, _name(slot))
        return adapter

    def train_slot(self, slot: int, training: bool) -> None:
        """Turn a slot's dropout on or off; the backbone itself is always in eval mode."""
        adapter = self._adapters[slot]
        if adapter is not None:
            adapter.train(training)

    def forward(self, parts: Sequence[tuple[int, FlatBatch]]) -> list[Tensor]:
        """Last hidden states of each part, ``[its tokens, hidden_size]``, through its slot's adapter.

        Args:
            parts: ``(slot, batch)`` pairs, at least one, tensors on the device of the backbone.
        """
        if len(parts) == 1:
            slot, batch = parts[0]
            wanted = _name(slot) if self._adapters[slot] is not None else None
            if active(self.backbone) != wanted:
                activate(self.backbone, wanted)
            return [flat_forward(self.backbone, batch.input_ids, batch.token_type_ids, batch.sequences)]
        stops = [0]
        for _, batch in parts:
            stops.append(stops[-1] + batch.sequences.tokens)
        routes = [
            (_name(slot), start, stop)
            for (slot, _), (start, stop) in zip(parts, pairwise(stops), strict=True)
            if self._adapters[slot] is not None
        ]
        types = [batch.token_type_ids for _, batch in parts if batch.token_type_ids is not None]
        with route(self.backbone, routes) if routes else nullcontext():
            hidden = flat_forward(
                self.backbone,
                cat([batch.input_ids for _, batch in parts]),
                cat(types) if len(types) == len(parts) else None,
                Sequences.join([batch.sequences for _, batch in parts]),
            )
        return [hidden[start:stop] for start, stop in pairwise(stops)]


def _name(slot: int) -> str:
    return f"slot_{slot}"
