"""The prefix method: trained keys and values in front of those of each layer's attention.

It follows Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation": every query of a
layer sees `prefix_length` more keys and values, the same for all texts. Where it differs: they are parameters
themselves, drawn from N(0, 0.02), not the output of a network that is thrown away after training; positions
of the texts stay what they are, unless they are asked to begin behind it (`positions.py`); and the
cross-attention of an encoder-decoder has none. It promises no identity at the start.

The attention of the model is told through `transformers.AttentionInterface`: by a name of its own, or by that
of flat runs where the model was prepared for them. While a prefix is active, the name is set; afterwards it
is what it was.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from adapters.errors import AdapterError

ATTENTION = "adapter_sweeper_prefix"
FLAT_ATTENTION = "adapter_sweeper_flat"
_ATTRIBUTE = "sweeper_prefix"


class Prefix(nn.Module):
    """The trained keys and values of one layer.

    Args:
        length: how many.
        width: of the keys of all heads together.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(length, width, dtype=torch.float32))
        self.values = nn.Parameter(torch.zeros(length, width, dtype=torch.float32))

    @torch.no_grad()
    def fill(self, generator: torch.Generator) -> None:
        """Draw both from N(0, 0.02)."""
        nn.init.normal_(self.keys, std=0.02, generator=generator)
        nn.init.normal_(self.values, std=0.02, generator=generator)

    def in_front(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values with the prefix in front; ``[texts, heads, tokens, head_size]`` each."""
        texts, heads = key.shape[:2]
        longer = [
            torch.cat([own.to(tensor.dtype).unflatten(1, (heads, -1)).transpose(0, 1).expand(texts, -1, -1,
            -1),
                       tensor], dim=2)
            for own, tensor in ((self.keys, key), (self.values, value))
        ]  # fmt: skip
        return longer[0], longer[1]


def prefix_of(module: nn.Module) -> Prefix | None:
    """The prefix that is active in an attention module."""
    found: tuple[Prefix] | None = module.__dict__.get(_ATTRIBUTE)
    return None if found is None else found[0]


class PrefixHandle:
    """Puts a prefix into an attention module, and takes it out again.

    Args:
        module: calls the attention function of its model.
        prefix: what it gets in front of its keys and values.
        backbone: the model, whose attention function is chosen by name.
    """

    def __init__(self, module: nn.Module, prefix: Prefix, backbone: Any) -> None:
        self._module = module
        self._backbone = backbone
        self._before: str | None = None
        implementation = backbone.config._attn_implementation
        if implementation not in (ATTENTION, FLAT_ATTENTION):
            _choose(backbone, ATTENTION)
            self._before = implementation
        module.__dict__[_ATTRIBUTE] = (prefix,)
        self._check = module.register_forward_pre_hook(partial(_check_attention, backbone.config))

    def remove(self) -> None:
        """Take it out, and give the model the attention function that it had."""
        self._check.remove()
        self._module.__dict__.pop(_ATTRIBUTE, None)
        if self._before is not None and self._backbone.config._attn_implementation == ATTENTION:
            self._backbone.set_attn_implementation(self._before)


def prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Attention with the module's prefix, in the form that ``AttentionInterface`` asks for."""
    prefix = prefix_of(module)
    if prefix is not None:
        causal = arguments.pop("is_causal", None)
        causal = bool(getattr(module, "is_causal", False) if causal is None else causal)
        tokens, known = query.shape[2], key.shape[2]
        if attention_mask is None and causal and tokens > 1:  # then nothing was in the cache before
            attention_mask = causal_mask(tokens, known, query.device)
        key, value = prefix.in_front(key, value)
        if attention_mask is not None:
            attention_mask = attention_mask[..., :known]
            front = (*attention_mask.shape[:-1], key.shape[2] - known)
            seen = attention_mask.new_ones(front) if attention_mask.dtype == torch.bool else (
                attention_mask.new_zeros(front))  # fmt: skip
            attention_mask = torch.cat([seen, attention_mask], dim=-1)
        arguments["is_causal"] = False
    output, weights = sdpa_attention_forward(module, query, key, value, attention_mask, **arguments)
    return output, weights


def causal_mask(tokens: int, known: int, device: torch.device, prefix: int = 0) -> Tensor:
    """Which keys each token of a text sees, ``[tokens, prefix + known]``: its own, and all before.

    Keys behind those of the text, the empty places of a static cache, are seen by none.
    """
    mask = torch.ones(tokens, known, dtype=torch.bool, device=device).tril()
    return mask if prefix == 0 else torch.cat([mask.new_ones(tokens, prefix), mask], dim=1)


def _choose(backbone: Any, name: str) -> None:
    if (
        not getattr(backbone, "_supports_sdpa", False)
        or not getattr(backbone, "_can_set_attn_implementation", bool)()
    ):
        raise AdapterError(
            f"{type(backbone).__name__} computes attention by code of its own, which takes no "
            f"prefix; use another "
            "method", "method",
        )  # fmt: skip
    AttentionInterface.register(ATTENTION, prefix_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    backbone.set_attn_implementation(name)


def _check_attention(config: Any, module: nn.Module, arguments: tuple[Any, ...]) -> None:
    if config._attn_implementation not in (ATTENTION, FLAT_ATTENTION):
        raise AdapterError(
            f"the attention function was changed to {config._attn_implementation!r} while a prefix "
            f"is active, which "
            "it knows nothing of; activate the adapter again"
        )
