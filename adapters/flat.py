"""A flat run of tokens: no padding, whatever the lengths of its texts; and attention within each text alone.

The tokens of all texts lie one after the other in ``[1, tokens]``. Linears, LayerNorms and adapters do not
care; attention is told where each text begins, through ``transformers.AttentionInterface``, and acts on each
text alone. Texts of equal length that lie side by side share one attention call, so keep batches sorted by
length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from adapters.prefix import FLAT_ATTENTION as ATTENTION
from adapters.prefix import Prefix, causal_mask, prefix_of


@dataclass(frozen=True)
class Sequences:
    """Where each text lies in a flat run of tokens.

    Args:
        lengths: tokens of each text, in the order in which they lie; each at least 1.
        read: the tokens whose last hidden state is asked for, ascending, int64 ``[read]`` on the CPU; None if
            that is not said token by token.
    """

    lengths: tuple[int, ...]
    read: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(
                "a flat run of tokens needs at least one text, and every text at least one token"
            )

    @property
    def tokens(self) -> int:
        """Length of the whole run."""
        return sum(self.lengths)

    @cached_property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """Runs of texts of equal length, side by side: ``(texts, length)`` each."""
        groups: list[tuple[int, int]] = []
        for length in self.lengths:
            if groups and groups[-1][1] == length:
                groups[-1] = (groups[-1][0] + 1, length)
            else:
                groups.append((1, length))
        return tuple(groups)

    @cached_property
    def offsets(self) -> Tensor:
        """Start of each text and the end of the last, int64 ``[texts + 1]``, on the CPU."""
        offsets = torch.zeros(len(self.lengths) + 1, dtype=torch.int64)
        torch.cumsum(torch.tensor(self.lengths, dtype=torch.int64), 0, out=offsets[1:])
        return offsets

    @cached_property
    def positions(self) -> Tensor:
        """Position of each token in its text, from 0, int64 ``[tokens]``, on the CPU."""
        starts = torch.repeat_interleave(self.offsets[:-1], torch.tensor(self.lengths))
        return torch.arange(self.tokens) - starts

    @staticmethod
    def join(parts: Sequence[Sequences]) -> Sequences:
        """The texts of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        starts = accumulate((part.tokens for part in parts), initial=0)
        reads = [
            part.read + start for part, start in zip(parts, starts, strict=False) if part.read is not None
        ]
        read = torch.cat(reads) if len(reads) == len(parts) else None
        return Sequences(tuple(n for part in parts for n in part.lengths), read)


def prepare(model: PreTrainedModel) -> None:
    """Let a model attend within texts alone when it is called through :func:`adapters.run.flat_forward`.

    Only the name of its attention function changes; ``model.set_attn_implementation`` turns it back.
    """
    AttentionInterface.register(ATTENTION, flat_attention)
    model.set_attn_implementation(ATTENTION)


