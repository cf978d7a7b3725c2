"""Keys of a prefix where positions are rotary, turned from one place where texts begin to another.

A query q at position p + i meets an unrotated key k in R(p + i)q · k = R(i)q · R(-p)k: that texts begin p
positions later is the same as keys turned by -p. It is exact, and is computed in fp64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, PreTrainedConfig

from adapters.errors import AdapterError


def turned(keys: Sequence[Tensor], by: int, config: Any) -> list[Tensor]:
    """Keys as the model's own rotary embedding would turn them at a position.

    Args:
        keys: of each layer, ``[length, heads * head_size]``.
        by: the position; it may be negative.
        config: of the backbone.

    Raises:
        AdapterError: it is no configuration, or of another backbone; positions turn keys in more than one
            way; or a layer looks through a sliding window.
    """
    frequencies = _frequencies(config)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = keys[0].shape[1]
    if width % heads or width // heads < 2 * len(frequencies):
        raise AdapterError(f"its keys are {width} wide, which is not that of {heads} heads of the backbone")
    return [_turned(own, by * frequencies, heads) for own in keys]


def _turned(keys: Tensor, angles: Tensor, heads: int) -> Tensor:
    apart = keys.double().unflatten(1, (heads, -1))
    half = len(angles)  # a family may turn the first channels of a head alone
    angles = angles.to(keys.device)
    cos, sin = angles.cos(), angles.sin()
    one, other = apart[..., :half], apart[..., half : 2 * half]
    parts = [one * cos - other * sin, other * cos + one * sin, apart[..., 2 * half :]]
    return torch.cat(parts, dim=-1).flatten(1).to(keys.dtype)


def _frequencies(config: Any) -> Tensor:
    """The angle of each pair of channels at position 1, fp64 ``[pairs]``, by the model's own code."""
    if not isinstance(config, PreTrainedConfig):
        raise AdapterError(
            "its keys are turned by the rotary positions of a backbone: give the model or its configuration, "
            "as in adapters.load(folder, backbone=model)"
        )
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is not None and (kinds is None or "sliding_attention" in kinds):
        raise AdapterError(
            f"layers of this backbone look through a sliding window of {window} tokens: PEFT's prefix leaves "
            "it as a text goes on, and here every token sees the prefix. If no text will be so long, give a "
            "configuration with sliding_window=None as `backbone`"
        )
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind in ("dynamic", "longrope"):
        raise AdapterError(
            f"its rotary positions ({kind}) turn by other angles the longer a text is: no prefix computes "
            "the same wherever texts begin"
        )
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        rotary: Any = getattr(AutoModel.from_config(config).base_model, "rotary_emb", None)
    frequencies = None if rotary is None else getattr(type(rotary)(config), "inv_freq", None)
    if frequencies is None:
        raise AdapterError("its layers have no rotary positions, or not all the same")
    found: Tensor = frequencies.double()
    return found
