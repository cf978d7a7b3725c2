"""Processes of this host: which one this is, and whether another is still there."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Any

import psutil

from sweeper.ledger.records import WorkerIdentity


def this_worker(device: str) -> WorkerIdentity:
    """The identity of this process."""
    pid = os.getpid()
    name = f"{socket.gethostname()}:{pid}:{secrets.token_hex(4)}"
    return WorkerIdentity(name, host_id(), pid, started(pid), device)


def host_id() -> str:
    """The process table that process numbers of this host belong to.

    A name alone does not do: containers share it at times, and after a restart of the machine the same
    numbers are other processes.
    """
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text().strip())
        except OSError:  # not Linux
            parts.append("-")
    return "/".join(parts)


def started(pid: int) -> float:
    """When a process started; only good for comparing.

    On Linux in seconds since the machine did, which no change of its clock can move.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return psutil.Process(pid).create_time()


def _is_hidden(pid: int) -> bool:
    """Whether it is there after all: ``/proc`` may hide those of other users. Its lease decides then."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def is_gone(row: Any) -> bool:
    """Whether a worker of this host (``pid``, ``process_started``) is no longer there."""
    try:
        if psutil.Process(row.pid).status() == psutil.STATUS_ZOMBIE:
            return True
        return abs(started(row.pid) - row.process_started) > 0.5
    except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
        return not _is_hidden(row.pid)
    except psutil.AccessDenied:
        return False
