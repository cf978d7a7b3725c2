"""The rows of one source of data, by column, and where each is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.errors import UsageError


@dataclass(frozen=True)
class Rows:
    """The rows of a source, by column.

    Args:
        name: what the source is called in messages.
        columns: the values of each column that was read; a missing value is None.
        names: of all columns that there are, read or not.
        file: where they are from: the data file itself, or the study file for the hub.
        lines: the line of each row, or None if the source has no lines.
        line: what to point at if it has none: the line in the study file, or None.
    """

    name: str
    columns: dict[str, list[Any]]
    names: tuple[str, ...]
    file: Path | None
    lines: Sequence[int] | None = None
    line: int | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def fault(self, row: int, message: str) -> UsageError:
        """The error that says what is wrong with a row, counted from 0, and where it is."""
        if self.lines is not None:
            return UsageError(message, file=self.file, line=self.lines[row])
        return UsageError(f"row {row + 1} of {self.name}: {message}", file=self.file, line=self.line)
