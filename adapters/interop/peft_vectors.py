"""Prefix and prompt tuning as PEFT has them: one tensor of trained vectors.

PEFT hands a prefix to the model as keys and values that it had computed before, so that the positions of a
text are counted on behind the prefix. Where positions are rotary, keys are turned by as much on their way;
where they are learned, `AdapterConfig.positions` says "after_prefix". For "from_start" in such a family PEFT
has no word: exported, it computes the same where PEFT's model is called with `position_ids` counted from
minus its length.

A file of ours says in its metadata if its positions are PEFT's. Without a word it is such a "from_start", or
of an earlier version, and its keys are read as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.adapter import Adapter
from adapters.architectures import architecture_of, layer_indices
from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.fields import AFTER_PREFIX, FROM_START
from adapters.interop.common import Folder, config_from, refuse_rest, refuse_without_key_width
from adapters.interop.naming import Names
from adapters.interop.rotary import turned
from adapters.prefix import Prefix
from adapters.shape import Shape

_KEY = "prompt_embeddings"
_ANY = (
    "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
    "auto_mapping", "modules_to_save", "num_virtual_tokens", "token_dim", "num_transformer_submodules",
    "num_attention_heads", "num_layers", "encoder_hidden_size", "init_weights", "tokenizer_name_or_path",
    "tokenizer_kwargs", "prompt_tuning_init", "prompt_tuning_init_text",
    "prefix_projection",  # where a network made the vectors, the file holds what it put out
)  # fmt: skip


def vectors_out(
    adapter: Adapter, backbone: Any, names: Names
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """The fields of a configuration, the weights by their names, and what the metadata is to say."""
    config, shape = adapter.config, adapter.shape
    if config.method == "prompt":
        assert adapter.prompt is not None
        fields = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": config.prompt_length,
                  "token_dim": shape.hidden_size, "num_transformer_submodules": 1,
                  "prompt_tuning_init": "RANDOM"}  # fmt: skip
        return fields, {_KEY: adapter.prompt.vectors}, {}
    layers = layer_indices(config.layers, shape.num_hidden_layers)
    if len(layers) < shape.num_hidden_layers:
        raise AdapterError("a prefix of PEFT is in every layer, and this one leaves some out", "layers")
    _check_cache(names, shape)
    heads = _heads(backbone)
    prefixes = [own for own in adapter.modules_by_site.values() if isinstance(own, Prefix)]
    rotary = _is_rotary(shape)
    keys: list[Tensor] = [own.keys for own in prefixes]
    if rotary:
        keys = turned(keys, config.prefix_length, config_from(backbone, None))
    pairs = [tensor for pair in zip(keys, (own.values for own in prefixes), strict=True) for tensor in pair]
    fields = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": config.prefix_length,
              "token_dim": shape.key_width, "num_attention_heads": heads,
              "num_layers": shape.num_hidden_layers, "num_transformer_submodules": 1,
              "prefix_projection": False, "encoder_hidden_size": shape.hidden_size}  # fmt: skip
    theirs = rotary or config.positions == AFTER_PREFIX
    return fields, {_KEY: torch.cat(pairs, dim=1)}, {"positions": AFTER_PREFIX} if theirs else {}


def vectors_in(
    folder: Folder, weights: dict[str, Tensor], shape: Shape, names: Names, backbone: Any
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
    refuse_rest(values, _ANY, {"num_transformer_submodules": 1}, "PEFT")
    refuse_without_key_width(shape, "PEFT")
    if vectors.shape[1] != 2 * shape.num_hidden_layers * shape.key_width:
        raise AdapterError(
            f"its vectors are {vectors.shape[1]} wide; keys and values of {shape.num_hidden_layers} layers "
            "are "
            f"{2 * shape.num_hidden_layers * shape.key_width}"
        )
    for name, size in (("num_layers", shape.num_hidden_layers), ("token_dim", shape.key_width)):
        if values.get(name, size) != size:
            raise AdapterError(f"its {name} is {values[name]!r}, and of this backbone it is {size} (PEFT)")
    # Without a shape PEFT wrote it.
    behind = "shape" not in folder.metadata or folder.metadata.get("positions") == AFTER_PREFIX
    parts = [part.clone() for part in vectors.split(shape.key_width, dim=1)]
    keys, positions = parts[::2], FROM_START
    if behind:
        _check_cache(names, shape)
        if _is_rotary(shape):
            config = config_from(backbone, values.get("base_model_name_or_path"))
            keys = turned(keys, -length, config)
        else:
            positions = AFTER_PREFIX
    tensors = {}
    for layer, own in enumerate(keys):
        tensors[f"layer_{layer}_prefix.keys"] = own
        tensors[f"layer_{layer}_prefix.values"] = parts[2 * layer + 1]
    return AdapterConfig(method="prefix", prefix_length=length, positions=positions), tensors


def _is_rotary(shape: Shape) -> bool:
    """Of the families that PEFT hands a prefix to, those without a table of positions."""
    return architecture_of(shape).position_table is None


def _check_cache(names: Names, shape: Shape) -> None:
    if not names.cache:
        raise AdapterError(
            f"PEFT hands a prefix over as keys and values of earlier tokens, and models of the family "
            f"{shape.model_type!r} take none",
            "method",
        )


def _heads(backbone: Any) -> int:
    config = getattr(backbone, "config", backbone)
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int):
        raise AdapterError(
            "PEFT has to be told into how many heads a prefix is cut: give the model or its configuration as "
            "`backbone`"
        )
    return heads
