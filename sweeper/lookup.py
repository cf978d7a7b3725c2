"""Finding studies and trials by the names that people type. Names are checked before they touch anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sweeper.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from sweeper.ledger import Ledger, TrialView

STUDY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def open_ledger(home: str | Path | None = None) -> Ledger:
    """The ledger of ``SWEEPER_HOME`` for a command that only reads: nothing is created.

    Args:
        home: a folder with a store in it, in place of what the environment says.

    Raises:
        UsageError: there is no store yet.
        UnreachableError: it cannot be opened.
    """
    from sweeper.home import Home
    from sweeper.ledger import Ledger, store_file

    where = Home.from_environment(None if home is None else {"SWEEPER_HOME": str(home)})
    file = store_file(where.store_url)
    if file is not None and not file.is_file():
        raise UsageError(f"there is no study yet: {file} does not exist. Start one with `sweeper run FILE`")
    return Ledger(where.store_url)


def study_name(ledger: Ledger, name: str) -> str:
    """The name, if the store has a study of it.

    Raises:
        UsageError: it is no name of a study, or there is none; the message holds the nearest.
    """
    if not STUDY_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a study: names are made of a-z, 0-9, - and _. "
            "If it is a study file: `sweeper run` takes files, this command takes the name in its `study:`"
        )
    names = list(ledger.studies())
    if name in names:
        return name
    raise UsageError(f"there is no study {name!r}. {_alternatives(name, names, 'The studies are')}")


def find_trial(trials: Sequence[TrialView], study: str, text: str) -> TrialView:
    """The trial with a number (``7``, ``0007`` or ``trial-0007``) or the label of a reference run.

    Raises:
        UsageError: there is none.
    """
    wanted = text.removeprefix("trial-")
    number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 10 else None
    for trial in trials:
        if (number is not None and trial.number == number) or (trial.number is None and trial.label == text):
            return trial
    known = sorted(trial.number for trial in trials if trial.number is not None)
    labels = [trial.label for trial in trials if trial.number is None and trial.label]
    numbers = f"trials {known[0]} to {known[-1]}" if known else "no numbered trial yet"
    raise UsageError(f"the study {study!r} has no trial {text!r}; it has {', '.join([numbers, *labels])}")


def complete_study(incomplete: str) -> list[str]:
    """Names of studies for the shell. Says nothing and stays quick whatever is wrong."""
    try:
        return [name for name in open_ledger().studies() if name.startswith(incomplete)]
    except Exception:
        return []


def _alternatives(name: str, names: Sequence[str], introduction: str) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    if not names:
        return "There is none yet: start one with `sweeper run FILE`"
    shown = ", ".join(sorted(names)[:10]) + (", …" if len(names) > 10 else "")
    return f"{introduction} {shown}"
