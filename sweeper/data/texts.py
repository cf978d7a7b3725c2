"""The texts, and the labels, of a file that is no study's: for ``predict`` and for evaluating an export."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.data.rows import SUFFIXES, Rows, read_file
from sweeper.data.tables import read_names, read_numbers
from sweeper.data.tables import read_texts as read_column
from sweeper.errors import UsageError
from sweeper.words import nearest, short

if TYPE_CHECKING:
    from torch import Tensor


def read_texts(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts of a file, row by row.

    Args:
        path: ``.txt`` with one text a line (for one column), or csv, tsv, jsonl, parquet with the columns.
        columns: the names of the text columns.

    Raises:
        UsageError: no such file or column, or a text is empty; with the line.
    """
    if not path.is_file():
        raise UsageError("there is no such file", path)
    if path.suffix.lower() == ".txt":
        return _read_lines(path, columns)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the format is told by the suffix: one of .txt, {', '.join(SUFFIXES)}", path)
    rows = _with_columns(path, columns)
    return list(zip(*(read_column(rows, column) for column in columns), strict=True))


def _read_lines(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    if len(columns) > 1:
        named = " and ".join(columns)
        raise UsageError(
            f"the adapter takes pairs: give a csv, tsv, jsonl or parquet file with {named}", path
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"the file is not UTF-8: {error.reason}. Save it as UTF-8", path) from error
    lines = re.split("\r\n|\r|\n", text)
    if lines and not lines[-1]:
        lines.pop()  # what follows the last line break is no line
    if not lines:
        raise UsageError("the file is empty", path, 1)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise UsageError("the line is empty, and there must be one text a line", path, number)
    return [(line,) for line in lines]


def read_labelled(
    path: Path, columns: Sequence[str], label: str, label_names: Sequence[str] | None
) -> tuple[list[list[str]], Tensor]:
    """The columns of texts and the labels of a file, as training sees them.

    Args:
        path: csv, tsv, jsonl or parquet.
        label: the column of the labels.
        label_names: of the adapter, by class number; None for a regression.

    Returns:
        The columns, and int64 class numbers or float32 values, ``[rows]``.

    Raises:
        UsageError: a column is missing, a text or label cannot be used, or the adapter does not know a label.
    """
    import torch

    if not path.is_file():
        raise UsageError("there is no such file", path)
    rows = _with_columns(path, [*columns, label])
    texts = [read_column(rows, column) for column in columns]
    if label_names is None:
        return texts, torch.tensor(read_numbers(rows, label), dtype=torch.float32)
    numbers = {name: number for number, name in enumerate(label_names)}
    names = read_names(rows, label)
    for row, name in enumerate(names):
        if name not in numbers:
            raise rows.fault(
                row, f"the adapter does not know the label {short(name)}{nearest(name, label_names)}"
            )
    return texts, torch.tensor([numbers[name] for name in names], dtype=torch.int64)


def _with_columns(path: Path, columns: Sequence[str]) -> Rows:
    rows = read_file(path, str(path), list(columns))
    for column in columns:
        if column not in rows.names:
            raise UsageError(f"there is no column {short(column)}{nearest(column, rows.names)}", path)
    return rows
