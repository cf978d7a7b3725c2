"""Every error that a user can cause or must act on. A traceback is for our bugs, not for their input.

The command line turns these into one message on stderr and the exit code of the class.
"""

from __future__ import annotations

from pathlib import Path


class SweeperError(Exception):
    """Something went wrong that is not the user's input: exit code 1.

    Args:
        message: what was wrong and what to do, one or two sentences.
        file: the file at fault, if there is one.
        line: the line in that file, counted from 1.
    """

    exit_code = 1

    def __init__(self, message: str, file: str | Path | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = str(file) if file is not None else None
        self.line = line

    def __str__(self) -> str:
        if self.file is None:
            return self.message
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}"

    def to_json(self) -> dict[str, object]:
        """The object that scripts read on stderr under ``--json``."""
        return {"error": {"message": self.message, "file": self.file, "line": self.line}}


class UsageError(SweeperError):
    """Wrong usage, study file or data: exit code 2. Nothing was started, nothing is lost."""

    exit_code = 2


class NothingSucceededError(SweeperError):
    """The study ended and no trial succeeded: exit code 3."""

    exit_code = 3


class UnreachableError(SweeperError):
    """The store, the tracking server or a hub cannot be reached: exit code 4."""

    exit_code = 4
