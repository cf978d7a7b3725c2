"""The command line as a user has it: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OURS = ("SWEEPER_", "MLFLOW_")


@dataclass
class CommandLine:
    """Runs ``sweeper`` in a folder, with ``SWEEPER_HOME`` at its default there.

    Args:
        folder: the working directory.
        environment: variables on top of those of this process that are not settings of ours.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
        return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **self.environment}

    def arguments(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "sweeper", *map(str, arguments)]

    def __call__(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs to the end and returns what it said, whatever its exit code."""
        return subprocess.run(
            self.arguments(*arguments),
            cwd=self.folder,
            env={**self.variables(), **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=240,
            check=False,
        )

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Starts it and comes back; what it says is read from its pipes."""
        return subprocess.Popen(
            self.arguments(*arguments),
            cwd=self.folder,
            env={**self.variables(), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def json(self, *arguments: str | Path) -> Any:
        """What it prints with ``--json``; it must succeed."""
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
