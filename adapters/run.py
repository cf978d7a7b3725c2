"""A flat run of tokens through an unmodified Hugging Face model, from tokens or from frozen hidden states.

Texts may enter at different depths: the run carries those that are in it, and the others join at the depth of
their states. Below that depth nothing is computed for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.architectures import first_position, forward_of
from adapters.depth import ATTENTION, EMBEDDED, FFN, INPUT, Depth, States
from adapters.flat import Sequences
from adapters.layerwise import Entry, Pooled, Run, rows_read
from adapters.prompt import Prompt, flat_vectors


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


def run(model: Any, entries: Sequence[Entry], pooled: Pooled | None = None, *, alone: bool = False) -> Tensor:
    """Last hidden states of all entries, one after the other.

    Args:
        model: a prepared backbone; hooks on its modules act.
        entries: at least one, in the order of their depths, the lowest first.
        pooled: "cls" or "last" for the first or the last token of each text alone, "read" for those that
            the sequences name: behind the attention of the last layer nothing is computed for the others.
            None for all tokens.
        alone: the pooled tokens alone ask the last attention, see :func:`adapters.layerwise.asks_alone`.

    Returns:
        ``[tokens, hidden_size]``; if pooled ``[texts, hidden_size]``, or ``[read, hidden_size]``.
    """
    states = Run(model, entries, pooled, alone)
    for index in range(entries[0].depth.layer, len(states.layers)):
        states.attention(index)
        states.ffn(index)
    states.join(Depth(len(states.layers), INPUT))
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

    def put_vectors(_: object, ids: object, words: Tensor) -> Tensor:
        put.remove()  # a family may look its token types up in the same table
        return flat_vectors(prompt, words, longer.lengths)

    put = table.register_forward_hook(put_vectors)
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
    states = Run(model, [Entry(EMBEDDED, (embedded,), sequences)])
    found: dict[Depth, States] = {}
    for index in range(len(states.layers) + 1):
        states.join(Depth(index, INPUT))
        if Depth(index, INPUT) in wanted:
            found[Depth(index, INPUT)] = (states.tokens,)
        if last <= Depth(index, INPUT):
            break
        for behind, half, projection in (
            (ATTENTION, states.attention, states.row.attention),
            (FFN, states.ffn, states.row.ffn),
        ):
            depth, residual = Depth(index, behind), states.tokens
            if depth not in wanted:
                half(index)
                continue
            with _heard(states.module(index, projection)) as heard:
                half(index)
            found[depth] = (residual, heard[0][0])
            if depth == last:
                return found
    return found


@contextmanager
def _heard(module: nn.Module) -> Iterator[list[Tensor]]:
    """What a module puts out within the context."""
    heard: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, arguments, output: heard.append(output))
    try:
        yield heard
    finally:
        handle.remove()
