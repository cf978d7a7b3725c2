"""A flat run of tokens through an unmodified Hugging Face model, from tokens or from frozen hidden states.

Texts may enter at different depths: the run carries those that are in it, and the others join at the depth of
their states. Below that depth nothing is computed for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.architectures import Architecture, architecture_of, first_position, forward_of
from adapters.depth import EMBEDDED, Depth, States
from adapters.flat import Sequences
from adapters.hooks import leave_layer
from adapters.prompt import Prompt, flat_vectors

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


@dataclass(frozen=True)
class Readings:
    """Some texts, and what the backbone alone computes of them at all the depths that a ladder reads.

    Args:
        states: of each depth, from the bottom up: ``[tokens, hidden_size]``, on the device of the model.
        sequences: where the texts lie in them.
    """

    states: Mapping[Depth, Tensor]
    sequences: Sequences


def flat_forward(
    model: Any, input_ids: Tensor, token_type_ids: Tensor | None, sequences: Sequences
) -> Tensor:
    """Last hidden states of a flat run of tokens, ``[tokens, hidden_size]``, in the dtype of the model.

    Args:
        model: a backbone that went through :func:`adapters.flat.prepare`.
        input_ids: int64 ``[tokens]``, on the device of the model.
        token_type_ids: int64 ``[tokens]``, or None.
        sequences: where the texts lie in it.
    """
    return run(model, [Entry(EMBEDDED, (embed(model, input_ids, token_type_ids, sequences),), sequences)])


def embed(model: Any, input_ids: Tensor, token_type_ids: Tensor | None, sequences: Sequences) -> Tensor:
    """The input of the first layer, ``[tokens, hidden_size]``; arguments as for :func:`flat_forward`."""
    base = model.base_model
    positions = (sequences.positions + first_position(model.config)).to(input_ids.device, non_blocking=True)
    types = None if token_type_ids is None else token_type_ids.unsqueeze(0)
    return forward_of(model).embed(base, input_ids.unsqueeze(0), types, positions.unsqueeze(0))[0]


def run(model: Any, entries: Sequence[Entry], pooled: Pooled | None = None) -> Tensor:
    """Last hidden states of all entries, one after the other.

    Args:
        model: a prepared backbone; hooks on its modules act.
        entries: at least one, in the order of their depths, the lowest first.
        pooled: "cls" or "last" for the first or the last token of each text alone, "read" for those that
            the sequences name: behind the attention of the last layer nothing is computed for the others.
            None for all tokens.

    Returns:
        ``[tokens, hidden_size]``; if pooled ``[texts, hidden_size]``, or ``[read, hidden_size]``.
    """
    states = _Run(model, entries, pooled)
    for index in range(entries[0].depth.layer, len(states.layers)):
        states.attention(index)
        states.ffn(index)
    states.join(Depth(len(states.layers), 0))
    assert states.hidden is not None and not states.waiting
    return states.forward.finish(model.base_model, states.hidden)[0]


def climb(model: Any, ladder: Adapter, readings: Readings, pooled: Pooled | None = None) -> Tensor:
    """Last hidden states with what a ladder adds to them; no layer of the model is run.

    Args:
        model: the backbone that the readings are of.
        ladder: an adapter with a side.
        readings: of all depths that it reads.
        pooled: for one token of each text alone, as for :func:`run`; a ladder looks at no other.

    Returns:
        ``[tokens, hidden_size]``, or ``[texts, hidden_size]`` if pooled.
    """
    assert ladder.side is not None
    *lower, top = (rows_read(states, readings.sequences, pooled) for states in readings.states.values())
    last = forward_of(model).finish(model.base_model, top.unsqueeze(0))[0]
    delta: Tensor = ladder.side([*lower, last], ladder.generator)
    return last + delta


def prompted(
    model: Any,
    prompt: Prompt,
    input_ids: Tensor,
    token_type_ids: Tensor | None,
    sequences: Sequences,
    pooled: Pooled | None = None,
) -> Tensor:
    """Last hidden states of texts with a prompt in front of each; what belongs to the prompt is taken off.

    Arguments and result as for :func:`flat_forward` and :func:`run`.
    """
    length = prompt.length
    longer = Sequences(tuple(length + tokens for tokens in sequences.lengths))
    own = (longer.positions >= length).to(input_ids.device)
    ids = input_ids.new_full((longer.tokens,), int(input_ids[0]))
    ids[own] = input_ids
    types = None
    if token_type_ids is not None:
        types = token_type_ids.new_zeros(longer.tokens)
        types[own] = token_type_ids
    table = model.base_model.get_input_embeddings()
    put = table.register_forward_hook(lambda _, ids, words: flat_vectors(prompt, words, longer.lengths))
    try:
        embedded = embed(model, ids, types, longer)
    finally:
        put.remove()
    hidden = run(model, [Entry(EMBEDDED, (embedded,), longer)])
    return rows_read(hidden[own], sequences, pooled)


@torch.no_grad()
def frozen_states(
    model: Any,
    input_ids: Tensor,
    token_type_ids: Tensor | None,
    sequences: Sequences,
    depths: Iterable[Depth],
) -> dict[Depth, States]:
    """What the bare backbone computes up to some depths; nothing beyond the deepest of them is computed.

    Call it while no adapter is active. Arguments as for :func:`flat_forward`.
    """
    wanted = set(depths)
    last = max(wanted)
    embedded = embed(model, input_ids, token_type_ids, sequences)
    states = _Run(model, [Entry(EMBEDDED, (embedded,), sequences)])
    found: dict[Depth, States] = {}
    for index in range(len(states.layers) + 1):
        states.join(Depth(index, 0))
        if (depth := Depth(index, 0)) in wanted:
            found[depth] = (states.tokens,)
        if depth == last:
            break
        states.attention(index)
        residual = states.tokens
        if (depth := Depth(index, 1)) not in wanted:
            states.ffn(index)
            continue
        with _heard(states.projection(index)) as heard:
            states.ffn(index)
        found[depth] = (residual, heard[0][0])
        if depth == last:
            break
    return found


class _Run:
    """A run under way: the hidden states of the texts that are in it, and the entries still to join."""

    def __init__(self, model: Any, entries: Sequence[Entry], pooled: Pooled | None = None) -> None:
        self.base = model.base_model
        self.row: Architecture = architecture_of(model)
        self.forward = forward_of(model)
        self.first_position = first_position(model.config)
        self.layers = model.base_model.get_submodule(self.row.layers)
        self.waiting = list(entries)
        self.pooled = pooled
        self.hidden: Tensor | None = None
        self.sequences: Sequences | None = None
        self.arguments: dict[str, Any] = {}

    @property
    def tokens(self) -> Tensor:
        """The hidden states as ``[tokens, hidden_size]``."""
        assert self.hidden is not None
        return self.hidden[0]

    def join(self, depth: Depth) -> list[Entry]:
        """Take the entries of a depth into the run; at half 1 their states are left to the caller."""
        joined = []
        while self.waiting and self.waiting[0].depth == depth:
            joined.append(self.waiting.pop(0))
        if joined:
            present = [] if self.sequences is None else [self.sequences]
            self.sequences = Sequences.join([*present, *(entry.sequences for entry in joined)])
            self.arguments = {}
            if depth.half == 0:
                at_the_end = depth.layer == len(self.layers)
                states = [self._pooled(entry.states[0], entry.sequences, at_the_end) for entry in joined]
                self.hidden = _joined(self.hidden, states)
        return joined

    def attention(self, index: int) -> None:
        """The first half of a layer."""
        self.join(Depth(index, 0))
        if self.hidden is not None:
            self.hidden = self.forward.attention(self.layers[index], self.hidden, self._told(self.hidden))

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
        """The second half of a layer; who joins here brings the output of its last projection along."""
        self._ffn(index)
        if self.hidden is not None:
            self.hidden = leave_layer(self.layers[index], self.hidden)

    def _ffn(self, index: int) -> None:
        last = index == len(self.layers) - 1
        if self.hidden is not None and self.sequences is not None:
            self.hidden = self._pooled(self.tokens, self.sequences, last).unsqueeze(0)
        joined = self.join(Depth(index, 1))
        if not joined:
            if self.hidden is not None:
                self.hidden = self.forward.ffn(self.layers[index], self.hidden)
            return
        present = 0 if self.hidden is None else self.hidden.shape[1]
        residuals, outputs = (
            [self._pooled(entry.states[tensor], entry.sequences, last) for entry in joined]
            for tensor in (0, 1)
        )
        residual, known = _joined(self.hidden, residuals), _joined(None, outputs)
        expand = [self.layers[index].get_submodule(path) for path in self.forward.expand]
        with _known_ffn(expand, self.projection(index), present, known):
            self.hidden = self.forward.ffn(self.layers[index], residual)

    def _pooled(self, states: Tensor, sequences: Sequences, last: bool) -> Tensor:
        """Of ``[tokens, hidden_size]`` only the rows that are asked for, once no text needs its others."""
        return rows_read(states, sequences, self.pooled) if last else states

    def projection(self, index: int) -> nn.Module:
        """The last projection of a layer's FFN."""
        module: nn.Module = self.layers[index].get_submodule(self.row.ffn)
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
def _known_ffn(
    expand: Iterable[nn.Module], project: nn.Module, present: int, known: Tensor
) -> Iterator[None]:
    """Let an FFN compute the first `present` tokens alone, and take the projections of the others as known.

    The modules are called as ever, so that the hooks of adapters on them act on all tokens.
    """
    projected = project.forward

    def only_present(expanded: Callable[[Tensor], Tensor], hidden_states: Tensor) -> Tensor:
        return expanded(hidden_states[:, :present]) if present else hidden_states[:, :0]

    def with_known(hidden_states: Tensor) -> Tensor:
        return torch.cat([projected(hidden_states), known], dim=1) if present else known

    with ExitStack() as stack:
        for module in expand:
            stack.enter_context(_replaced(module, partial(only_present, module.forward)))
        stack.enter_context(_replaced(project, with_known))
        yield


@contextmanager
def _replaced(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _heard(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module puts out within the context."""
    heard: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, arguments, output: heard.append(output))
    try:
        yield heard
    finally:
        handle.remove()
