"""Prefix and prompt tuning as PEFT has them: one tensor of trained vectors.

PEFT hands a prefix to the model as keys and values that it had computed before, so that the positions of a
text are counted on from the prefix, where this library leaves them what they are. An exported prefix computes
the same where PEFT's model is called with `position_ids` counted from minus its length. One that was trained
in PEFT learned positions that no text has here: it is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.adapter import Adapter
from adapters.architectures import layer_indices
from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.interop.common import Folder, refuse_rest
from adapters.prefix import Prefix
from adapters.shape import Shape

_KEY = "prompt_embeddings"
_ANY = (
    "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
    "auto_mapping", "modules_to_save", "num_virtual_tokens", "token_dim", "num_transformer_submodules",
    "num_attention_heads", "num_layers", "encoder_hidden_size", "init_weights", "tokenizer_name_or_path",
    "tokenizer_kwargs", "prompt_tuning_init", "prompt_tuning_init_text",
)  # fmt: skip


def vectors_out(adapter: Adapter, backbone: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of a configuration and the weights, by their names."""
    config, shape = adapter.config, adapter.shape
    if config.method == "prompt":
        assert adapter.prompt is not None
        fields = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": config.prompt_length,
                  "token_dim": shape.hidden_size, "num_transformer_submodules": 1,
                  "prompt_tuning_init": "RANDOM"}  # fmt: skip
        return fields, {_KEY: adapter.prompt.vectors}
    layers = layer_indices(config.layers, shape.num_hidden_layers)
    if len(layers) < shape.num_hidden_layers:
        raise AdapterError("a prefix of PEFT is in every layer, and this one leaves some out", "layers")
    heads = _heads(backbone)
    prefixes = [adapter.get_submodule(place.key) for place in adapter.sites]
    pairs: list[Tensor] = [
        tensor for own in prefixes if isinstance(own, Prefix) for tensor in (own.keys, own.values)
    ]
    fields = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": config.prefix_length,
              "token_dim": shape.key_width, "num_attention_heads": heads,
              "num_layers": shape.num_hidden_layers, "num_transformer_submodules": 1,
              "prefix_projection": False, "encoder_hidden_size": shape.hidden_size}  # fmt: skip
    return fields, {_KEY: torch.cat(pairs, dim=1)}


def vectors_in(
    folder: Folder, weights: dict[str, Tensor], shape: Shape
) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """The configuration and the state dict of an adapter that PEFT wrote."""
    values = folder.config
    if set(weights) != {_KEY}:
        raise AdapterError(f"it holds {', '.join(sorted(weights)) or 'nothing'}, not {_KEY} alone (PEFT)")
    vectors = weights[_KEY]
    length = values.get("num_virtual_tokens")
    if type(length) is not int or length < 1 or vectors.ndim != 2 or len(vectors) != length:
        raise AdapterError(f"it holds {list(vectors.shape)} vectors for {length!r} virtual tokens (PEFT)")
    if values["peft_type"] == "PROMPT_TUNING":
        refuse_rest(values, _ANY, {"num_transformer_submodules": 1}, "PEFT")
        return AdapterConfig(method="prompt", prompt_length=length), {"soft_prompt.vectors": vectors}
    refuse_rest(values, _ANY, {"num_transformer_submodules": 1, "prefix_projection": False}, "PEFT")
    if "shape" not in folder.metadata:
        raise AdapterError(
            f"PEFT counts the positions of a text from {length} on, behind the prefix, and this library "
            "from 0: "
            "what this prefix learned would be read at other positions"
        )
    if vectors.shape[1] != 2 * shape.num_hidden_layers * shape.key_width:
        raise AdapterError(
            f"its vectors are {vectors.shape[1]} wide; keys and values of {shape.num_hidden_layers} layers "
            "are "
            f"{2 * shape.num_hidden_layers * shape.key_width}"
        )
    parts = [part.clone() for part in vectors.split(shape.key_width, dim=1)]
    tensors = {}
    for layer in range(shape.num_hidden_layers):
        tensors[f"layer_{layer}_prefix.keys"] = parts[2 * layer]
        tensors[f"layer_{layer}_prefix.values"] = parts[2 * layer + 1]
    return AdapterConfig(method="prefix", prefix_length=length), tensors


def _heads(backbone: Any) -> int:
    config = getattr(backbone, "config", backbone)
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int):
        raise AdapterError(
            "PEFT has to be told into how many heads a prefix is cut: give the model or its configuration as "
            "`backbone`"
        )
    return heads
