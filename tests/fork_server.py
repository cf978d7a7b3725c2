"""The server that tests fork processes from: it has imported what commands and workers import."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeper.engine.forkserver import ForkServer


def fork_server() -> ForkServerContext:
    """Its processes are real ones; only their modules were read before they began."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preload"])
    return context


@contextmanager
def worker_server() -> Iterator[ForkServer]:
    """The product's own server of workers, for a coordinator in a process that has threads."""
    from sweeper.engine.forkserver import ForkServer, serve

    context = fork_server()
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, ours))
    process.start()
    theirs.close()
    try:
        yield ForkServer(ours)
    finally:
        ours.close()
        process.join()


def say_into(stdout: Path, stderr: Path) -> None:
    """In a forked process: what it and those that it starts say goes to the ends of two files, or of one."""
    for number, file in enumerate((stdout, stderr), start=1):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
