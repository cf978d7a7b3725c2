"""Named points at which the fault tests kill a worker, one between every two steps of a trial's life."""

from __future__ import annotations

import os
import signal

POINTS = (
    "after_reserve",
    "after_create",
    "after_suggest",
    "after_attach",
    "after_evaluation",
    "after_checkpoint",
    "after_training",
    "after_files",
    "after_record",
    "after_tell",
    "after_told",
)


def point(name: str) -> None:
    """Die here if ``SWEEPER_CRASH_AT`` says so: ``after_tell``, or ``after_tell:3`` at the third time."""
    wanted = os.environ.get("SWEEPER_CRASH_AT")
    if wanted is None:
        return
    assert name in POINTS
    where, _, passage = wanted.partition(":")
    if where != name:
        return
    left = int(passage or 1) - 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ["SWEEPER_CRASH_AT"] = f"{where}:{left}"
