"""Rows of text files: CSV, TSV and JSON lines.

They are read strictly, as they are written, each row with its line: the loaders of ``datasets`` guess at
types (a date becomes a timestamp, a text ``NA`` becomes nothing), shift columns where a row has one field too
many, and do not know lines.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from sweeper.data.rows import Rows
from sweeper.errors import UsageError
from sweeper.words import HALF_A_CHARACTER, is_unicode, short

Read = tuple[dict[str, list[Any]], list[int]]
_OTHER_SEPARATOR = re.compile("[;\t]")
"""What separates the columns of files that are called .csv and hold no commas."""


def read_plain(path: Path, suffix: str, name: str) -> Rows:
    """Read a file as what its suffix says, one of ``READERS``; see ``sources.read_file``."""
    # A CSV field may hold line ends of its own; elsewhere a line ends with LF, CR LF or CR, and with
    # nothing else that Unicode knows as a line's end.
    newline = "" if suffix == ".csv" else None
    with read_errors(path), open(path, encoding="utf-8-sig", newline=newline) as file:
        values, lines = READERS[suffix](path, file)
    return Rows(name, values, tuple(values), path, lines)


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """What goes wrong when a file of text is read, as a UsageError with its line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the file is not UTF-8: {error.reason}. Save it as UTF-8",
            file=path,
            line=_undecodable_line(path),
        ) from error
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror or error}", file=path) from error


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
    if separators == "commas" and len(header) == 1 and (other := _OTHER_SEPARATOR.search(header[0])):
        what = "semicolons: save it with commas" if other.group() == ";" else "tabs: call it .tsv"
        raise UsageError(
            f"columns of a .csv are separated by commas, and its header has {what}",
            file=path,
            line=header_line,
        )
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
            row = json.loads(line, object_pairs_hook=_unambiguous)
            whole = "\\u" not in line or is_unicode(json.dumps(row, ensure_ascii=False))
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise UsageError(f"not a line of JSON: {reason}", file=path, line=number) from error
        if not isinstance(row, dict):
            raise UsageError(
                'each line must hold one JSON object, such as {"text": …}', file=path, line=number
            )
        if not whole:
            raise UsageError(f"the line holds {HALF_A_CHARACTER}", file=path, line=number)
        rows.append(row)
        lines.append(number)
        names.update(dict.fromkeys(row))
    if not rows:
        raise UsageError("the file has no rows", file=path)
    return {name: [row.get(name) for row in rows] for name in names}, lines


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, each of whose keys is there once."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {short(key)} is there twice")
        found[key] = value
    return found


READERS: dict[str, Callable[[Path, TextIO], Read]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
}


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
