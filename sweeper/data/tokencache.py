"""Tokens on disk: built by one process, used once complete, built again if torn."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sweeper.data.split import Split
from sweeper.disk import sha256

Built = tuple[dict[str, Split], dict[str, Any]]
_TENSORS, _ABOUT = "tokens.safetensors", "about.json"
_FIELDS = ("input_ids", "token_type_ids", "offsets", "labels")


def cached(folder: Path, fingerprint: str, build: Callable[[], Built]) -> Built:
    """The splits and their report under ``folder/fingerprint``, built and kept there if they are not.

    Of several processes one builds and the others wait. What was torn (a full disk, a copy cut short) is told
    by its digest, and built again.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    place = folder / fingerprint
    found = _read(place)  # without the lock: many workers read what is there at once
    if found is not None:
        return found
    with FileLock(folder / f"{fingerprint}.lock"):
        found = _read(place)
        if found is not None:
            return found
        splits, report = build()
        _write(place, splits, report)
        return splits, report


def _read(place: Path) -> Built | None:
    """What is kept at a place, or None if nothing is, or not all of it."""
    from safetensors.torch import load_file

    try:
        about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
        if about["sha256"] != sha256(place / _TENSORS):
            return None
        tensors = load_file(place / _TENSORS)
        splits = {
            name: Split(*(tensors.get(f"{name}.{field}") for field in _FIELDS))  # type: ignore[arg-type]
            for name in about["splits"]
        }
        return splits, about["report"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(place: Path, splits: dict[str, Split], report: dict[str, Any]) -> None:
    """Write beside the place and rename, so that nobody ever sees half of it."""
    from safetensors.torch import save_file

    tensors = {
        f"{name}.{field}": value
        for name, split in splits.items()
        for field in _FIELDS
        if (value := getattr(split, field)) is not None
    }
    beside = Path(tempfile.mkdtemp(prefix=".building-", dir=place.parent))
    try:
        save_file(tensors, beside / _TENSORS)
        about = {"splits": list(splits), "report": report, "sha256": sha256(beside / _TENSORS)}
        (beside / _ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
        for written in (beside / _TENSORS, beside / _ABOUT, beside):
            _flush(written)
        if place.exists():
            shutil.rmtree(place)
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
