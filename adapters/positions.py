"""Positions of a text that are counted on behind a prefix, in families that have a table of learned ones.

A model that finds keys and values in its cache counts so, and PEFT hands a prefix over in that way. Here the
cache holds the text alone: the ids are moved where the table is asked for them, so that it makes no
difference whether a text comes padded, in a flat run, or token by token.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from adapters.errors import AdapterError


def register_after(length: int, table: nn.Module) -> RemovableHandle:
    """Let the position ids that a table of positions is asked for begin behind a prefix.

    Args:
        length: of the prefix.
        table: an embedding of positions, whose ids are its argument ``position_ids`` or its first one.
    """
    return table.register_forward_pre_hook(partial(_move, length), with_kwargs=True)


def _move(
    length: int, table: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(named.get("position_ids"), Tensor):
        return arguments, {**named, "position_ids": _moved(length, table, named["position_ids"])}
    ids, *others = arguments
    return (_moved(length, table, ids), *others), named


def _moved(length: int, table: Any, ids: Tensor) -> Tensor:
    moved = ids + length
    size = table.num_embeddings - getattr(table, "offset", 0)  # OPT leaves the first two rows out
    last = int(moved.max())  # on CUDA this waits; an index beyond the table would end the process there
    if last >= size:
        raise AdapterError(
            f"behind a prefix of {length}, the longest text reaches position {last}, and the backbone has "
            f"positions 0 to {size - 1}: cut texts by {last - size + 1} tokens, or take a shorter prefix",
            "positions",
        )
    return moved