def flat_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sequences: Sequences | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each text of a flat run, in the form that ``AttentionInterface`` asks for.

    Args:
        query, key, value: ``[1, heads, tokens, head_size]``; keys and values may have fewer heads, each for
            several of the queries. Queries may be of one token of each text, which sees all of it.
        sequences: where the texts lie.
        sliding_window: a token sees those less than so many positions away; None for all.
        softcap: scores are squeezed between -softcap and softcap, by a tanh (Gemma 2).

    Returns:
        ``[1, tokens, heads, head_size]``, a row for each query, and None in place of the weights.
    """
    if sequences is None:
        raise ValueError(
            "this model was prepared for flat runs of tokens: call it through adapters.run.flat_forward, "
            "or choose another attention with model.set_attn_implementation('sdpa')"
        )
    causal = bool(getattr(module, "is_causal", False))
    prefix = prefix_of(module)
    if prefix is None:
        key, value = _as_many_heads(query, key, value)
    look = Look(scaling, causal, sliding_window, softcap)
    halved = query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)
    if halved and softcap is None and prefix is None:
        return _varlen(query, key, value, look, sequences), None
    return _grouped(query, key, value, look, sequences, prefix), None


def _as_many_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    fewer = query.shape[1] // key.shape[1]
    if fewer == 1:
        return key, value
    return key.repeat_interleave(fewer, dim=1), value.repeat_interleave(fewer, dim=1)


class Look(NamedTuple):
    """What a token sees of its text, and how scores are made: as the arguments of :func:`flat_attention`."""

    scaling: float | None
    causal: bool
    sliding_window: int | None
    softcap: float | None

    def mask(self, length: int, device: torch.device) -> Tensor | None:
        """Whom each token of a text sees, bool ``[length, length]``; None: all of them, or all before it."""
        if self.sliding_window is None or length <= self.sliding_window:
            return None
        position = torch.arange(length, device=device)
        distance = position.unsqueeze(1) - position.unsqueeze(0)
        near = distance.abs() < self.sliding_window
        return near & (distance >= 0) if self.causal else near


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, look: Look, sequences: Sequences, prefix: Prefix | None
) -> Tensor:
    """One attention call for each run of texts of equal length; each text sees the prefix, if any."""
    _, heads, _, size = query.shape
    dtype = query.dtype
    if query.device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        # The kernel's backward pass in half precision takes about seven times as long as in fp32.
        query, key, value = query.float(), key.float(), value.float()
    all_ask = query.shape[2] == key.shape[2]
    sizes = [texts * length for texts, length in sequences.groups]
    asking = sizes if all_ask else [texts for texts, _ in sequences.groups]
    # Split, not sliced: the gradient of a split is one concatenation, that of each slice a run full of zeros.
    cuts = ((query, asking), (key, sizes), (value, sizes))
    runs = [tensor[0].transpose(0, 1).split(own) for tensor, own in cuts]
    outputs = []
    for (texts, _), *run in zip(sequences.groups, *runs, strict=True):
        q, k, v = (tokens.unflatten(0, (texts, -1)).transpose(1, 2) for tokens in run)
        output = _attend(q, k, v, look, prefix)
        outputs.append(output.transpose(1, 2).reshape(-1, heads, size))
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).to(dtype).unsqueeze(0)


def _attend(query: Tensor, key: Tensor, value: Tensor, look: Look, prefix: Prefix | None) -> Tensor:
    """Attention of ``[texts, heads, length, head_size]``, each text whole, all of it behind the prefix."""
    length = query.shape[2]
    mask = look.mask(length, query.device)
    if mask is None and look.causal and (prefix is not None or look.softcap is not None):
        mask = causal_mask(length, length, query.device)
    if prefix is not None:
        key, value = _as_many_heads(query, *prefix.in_front(key, value))
        if mask is not None:
            mask = torch.cat([mask.new_ones(length, key.shape[2] - length), mask], dim=1)
    if look.softcap is None:
        causal = look.causal and mask is None and length > 1
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=look.scaling, is_causal=causal
        )
    scaling = query.shape[-1] ** -0.5 if look.scaling is None else look.scaling
    scores = torch.tanh(query @ key.transpose(2, 3) * scaling / look.softcap) * look.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return torch.softmax(scores, dim=-1) @ value


def _varlen(query: Tensor, key: Tensor, value: Tensor, look: Look, sequences: Sequences) -> Tensor:
    """One kernel for all texts, where there is one: CUDA, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    offsets = sequences.offsets.to(query.device, torch.int32, non_blocking=True)
    longest = max(sequences.lengths)
    asking, asking_longest = offsets, longest
    if query.shape[2] != key.shape[2]:
        asking, asking_longest = torch.arange(len(offsets), device=query.device, dtype=torch.int32), 1
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    reach = -1 if look.sliding_window is None else look.sliding_window - 1
    window = (reach, 0 if look.causal else reach)
    output = varlen_attn(
        q, k, v, asking, offsets, asking_longest, longest, scale=look.scaling, window_size=window
    )
    assert isinstance(output, Tensor)
    return output.unsqueeze(0)
