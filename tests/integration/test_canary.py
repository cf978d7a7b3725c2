"""Passwords stay where they were put: they are looked for in everything that a whole small study writes.

A real PostgreSQL asks for them. They are in the URLs of the store and of MLflow's database, and guard the
pages of ``sweeper ui``.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sweeper.cli import main
from tests.command_line import CommandLine
from tests.compose import ROOT
from tests.password_server import PasswordServer, password_server
from tests.tiny_folder import write_study

STORE, TRACKING, PAGES = "c4n4ry-of-the-store", "c4n4ry-of-mlflow", "c4n4ry-of-the-pages"


class CommandLines:
    """Reads the command lines of all processes, again and again, while a block runs."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._done = threading.Event()

    def _read(self) -> None:
        while not self._done.wait(0.1):
            for process in Path("/proc").glob("[0-9]*"):
                # A process may end while it is looked at.
                with suppress(OSError):
                    self.seen.add((process / "cmdline").read_bytes())

    @contextmanager
    def read(self) -> Iterator[None]:
        thread = threading.Thread(target=self._read)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def holding(self, word: str) -> list[bytes]:
        return [line for line in self.seen if word.encode() in line]


def files_holding(folder: Path, word: bytes) -> list[str]:
    return [str(file) for file in folder.rglob("*") if file.is_file() and word in file.read_bytes()]


@pytest.fixture(scope="module")
def server() -> Iterator[PasswordServer]:
    passwords = {"SWEEPER_DATABASE_PASSWORD": STORE, "MLFLOW_DATABASE_PASSWORD": TRACKING}
    with password_server() as server:
        done = server.psql("--dbname", "postgres", "-f", str(ROOT / "deploy" / "init.sql"), **passwords)
        assert done.returncode == 0, done.stderr
        yield server


def variables(server: PasswordServer) -> dict[str, str]:
    where = f"127.0.0.1:{server.port}"
    return {
        "SWEEPER_STORE": f"postgresql://sweeper:{STORE}@{where}/sweeper",
        "MLFLOW_TRACKING_URI": f"postgresql+psycopg://mlflow:{TRACKING}@{where}/mlflow",
    }


def dump(server: PasswordServer) -> str:
    """All databases as text."""
    command = [str(server.programs / "pg_dumpall"), "-U", "postgres", "-h", str(server.socket)]
    return subprocess.run(
        [*command, "-p", str(server.port)], capture_output=True, text=True, check=True
    ).stdout


def run_everything(sweeper: CommandLine) -> str:
    """A study through the commands; what they said."""
    said = ""
    for command in (
        ["migrate"],
        ["run", "study.yaml"],
        ["confirm", "tiny", "--top", "1", "--seeds", "2"],  # whose workers have a command line of their own
        ["status", "--json"],
        ["show", "tiny", "0"],
        ["export", "tiny", "--out", "best"],
        ["doctor", "--json"],
    ):
        done = sweeper(*command)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    return said


def ask(address: str, password: str | None) -> int:
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/experiments/get?experiment_id=1")
    if password is not None:
        request.add_header("Authorization", "Basic " + b64encode(f"admin:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def look_at_the_pages(sweeper: CommandLine) -> str:
    """``sweeper ui`` on an address that does not count as loopback, though it is; what it said."""
    guarded = CommandLine(sweeper.folder, {**sweeper.environment, "SWEEPER_UI_PASSWORD": PAGES})
    ui = guarded.forked("ui", "tiny", "--host", "127.1", "--port", "0")
    try:
        line = ui.stdout.readline()
        found = re.match(r"tiny: (http://127\.1:\d+)/#", line)
        assert found, line + ui.stderr.read()
        assert [ask(found[1], password) for password in (None, f"{PAGES}?", PAGES)] == [401, 401, 200]
    finally:
        ui.send_signal(signal.SIGTERM)
    out, err = ui.communicate(timeout=60)
    assert ui.returncode == 0
    return line + out + err


def test_no_password_is_in_files_databases_logs_or_command_lines(
    server: PasswordServer, tmp_path: Path
) -> None:
    write_study(tmp_path, budget={"trials": 2}, train={"epochs": 1})
    sweeper = CommandLine(tmp_path, variables(server))
    lines = CommandLines()
    with lines.read():
        said = run_everything(sweeper) + look_at_the_pages(sweeper)
        # These readers do find what is there.
        subprocess.run(
            [sys.executable, "-c", "import time; time.sleep(1)", "a-word-that-is-there"], check=True
        )
    databases, log = dump(server), server.log.read_text()
    for password in (STORE, TRACKING, PAGES):
        assert password not in said
        assert password not in databases
        assert password not in log
        assert files_holding(tmp_path, password.encode()) == []
        assert lines.holding(password) == []
    assert lines.holding("a-word-that-is-there")
    assert lines.holding("sweeper.worker") and lines.holding("mlflow")
    assert "zero_up" in databases and "sweeper.study" in databases
    assert len(files_holding(tmp_path, b"zero_up")) > 2
    assert (tmp_path / "sweeps" / "logs" / "mlflow-server.log").stat().st_size > 0


@pytest.mark.parametrize(
    ("store", "code"),
    [
        ("postgresql://sweeper:{0}x@127.0.0.1:{1}/sweeper", 4),
        ("postgresql://sweeper:{0}@127.0.0.1:1/sweeper", 4),
        ("postgresql://sweeper:{0}@127.0.0.1:{0}/sweeper", 2),
        ("postgresql://sweeper:x@{0}@127.0.0.1:{1}/sweeper", 2),
        ("mysql://sweeper:{0}@127.0.0.1:{1}/sweeper", 2),
        ("postgresql://127.0.0.1:{1}/sweeper?user=sweeper&password={0}x", 4),
    ],
)
def test_no_error_repeats_a_password(
    server: PasswordServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    store: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("SWEEPER_HOME", "SWEEPER_ARTIFACTS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SWEEPER_STORE", store.format(STORE, server.port))
    write_study(tmp_path)
    capfd.readouterr()
    for command in (["status"], ["run", "study.yaml"], ["migrate"], ["doctor"]):
        returned = main([*command, "--json"])
        said = capfd.readouterr()
        assert returned == (1 if command == ["doctor"] else code), said.err
        assert STORE not in said.out + said.err
        assert "Traceback" not in said.err
        if command != ["doctor"]:
            assert json.loads(said.err.splitlines()[-1])["error"]["message"]
