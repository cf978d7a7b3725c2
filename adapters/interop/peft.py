"""PEFT's files: ``adapter_config.json`` and ``adapter_model.safetensors``, as version 0.21 has them.

An adapter alone is written for the bare backbone (`AutoModel`), one with a head for the class
``…ForTokenClassification`` of its family: that one has a linear head on every token and nothing before it,
so that it computes exactly what a head here does, at the first token (pooling cls), at the last one (last),
or as the mean over tokens (mean). The classes ``…ForSequenceClassification`` put a pooler or a layer more
before the head, and are read as what they are: see `peft_heads.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from adapters.adapter import Adapter
from adapters.errors import AdapterError, short
from adapters.files import adapter_of
from adapters.interop.common import (
    CONFIG,
    Folder,
    as_json,
    as_safetensors,
    check_method,
    read_json,
    read_tensors,
    shape_from,
)
from adapters.interop.heads import Head
from adapters.interop.naming import Names, names_of
from adapters.interop.peft_heads import head_in
from adapters.interop.peft_linears import linears_in, linears_out
from adapters.interop.peft_vectors import vectors_in, vectors_out

WEIGHTS = "adapter_model.safetensors"
METHODS = ("lora", "dora", "ia3", "prefix", "prompt")
_TYPES = {"LORA": "lora", "IA3": "ia3", "PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt"}
_FRONT = "base_model.model."
_HEADS = ("classifier", "score", "pre_classifier")


def to_peft(
    adapter: Adapter, head: Head | None = None, backbone: Any = None, backbone_name: str | None = None
) -> dict[str, bytes]:
    """The files of an adapter, by their names.

    Args:
        adapter: of one of `METHODS`.
        head: what is put on top, if it is to go along.
        backbone: the model or its configuration. DoRA needs the model, a prefix the configuration.
        backbone_name: what the file calls the backbone: a hub name or a folder.

    Raises:
        AdapterError: PEFT has no such adapter or head, or a backbone is needed; the message says which.
    """
    config = adapter.config
    check_method(
        config, METHODS, "PEFT", "Export it in this project's own format, or a bottleneck for AdapterHub"
    )
    names = names_of(adapter.model_type)
    front = "" if head is None else f"{names.prefix}."
    facts = {} if head is None else {"pooling": head.pooling}
    if config.method in ("prefix", "prompt"):
        fields, tensors, positions = vectors_out(adapter, backbone, names)
        facts |= positions
    else:
        fields, tensors = linears_out(adapter, backbone, front)
    fields |= {"base_model_name_or_path": backbone_name, "inference_mode": True, "modules_to_save": None}
    fields["task_type"] = "FEATURE_EXTRACTION"
    if head is not None:
        weight, bias, name = _head_out(head, names, adapter)
        # A model that computes no linears of its own is called base_model, without a model inside.
        where = "base_model." if config.method in ("prefix", "prompt") else _FRONT
        tensors |= {f"{where}{name}.weight": weight, f"{where}{name}.bias": bias}
        fields |= {"task_type": "TOKEN_CLS", "modules_to_save": [name]}
    return {CONFIG: as_json(fields), WEIGHTS: as_safetensors(tensors, adapter, facts)}


def from_peft(path: Path, backbone: Any = None) -> Adapter:
    """The adapter in a folder that PEFT, or `to_peft`, wrote.

    Args:
        path: the folder.
        backbone: the model or its configuration. PEFT does not say which family its adapters are for: it is
            needed unless the file names a folder that is there, or this library wrote it.

    Raises:
        AdapterError: there is no such adapter here, or a backbone is needed; the message says which.
    """
    folder = read(path)
    shape, names = _shape(folder, backbone)
    weights = {key: value for key, value in folder.tensors.items() if not _is_head(key)}
    if folder.config["peft_type"] in ("PREFIX_TUNING", "PROMPT_TUNING"):
        config, tensors = vectors_in(folder, weights, shape, names, backbone)
    else:
        strange = next((key for key in weights if not key.startswith(_FRONT)), None)
        if strange is not None:
            raise AdapterError(f"its weight {strange[:100]!r} does not begin with {_FRONT!r}, as PEFT's do")
        inside = {key.removeprefix(_FRONT): value for key, value in weights.items()}
        config, tensors = linears_in(folder, inside, shape, names.prefix, backbone)
    return adapter_of(config, shape, tensors)


def read(path: Path) -> Folder:
    """What is in a folder, once its kind is known to be one that this library has."""
    config = read_json(path / CONFIG)
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise AdapterError(
            f"its peft_type is {short(kind)!r}; this library has an equal of {', '.join(_TYPES)}"
        )
    tensors, metadata = read_tensors(path / WEIGHTS, "adapter_model.bin")
    return Folder(path, config, tensors, metadata)


def head_from_peft(path: Path, backbone: Any = None) -> Head | None:
    """The head that was saved with an adapter; None without one. Arguments as for `from_peft`."""
    folder = read(path)
    shape, names = _shape(folder, backbone)
    found = {key: value for key, value in folder.tensors.items() if _is_head(key)}
    weights = {key.removeprefix("base_model.").removeprefix("model."): value for key, value in found.items()}
    head = head_in(folder, weights, shape.model_type, names)
    return None if head is None else head.check_reads(shape.hidden_size)


def _shape(folder: Folder, backbone: Any) -> tuple[Any, Names]:
    method = _TYPES[folder.config["peft_type"]]
    shape = shape_from(folder, method, backbone, folder.config.get("base_model_name_or_path"))
    if shape is None:
        raise AdapterError(
            "PEFT does not say which family of models its adapters are for: give the model or its "
            "configuration, as in adapters.load(folder, backbone=model)"
        )
    return shape, names_of(shape.model_type)


def _is_head(key: str) -> bool:
    inside = key.removeprefix("base_model.").removeprefix("model.")
    return key.startswith("base_model.") and inside.split(".")[0] in _HEADS


def _head_out(head: Head, names: Names, adapter: Adapter) -> tuple[Tensor, Tensor, str]:
    if names.token_head is None:
        raise AdapterError(
            f"the head cannot go along: transformers has no class with a bare linear head on the tokens of "
            f"{adapter.model_type!r}; export the adapter without it"
        )
    weight, bias = head.linear("PEFT")
    return weight, bias, names.token_head
