"""The server that tests fork processes from: it has imported what commands and workers import."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path


def fork_server() -> ForkServerContext:
    """Its processes are real ones; only their modules were read before they began."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preload"])
    return context


def say_into(stdout: Path, stderr: Path) -> None:
    """In a forked process: what it and those that it starts say goes to the ends of two files, or of one."""
    for number, file in enumerate((stdout, stderr), start=1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
