"""The disk: what of a folder is there, whether it can be written, what it holds, what is free; digests."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path


def nearest(path: Path) -> Path:
    """The path itself if it exists, or the nearest above it that does."""
    path = path.absolute()
    while path != path.parent:
        try:
            path.lstat()
            return path
        except OSError:  # not there, or below what is no folder
            path = path.parent
    return path


def why_not_writable(folder: Path) -> str | None:
    """Why files cannot be made in a folder that is there or will be made; None if they can. Makes nothing."""
    there = nearest(folder)
    if not there.is_dir():
        return f"{there} is not a folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written"
    return None


def free_bytes(folder: Path) -> int:
    """What is free where a folder is, or will be made."""
    return shutil.disk_usage(nearest(folder)).free


def bytes_below(path: Path) -> int:
    """Bytes of a file, or of the files below a folder; links are not followed.

    What another process renames or removes meanwhile may be left out.
    """
    if path.is_symlink() or not path.is_dir():
        files = iter([path])
    else:  # which skips folders that are gone
        files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    found = 0
    for file in files:
        with suppress(FileNotFoundError):
            found += file.lstat().st_size
    return found


def sha256(path: Path) -> str:
    """The sha256 of a file, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
