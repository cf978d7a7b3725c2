"""A run under way, from layer to layer: who is in it, who joins at which depth, what is computed of whom.

Texts that join behind the last projection of a sublayer bring its output along: the sublayer computes the
others alone, and its modules are called as ever, so that hooks on them act on all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adapters.architectures import Architecture, architecture_of, first_position, forward_of
from adapters.depth import ATTENTION, FFN, INPUT, Depth, States
from adapters.flat import Sequences
from adapters.hooks import leave_layer

Pooled = Literal["cls", "last", "read"]
"""Which tokens' last hidden states are asked for: the first or the last of each text, or those of
``Sequences.read``."""


@dataclass(frozen=True)
class Entry:
    """Some texts, and what the backbone computed of them up to a depth.

    Args:
        depth: where they enter the run.
        states: ``[tokens, hidden_size]`` each, as many as the depth has; on the device of the model.
        sequences: where the texts lie in them.
    """

    depth: Depth
    states: States
    sequences: Sequences


def asks_alone(model: Any, pooled: Pooled | None) -> bool:
    """Whether the last attention of a model can be asked by one token of each text, and compute no other.

    Hooks on its query, on its last projection and on what follows then see a row for each text.
    """
    causal = getattr(model.config, "is_decoder", False)
    return pooled in ("cls", "last") and forward_of(model).attend_alone is not None and not causal


class Run:
    """A run under way: the hidden states of the texts that are in it, and the entries still to join.

    Args:
        model: a prepared backbone.
        entries: at least one, in the order of their depths, the lowest first.
        pooled: which rows are asked for at the end; None for all.
        alone: they alone ask the last attention, see :func:`asks_alone`.
    """

    def __init__(
        self, model: Any, entries: Sequence[Entry], pooled: Pooled | None = None, alone: bool = False
    ) -> None:
        self.base = model.base_model
        self.row: Architecture = architecture_of(model)
        self.forward = forward_of(model)
        self.first_position = first_position(model.config)
        self.layers = model.base_model.get_submodule(self.row.layers)
        self.waiting = list(entries)
        self.pooled = pooled
        self.alone = alone
        self.is_pooled = False
        self.hidden: Tensor | None = None
        self.sequences: Sequences | None = None
        self.arguments: dict[str, Any] = {}

    @property
    def tokens(self) -> Tensor:
        """The hidden states as ``[tokens, hidden_size]``."""
        assert self.hidden is not None
        return self.hidden[0]

    def join(self, depth: Depth) -> list[Entry]:
        """Take the entries of a depth into the run; states from within a layer are left to the caller."""
        joined = []
        while self.waiting and self.waiting[0].depth == depth:
            joined.append(self.waiting.pop(0))
        if joined:
            present = [] if self.sequences is None else [self.sequences]
            self.sequences = Sequences.join([*present, *(entry.sequences for entry in joined)])
            self.arguments = {}
            if depth.behind == INPUT:
                at_the_end = depth.layer == len(self.layers)
                states = [self._read(entry.states[0], entry.sequences, at_the_end) for entry in joined]
                self.hidden = _joined(self.hidden, states)
        return joined

    def attention(self, index: int) -> None:
        """The attention of a layer, up to the residual that its FFN reads."""
        self.join(Depth(index, INPUT))
        layer, hidden, own = self.layers[index], self.hidden, None
        self.is_pooled = self.alone and index == len(self.layers) - 1
        if hidden is not None and self.sequences is not None:
            own = self._read(hidden[0], self.sequences, self.is_pooled).unsqueeze(0)
            told = self._told(hidden)  # of those who attend, before others join behind it
        residual, known = self._residual(own, self.join(Depth(index, ATTENTION)), self.is_pooled)
        if residual is None:
            return
        projection = self.module(index, self.row.attention)
        with _known(projection, known):
            if hidden is None or own is None:
                output = projection(residual[:, :0])
            elif self.is_pooled:
                assert self.forward.attend_alone is not None
                output = self.forward.attend_alone(layer, hidden, own, told)
            else:
                output = self.forward.attend(layer, hidden, told)
        self.hidden = self.forward.add(layer, output, residual)

    def _told(self, hidden: Tensor) -> dict[str, Any]:
        """What the attention of every layer is told of the texts; the same until others join."""
        assert self.sequences is not None
        if not self.arguments:
            self.arguments = {"attention_mask": None, "sequences": self.sequences}
            if self.forward.rotary is not None:
                positions = (self.sequences.positions + self.first_position).to(
                    hidden.device, non_blocking=True
                )
                rotary = self.forward.rotary(self.base, hidden, positions.unsqueeze(0))
                self.arguments["position_embeddings"] = rotary
        return self.arguments

    def ffn(self, index: int) -> None:
        """The FFN of a layer, and what leaves the layer."""
        self._ffn(index)
        if self.hidden is not None:
            self.hidden = leave_layer(self.layers[index], self.hidden)

    def _ffn(self, index: int) -> None:
        layer, own, last = self.layers[index], self.hidden, index == len(self.layers) - 1
        if own is not None and self.sequences is not None:
            own = self._read(own[0], self.sequences, last and not self.is_pooled).unsqueeze(0)
        residual, known = self._residual(own, self.join(Depth(index, FFN)), last)
        if residual is None:
            return
        present = 0 if own is None else own.shape[1]
        with ExitStack() as stack:
            if known is not None:
                for path in self.forward.expand:
                    stack.enter_context(_only(self.module(index, path), present))
            stack.enter_context(_known(self.module(index, self.row.ffn), known))
            self.hidden = self.forward.ffn(layer, residual)

    def _residual(
        self, own: Tensor | None, joined: list[Entry], pooled: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The residual of a sublayer with that of who joins behind it, and what is known of its output."""
        if not joined:
            return own, None
        residuals, outputs = (
            [self._read(entry.states[tensor], entry.sequences, pooled) for entry in joined]
            for tensor in (0, 1)
        )
        return _joined(own, residuals), _joined(None, outputs)

    def _read(self, states: Tensor, sequences: Sequences, pooled: bool) -> Tensor:
        """Of ``[tokens, hidden_size]`` only the rows that are asked for, once no text needs its others."""
        return rows_read(states, sequences, self.pooled) if pooled else states

    def module(self, index: int, path: str) -> nn.Module:
        """A module of a layer."""
        module: nn.Module = self.layers[index].get_submodule(path)
        return module


