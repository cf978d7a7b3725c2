"""The command line as a user has it: a process of its own, in a folder of its own.

What is waited for, or ``forked``, is forked from a server that has imported what commands import, which is
most of what they take; what is started, or is given settings of Python's, is a process from nothing.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.fork_server import fork_server, say_into
from tests.mlflow_tables import put_mlflow_tables

ROOT = Path(__file__).parents[1]
OURS = ("SWEEPER_", "MLFLOW_")
PATIENCE_SECONDS = 240


@dataclass
class CommandLine:
    """Runs ``sweeper`` in a folder, with ``SWEEPER_HOME`` at its default there.

    Args:
        folder: the working directory.
        environment: variables on top of those of this process that are not settings of ours.
        tables: what is run in a new home finds MLflow's tables there, which take MLflow seconds to make.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    tables: bool = True

    def variables(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
        return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **self.environment}

    def arguments(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "sweeper", *map(str, arguments)]

    def _prepared(self, arguments: tuple[str | Path, ...]) -> list[str]:
        if self.tables and arguments[:1] == ("run",) and not (self.folder / "sweeps").exists():
            put_mlflow_tables(self.folder / "sweeps" / "mlflow.db")
        return self.arguments(*arguments)

    def __call__(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs to the end and returns what it said, whatever its exit code."""
        command, variables = self._prepared(arguments), {**self.variables(), **environment}
        if all(name.startswith(OURS) for name in {**self.environment, **environment}):
            return self._forked(command, variables)
        return subprocess.run(
            command,
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def _forked(self, command: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            said = [Path(folder) / name for name in ("stdout", "stderr")]
            process = _fork(command, self.folder, variables, said)
            process.join(PATIENCE_SECONDS)
            if process.is_alive():
                process.kill()
                raise subprocess.TimeoutExpired(command, PATIENCE_SECONDS)
            assert process.exitcode is not None
            return subprocess.CompletedProcess(
                command, process.exitcode, *(file.read_text(encoding="utf-8") for file in said)
            )

    def forked(self, *arguments: str | Path, **environment: str) -> Forked:
        """Forks it and comes back; what it says is read from its pipes."""
        return Forked(self._prepared(arguments), self.folder, {**self.variables(), **environment})

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Starts it and comes back; what it says is read from its pipes."""
        return subprocess.Popen(
            self._prepared(arguments),
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


class Forked:
    """A forked command that runs, with what ``subprocess.Popen`` has that tests use."""

    def __init__(self, command: list[str], folder: Path, variables: Mapping[str, str]) -> None:
        self._command = command
        with tempfile.TemporaryDirectory() as pipes:
            said = [Path(pipes) / name for name in ("stdout", "stderr")]
            for pipe in said:
                os.mkfifo(pipe)
            self._process = _fork(command, folder, variables, said)
            self.stdout, self.stderr = (pipe.open(encoding="utf-8") for pipe in said)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float = PATIENCE_SECONDS) -> tuple[str, str]:
        """What it still says, to its end."""
        with ThreadPoolExecutor(2) as threads:
            readers = [threads.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            self._process.join(timeout)
            if self._process.is_alive():
                self._process.kill()
                raise subprocess.TimeoutExpired(self._command, timeout)
            out, err = (reader.result() for reader in readers)
        self.stdout.close()
        self.stderr.close()
        return out, err


def _fork(
    command: list[str], folder: Path, variables: Mapping[str, str], said: list[Path]
) -> ForkServerProcess:
    """Begin a command; what it says on stdout and stderr goes into two files, or pipes."""
    process = fork_server().Process(target=_command, args=(command[3:], folder, variables, said))
    process.start()
    return process


def _command(arguments: list[str], folder: Path, variables: Mapping[str, str], said: list[Path]) -> None:
    """What ``python -m sweeper`` does, in a forked process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    say_into(*said)
    sys.argv = [str(ROOT / "sweeper" / "__main__.py"), *arguments]
    import torch

    from sweeper.cli import main

    torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))
    code = main()
    atexit._run_exitfuncs()
    raise SystemExit(code)
