"""The words of error messages: a value cut to a readable length, the nearest known name, what is no text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What other libraries call it, where the spelling is too far from ours to be found by it.
_ELSEWHERE = {
    "lr": "learning_rate",
    "max_seq_length": "max_length",
    "metric_name": "metric",
    "n_trials": "trials",
    "non_linearity": "activation",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "reduction_factor": "bottleneck_dim",
}


def short(value: object) -> str:
    """A value as it reads in a message: quoted if it is text, and at most 60 characters long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**50:
        return "a number of more than 50 digits"
    try:
        text = f"'{value}'" if isinstance(value, str) else str(value)
    except (ValueError, RecursionError):  # a huge whole number, or a nest of lists, inside
        return f"a {type(value).__name__}"
    if len(text) > 60:
        text = text[:56] + "…" + text[-1]
    return text


HALF_A_CHARACTER = (
    "half of a character, such as \\ud83d without what belongs behind it: write it whole, or leave it out"
)
"""What is wrong with a text that is not ``is_unicode``."""


def is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON lets halves of characters (lone surrogates) through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_LISTED_LETTERS = 250


def nearest(value: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: what may have been meant, and all there is.

    Beside what was probably meant a long list is left out: it would hide it.
    """
    known = list(known)
    if not known:
        return "; it has none"
    listed = ", ".join(known)
    by_lower = {name.lower(): name for name in known}
    word = str(value)[:100].lower() if isinstance(value, str) else ""
    found = difflib.get_close_matches(word, by_lower, n=1, cutoff=0.6)
    if _ELSEWHERE.get(word) in by_lower:
        found = [_ELSEWHERE[word]]
    if found:
        meant = f"; did you mean '{by_lower[found[0]]}'?"
        return f"{meant} (known: {listed})" if len(listed) <= _LISTED_LETTERS else meant
    return f"; known: {listed}"
