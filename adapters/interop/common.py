"""What both foreign formats share: files in and out, the families they name alike, and how they are "
"refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import AutoConfig

from adapters.adapter import Adapter
from adapters.architectures import architecture_of
from adapters.config import AdapterConfig
from adapters.errors import AdapterError, short
from adapters.files import sizes_in
from adapters.shape import Shape, is_measured, shape_of, with_measured

CONFIG = "adapter_config.json"
MOST = torch.finfo(torch.float32).max
_CONVERT = (
    "this library reads no pickle. Convert it where it was written: "
    "from safetensors.torch import save_file; save_file({{key: value.clone() for key, value in "
    "torch.load({old!r}, weights_only=True).items()}}, {new!r})"
)


class Folder(NamedTuple):
    """A folder of another library, read.

    Args:
        path: the folder, for messages.
        config: the content of its ``adapter_config.json``.
        tensors: its weights, under the names that are in the file.
        metadata: of the weights file; an export of this library says there which backbone it fits.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


class Place(NamedTuple):
    """One weight of a foreign file: the layer and the linear that it changes, and which weight it is."""

    layer: int
    name: str
    weight: str


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; AdapterError if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: not a readable JSON file: {error}") from None
    if not isinstance(values, dict):
        raise AdapterError(f"{path}: holds a {type(values).__name__}, not an object")
    return values


