"""Which store the folders of a study belong to: stores may share them, and each have a study of one name.

A file in the folder of its weights and in that of its checkpoints holds the id of the store. The id is in the
store's own tables: whoever reaches it, under whatever name, sees the same one.
"""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

from sweeper.errors import SweeperError, UsageError
from sweeper.home import Home

MARK = ".store"
"""The file's name."""
FOREIGN = "belongs to another store"


def folders_of(home: Home, study: str) -> list[Path]:
    """The folders of weights and checkpoints. The name of a study holds no separator and is never ``..``."""
    return [home.artifacts / study, home.checkpoints / study]


def refuse_others(home: Home, study: str, store: str) -> None:
    """Refuse to write where a study of the same name in another store writes.

    Args:
        store: the id of the store.

    Raises:
        UsageError: a folder of the study belongs to another store.
    """
    for folder in folders_of(home, study):
        if _mark_of(folder) not in (None, store):
            raise UsageError(
                f"{folder} has the files of a study {study} of another store: give this study another name, "
                "or set SWEEPER_ARTIFACTS (or SWEEPER_HOME) to another folder; if that store is gone for "
                "good, move the folder away"
            )


def refuse_elsewhere(home: Home, study: str, store: str) -> None:
    """Refuse to train where the study's weights are not kept: nobody would find what is written there.

    Args:
        store: the id of the store.

    Raises:
        UsageError: the artifact folder is not the study's.
    """
    folder = home.artifacts / study
    if _mark_of(folder) != store:
        raise UsageError(
            f"the study {study} does not keep its weights in {folder}: set SWEEPER_ARTIFACTS as it was for "
            "`sweeper run`, to a folder that every machine sees"
        )


def mark(home: Home, study: str, store: str) -> None:
    """Say that the folders of a study are of this store.

    Raises:
        SweeperError: a folder cannot be written.
    """
    for folder in folders_of(home, study):
        if _mark_of(folder) == store:  # it is read by workers that begin at this moment
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            beside = folder / f"{MARK}.{token_hex(4)}"
            beside.write_text(store, encoding="ascii")
            beside.replace(folder / MARK)
        except OSError as error:
            raise SweeperError(f"the folder {folder} cannot be written: {error.strerror or error}") from error


def why_not_ours(folder: Path, home: Home, store: str) -> str | None:
    """Why one of a study's folders may be that of another store; None if it is of this one."""
    found = _mark_of(folder)
    if found is None:
        # In its own folder nobody else writes; in one that is shared, anybody may have.
        return None if folder.is_relative_to(home.root) else "carries no mark of a store"
    return None if found == store else FOREIGN


def _mark_of(folder: Path) -> str | None:
    """The id that a folder is marked with; None without one, or if a process died writing it."""
    try:
        return (folder / MARK).read_text(encoding="ascii") or None
    except (OSError, ValueError):
        return None
