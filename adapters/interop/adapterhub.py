"""AdapterHub's files: ``adapter_config.json`` and ``adapter.safetensors``, as `adapters` 1.3.0 has them with
``use_safetensors=True``; and ``head_config.json`` with ``model_head.safetensors`` of a head.

A head of one linear on the first token is their classification head; one on the mean or, in models whose
tokens see both sides, on the last token is their tagging head, whose logits of the tokens are averaged or
picked: the same numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from adapters.adapter import Adapter
from adapters.architectures import architecture_of
from adapters.config import AdapterConfig
from adapters.errors import AdapterError, short
from adapters.files import adapter_of
from adapters.interop.adapterhub_bottleneck import bottleneck_in, bottleneck_out
from adapters.interop.adapterhub_others import lora_in, lora_out, prefix_in, prefix_out
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
from adapters.interop.hubnames import HubNames, hub_names
from adapters.row import Site
from adapters.shape import Shape

WEIGHTS, PICKLED = "adapter.safetensors", "pytorch_adapter.bin"
METHODS = ("bottleneck", "lora", "prefix")
VERSION = "adapters.1.3.0"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ARCHITECTURES = {None: "bottleneck", "union": "bottleneck", "lora": "lora", "prefix_tuning": "prefix"}
_LEGACY_ACTIVATIONS = {"gelu": "gelu_new", "gelu_orig": "gelu"}
_WEIGHTS = {
    "down.weight": "adapter_down.0.weight",
    "down.bias": "adapter_down.0.bias",
    "up.weight": "adapter_up.weight",
    "up.bias": "adapter_up.bias",
    "channels": "scaling",
}


class Envelope(NamedTuple):
    """What stands around a configuration in their JSON files."""

    model_type: str
    hidden_size: int
    name: str
    config: dict[str, Any]


def to_adapterhub(
    adapter: Adapter, name: str = "default", backbone_name: str | None = None
) -> dict[str, bytes]:
    """The files of an adapter, by their names.

    Args:
        adapter: of one of `METHODS`.
        name: what the adapter is called there: letters, digits, "_" and "-".
        backbone_name: what the file calls the backbone: a hub name or a folder.

    Raises:
        AdapterError: AdapterHub has no such adapter; the message says why.
    """
    config, shape = adapter.config, adapter.shape
    check_method(
        config, METHODS, "AdapterHub", "Export it in this project's own format, or for PEFT where that has it"
    )
    names = hub_names(adapter.model_type)
    check_name(name)
    if config.method == "bottleneck":
        values, tensors = bottleneck_out(config, shape), _bottleneck_weights(adapter, names, name)
    elif config.method == "lora":
        values, tensors = lora_out(adapter, names, name)
    else:
        values, tensors = prefix_out(adapter, names, name)
    return {
        CONFIG: as_json(envelope(shape, names, name, values, backbone_name)),
        WEIGHTS: as_safetensors(tensors, adapter),
    }


def from_adapterhub(path: Path, backbone: Any = None) -> Adapter:
    """The adapter in a folder that AdapterHub's `adapters`, or `to_adapterhub`, wrote.

    Args:
        path: the folder.
        backbone: the model or its configuration; needed where the number of layers cannot be seen.

    Raises:
        AdapterError: there is no such adapter here; the message says why.
    """
    found = read_envelope(path / CONFIG)
    tensors, metadata = read_tensors(path / WEIGHTS, PICKLED)
    names = hub_names(found.model_type)
    kind = found.config.get("architecture")
    method = _ARCHITECTURES.get(kind) if kind is None or isinstance(kind, str) else None
    if method is None:
        shown = short(kind)
        raise AdapterError(
            f"its architecture is {shown!r} (AdapterHub); read are bottlenecks, lora and prefix_tuning"
        )
    folder = Folder(path, found.config, tensors, metadata)
    shape = shape_from(folder, method, backbone, None) or _seen(folder, found, names)
    if (shape.model_type, shape.hidden_size) != (found.model_type, found.hidden_size):
        raise AdapterError(
            f"it is for a {found.model_type} of hidden size {found.hidden_size}, and the backbone is a "
            f"{shape.model_type} of hidden size {shape.hidden_size}"
        )
    if method == "lora":
        return adapter_of(*lora_in(folder, shape, names, found.name))
    if method == "prefix":
        return adapter_of(*prefix_in(folder, shape, names, found.name))
    config = bottleneck_in(found.config, shape)
    return adapter_of(config, shape, _bottleneck_tensors(config, shape, names, folder, found.name))


def envelope(
    shape: Shape, names: HubNames, name: str, values: dict[str, Any], backbone_name: str | None
) -> dict[str, Any]:
    """Their JSON around a configuration."""
    return {
        "model_type": shape.model_type,
        "hidden_size": shape.hidden_size,
        "model_name": backbone_name or "",
        "model_class": names.model_class,
        "name": name,
        "config": values,
        "version": VERSION,
    }


def read_envelope(path: Path) -> Envelope:
    """Read one of their JSON files; AdapterError if it is none."""
    values = read_json(path)
    config, name, hidden = values.get("config"), values.get("name"), values.get("hidden_size")
    model_type = values.get("model_type")
    if not isinstance(config, dict) or not isinstance(name, str) or not isinstance(model_type, str):
        raise AdapterError(f"{path}: lacks the name, the model_type or the config that AdapterHub writes")
    if type(hidden) is not int or not 1 <= hidden <= 1_000_000:
        raise AdapterError(f"{path}: its hidden_size is {hidden!r}, not a whole number from 1 to 1000000")
    named = config.get("non_linearity")
    if "version" not in values and isinstance(named, str):
        config["non_linearity"] = _LEGACY_ACTIVATIONS.get(named, named)  # as their loader does
    version = re.fullmatch(r"adapters\.(\d{1,4})\.(\d{1,4})(?!\d).*", str(values.get("version")))
    if version and (int(version[1]), int(version[2])) < (1, 1) and config.get("architecture") == "lora":
        config["alpha"] = config.get("r")  # as their loader does: it was not applied before 1.1
    return Envelope(model_type, hidden, name, config)


def check_name(name: str) -> None:
    """Raise AdapterError unless it can name an adapter on both sides."""
    if not _NAME.fullmatch(name):
        raise AdapterError(f"{name!r} cannot name an adapter; use letters, digits, '_' and '-'")


def _seen(folder: Folder, found: Envelope, names: HubNames) -> Shape:
    """What the weights tell of the backbone: as many layers as they, or `leave_out`, name."""
    bare = Shape(found.model_type, found.hidden_size, 1)
    layers = re.escape(architecture_of(bare).layers)
    indices = {
        int(hit[1]) for key in folder.tensors if (hit := re.search(rf"\b{layers}\.(\d{{1,4}})\.", key))
    }
    union = found.config.get("configs")
    for part in (found.config, *(union if isinstance(union, list) else ())):
        left_out = part.get("leave_out") if isinstance(part, dict) else None
        for layer in left_out if isinstance(left_out, list) else ():
            indices |= {layer} if type(layer) is int and 0 <= layer < 10_000 else set()
    if not indices or found.config.get("architecture") in ("lora", "prefix_tuning"):
        raise AdapterError(
            "AdapterHub does not say how many layers and linears its backbone has: give the model or its "
            "configuration, as in adapters.load(folder, backbone=model)"
        )
    return Shape(found.model_type, found.hidden_size, max(indices) + 1)


def _bottleneck_keys(
    config: AdapterConfig, shape: Shape, names: HubNames, name: str, site: Site
) -> dict[str, str]:
    """Our names of the weights of a site, and theirs."""
    layer = architecture_of(shape).part(site.layer, shape).path
    where = names.attention if site.sublayer == "attention" else names.ffn
    front = f"{names.prefix}.{layer}.{where}adapters.{name}"
    skip = () if config.learned_scaling == "channel" else ("channels",)
    return {f"{site.key}.{own}": f"{front}.{theirs}" for own, theirs in _WEIGHTS.items() if own not in skip}


def _bottleneck_weights(adapter: Adapter, names: HubNames, name: str) -> dict[str, Tensor]:
    state, tensors = adapter.state_dict(), {}
    for site in adapter.sites:
        assert isinstance(site, Site)
        for own, theirs in _bottleneck_keys(adapter.config, adapter.shape, names, name, site).items():
            # They have either a constant or a factor a channel, so that the constant goes into the factors.
            tensors[theirs] = state[own] * adapter.config.scaling if own.endswith(".channels") else state[own]
    return tensors


def _bottleneck_tensors(
    config: AdapterConfig, shape: Shape, names: HubNames, folder: Folder, name: str
) -> dict[str, Tensor]:
    from adapters.methods import places_in

    left, tensors = dict(folder.tensors), {}
    for site in places_in(config, shape):
        assert isinstance(site, Site)
        for own, theirs in _bottleneck_keys(config, shape, names, name, site).items():
            if theirs not in left:
                raise AdapterError(f"it lacks {theirs!r}, which its configuration asks for")
            tensors[own] = left.pop(theirs)
    if left:
        raise AdapterError(f"it holds {min(left)!r} beyond what its configuration asks for")
    return tensors
