"""How many workers a machine has, with how many threads, and what each is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.available import cpu_cores, memory_bytes
from sweeper.errors import UsageError
from sweeper.ledger import LEASE_SECONDS
from sweeper.words import short

TRIALS_A_WORKER = 4
"""A further worker on a CPU is started for so many trials that are left: it takes seconds to start."""
_WORKER_BYTES = 10**9
"""What a worker takes beside its backbone and its rows."""
_BYTES_A_ROW = 500
"""Of a text of a sentence, while it is read."""
_COPIES_OF_BACKBONE = 3
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class WorkerOptions:
    """What the workers of a run are told.

    Args:
        workers: how many a device; None for one a CUDA device, and as many on a CPU as pay.
        pack: how many trials each trains together; None to find the number with which it gets most done.
        cache_bytes: how much of the frozen states is kept; 0 for nothing, None for a share of the disk.
        lease_seconds: how long a trial stays with a worker that shows no sign of life.
        confirm: they train what confirms the study's winners, and nothing of the study itself.
    """

    workers: int | None = None
    pack: int | None = None
    cache_bytes: int | None = None
    lease_seconds: float = LEASE_SECONDS
    confirm: bool = False

    def arguments(self) -> list[str]:
        """For the command line of ``sweeper.worker``."""
        given = {"pack": self.pack, "cache-bytes": self.cache_bytes, "lease-seconds": self.lease_seconds}
        named = [
            part for name, value in given.items() if value is not None for part in (f"--{name}", str(value))
        ]
        return [*named, "--confirm"] if self.confirm else named


@dataclass(frozen=True)
class Post:
    """What one worker has: its device, its number on it from 1, and its threads (None: as torch likes)."""

    device: str
    number: int
    threads: int | None

    @property
    def name(self) -> str:
        """For files: ``cuda-0``, or ``cpu-2`` where there are several."""
        device = self.device.replace(":", "-")
        return device if self.number == 1 else f"{device}-{self.number}"


def posts(
    devices: Sequence[str], options: WorkerOptions, left: int, backbone_bytes: int, rows: int
) -> list[Post]:
    """The posts of a run.

    On a CPU several workers of few threads get more done than one of many: at the sizes of one trial's step,
    threads mostly wait for each other.

    Args:
        left: trials that are still to be trained.
        backbone_bytes: of the weights.
        rows: of the data, which each worker reads.
    """
    found = []
    for device in devices:
        if device != "cpu":
            count = options.workers or 1
            found += [Post(device, number, None) for number in range(1, count + 1)]
            continue
        cores = cpu_cores()
        count = options.workers or _workers_on_cpu(cores, left, backbone_bytes, rows)
        found += [Post(device, number, max(1, cores // count)) for number in range(1, count + 1)]
    return found


def _workers_on_cpu(cores: int, left: int, backbone_bytes: int, rows: int) -> int:
    each = _WORKER_BYTES + _COPIES_OF_BACKBONE * backbone_bytes + _BYTES_A_ROW * rows
    room = memory_bytes() // each
    return max(1, min(cores, -(-left // TRIALS_A_WORKER), room))


def parse_count(option: str, text: str) -> int | None:
    """A whole number from 1 on, or None for ``auto``.

    Raises:
        UsageError: it is neither.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise UsageError(f"{option} is {short(text)}: give a whole number from 1 on, or auto")
    return int(text)


def parse_bytes(option: str, text: str) -> int | None:
    """A size such as ``4GiB`` or ``500MB`` in bytes, 0 for ``off``, or None for ``auto``.

    Raises:
        UsageError: it is none of these.
    """
    if text in ("auto", "off"):
        return None if text == "auto" else 0
    number = text.rstrip("kKmMgGiIbB ")
    unit = text[len(number) :].strip().lower()
    try:
        size = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        raise UsageError(f"{option} is {text!r}: give a size such as 4GiB or 500MB, auto, or off") from None
    if not 0 <= size < 2**63:
        raise UsageError(f"{option} is {text!r}, which is no size")
    return int(size)
