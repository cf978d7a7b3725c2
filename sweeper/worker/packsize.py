"""How many trials a worker trains together: a fixed number, or the one with which the device does most."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sweeper.events import Stepped

LARGEST = 32
WINDOW_SECONDS = 5.0
"""How long each size is measured: six sizes within the first minute."""
WINDOW_STEPS = 8
LONGEST_SECONDS = 60.0
"""After so much of training nothing larger is tried: where steps are slow, the best so far is kept."""
SKIPPED_STEPS = 2
"""After a change, so many steps say little: memory is allocated, kernels are chosen."""
GAIN = 1.05
"""A larger pack has to get this much more done, or the smaller one is kept."""


class PackSize:
    """The size of a worker's pack, from 1 on.

    Measured while real trials train: twice the size is tried as long as it pays, and what paid most is kept
    and remembered. Work is counted in tokens times the layers above each trial's depth, so that a trial that
    has less to compute does not look like a faster device.

    Args:
        fixed: the size, or None to find it.
        memory: the file in which the size is remembered; see :func:`memory_file`.
        largest: never more than this.
    """

    def __init__(self, fixed: int | None, memory: Path, largest: int = LARGEST) -> None:
        self._memory = memory
        self._fixed = fixed is not None
        self._largest = fixed or largest
        self._settled = fixed or _remembered(memory)
        self.limit = min(self._settled or 1, self._largest)
        self._best = (0.0, 1)
        self._searched_seconds = 0.0
        self._begin_window()

    @property
    def largest(self) -> int:
        """The most slots that may ever be needed."""
        return self._largest

    def observe(self, stepped: Stepped) -> None:
        """Take a step into account; ``limit`` may change."""
        # The time of evaluations counts; what trains a head alone, with no layer to compute, says nothing.
        idle = not stepped.work and not stepped.evaluating
        if self._settled or stepped.slots != self.limit or idle:
            return
        self._searched_seconds += stepped.seconds
        self._steps += 1
        if self._steps <= SKIPPED_STEPS:
            return
        self._work += stepped.work
        self._seconds += stepped.seconds
        measured = self._seconds >= WINDOW_SECONDS and self._steps - SKIPPED_STEPS >= WINDOW_STEPS
        if measured or self._is_late():
            self._judge(self._work / self._seconds)

    def shrink(self) -> bool:
        """Half the size, since the device's memory did not do; False if it was 1.

        For this process: something else may have had the memory. What is remembered is forgotten, so that
        the next worker measures again.
        """
        if self.limit == 1:
            return False
        self.limit = self._largest = self._settled = max(1, self.limit // 2)
        if not self._fixed:
            with suppress(OSError):
                self._memory.unlink(missing_ok=True)
        return True

    def _judge(self, rate: float) -> None:
        if rate < GAIN * self._best[0]:
            self._settle(self._best[1])
            return
        self._best = (rate, self.limit)
        if 2 * self.limit > self._largest or self._is_late():
            self._settle(self.limit)
            return
        self.limit *= 2
        self._begin_window()

    def _is_late(self) -> bool:
        return self._searched_seconds >= LONGEST_SECONDS

    def _settle(self, size: int) -> None:
        self.limit = self._settled = size
        if not self._fixed:
            _remember(self._memory, size)

    def _begin_window(self) -> None:
        self._steps, self._work, self._seconds = 0, 0.0, 0.0


def memory_file(cache: Path, about: Mapping[str, str | int]) -> Path:
    """Where the size is remembered for a device, a backbone, data and whatever else decides it."""
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()
    return cache / "packs" / f"{digest[:32]}.json"


def _remembered(memory: Path) -> int | None:
    try:
        size = json.loads(memory.read_text(encoding="utf-8"))["pack"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return size if isinstance(size, int) and size >= 1 else None


def _remember(memory: Path, size: int) -> None:
    beside = memory.with_name(f".{memory.name}.{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps({"pack": size}), encoding="utf-8")
        beside.replace(memory)
    except OSError:  # it is found again the next time
        beside.unlink(missing_ok=True)
