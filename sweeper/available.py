"""What a process may take of its machine: in a container or a batch job it is less than there is."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


def cpu_cores() -> int:
    """The cores that this process may use, or ``OMP_NUM_THREADS`` where somebody has set it."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    import joblib  # knows the core masks and the quotas of each system

    return int(joblib.cpu_count())


def memory_bytes(root: Path = Path("/")) -> int:
    """The memory that is free: of the machine, and within the limits of this process's control groups.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    import psutil

    return min([psutil.virtual_memory().available, *_rooms(root)])


@dataclass(frozen=True)
class _Kind:
    """One of the two versions of Linux's control groups: a line of /proc/self/cgroup, and names of files."""

    line: re.Pattern[str]
    mount: str
    limit: str
    used: str
    files: str


_KINDS = (
    _Kind(re.compile(r"^0::/(.*)$", re.M), "", "memory.max", "memory.current", "inactive_file"),
    _Kind(
        re.compile(r"^\d+:(?:.*,)?memory(?:,.*)?:/(.*)$", re.M),
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def _rooms(root: Path) -> Iterator[int]:
    """What each group that this process is in may still take; what it keeps of files can be had."""
    with suppress(OSError):
        said = (root / "proc/self/cgroup").read_text()
        for kind in _KINDS:
            for name in kind.line.findall(said):
                mount = root / "sys/fs/cgroup" / kind.mount
                inner = mount / name
                for group in (inner, *inner.parents):
                    if group.is_relative_to(mount):
                        yield _room(group, kind)


def _room(group: Path, kind: _Kind) -> int:
    try:
        limit, used = ((group / name).read_text().strip() for name in (kind.limit, kind.used))
        files = re.search(rf"^{kind.files} (\d+)$", (group / "memory.stat").read_text(), re.M)
    except OSError:  # a container sees its own groups alone, and the outermost has no limit
        return sys.maxsize
    if limit == "max":
        return sys.maxsize
    return max(0, int(limit) - int(used) + (int(files[1]) if files else 0))
