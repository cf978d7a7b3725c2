"""Save and load one adapter: one safetensors file, whose metadata says what it is. No pickle.

The metadata, all text: "format" ("adapter-sweeper/1"), "config" (`AdapterConfig.to_dict` as JSON), and the
backbone it fits: "model_type", "hidden_size", "layers", and "shape" where the method depends on the sizes of
its linears (`Shape.measured`), else of an encoder-decoder "encoder_layers", which older files lack. Tensors
are named as in `Adapter.state_dict`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.architectures import ARCHITECTURES
from adapters.config import AdapterConfig
from adapters.depth import reads
from adapters.errors import AdapterError, one_of
from adapters.insert import active, get
from adapters.ladder import ladder_shapes
from adapters.methods import check, state_shapes
from adapters.shape import Shape, is_measured, measuring, with_measured

FORMAT = "adapter-sweeper/1"

_KEYS = ("format", "config", "model_type", "hidden_size", "layers")
FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class _Header(NamedTuple):
    config: AdapterConfig
    shape: Shape


def save(source: Adapter | nn.Module, path: str | Path, name: str | None = None) -> Path:
    """Write one adapter to a safetensors file, whole or not at all.

    Args:
        source: an adapter, or a model that holds it.
        path: the file; its folder exists. A file that is there already is replaced.
        name: which of the model's adapters; the active one if None.

    Returns:
        The path of the file.

    Raises:
        AdapterError: the model has no such adapter, its weights are not finite, or not of one floating dtype.
        OSError: the file cannot be written; what was there before is unharmed.
    """
    path = Path(path)
    _write(path, _content(_chosen(source, name)))
    return path


def digest(adapter: Adapter) -> str:
    """The sha256 of the file that `save` writes of an adapter, as 64 hex digits: equal for equal adapters.

    Raises:
        AdapterError: its weights are not finite, or not of one floating dtype.
    """
    return hashlib.sha256(_content(adapter)).hexdigest()


def _content(adapter: Adapter) -> bytes:
    """The file of an adapter."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in adapter.state_dict().items()}
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{key} holds values that are not finite; such an adapter is not saved")
    _check_dtypes(tensors)
    metadata = {
        "format": FORMAT,
        "config": json.dumps(adapter.config.to_dict(), sort_keys=True),
        "model_type": adapter.model_type,
        "hidden_size": str(adapter.hidden_size),
        "layers": str(adapter.layer_count),
    }
    if is_measured(measuring(adapter.config)):
        metadata["shape"] = adapter.shape.measured()
    elif adapter.shape.encoder_layers:
        metadata["encoder_layers"] = str(adapter.shape.encoder_layers)
    return _in_fixed_order(to_bytes(tensors, metadata))


def load_file(path: Path) -> Adapter:
    """Read the adapter of a file that `save` wrote; see `reading.load`."""
    if not path.is_file():
        raise AdapterError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = _header(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        return adapter_of(header.config, header.shape, tensors)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: not a readable safetensors file: {error}") from None
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}", error.field) from None


def _chosen(source: Adapter | nn.Module, name: str | None) -> Adapter:
    if isinstance(source, Adapter):
        if name is not None:
            raise AdapterError("`name` chooses among the adapters of a model; an adapter has none")
        return source
    chosen = active(source) if name is None else name
    if chosen is None:
        raise AdapterError("the model has no active adapter: say which to save by its `name`")
    return get(source, chosen)


def _in_fixed_order(content: bytes) -> bytes:
    # safetensors writes metadata in an order that differs from call to call. Equal adapters give equal bytes,
    # so that digests can be compared: the header (8 bytes of length, then JSON) is written again in order.
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + content[end:]


def _write(path: Path, content: bytes) -> None:
    # Beside the target, so that the replacement is one rename within one file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def _header(metadata: dict[str, str]) -> _Header:
    found = metadata.get("format")
    if found != FORMAT:
        raise AdapterError(f"its format is {found!r}, not {FORMAT!r}: no adapter of this version")
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise AdapterError(f"its metadata lacks {', '.join(missing)}")
    model_type = metadata["model_type"]
    if model_type not in ARCHITECTURES:
        raise AdapterError(
            f"it is for the unknown family {model_type!r}; {one_of(model_type, ARCHITECTURES)}"
        )
    try:
        values = json.loads(metadata["config"])
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"its config is not JSON: {error}") from None
    config = AdapterConfig.from_dict(values)
    shape = Shape(model_type, *sizes_in(metadata))
    if is_measured(measuring(config)):
        if "shape" not in metadata:
            raise AdapterError("its metadata lacks shape")
        shape = with_measured(shape, metadata["shape"])
    elif "encoder_layers" in metadata:
        shape = replace(shape, encoder_layers=_whole(metadata, "encoder_layers", 10_000))
    return _Header(config, shape)


def sizes_in(metadata: dict[str, str]) -> tuple[int, int]:
    """The hidden size and the number of layers that the metadata of a file names.

    Raises:
        AdapterError: they are no whole numbers, or beyond those of any backbone.
    """
    return _whole(metadata, "hidden_size", 1_000_000), _whole(metadata, "layers", 10_000)


def _whole(metadata: dict[str, str], key: str, most: int) -> int:
    text = metadata[key]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most):
        raise AdapterError(f"its {key} is {text[:40]!r}, not a whole number from 1 to {most}")
    return int(text)


def adapter_of(config: AdapterConfig, shape: Shape, tensors: dict[str, Tensor]) -> Adapter:
    """The adapter of a configuration with these weights, in their dtype, in eval mode.

    Raises:
        AdapterError: the tensors are not those that the configuration asks for.
    """
    # Everything is checked before the modules are built: sizes in the metadata are only the file's word.
    _check_shapes(_expected_shapes(_Header(config, shape)), tensors)
    _check_values(tensors)
    adapter = Adapter(config, shape)
    adapter.load_state_dict(tensors, assign=True)  # assigned, not copied: the file's dtype is kept
    return adapter.requires_grad_(True).eval()


def _expected_shapes(header: _Header) -> dict[str, list[int]]:
    config, shape = header
    if config.method == "ladder":
        rungs = [depth.key for depth in reads(config, shape)]
        found = ladder_shapes(shape.hidden_size, config.bottleneck_dim, rungs)
        return {f"side.{name}": size for name, size in found.items()}
    try:
        check(config, shape)
        return state_shapes(config, shape)
    except KeyError as error:
        raise AdapterError(f"its shape lacks {error}, which its config asks for") from None


def _check_shapes(expected: dict[str, list[int]], tensors: dict[str, Tensor]) -> None:
    missing, unexpected = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    if missing:
        raise AdapterError(f"it lacks {len(missing)} tensors of its config, {missing[0]!r} among them")
    if unexpected:
        raise AdapterError(
            f"it has {len(unexpected)} tensors beyond its config, {unexpected[0]!r} among them"
        )
    for key, shape in expected.items():
        if list(tensors[key].shape) != shape:
            raise AdapterError(
                f"its tensor {key!r} is {list(tensors[key].shape)}; its config asks for {shape}"
            )


def _check_dtypes(tensors: dict[str, Tensor]) -> None:
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if not tensors:
        return  # a head alone
    if len(dtypes) != 1 or not dtypes <= set(FLOATING):
        listed = ", ".join(sorted(str(dtype) for dtype in dtypes))
        raise AdapterError(f"its tensors are of {listed}; they must be of one floating dtype")


def _check_values(tensors: dict[str, Tensor]) -> None:
    _check_dtypes(tensors)
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"its tensor {key!r} holds values that are not finite")
