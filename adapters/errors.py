"""The one error of this package, and how its messages show values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdapterError(ValueError):
    """A configuration, a model or a file that no adapter can be made from.

    Args:
        message: what was wrong and what to do.
        field: the `AdapterConfig` field at fault, if it is one, so that a study file can name its line.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def one_of(wrong: object, known: Iterable[str]) -> str:
    """The end of an error message that lists what is known, the nearest first if anything is near."""
    names = list(known)
    by_letters = {_letters(name): name for name in names}
    near = difflib.get_close_matches(_letters(short(wrong)), by_letters, n=1)
    listed = ", ".join(names)
    return f"did you mean {by_letters[near[0]]!r}? Known: {listed}" if near else f"known: {listed}"


def _letters(name: str) -> str:
    """What is left where others write capitals, or nothing between words: ``LeakyReLU``."""
    return name.lower().replace("_", "").replace("-", "")


def written(value: object) -> str:
    """A value as Python writes it, whatever a file held: it is for a message."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a whole number of more than 4,300 digits; lists in lists in lists
        return "a huge value"


def short(value: object) -> str:
    """The beginning of a value as text, short enough for a message."""
    return (value if isinstance(value, str) else written(value))[:60]
