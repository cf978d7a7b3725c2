"""Folders that may not be there yet: what of them is, and whether files can be written there."""

from __future__ import annotations

import os
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
