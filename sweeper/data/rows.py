"""The rows of one source of data: a local file, or a split of a hub data set.

CSV, TSV and JSON lines are read strictly, as they are written, each row with its line: the loaders of
``datasets`` guess at types (a date becomes a timestamp, a text ``NA`` becomes nothing), shift columns where a
row has one field too many, and do not know lines. Parquet files and the hub carry their types, and are read
through ``datasets``: see ``typedrows``.
"""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.study import Source

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


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


def read_source(
    source: Source,
    columns: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    study_file: Path | None = None,
    line: int | None = None,
) -> Rows:
    """Read every row of a source; its ``rows`` is not applied.

    Args:
        columns: what is read of a parquet file or a hub data set, as far as it is there; None for all.
        cache_dir: where ``datasets`` keeps what it fetched from the hub; None for its own default.
        study_file, line: where the study file names the source, for messages.

    Raises:
        UsageError: not a file of the format that its suffix says, or no such hub data set.
        UnreachableError: the hub cannot be reached.
    """
    if source.hub is not None:
        from sweeper.data.typedrows import read_hub

        return read_hub(source, columns, cache_dir, study_file, line)
    assert source.path is not None
    return read_file(source.path, source.written, columns)


def read_file(path: Path, name: str | None = None, columns: Sequence[str] | None = None) -> Rows:
    """Read a csv, tsv, jsonl or parquet file.

    A TSV is read without quoting, so that a quotation mark in a text is only that. Empty lines are skipped.

    Args:
        name: what the file is called in messages; its path if None.
        columns: what is read of a parquet file, as far as it is there; None for all.

    Raises:
        UsageError: the file has no rows, or is not what its suffix says; it names the line.
    """
    name = name or str(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"the format is told by the suffix: one of {', '.join(SUFFIXES)}", file=path)
    try:
        if path.stat().st_size == 0:
            raise UsageError("the file is empty", file=path, line=1)
        if suffix == ".parquet":
            from sweeper.data.typedrows import read_parquet

            return read_parquet(path, name, columns)
        # A CSV field may hold line ends of its own; elsewhere a line ends with LF, CR LF or CR, and with
        # nothing else that Unicode knows as a line's end.
        with open(path, encoding="utf-8-sig", newline="" if suffix == ".csv" else None) as file:
            read = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_json_lines}[suffix]
            values, lines = read(path, file)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the file is not UTF-8: {error.reason}. Save it as UTF-8",
            file=path,
            line=_undecodable_line(path),
        ) from error
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror or error}", file=path) from error
    return Rows(name, values, tuple(values), path, lines)


Read = tuple[dict[str, list[Any]], list[int]]


def _read_csv(path: Path, file: TextIO) -> Read:
    reader = csv.reader(file, strict=True)

    def records() -> Iterator[tuple[int, list[str]]]:
        while True:
            first_line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UsageError(
                    f"not a CSV record: {error}. A quotation mark inside a quoted field is written twice",
                    file=path,
                    line=first_line,
                ) from error
            if fields:
                yield first_line, fields

    with _long_fields():
        return _by_column(path, records(), "commas")


def _read_tsv(path: Path, file: TextIO) -> Read:
    lines = ((number, line.rstrip("\n")) for number, line in enumerate(file, start=1))
    return _by_column(path, ((number, line.split("\t")) for number, line in lines if line), "tabs")


def _by_column(path: Path, records: Iterator[tuple[int, list[str]]], separators: str) -> Read:
    """Turn records, the first of which names the columns, into columns and the line of each row."""
    header_line, header = next(records, (1, []))
    if not any(header):
        raise UsageError("the file has no header that names its columns", file=path, line=header_line)
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UsageError(f"two columns have the name '{twice[0]}'", file=path, line=header_line)
    values: list[list[str]] = [[] for _ in header]
    lines = []
    for line, fields in records:
        if len(fields) != len(header):
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            raise UsageError(
                f"{count} where the header has {len(header)}: {separators} too many or too few",
                file=path,
                line=line,
            )
        for column, field in zip(values, fields, strict=True):
            column.append(field)
        lines.append(line)
    if not lines:
        raise UsageError("the file has a header but no rows", file=path, line=header_line)
    return dict(zip(header, values, strict=True)), lines


def _read_json_lines(path: Path, file: TextIO) -> Read:
    rows: list[dict[str, Any]] = []
    lines = []
    names: dict[str, None] = {}
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UsageError(f"not a line of JSON: {reason}", file=path, line=number) from error
        if not isinstance(row, dict):
            raise UsageError(
                'each line must hold one JSON object, such as {"text": …}', file=path, line=number
            )
        rows.append(row)
        lines.append(number)
        names.update(dict.fromkeys(row))
    if not rows:
        raise UsageError("the file has no rows", file=path)
    return {name: [row.get(name) for row in rows] for name in names}, lines


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Let a CSV field be longer than the 131,072 characters that the standard library allows by default."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _undecodable_line(path: Path) -> int | None:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None