def read_tensors(path: Path, pickled: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Args:
        path: the file.
        pickled: the name of the file that the other library writes in its place as a pickle.

    Raises:
        AdapterError: it is missing or damaged; where only the pickle is there, how to convert it.
    """
    if not path.is_file():
        if path.with_name(pickled).is_file():
            raise AdapterError(f"{path.with_name(pickled)}: {_CONVERT.format(old=pickled, new=path.name)}")
        raise AdapterError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: not a readable safetensors file: {error}") from None


def as_json(values: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file."""
    return (json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def as_safetensors(
    tensors: Mapping[str, Tensor], adapter: Adapter | None = None, facts: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a weights file, with the sizes of the backbone in its metadata, which others ignore."""
    metadata = {"format": "pt", **(facts or {})}
    if adapter is not None:
        metadata |= {
            "model_type": adapter.model_type,
            "hidden_size": str(adapter.hidden_size),
            "layers": str(adapter.layer_count),
        }
        if is_measured(adapter.config.method):
            metadata["shape"] = adapter.shape.measured()
    # A copy each: several may be views of one tensor, and a file holds each once.
    return save({key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}, metadata)


def shape_from(folder: Folder, method: str, backbone: Any, named: object) -> Shape | None:
    """The sizes of the backbone of a foreign adapter.

    Args:
        folder: what was read of it.
        method: one of `METHODS`.
        backbone: the model or its configuration, as the caller gave it, or None.
        named: what the file calls its backbone; taken if it is a folder of this machine.

    Returns:
        None if nobody says: neither the caller, nor the weights file, nor a folder.
    """
    if backbone is not None:
        return shape_of(method, getattr(backbone, "config", backbone))
    found = folder.metadata
    if {"model_type", "hidden_size", "layers"} <= found.keys():
        bare = Shape(found["model_type"], *sizes_in(found))
        architecture_of(bare)  # refuses an unknown family
        return with_measured(bare, found["shape"]) if "shape" in found else bare
    config = config_from(backbone, named)
    return None if config is None else shape_of(method, config)


def refuse_without_key_width(shape: Shape, whose: str) -> None:
    """Refuse a prefix where nobody says how wide keys are. Raises AdapterError."""
    if not shape.key_width:
        raise AdapterError(f"it does not say how wide keys are (shape): give the backbone ({whose})")


def config_from(backbone: Any, named: object) -> Any:
    """The configuration of a backbone; None if nobody says. Arguments as for `shape_from`."""
    if backbone is not None:
        return getattr(backbone, "config", backbone)
    if not isinstance(named, str) or not named:
        return None
    try:
        is_there = (Path(named) / "config.json").is_file()
    except OSError:  # too long for a path, such as no hub name is
        return None
    return _config_in(named) if is_there else None


def _config_in(folder: str) -> Any:
    """The configuration of the backbone that lies in a folder; no code of the folder is run."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)  # nosec B615
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise AdapterError(
            f"its backbone is said to be in {folder}, whose config.json cannot be read "
            f"({type(error).__name__}): give the model or its configuration as `backbone`"
        ) from None


def layers_of(present: Iterable[int], shape: Shape) -> str | tuple[int, ...]:
    """`AdapterConfig.layers` of the layers that a foreign file has weights for."""
    layers = tuple(sorted(set(present)))
    if layers[-1] >= shape.num_hidden_layers:
        raise AdapterError(
            f"it has weights for layer {layers[-1]}, and the backbone has layers 0 to "
            f"{shape.num_hidden_layers - 1}",
            "layers",
        )
    return "all" if layers == tuple(range(shape.num_hidden_layers)) else layers


def grid(places: Iterable[Place], what: str) -> tuple[list[int], list[str]]:
    """The layers and the linears that weights were found for.

    Raises:
        AdapterError: a layer has another set of them than the others: an `AdapterConfig` has one for all.
    """
    by_layer: dict[int, set[str]] = {}
    for place in places:
        by_layer.setdefault(place.layer, set()).add(place.name)
    if not by_layer:
        raise AdapterError(f"it holds no weights of {what}")
    sets = {frozenset(names) for names in by_layer.values()}
    if len(sets) > 1:
        shown = "; ".join(f"layer {layer}: {', '.join(sorted(names))}" for layer, names in by_layer.items())
        raise AdapterError(
            f"its layers differ in what they change ({shown}); here all of them change the same"
        )
    return sorted(by_layer), sorted(sets.pop())


def refuse_rest(
    values: Mapping[str, Any], known: Iterable[str], plain: Mapping[str, Any], whose: str
) -> None:
    """Refuse what a foreign configuration sets beyond what is understood.

    Args:
        values: the configuration.
        known: keys that are read, or that change nothing that an adapter computes.
        plain: keys that may only have this value.
        whose: the format, for the message.
    """
    for key, value in values.items():
        if key in plain:
            if value != plain[key]:
                set_to = f"it sets {key} to {short(value)!r} ({whose})"
                raise AdapterError(f"{set_to}: there is no such adapter here")
        elif key not in known and value not in (None, False, 0, "none", [], {}):
            raise AdapterError(f"it sets {key[:60]} to {short(value)!r} ({whose}), which means nothing here")


def number(values: Mapping[str, Any], key: str, whose: str) -> float:
    """A number of a foreign configuration, finite in fp32; AdapterError if it is none."""
    value = values.get(key)
    # A whole number beyond all floats is above this one, too.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MOST:
        raise AdapterError(f"its {key} is {short(value)!r}, not a number ({whose})")
    return float(value)


def whole(values: Mapping[str, Any], key: str, whose: str) -> int:
    """A whole number from 1 to a million of a foreign configuration; AdapterError if it is none."""
    value = values.get(key)
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise AdapterError(f"its {key} is {short(value)!r}, not a whole number from 1 ({whose})")
    return value


def without(values: Mapping[str, Any], layers: int) -> list[int]:
    """The layers that are not in the `leave_out` of an AdapterHub configuration."""
    left_out = values.get("leave_out") or []
    if not isinstance(left_out, list) or not all(type(layer) is int for layer in left_out):
        raise AdapterError(f"its leave_out is {short(left_out)!r}, not a list of layers (AdapterHub)")
    used = [layer for layer in range(layers) if layer not in left_out]
    if not used:
        raise AdapterError("its leave_out names every layer (AdapterHub)")
    return used


def check_method(config: AdapterConfig, methods: Iterable[str], whose: str, instead: str) -> None:
    """Refuse a method that a format has nothing for."""
    if config.method not in methods:
        raise AdapterError(
            f"{whose} has nothing that computes what the method {config.method} does; it takes "
            f"{', '.join(methods)}. {instead}",
            "method",
        )


def put(tensors: dict[str, Tensor], key: str, tensor: Tensor) -> None:
    """Keep a tensor under our name for it; AdapterError if another name of theirs means the same one."""
    if key in tensors:
        raise AdapterError(f"two of its weights are {key!r}: it is no file that a library wrote")
    tensors[key] = tensor


def same(tensors: Iterable[Tensor]) -> Tensor:
    """The one tensor that a file holds several times; AdapterError if they differ."""
    first, *others = tensors
    if not all(torch.equal(first, other) for other in others):
        raise AdapterError("it holds one weight several times, with different values")
    return first
