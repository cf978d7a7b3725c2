"""Folders: whether they can be written, and those of an export with the artifacts that they are made from.

The folder of an export appears whole or not at all: it is written beside its place and renamed. One that is
no export of ours, or whose files were changed since, is never touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.console import json_ready
from sweeper.errors import SweeperError, UsageError
from sweeper.export.card import FILES
from sweeper.export.foreign import FILES as FOREIGN_FILES

FORMAT = "adapter-sweeper-export/1"
_OURS = {*FILES, *(name for files in FOREIGN_FILES.values() for name in files)}
_TRIAL_FOLDER = re.compile(r"trial-\d{4,}")


def write_folders(out: Path, contents: Mapping[str, Mapping[str, bytes]]) -> None:
    """Puts whole folders in place of ``out``, at once.

    Args:
        out: the folder to make or, if it is an earlier export, to replace.
        contents: folder name inside ``out`` (``""`` for ``out`` itself) -> file name -> content.

    Raises:
        UsageError: ``out`` holds something that is not an unchanged export of ours.
    """
    target = out.resolve()
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new, old = staging / "new", staging / "old"
        for name, files in contents.items():
            folder = new / name
            folder.mkdir(parents=True, exist_ok=True)
            for file, content in files.items():
                _write(folder / file, content)
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:  # an interrupt, too: the old one lies in what is removed below
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_target(target: Path) -> None:
    """Refuses a folder whose content is not ours to replace.

    Raises:
        UsageError: it is a file or in one, the current folder or one above it, or holds something else.
    """
    nearest = next(place for place in (target, *target.parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError("is a file: give --out a new folder", nearest)
    if nearest != target:
        return
    here = Path.cwd()
    if target == here or target in here.parents:
        raise UsageError(
            "is the folder you are in, or above it: give --out a new folder, such as ./best", target
        )
    entries = sorted(target.iterdir())
    if entries and all(_TRIAL_FOLDER.fullmatch(entry.name) and entry.is_dir() for entry in entries):
        for entry in entries:
            _check_ours(entry)
    elif entries:
        _check_ours(target)


def _check_ours(folder: Path) -> None:
    """Refuses a folder with a file that is not ours, or that was changed since it was exported."""
    for entry in sorted(folder.iterdir()):
        if entry.name not in _OURS or entry.is_symlink() or not entry.is_file():
            raise UsageError(f"holds {entry.name}, which is no export: give --out a new folder", folder)
    try:
        facts = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        digests = facts["files"] if facts["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        digests = None
    if not isinstance(digests, dict):
        raise UsageError("is not empty and no export of ours: give --out a new folder", folder)
    for name, digest in digests.items():
        if name in _OURS and (folder / name).is_file() and sha256((folder / name).read_bytes()) != digest:
            raise UsageError(
                f"{name} was changed since it was exported and would be lost: move it, or give --out "
                "a new folder",
                folder,
            )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def verified(root: Path, relative: str, digest: str) -> bytes:
    """The content of an artifact, if it is what the ledger recorded.

    Raises:
        SweeperError: the file is missing, lies outside the artifact folder, or its content is another.
    """
    path = (root / relative).resolve()
    if not path.is_relative_to(root.resolve()):
        raise SweeperError("the ledger names a file outside the artifact folder: nothing was exported", path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise SweeperError("the weights of this trial are gone: nothing was exported", path) from None
    if sha256(content) != digest:
        raise SweeperError("the weights are not those that the ledger recorded: nothing was exported", path)
    return content


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def as_json(value: Any) -> bytes:
    return (json.dumps(json_ready(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()
