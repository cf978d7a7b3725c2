"""``sweeper ui`` as a process: what it prints, how it ends, what it refuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import psutil
import pytest

from sweeper import ui
from sweeper.errors import UsageError
from tests.command_line import CommandLine
from tests.made_study import MadeStudy, home_in
from tests.mlflow_server import free_port, mlflow_server


@pytest.fixture(scope="module")
def sweeper(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A folder with a study that MLflow knows nothing of yet."""
    folder = tmp_path_factory.mktemp("ui")
    study = MadeStudy(home_in(folder / "sweeps"))
    study.run_all()
    study.ledger.close()
    return CommandLine(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(sweeper: CommandLine, number: signal.Signals) -> None:
    # A proxy that reaches nothing here: what listens on this machine is asked without it.
    process = sweeper.forked("ui", "films", "--port", "0", http_proxy="http://127.0.0.1:9")
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"films: (http://127\.0\.0\.1:\d+)/#/experiments/1/runs\?\S+", line.strip())
        assert found, line
        with urllib.request.urlopen(f"{found[1]}/health") as answer:
            assert answer.status == 200
        servers = psutil.Process(process.pid).children(recursive=True)
        assert servers
    finally:
        process.send_signal(number)
    process.communicate(60)
    assert process.returncode == 0
    assert not any(server.is_running() and server.status() != psutil.STATUS_ZOMBIE for server in servers)


def test_a_port_that_is_taken_is_named_with_the_option(sweeper: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = sweeper("ui", "--port", str(port))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("password", ["", "short"])
def test_others_need_a_password(sweeper: CommandLine, password: str) -> None:
    done = sweeper("ui", "--host", "0.0.0.0", "--port", "0", SWEEPER_UI_PASSWORD=password)
    assert (done.returncode, done.stdout) == (2, "")
    assert "SWEEPER_UI_PASSWORD" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_password_guards_loopback_too_and_is_not_short(sweeper: CommandLine, tmp_path: Path) -> None:
    done = sweeper("ui", "--port", "0", SWEEPER_UI_PASSWORD="short")
    assert (done.returncode, done.stdout) == (2, "")
    assert "SWEEPER_UI_PASSWORD" in done.stderr and len(done.stderr.splitlines()) == 1
    command = ui._command(home_in(tmp_path), "127.0.0.1", 5000, {"MLFLOW_AUTH_CONFIG_PATH": "auth.ini"})
    assert command[command.index("--app-name") + 1] == "basic-auth"
    assert command[command.index("--allowed-hosts") + 1] == "127.0.0.1:5000,localhost:5000"


def test_an_address_of_nobody_is_refused(sweeper: CommandLine) -> None:
    done = sweeper("ui", "--host", "192.0.2.1", SWEEPER_UI_PASSWORD="x" * 12)
    assert done.returncode == 2 and "--host 192.0.2.1 is no address of this machine" in done.stderr
    for host in ("192.168..1", "a" * 64):
        with pytest.raises(UsageError, match=r"is no address of this machine \(.*label"):
            ui._free_port(host, 0)


def test_a_server_that_is_there_is_linked_to(sweeper: CommandLine, tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as address:
        named = address.replace("//", "//somebody:hunter2@")
        done = sweeper("ui", MLFLOW_TRACKING_URI=named)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(rf"films: {address}/#/experiments/\d+/runs\?\S+", done.stdout.splitlines()[0])
        assert all(address in line for line in done.stdout.splitlines())
    done = sweeper("ui", MLFLOW_TRACKING_URI=f"http://somebody:hunter2@127.0.0.1:{free_port()}")
    assert done.returncode == 4 and "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.5", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_which_addresses_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert ui.is_loopback(host) is loopback


def test_a_server_that_cannot_start_says_why(tmp_path: Path, sweeper: CommandLine) -> None:
    environment = {**sweeper.variables(), "SWEEPER_HOME": str(tmp_path)}
    MadeStudy(home_in(tmp_path)).ledger.close()
    # Everything of ours works, and the server does not.
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "uvicorn.py").write_text("raise SystemExit('this uvicorn is broken')\n")
    path = os.pathsep.join([str(tmp_path / "broken"), environment["PYTHONPATH"]])
    done = subprocess.run(
        sweeper.arguments("ui", "--port", "0"),
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "this uvicorn is broken" in done.stderr
    assert str(tmp_path / "logs" / "mlflow-server.log") in done.stderr
