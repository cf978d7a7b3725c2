"""What a finished study amounts to: the best adapter, what it is compared with, and how to go on."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.finalists import default_of
from sweeper.front import objectives_of
from sweeper.session import REFERENCE_HEAD

if TYPE_CHECKING:
    from sweeper.ledger import Ledger


def summarize(ledger: Ledger, study: str) -> dict[str, Any]:
    """What ``run --json`` prints: ``status`` with ``metric``, ``direction``, ``references`` and ``next``.

    ``references`` holds the trials that the best is compared with, by what they are: the default
    configuration (``finalists.default_of``) and the head without an adapter; each None if it is not complete.
    """
    spec = ledger.study(study).spec
    objective = objectives_of(spec)[0]
    trials = ledger.trials(study)
    default = default_of(trials)
    head = next((trial for trial in trials if trial.label == REFERENCE_HEAD), None)
    found = {"default configuration": default, "head alone, no adapter": head}
    status = ledger.status(study)
    return {
        **status,
        "metric": objective["metric"],
        "direction": objective["direction"],
        "references": {
            what: trial.to_json() if trial is not None and trial.state == "complete" else None
            for what, trial in found.items()
        },
        "next": ways_on(study, spec["data"].get("test") is not None) if status["best"] is not None else {},
    }


def ways_on(study: str, has_test: bool) -> dict[str, str]:
    """The commands to go on with, and what each does; ``has_test``: there are test rows to confirm on."""
    command = this_command()
    confirm = {f"{command} confirm {study}": "whether that holds under fresh seeds"}
    return {
        f"{command} ui {study}": "see every trial in MLflow",
        f"{command} report {study}": "every figure, on one page",
        f"{command} best {study}": "the best trial, whole",
        **(confirm if has_test else {}),
        f"{command} export {study} --out {study}-best": "its files, a card, and how to load them",
    }


def this_command() -> str:
    """How this program is started from this shell: ``sweeper``, or with its path if it is not on ``PATH``."""
    started = Path(sys.argv[0])
    if started.name != "sweeper":
        return "sweeper" if shutil.which("sweeper") else f"{shlex.quote(sys.executable)} -m sweeper"
    found = shutil.which("sweeper")
    if found is not None and os.path.realpath(found) == os.path.realpath(started):
        return "sweeper"
    return shlex.quote(sys.argv[0])
