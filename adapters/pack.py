"""Many adapters over one frozen backbone, a slot each.

A pack runs the batches of all its slots as one flat sequence of tokens: the frozen layers see them together,
each adapter sees its own slot's tokens alone. A trial alone is a pack of one. A backbone that cannot run on
flat tokens (see :func:`adapters.architectures.is_flat`) takes one slot after the other, each padded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import Tensor, nn
from transformers import PreTrainedModel

from adapters.architectures import architecture_of, hidden_size, is_flat, layer_count
from adapters.config import shares_step
from adapters.depth import EMBEDDED, FROM_TOKENS, Depth, States, enters
from adapters.flat import Sequences, prepare
from adapters.insert import Adapter, activate, active, attach, remove, route
from adapters.layerwise import Entry, Pooled, asks_alone, rows_read
from adapters.padded import padded_forward
from adapters.run import Readings, climb, embed, frozen_states, prompted, run


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


Batch = FlatBatch | Entry | Readings
"""Texts as tokens, or as the frozen hidden states that the backbone makes of them: at one depth, or at all
that a ladder reads."""


class Pack:
    """A frozen backbone with room for ``slots`` adapters.

    Args:
        backbone: is frozen, put in eval mode and, if it can, prepared for flat runs; otherwise left as it is.
        slots: how many adapters may be in it at once, at least 1.
    """

    def __init__(self, backbone: PreTrainedModel, slots: int = 1) -> None:
        if slots < 1:
            raise ValueError(f"a pack has at least one slot, not {slots}")
        self.backbone = backbone
        self.slots = slots
        self.hidden_size = hidden_size(backbone.config)
        self.layer_count = layer_count(backbone.config)
        self.is_flat = is_flat(backbone)
        layers = backbone.base_model.get_submodule(architecture_of(backbone).layers)
        self._layer_parameters = _parameter_count(next(layers.children()))
        self._adapters: dict[int, Adapter | None] = {}
        self._reads: dict[int, tuple[Depth, ...]] = {}
        backbone.requires_grad_(False).eval()
        if self.is_flat:
            prepare(backbone)

    def put(self, slot: int, adapter: Adapter | None) -> None:
        """Put an adapter into a free slot; None trains a head on the bare backbone."""
        if not 0 <= slot < self.slots or slot in self._adapters:
            raise ValueError(f"slot {slot} is taken or not among the {self.slots} of this pack")
        present = [*self._adapters.values(), adapter]
        if len(present) > 1 and not all(own is None or shares_step(own.config) for own in present):
            raise ValueError(f"slot {slot}: a method that cannot share a step is alone in its pack")
        if adapter is not None:
            attach(self.backbone, adapter, _name(slot))
            activate(self.backbone, None)  # it acts in runs that have texts of its slot
        self._adapters[slot] = adapter
        self._reads[slot] = enters(adapter.config if adapter is not None else None, self.backbone.config)

    def clear(self, slot: int) -> Adapter | None:
        """Take the adapter of a slot out again; the slot is free after it."""
        adapter = self._adapters.pop(slot)
        del self._reads[slot]
        if adapter is not None:
            remove(self.backbone, _name(slot))
        return adapter

    def train_slot(self, slot: int, training: bool) -> bool:
        """Turn a slot's dropout on or off; returns what it was. The backbone is always in eval mode."""
        adapter = self._adapters[slot]
        was = adapter is not None and adapter.training
        if adapter is not None:
            adapter.train(training)
        return was

    def depth(self, slot: int) -> Depth:
        """How deep the backbone is frozen below what is in a slot."""
        return self._reads[slot][-1]

    def reads(self, slot: int) -> tuple[Depth, ...]:
        """At which depths what is in a slot takes over: one, or all that a ladder reads."""
        return self._reads[slot]

    def layers(self, slot: int) -> float:
        """What a token of a slot costs, in layers of the backbone; a ladder is one by its parameters."""
        adapter = self._adapters[slot]
        if adapter is None or adapter.side is None or not self.is_flat:
            return self.layer_count - self.depth(slot).layers
        return _parameter_count(adapter.side) / self._layer_parameters

    def forward(self, parts: Sequence[tuple[int, Batch]], pooled: Pooled | None = None) -> list[Tensor]:
        """Last hidden states of each part through its slot's adapter.

        What lies below the lowest site of a slot is computed without gradients, or not at all where the part
        brings frozen states along.

        Args:
            parts: ``(slot, batch)`` pairs, at least one, tensors on the device of the backbone; frozen states
                not from beyond the slot's depth.
            pooled: "cls" or "last" for one token of each text, "read" for those that its sequences name; see
                :func:`adapters.run.run`.

        Returns:
            ``[its tokens, hidden_size]`` each; if pooled ``[its texts, hidden_size]``, or those read.
        """
        if not self.is_flat:
            return [self._padded(slot, batch, pooled) for slot, batch in parts]
        found: dict[int, Tensor] = {}
        inside: list[tuple[int, int, Entry]] = []
        for part, (slot, batch) in enumerate(parts):
            adapter = self._adapters[slot]
            if adapter is not None and self.depth(slot) == FROM_TOKENS:
                found[part] = self._from_tokens(slot, adapter, batch, pooled)
            elif adapter is not None and adapter.side is not None:
                found[part] = climb(self.backbone, adapter, self._readings(slot, batch), pooled)
            else:
                inside.append((part, slot, self._entry(slot, batch)))
        if inside:
            own, slots, entries = zip(*inside, strict=True)
            found |= zip(own, self._run(list(slots), list(entries), pooled), strict=True)
        return [found[part] for part in range(len(parts))]

    def _from_tokens(self, slot: int, adapter: Adapter, batch: Batch, pooled: Pooled | None) -> Tensor:
        """A part whose adapter acts where texts are embedded, alone."""
        if not isinstance(batch, FlatBatch):
            raise ValueError(f"slot {slot} changes how texts are embedded: it takes tokens, and no states")
        text = (batch.input_ids, batch.token_type_ids, batch.sequences)
        with self._through([slot], [], []):
            if adapter.prompt is not None:
                return prompted(self.backbone, adapter.prompt, *text, pooled)
            entry = Entry(EMBEDDED, (embed(self.backbone, *text),), batch.sequences)
            return run(self.backbone, [entry], pooled, alone=asks_alone(self.backbone, pooled))

    def _padded(self, slot: int, batch: Batch, pooled: Pooled | None) -> Tensor:
        """A part through the whole backbone, padded, alone."""
        if not isinstance(batch, FlatBatch):
            raise ValueError("a backbone that runs on padded texts takes tokens, and no frozen states")
        with self._through([slot], [], []):
            hidden = padded_forward(self.backbone, batch.input_ids, batch.token_type_ids, batch.sequences)
        return rows_read(hidden, batch.sequences, pooled)

    def _run(self, slots: list[int], entries: list[Entry], pooled: Pooled | None) -> list[Tensor]:
        """The parts that go through the backbone, as one run."""
        order = sorted(range(len(entries)), key=lambda part: entries[part].depth)
        tokens = _ranges(order, [entry.sequences.tokens for entry in entries])
        rows = tokens
        if pooled is not None:
            rows = _ranges(order, [_rows(entry.sequences, pooled) for entry in entries])
        alone = asks_alone(self.backbone, pooled)
        with self._through(slots, tokens, rows, alone):
            hidden = run(self.backbone, [entries[part] for part in order], pooled, alone=alone)
        return [hidden[slice(*own)] for own in rows]

    def frozen_states(self, batch: FlatBatch, depths: Iterable[Depth]) -> dict[Depth, States]:
        """What the backbone alone makes of a batch up to some depths, whatever is in the slots."""
        activate(self.backbone, None)
        return frozen_states(self.backbone, batch.input_ids, batch.token_type_ids, batch.sequences, depths)

    def _entry(self, slot: int, batch: Batch) -> Entry:
        depth = self.depth(slot)
        if isinstance(batch, Readings):
            raise ValueError(f"slot {slot} takes the states of one depth: only a ladder reads several")
        if isinstance(batch, FlatBatch):
            return Entry(depth, self.frozen_states(batch, [depth])[depth], batch.sequences)
        if batch.depth > depth:
            raise ValueError(f"states of {batch.depth} lie beyond slot {slot}, which begins at {depth}")
        return batch

    def _readings(self, slot: int, batch: Batch) -> Readings:
        wanted = self._reads[slot]
        if isinstance(batch, FlatBatch):
            states = self.frozen_states(batch, wanted)
            return Readings({depth: states[depth][0] for depth in wanted}, batch.sequences)
        if isinstance(batch, Entry) or tuple(batch.states) != wanted:
            raise ValueError(f"slot {slot} holds a ladder, which takes the states of all the depths it reads")
        return batch

    def _through(
        self,
        slots: list[int],
        tokens: list[tuple[int, int]],
        at_the_end: list[tuple[int, int]],
        alone: bool = False,
    ) -> AbstractContextManager[None]:
        """A context in which each adapter acts on its own tokens, and in the last layer on its own rows.

        Args:
            alone: the last attention is asked by those rows alone.
        """
        if len(slots) == 1:
            (slot,) = slots
            wanted = _name(slot) if self._adapters[slot] is not None else None
            if active(self.backbone) != wanted:
                activate(self.backbone, wanted)
            return nullcontext()
        here = [part for part, slot in enumerate(slots) if self._adapters[slot] is not None]
        routes = [(_name(slots[part]), *tokens[part]) for part in here]
        return route(self.backbone, routes, {_name(slots[part]): at_the_end[part] for part in here}, alone)


def _rows(sequences: Sequences, pooled: Pooled) -> int:
    """How many hidden states are asked for."""
    if pooled == "read":
        assert sequences.read is not None
        return len(sequences.read)
    return len(sequences.lengths)


def _ranges(order: list[int], sizes: list[int]) -> list[tuple[int, int]]:
    """From where to where each part goes, by part, when they lie one after the other in an order."""
    stops = list(accumulate((sizes[part] for part in order), initial=0))
    by_part = dict(zip(order, pairwise(stops), strict=True))
    return [by_part[part] for part in range(len(sizes))]


def _name(slot: int) -> str:
    return f"slot_{slot}"


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
