"""Columns of a table as texts, words, labels, tags and numbers; each fault names its file and line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.words import short

if TYPE_CHECKING:
    from sweeper.data.rows import Rows

FLOAT32_MAX = 3.4028234663852886e38


def read_texts(rows: Rows, column: str) -> list[str]:
    """A column of texts.

    Raises:
        UsageError: a text is missing, blank or no text; it names the line.
    """
    values = rows.columns[column]
    for number, value in enumerate(values):
        if value is None:
            raise rows.fault(number, f"the text in column '{column}' is missing")
        if not isinstance(value, str):
            raise rows.fault(number, f"column '{column}' holds {short(value)}, which is no text")
        if not value.strip():
            raise rows.fault(number, f"the text in column '{column}' is empty")
    return values


def read_names(rows: Rows, column: str) -> list[str]:
    """A column of class labels, as names: a whole number is named by its digits."""
    names = []
    for number, value in enumerate(rows.columns[column]):
        if isinstance(value, bool):
            names.append("true" if value else "false")
        elif isinstance(value, int):
            names.append(str(value))
        elif isinstance(value, str) and value.strip():
            names.append(value)
        elif value is None or isinstance(value, str):
            raise rows.fault(number, f"the label in column '{column}' is missing")
        else:
            raise rows.fault(
                number,
                f"the label {short(value)} in column '{column}' is neither a text nor a whole number; "
                "kind: regression predicts numbers",
            )
    return names


def read_numbers(rows: Rows, column: str) -> list[float]:
    """A column of numbers to predict, each finite in fp32."""
    numbers = []
    for number, value in enumerate(rows.columns[column]):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise rows.fault(number, f"the label in column '{column}' is missing")
        try:
            if isinstance(value, bool) or "_" in str(value):
                raise ValueError
            parsed = float(value)
        except (TypeError, ValueError, OverflowError):
            raise rows.fault(
                number,
                f"the label {short(value)} in column '{column}' is not a number; "
                "kind: classification predicts names",
            ) from None
        if not math.isfinite(parsed) or abs(parsed) > FLOAT32_MAX:
            raise rows.fault(number, f"the label {short(value)} in column '{column}' is not finite in fp32")
        numbers.append(parsed)
    return numbers


def read_words(rows: Rows, column: str) -> list[tuple[str, ...]]:
    """A column of texts that are split into words: a list each, or a text with spaces between the words.

    Raises:
        UsageError: a list is missing or empty, or holds a blank word or what is none; it names the line.
    """
    return [
        _strings(rows, number, column, value, "word") for number, value in enumerate(rows.columns[column])
    ]


def read_tags(rows: Rows, column: str) -> list[tuple[str, ...]]:
    """A column of the tags of words: a list each, or a text with spaces between the tags."""
    return [_strings(rows, number, column, value, "tag") for number, value in enumerate(rows.columns[column])]


def _strings(rows: Rows, number: int, column: str, value: Any, what: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split()
    if value is None:
        raise rows.fault(number, f"the {what}s in column '{column}' are missing")
    if not isinstance(value, (list, tuple)):
        raise rows.fault(number, f"column '{column}' holds {short(value)}, which is no list of {what}s")
    if not value:
        raise rows.fault(number, f"column '{column}' holds no {what}")
    strings = tuple(_name(item) if what == "tag" else item for item in value)
    for place, item in enumerate(strings, start=1):
        if not isinstance(item, str) or not item.strip():
            raise rows.fault(
                number, f"{what} {place} in column '{column}' is {short(item)}, which is no {what}"
            )
    return strings


def read_label_lists(rows: Rows, column: str, separator: str) -> list[tuple[str, ...]]:
    """A column of the labels of texts, sorted, each once: a list each, or a text with a separator in between.

    An empty list, or an empty text, is a text without labels.

    Raises:
        UsageError: a list is missing, or holds a blank label or what is none; it names the line.
    """
    found = []
    for number, value in enumerate(rows.columns[column]):
        if isinstance(value, str):
            value = [part.strip() for part in value.split(separator)] if value.strip() else []
        if value is None:
            raise rows.fault(
                number, f"the labels in column '{column}' are missing; a text without any has []"
            )
        if not isinstance(value, (list, tuple)):
            raise rows.fault(
                number,
                f"column '{column}' holds {short(value)}, which is no list of labels; "
                "kind: classification gives each text one",
            )
        names = [_name(item) for item in value]
        for name in names:
            if not isinstance(name, str) or not name.strip():
                raise rows.fault(number, f"column '{column}' holds the label {short(name)}, which is no name")
        found.append(tuple(sorted(set(names))))
    return found


def read_flags(rows: Rows, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Several columns, each of one label: 1 or true where the text has it, else 0 or false.

    Returns:
        the names of the columns that are set, for each row.
    """
    found: list[list[str]] = [[] for _ in range(len(rows))]
    for column in columns:
        for number, value in enumerate(rows.columns[column]):
            flag = _FLAGS.get(str(value).strip().lower())
            if flag is None:
                raise rows.fault(number, f"column '{column}' holds {short(value)}; a label is 0 or 1 there")
            if flag:
                found[number].append(column)
    return [tuple(sorted(names)) for names in found]


_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def _name(value: Any) -> Any:
    """A whole number is named by its digits."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