def rows_read(states: Tensor, sequences: Sequences, pooled: Pooled | None) -> Tensor:
    """Of ``[tokens, hidden_size]`` the rows that are asked for; all of them if pooled is None."""
    if pooled is None:
        return states
    if pooled == "read":
        assert sequences.read is not None
        return states.index_select(0, sequences.read.to(states.device, non_blocking=True))
    offsets = sequences.offsets.to(states.device, non_blocking=True)
    return states.index_select(0, offsets[:-1] if pooled == "cls" else offsets[1:] - 1)


def _joined(hidden: Tensor | None, states: list[Tensor]) -> Tensor:
    more = [state.unsqueeze(0) for state in states]
    parts = more if hidden is None else [hidden, *more]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


@contextmanager
def _known(projection: nn.Module, known: Tensor | None) -> Iterator[None]:
    """Let the last projection of a sublayer put out what it computes, and behind it what is known of others.

    It is called as ever, so that the hooks of adapters on it act on all tokens.
    """
    if known is None:
        yield
        return
    projected = projection.forward

    def with_known(hidden_states: Tensor) -> Tensor:
        return torch.cat([projected(hidden_states), known], dim=1) if hidden_states.shape[1] else known

    with _replaced(projection, with_known):
        yield


@contextmanager
def _only(module: nn.Module, present: int) -> Iterator[None]:
    """Let a module compute the first tokens alone, and put out nothing for the others."""
    forward = module.forward

    def only_present(hidden_states: Tensor) -> Tensor:
        result: Tensor = forward(hidden_states[:, :present]) if present else hidden_states[:, :0]
        return result

    with _replaced(module, only_present):
        yield


@contextmanager
def _replaced(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
