"""Which store a folder of checkpoints belongs to, where several stores share an artifact folder.

A file beside the checkpoints of a study holds the id of its store. A SQLite store keeps its id in a file
beside it; a server's is made of where it is, so that one reached by another name is taken for another:
then something is left that could go, and never the other way round.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from sweeper.errors import SweeperError
from sweeper.home import Home
from sweeper.ledger import server_place, store_file

MARK = ".store"
"""In the folder of a study's checkpoints."""
_HERE = ("", "localhost", "127.0.0.1", "::1")


def store_id(home: Home) -> str:
    """The id of the store, 32 hex digits.

    Raises:
        SweeperError: it can be neither read nor made.
    """
    file = store_file(home.store_url)
    if file is None:
        host, place = server_place(home.store_url)
        near = socket.gethostname() if host in _HERE or host.startswith("/") else ""
        return hashlib.sha256(f"{near}|{place}".encode()).hexdigest()[:32]
    kept = Path(f"{file}.id")
    try:
        with suppress(FileExistsError), open(kept, "x", encoding="ascii") as new:
            new.write(secrets.token_hex(16))
        return kept.read_text(encoding="ascii")
    except OSError as error:
        raise SweeperError(f"the id of the store cannot be kept: {error}") from error


def mark(home: Home, study: str) -> None:
    """Say that the checkpoints of a study are of this store.

    Raises:
        SweeperError: the folder cannot be written.
    """
    folder = home.checkpoints / study
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(store_id(home), encoding="ascii")
    except OSError as error:
        raise SweeperError(f"the folder of checkpoints cannot be written: {error}") from error


def why_not_ours(home: Home, study: str) -> str | None:
    """Why the checkpoints of a study may be those of another store; None if they are of this one."""
    try:
        found = (home.checkpoints / study / MARK).read_text(encoding="ascii")
    except (OSError, ValueError):
        # In its own folder nobody else writes; in one that is shared, anybody may have.
        own = home.checkpoints.is_relative_to(home.root)
        return None if own else "carries no mark of a store"
    return None if found == store_id(home) else "belongs to another store"
