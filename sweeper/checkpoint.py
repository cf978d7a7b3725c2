"""Checkpoints: trials in the middle of their training, as files from which any worker goes on.

One safetensors file each, with the counters as JSON in its header, under
``STUDY/trial-0007/attempt-1/step-00000120-DIGEST.safetensors``. It is written beside its place and renamed,
and its name tells its content: what was torn is passed over for an older one. Attempts have folders of their
own, so that a worker that lost its place can only write beside, never over.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors import SafetensorError
from safetensors.torch import load, save

from sweeper.console import to_stderr
from sweeper.crash import point
from sweeper.ledger import Claim
from sweeper.slot import Job, SlotState

WAITING = 64
"""How many may wait for a slow disk; then training waits, too."""
KEPT = 2
"""How many checkpoints an attempt has: should the newest be torn, there is another one."""
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.safetensors\Z")
_ATTEMPT = re.compile(r"attempt-(\d+)\Z")


@dataclass(frozen=True)
class Found:
    """A checkpoint that was read, and the attempt that wrote it."""

    state: SlotState
    attempt: int


def write_checkpoint(root: Path, claim: Claim, job: Job, state: SlotState) -> Path:
    """Write a checkpoint and take those away that it makes superfluous.

    Raises:
        OSError: it cannot be written; those that are there stay.
    """
    folder = _folder(root, claim) / f"attempt-{claim.attempt}"
    folder.mkdir(parents=True, exist_ok=True)
    about = {"job": job.identity(), "numbers": state.numbers}
    content = save(state.tensors, metadata={"about": json.dumps(about)})
    path = folder / f"step-{state.numbers['step']:08d}-{_digest(content)}.safetensors"
    beside = folder / f".{path.name}"
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(root: Path, claim: Claim, job: Job) -> Found | None:
    """The furthest whole checkpoint of a trial, of whichever attempt; None if there is none.

    What is torn, or of another configuration, is passed over, and said on stderr.
    """
    try:
        files = [
            (path, int(found[1]))
            for folder in _subfolders(_folder(root, claim))
            if (found := _ATTEMPT.match(folder.name)) and int(found[1]) < claim.attempt
            for path in _newest_first(folder)
        ]
    except OSError as error:
        to_stderr(f"no checkpoint of {claim.name} can be read: {error}")
        return None
    for path, attempt in sorted(files, key=lambda file: (file[0].name[:13], file[1]), reverse=True):
        try:
            return Found(_read(path, job.identity()), attempt)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            to_stderr(f"checkpoint {path} is passed over: {error}")
    return None


def drop_checkpoints(root: Path, claim: Claim) -> None:
    """Take away the checkpoints of a trial that has ended."""
    shutil.rmtree(_folder(root, claim), ignore_errors=True)


def files_of_trial(folder: Path) -> list[Path]:
    """The checkpoints in the folder of a trial, and those that were never finished; nothing else in it."""
    return [
        path
        for attempt in _subfolders(folder)
        if _ATTEMPT.match(attempt.name) and not attempt.is_symlink()
        for path in sorted(attempt.iterdir())
        if _NAME.match(path.name.removeprefix(".")) and not path.is_symlink()
    ]


def _read(path: Path, identity: dict[str, Any]) -> SlotState:
    content = path.read_bytes()
    name = _NAME.match(path.name)
    if name is None or _digest(content) != name[2]:
        raise ValueError("it is torn")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = json.loads(header["__metadata__"]["about"])
    if about["job"] != json.loads(json.dumps(identity)):
        raise ValueError("it is of another configuration")
    return SlotState(load(content), about["numbers"])


def _folder(root: Path, claim: Claim) -> Path:
    return root / claim.study / claim.name


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if _NAME.match(path.name)), reverse=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


class CheckpointWriter:
    """Writes checkpoints from a thread, so that no step waits for a disk. Use it as a context manager.

    A disk that is full costs a trial nothing but the checkpoint: it is said on stderr, and training goes on.

    Args:
        root: the folder of all checkpoints.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._waiting: queue.Queue[tuple[Claim, Job, SlotState] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join()

    def write(self, claim: Claim, job: Job, state: SlotState) -> None:
        """Write a checkpoint soon."""
        self._waiting.put((claim, job, state))

    def flush(self) -> None:
        """Wait until all is written."""
        self._waiting.join()

    def _run(self) -> None:
        for claim, job, state in self._taken():
            try:
                write_checkpoint(self._root, claim, job, state)
                point("after_checkpoint")
            except (
                Exception
            ) as error:  # whatever it is, those who wait for this thread must not wait for ever
                reason = getattr(error, "strerror", None) or error
                to_stderr(f"no checkpoint of {claim.name}: {reason}")
            finally:
                self._waiting.task_done()

    def _taken(self) -> Iterator[tuple[Claim, Job, SlotState]]:
        while (taken := self._waiting.get()) is not None:
            yield taken
        self._waiting.task_done()
