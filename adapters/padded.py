"""Texts through a model that cannot run on a flat run of tokens: padded, by its own forward pass.

One adapter at a time acts, through its hooks; nothing of the backbone is kept.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from adapters.architectures import architecture_of
from adapters.errors import AdapterError
from adapters.flat import Sequences


def padded_forward(
    model: Any, input_ids: Tensor, token_type_ids: Tensor | None, sequences: Sequences
) -> Tensor:
    """Last hidden states of some texts, ``[tokens, hidden_size]``, in the dtype of the model.

    An encoder-decoder reads the text in both, in the decoder shifted by one token: its last token has seen
    the whole text on either side, as in transformers' own classification heads.

    Args:
        model: a backbone; hooks on its modules act.
        input_ids: int64 ``[tokens]``, on the device of the model.
        token_type_ids: int64 ``[tokens]``, or None.
        sequences: where the texts lie in it.

    Raises:
        AdapterError: the model reads no texts.
    """
    row, base = architecture_of(model), model.base_model
    takes = inspect.signature(base.forward).parameters
    if "input_ids" not in takes:
        raise AdapterError(f"{type(base).__name__} reads no texts: adapters go into it by `insert` alone")
    mask = _mask(sequences).to(input_ids.device, non_blocking=True)
    ids = _filled(input_ids, mask, getattr(model.config, "pad_token_id", None) or 0)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask.long()}
    if token_type_ids is not None and "token_type_ids" in takes:
        inputs["token_type_ids"] = _filled(token_type_ids, mask, 0)
    if row.decoder is not None:
        inputs["decoder_input_ids"] = _shifted(ids, model.config)
        inputs["decoder_attention_mask"] = mask.long()
    if "use_cache" in takes:
        inputs["use_cache"] = False
    hidden: Tensor = base(**inputs).last_hidden_state
    return hidden[mask]


def _mask(sequences: Sequences) -> Tensor:
    """Where the tokens of texts padded to the longest of them lie: bool ``[texts, longest]``, on the CPU."""
    lengths = torch.tensor(sequences.lengths)
    return torch.arange(max(sequences.lengths)).unsqueeze(0) < lengths.unsqueeze(1)


def _filled(tokens: Tensor, mask: Tensor, padding: int) -> Tensor:
    """``[tokens]`` as ``[texts, longest]``."""
    filled = torch.full(mask.shape, padding, dtype=tokens.dtype, device=tokens.device)
    return filled.masked_scatter(mask, tokens)


def _shifted(ids: Tensor, config: Any) -> Tensor:
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        start = getattr(config, "pad_token_id", None) or 0
    return torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)
