"""Processes that are measured: they answer with lines of JSON, and their messages go to a log.

A training library may print lines of its own in between: those are no JSON objects, and are passed over.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT

Answer = dict[str, Any]


class Process:
    """A process under way; its answers come one by one.

    Args:
        name: for its log and for messages.
        command: program and arguments.
        folder: where it runs, and where its log is written.
        threads: how many the libraries in it may use.
        ours: whether it is to import this project, from this checkout.
    """

    def __init__(self, name: str, command: list[str], folder: Path, *, threads: int, ours: bool) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(threads, ours),
                cwd=folder,
            )

    def send(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answers(self) -> Iterator[Answer]:
        """Its answers until it ends.

        Raises:
            SystemExit: it ended with another exit code than 0.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{"'):
                yield json.loads(line)
        if self.process.wait():
            raise SystemExit(
                f"error: {self.name} ended with exit code {self.process.returncode}:\n{self._tail()}"
            )

    def answer(self) -> Answer:
        """Its next answer.

        Raises:
            SystemExit: it ended without one.
        """
        for found in self.answers():
            return found
        raise SystemExit(f"error: {self.name} ended early:\n{self._tail()}")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _tail(self) -> str:
        return self.log.read_text(encoding="utf-8")[-3000:]


class Side(Process):
    """A process that trains a round for every line it is sent; ``about`` is what it said once ready."""

    def __init__(self, name: str, command: list[str], folder: Path, *, threads: int, ours: bool) -> None:
        super().__init__(name, command, folder, threads=threads, ours=ours)
        self.about = self.answer()

    def round(self, line: str) -> Answer:
        """Train one round and wait for its end."""
        self.send(line)
        return self.answer()


def _environment(threads: int, ours: bool) -> dict[str, str]:
    """What a process sees: this checkout or none, so that neither side imports the other's adapters."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = str(threads)
    environment["HF_HUB_OFFLINE"] = "1"
    if ours:
        environment["PYTHONPATH"] = str(ROOT)
    return environment
