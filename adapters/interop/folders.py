"""Folders of adapters: which library wrote one, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adapters.adapter import Adapter
from adapters.errors import AdapterError, one_of
from adapters.files import load_file
from adapters.interop import adapterhub, peft
from adapters.interop.adapterhub_heads import hub_head_in, hub_head_out
from adapters.interop.common import CONFIG, read_json
from adapters.interop.heads import Head

FORMATS = ("adapterhub", "peft")


def kind_of(folder: str | Path) -> str:
    """Who wrote a folder: "sweeper", or one of `FORMATS`.

    Raises:
        AdapterError: nobody that is known.
    """
    path = Path(folder)
    if not path.is_dir():
        raise AdapterError(f"{path}: no such folder")
    if (path / CONFIG).is_file():
        values = read_json(path / CONFIG)
        if "peft_type" in values:
            return "peft"
        if "config" in values and "model_type" in values:
            return "adapterhub"
        raise AdapterError(f"{path / CONFIG}: neither PEFT nor AdapterHub's adapters writes such a file")
    if (path / "adapter.safetensors").is_file():
        return "sweeper"
    raise AdapterError(
        f"{path}: holds neither {CONFIG} nor adapter.safetensors, so no adapter of a known format"
    )


def load_folder(folder: str | Path, backbone: Any = None) -> Adapter:
    """The adapter in a folder, whoever wrote it; see `adapters.load`."""
    path = Path(folder)
    kind = kind_of(path)
    if kind == "sweeper":
        return load_file(path / "adapter.safetensors")
    try:
        if kind == "peft":
            return peft.from_peft(path, backbone)
        return adapterhub.from_adapterhub(path, backbone)
    except AdapterError as error:
        raise _named(path, error) from None


def load_head(folder: str | Path, backbone: Any = None) -> Head | None:
    """The head in a folder of another library; None where there is none.

    Args:
        folder, backbone: as for `adapters.load`.

    Raises:
        AdapterError: there is a head, and no equal of it here.
    """
    path = Path(folder)
    kind = kind_of(path)
    try:
        if kind == "peft":
            return peft.head_from_peft(path, backbone)
        if kind == "adapterhub":
            return hub_head_in(path)
        raise AdapterError("its head is in head.safetensors: sweeper.load_exported reads it")
    except AdapterError as error:
        raise _named(path, error) from None


def _named(path: Path, error: AdapterError) -> AdapterError:
    text = str(error)
    return error if text.startswith(str(path)) else AdapterError(f"{path}: {text}", error.field)


def files_of(
    adapter: Adapter,
    format: str,
    *,
    head: Head | None = None,
    backbone: Any = None,
    name: str = "default",
    backbone_name: str | None = None,
) -> dict[str, bytes]:
    """The files of an adapter in the format of another library, by their names.

    Args:
        adapter: what goes over.
        format: one of `FORMATS`.
        head: goes along, if there is one.
        backbone: the model, or its configuration; PEFT's DoRA needs the model, its prefix the configuration.
        name: what the adapter and its head are called in AdapterHub; PEFT names none.
        backbone_name: what the files call the backbone: a hub name or a folder.

    Raises:
        AdapterError: an unknown format, or one that cannot express the adapter or the head; the message says
            why.
    """
    if format not in FORMATS:
        raise AdapterError(f"unknown format {format!r}; {one_of(format, FORMATS)}")
    for key, tensor in adapter.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise AdapterError(f"{key} holds values that are not finite; such an adapter is not exported")
    if format == "peft":
        return peft.to_peft(adapter, head, backbone, backbone_name)
    files = adapterhub.to_adapterhub(adapter, name, backbone_name)
    return files if head is None else files | hub_head_out(head, adapter, name, backbone_name)


def write_folder(folder: str | Path, adapter: Adapter, format: str, **given: Any) -> Path:
    """Write what `files_of` gives into a new folder.

    Raises:
        AdapterError: see `files_of`; or the folder is there already.
    """
    files, path = files_of(adapter, format, **given), Path(folder)
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise AdapterError(f"{path}: is there already; name a new folder") from None
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path
