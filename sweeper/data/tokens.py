"""Texts to tokens, each text cut to a maximal length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from sweeper.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from sweeper.data.split import Split

TEXTS_AT_ONCE = 1000


def tokenise(
    texts: Sequence[Sequence[str]],
    labels: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    fault: Callable[[int, str], UsageError] | None = None,
) -> tuple[Split, list[int]]:
    """The tokens of texts, each cut to ``max_length`` tokens (of a pair, the longer text is cut first).

    Args:
        texts: one column of texts, or two of equal length.
        labels: ``[texts]``; passed through.
        fault: makes the error about a row, counted from 0; None for one that names its number alone.

    Returns:
        The tokens, and how many each text had before it was cut.

    Raises:
        UsageError: the tokenizer makes no token of a text.
    """
    ids: list[list[int]] = []
    types: list[list[int]] = []
    full_lengths: list[int] = []
    for start in range(0, len(texts[0]), TEXTS_AT_ONCE):
        chunk = [list(column[start : start + TEXTS_AT_ONCE]) for column in texts]
        made = _encode(tokenizer, chunk, None)
        full_lengths += [len(row) for row in made["input_ids"]]
        if 0 in full_lengths[start:]:
            empty = full_lengths.index(0, start)
            raise (fault or row_fault)(empty, "the tokenizer makes no token of this text")
        long = [place for place, row in enumerate(made["input_ids"]) if len(row) > max_length]
        if long:
            cut = _encode(tokenizer, [[column[place] for place in long] for column in chunk], max_length)
            for key, rows in cut.items():
                for place, row in zip(long, rows, strict=True):
                    made[key][place] = row
        ids += made["input_ids"]
        types += made.get("token_type_ids", [])

    return flat_split(ids, types if len(texts) == 2 else [], labels), full_lengths


def flat_split(ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]], labels: Tensor) -> Split:
    """The tokens of texts, one text after the other; no types if there are none."""
    import torch

    from sweeper.data.split import Split

    offsets = torch.zeros(len(ids) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor([len(row) for row in ids], dtype=torch.int64).cumsum(0)
    return Split(flat_row(ids), flat_row(types) if types else None, offsets, labels)


def flat_row(rows: Iterable[Iterable[int]]) -> Tensor:
    """All numbers of all rows, int32."""
    import numpy as np
    import torch

    return torch.from_numpy(np.fromiter(chain.from_iterable(rows), dtype=np.int32))


def row_fault(row: int, message: str) -> UsageError:
    """The error about a row of no table, counted from 0."""
    return UsageError(f"row {row + 1}: {message}")


def _encode(
    tokenizer: PreTrainedTokenizerBase, columns: list[list[str]], max_length: int | None
) -> dict[str, list[list[int]]]:
    """What the tokenizer makes of a chunk; its own settings of cutting and padding do not count."""
    options: dict[str, Any] = {"truncation": False}
    if max_length is not None:
        options = {"truncation": True, "max_length": max_length}
    made = tokenizer(*columns, padding=False, return_attention_mask=False, verbose=False, **options)
    return {key: made[key] for key in ("input_ids", "token_type_ids") if key in made}
