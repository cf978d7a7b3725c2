"""The one error of this package."""

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
    near = difflib.get_close_matches(str(wrong), names, n=1)
    listed = ", ".join(names)
    return f"did you mean {near[0]!r}? Known: {listed}" if near else f"known: {listed}"
