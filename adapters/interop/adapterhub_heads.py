"""AdapterHub's prediction heads: ``head_config.json`` and ``model_head.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters.adapter import Adapter
from adapters.architectures import ARCHITECTURES
from adapters.bottleneck import activation_of
from adapters.errors import AdapterError, short
from adapters.interop.adapterhub import check_name, envelope, read_envelope
from adapters.interop.adapterhub_bottleneck import activation_here
from adapters.interop.common import as_json, as_safetensors, read_tensors
from adapters.interop.heads import Head
from adapters.interop.hubnames import hub_names

CONFIG, WEIGHTS, PICKLED = "head_config.json", "model_head.safetensors", "pytorch_model_head.bin"
_POOLED = ("classification", "multilabel_classification")


def hub_head_out(
    head: Head, adapter: Adapter, name: str = "default", backbone_name: str | None = None
) -> dict[str, bytes]:
    """The files of a head, by their names.

    Args:
        head: one linear; see `Head.linear`.
        adapter: what it was trained with.
        name: what both are called there.
        backbone_name: what the file calls the backbone.

    Raises:
        AdapterError: AdapterHub has no such head.
    """
    check_name(name)
    names = hub_names(adapter.model_type)
    weight, bias = head.linear("AdapterHub")
    labels = head.labels or ()
    # Where texts are padded, their classification heads do not find the last token without its id of padding.
    kind = "classification" if head.pooling == "cls" == _pooled_token(adapter.model_type) else "tagging"
    values: dict[str, Any] = {
        "head_type": kind,
        "num_labels": len(weight),
        "layers": 1,
        "activation_function": None,
        "label2id": {label: number for number, label in enumerate(labels)} or None,
        "dropout_prob": 0.0,
    }
    if kind == "classification":
        values |= {"use_pooler": False, "bias": True}
    tensors = {f"heads.{name}.1.weight": weight, f"heads.{name}.1.bias": bias}
    return {
        CONFIG: as_json(envelope(adapter.shape, names, name, values, backbone_name)),
        WEIGHTS: as_safetensors(tensors, None, {"pooling": head.pooling}),
    }


def hub_head_in(path: Path) -> Head | None:
    """The head that was saved in a folder; None without one.

    Raises:
        AdapterError: it is of a kind that there is no equal of here.
    """
    if not (path / CONFIG).is_file():
        return None
    found = read_envelope(path / CONFIG)
    values = found.config
    tensors, metadata = read_tensors(path / WEIGHTS, PICKLED)
    kind = values.get("head_type")
    if kind not in (*_POOLED, "tagging"):
        raise AdapterError(
            f"its head is of the type {short(kind)!r} (AdapterHub); heads here are of "
            f"{', '.join((*_POOLED, 'tagging'))}; load the adapter without it"
        )
    count, activation = values.get("layers"), values.get("activation_function")
    if type(count) is not int or not 1 <= count <= 16:
        raise AdapterError(f"its head has {count!r} layers (AdapterHub)")
    # Their sequence: dropout and a linear each, and the activation between two.
    step = 3 if activation else 2
    layers = []
    for number in range(count):
        front = f"heads.{found.name}.{step * number + 1}"
        if f"{front}.weight" not in tensors:
            raise AdapterError(f"its head lacks {front}.weight, which {CONFIG} asks for")
        layers.append((tensors.pop(f"{front}.weight"), tensors.pop(f"{front}.bias", None)))
    if tensors:
        raise AdapterError(f"its head has {min(tensors)!r} beyond what {CONFIG} asks for")
    last = layers[-1][0]
    pooling = "pooler" if values.get("use_pooler") else _pooled_token(found.model_type)
    return Head(
        tuple(layers),
        metadata.get("pooling", "tokens") if kind == "tagging" else pooling,
        _labels(values.get("label2id"), last.shape[0] if last.ndim else 0),
        activation_of(activation_here(activation)) if activation and count > 1 else None,
    ).check_reads(found.hidden_size)


def _pooled_token(model_type: str) -> str:
    """Which token their classification heads read: the first, and in causal models the last."""
    row = ARCHITECTURES.get(model_type)
    return "last" if row is not None and row.causal else "cls"


def _labels(found: object, outputs: int) -> tuple[str, ...] | None:
    """Their names by number; None where not each output has one."""
    if not isinstance(found, dict) or not all(type(number) is int for number in found.values()):
        return None
    labels = sorted(found, key=found.__getitem__)
    return tuple(labels) if [found[label] for label in labels] == list(range(outputs)) else None
