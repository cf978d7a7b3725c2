"""What no study needs any more, found and removed: frozen states, tokens, checkpoints, interrupted builds.

    for leftover in collect(ledger, home, dry_run=True).removed:
        print(leftover.path, leftover.bytes)

What a running worker may be reading or building is told by its lock, and by the ledger, which is asked once
the lock is held: whoever begins a study afterwards finds the place empty and computes it again. Only files
with the names that we give are touched; links are neither followed nor removed. Lock files stay: they are
empty, and who waits for one must not be left with a file that others no longer see.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.disk import bytes_below
from sweeper.home import Home
from sweeper.ledger import Ledger, StudyRow
from sweeper.ledger.schema import ENDED
from sweeper.lookup import STUDY_NAME
from sweeper.owner import FOREIGN, MARK, why_not_ours

_LOCK, _BUILDING = "lock", ".building-"
_FROZEN = re.compile(r"[0-9a-f]{32}")
_TOKENS = re.compile(r"[0-9a-f]{64}")
_LINK = "is a link, and links are not followed"
_IN_USE = "is in use by a worker"


@dataclass(frozen=True)
class Leftover:
    """Something that no study needs.

    Args:
        kind: ``frozen states``, ``tokens``, ``checkpoints`` or ``interrupted build``.
        path: the folder.
        bytes: of all files in it that go.
        why: nobody needs it.
        kept_because: it could not be removed all the same; None if it is gone, or would be.
    """

    kind: str
    path: Path
    bytes: int
    why: str
    kept_because: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What ``gc --json`` prints of it."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            "bytes": self.bytes,
            "why": self.why,
            "kept_because": self.kept_because,
        }


@dataclass(frozen=True)
class Collected:
    """All leftovers that were found.

    Args:
        dry_run: none of them was removed.
    """

    dry_run: bool
    leftovers: tuple[Leftover, ...]

    @property
    def removed(self) -> tuple[Leftover, ...]:
        """Those that are gone, or would be."""
        return tuple(leftover for leftover in self.leftovers if leftover.kept_because is None)

    @property
    def bytes(self) -> int:
        """Of all that is gone, or would be."""
        return sum(leftover.bytes for leftover in self.removed)

    def to_json(self) -> dict[str, Any]:
        """What ``gc --json`` prints; ``bytes`` counts what is gone, or would be."""
        leftovers = [leftover.to_json() for leftover in self.leftovers]
        return {"dry_run": self.dry_run, "bytes": self.bytes, "leftovers": leftovers}


def collect(ledger: Ledger, home: Home, *, dry_run: bool = False) -> Collected:
    """Remove what no study of the store needs, and return what that was.

    Frozen states stay while a study that needs them has not ended; tokens as long as the store has a study of
    them; checkpoints until their trial has ended.

    Args:
        dry_run: only say what would be removed.

    Raises:
        UnreachableError: the store cannot be reached.
    """
    leftovers = (
        *_frozen(ledger, home.cache / "frozen", dry_run),
        *_tokens(ledger, home.cache / "tokens", dry_run),
        *_checkpoints(ledger, home, dry_run),
    )
    return Collected(dry_run, leftovers)


def _frozen(ledger: Ledger, root: Path, dry_run: bool) -> Iterator[Leftover]:
    if root.is_symlink():
        yield Leftover("frozen states", root, 0, "it was not looked into", _LINK)
        return
    for folder in _folders(root):
        if not _FROZEN.fullmatch(folder.name):
            continue
        with _held(folder / _LOCK, dry_run) as free:
            # Asked only now: whoever began a study since will wait for the lock.
            needed = folder.name in _needed_frozen(ledger)
            parts = [path for path in _entries(folder) if path.name != _LOCK]
            if needed:
                builds = [path for path in parts if path.name.startswith(_BUILDING)] if free else []
                for build in builds:
                    yield _removed("interrupted build", build, [build], "its builder has died", dry_run)
            elif parts:
                why = "no unfinished study needs it"
                yield _removed("frozen states", folder, parts, why, dry_run, None if free else _IN_USE)


def _needed_frozen(ledger: Ledger) -> set[str]:
    """The folders of the frozen states of all studies that have not ended, or have trials to finish."""
    from sweeper.cache import Layout

    return {
        Layout(row.backbone_fingerprint, row.data_fingerprint, row.dtype, 0, 0).key
        for row in _studies(ledger)
        if row.ended_at is None or ledger.has_unfinished(row.name)
    }


def _studies(ledger: Ledger) -> list[StudyRow]:
    """The rows of all studies; without one that is deleted at this moment."""
    return [row for name in ledger.studies() if (row := ledger.find_study(name)) is not None]


def _tokens(ledger: Ledger, root: Path, dry_run: bool) -> Iterator[Leftover]:
    if root.is_symlink():
        yield Leftover("tokens", root, 0, "it was not looked into", _LINK)
        return
    # In this order: who builds one of these had its lock before, and it is looked for afterwards.
    builds = [path for path in _folders(root) if path.name.startswith(_BUILDING)]
    for folder in _folders(root):
        if not _TOKENS.fullmatch(folder.name):
            continue
        with _held(root / f"{folder.name}.lock", dry_run) as free:
            if folder.name not in {row.data_fingerprint for row in _studies(ledger)}:
                why = "no study of the store needs it"
                yield _removed("tokens", folder, [folder], why, dry_run, None if free else _IN_USE)
    if builds and not _any_held(root):
        for build in builds:
            if build.is_dir():  # nobody's; else its builder has come to its end meanwhile
                yield _removed("interrupted build", build, [build], "its builder has died", dry_run)


def _any_held(root: Path) -> bool:
    """Whether anybody builds tokens."""
    for lock in root.glob("*.lock"):
        with _held(lock, dry_run=True) as free:
            if not free:
                return True
    return False


def _checkpoints(ledger: Ledger, home: Home, dry_run: bool) -> Iterator[Leftover]:
    from sweeper.checkpoint import files_of_trial

    root, store = home.checkpoints, ledger.store_id()
    if root.is_symlink():
        yield Leftover("checkpoints", root, 0, "it was not looked into", _LINK)
        return
    # The ledger is asked afterwards: a folder that is there has been in it since before.
    trials = {study: _folders(study) for study in _folders(root) if STUDY_NAME.fullmatch(study.name)}
    for study, folders in trials.items():
        known = ledger.find_study(study.name) is not None
        views = [*ledger.trials(study.name), *ledger.confirmations(study.name)] if known else []
        ended = {view.name for view in views if view.state in ENDED}
        others = why_not_ours(study, home, store)
        if known and others != FOREIGN:  # what is not marked is this store's, which has a study of its name
            others = None
        for folder in folders:
            files = files_of_trial(folder)
            if files and not known:
                why = f"the store has no study {study.name}"
                yield _removed("checkpoints", folder, files, why, dry_run, others)
            elif files and folder.name in ended:
                yield _removed("checkpoints", folder, files, "its trial has ended", dry_run, others)
        if not dry_run and not known and others is None:
            if {path.name for path in study.rglob("*") if not path.is_dir()} <= {MARK}:
                (study / MARK).unlink(missing_ok=True)
            _remove_empty(study)


def _removed(
    kind: str, place: Path, parts: list[Path], why: str, dry_run: bool, kept_because: str | None = None
) -> Leftover:
    """Take parts of a place away, unless something is against it; what is already gone is no error."""
    size = sum(bytes_below(part) for part in parts)
    if kept_because is None and not dry_run:
        try:
            for part in parts:
                _remove(part)
            _remove_empty(place)
        except OSError as error:
            kept_because = f"cannot be removed: {error.strerror or error}"
    return Leftover(kind, place, size, why, kept_because)


def _remove(path: Path) -> None:
    """Take a file or a folder away: a folder as a whole, so that nobody takes what is left for all of it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    gone = path
    if not path.name.startswith(_BUILDING):
        gone = path.with_name(f"{_BUILDING}gone-{path.name}")
        if gone.exists():
            shutil.rmtree(gone)
        path.rename(gone)
    shutil.rmtree(gone)


def _remove_empty(folder: Path) -> None:
    """Take folders away that hold nothing, not even in their folders."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for inner in _folders(folder):
        _remove_empty(inner)
    with suppress(OSError):  # there is something in it
        folder.rmdir()


def _folders(root: Path) -> list[Path]:
    """The folders in a folder, by name; without links."""
    return [path for path in _entries(root) if path.is_dir()]


def _entries(root: Path) -> list[Path]:
    """What is in a folder, by name, without links; nothing if there is none."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if not path.is_symlink())


@contextmanager
def _held(lock: Path, dry_run: bool) -> Iterator[bool]:
    """Hold a lock if nobody else does; whether it is held. Without its file, a dry run makes none."""
    from filelock import FileLock, Timeout

    if lock.is_symlink():
        yield False
        return
    if dry_run and not lock.exists():
        yield True
        return
    try:
        held = FileLock(lock)
        held.acquire(blocking=False)
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        held.release()
