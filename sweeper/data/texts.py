"""The texts, and the labels, of a file that is no study's: for ``predict`` and for evaluating an export."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.data.plainrows import read_errors
from sweeper.data.rows import Rows
from sweeper.data.sources import SUFFIXES, read_file
from sweeper.errors import UsageError
from sweeper.tasks import task_of
from sweeper.words import nearest, short

if TYPE_CHECKING:
    from sweeper.study.schema import Task
    from sweeper.tasks.kind import Names


def read_texts(path: Path, columns: Sequence[str], kind: str = "classification") -> list[tuple[Any, ...]]:
    """The texts of a file, row by row.

    Args:
        path: ``.txt`` with one text a line (for one column), or csv, tsv, jsonl, parquet with the columns.
        columns: the names of the text columns.
        kind: of the task; where words are labelled, a text is a tuple of words.

    Raises:
        UsageError: no such file or column, or a text is empty; with the line.
    """
    if not path.is_file():
        raise UsageError("there is no such file", path)
    if path.suffix.lower() == ".txt":
        return [(task_of(kind).read_line(line),) for line in _read_lines(path, columns)]
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the format is told by the suffix: one of .txt, {', '.join(SUFFIXES)}", path)
    rows = _with_columns(path, columns)
    return list(zip(*(task_of(kind).read_text(rows, column) for column in columns), strict=True))


def _read_lines(path: Path, columns: Sequence[str]) -> list[str]:
    if len(columns) > 1:
        named = " and ".join(columns)
        raise UsageError(
            f"the adapter takes pairs: give a csv, tsv, jsonl or parquet file with {named}", path
        )
    with read_errors(path):
        text = path.read_bytes().decode("utf-8-sig")
    lines = re.split("\r\n|\r|\n", text)
    if lines and not lines[-1]:
        lines.pop()  # what follows the last line break is no line
    if not lines:
        raise UsageError("the file is empty", path, 1)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise UsageError("the line is empty, and there must be one text a line", path, number)
    return lines


def read_labelled(path: Path, task: Task, label_names: Names) -> tuple[list[list[Any]], list[Any], Rows]:
    """The columns of texts and the labels of a file, as training reads them, and its rows.

    Args:
        path: csv, tsv, jsonl or parquet.
        label_names: of the adapter, by number; None where labels have no names.

    Raises:
        UsageError: a column is missing, a text or label cannot be used, or the adapter does not know a label.
    """
    if not path.is_file():
        raise UsageError("there is no such file", path)
    rows, kind = _with_columns(path, [*task.text, *task.label]), task_of(task.kind)
    texts = [kind.read_text(rows, column) for column in task.text]
    labels = kind.read_labels(rows, task)
    for row, own in enumerate(labels):
        for name in kind.names_in(own):
            if name not in (label_names or ()):
                raise rows.fault(
                    row,
                    f"the adapter does not know the label {short(name)}{nearest(name, label_names or ())}",
                )
    return texts, labels, rows


def _with_columns(path: Path, columns: Sequence[str]) -> Rows:
    rows = read_file(path, str(path), list(columns))
    for column in columns:
        if column not in rows.names:
            raise UsageError(f"there is no column {short(column)}{nearest(column, rows.names)}", path)
    return rows
