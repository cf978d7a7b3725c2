"""Studies on a real Ray cluster whose nodes come, go and die; and every way to ask for one wrongly."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeper import cli
from sweeper.home import Home
from sweeper.session import Session, join_study
from tests.agreement import check_agrees
from tests.command_line import CommandLine, Forked
from tests.ray_cluster import Nodes, autoscaled_ray_cluster, ray_cluster
from tests.stores import postgresql_url, states_of
from tests.tiny_folder import write_study

SECONDS = 300.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture
def sweeper(nodes: Nodes, tmp_path: Path, postgresql: Path) -> Iterator[CommandLine]:
    """The command line beside a study, a store on PostgreSQL and the cluster, which has no nodes yet."""
    ours = {"SWEEPER_STORE": postgresql_url(postgresql), "SWEEPER_RAY_ADDRESS": nodes.address}
    yield CommandLine(tmp_path, {**ours, "SWEEPER_ENGINE": "ray"})
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if str(tmp_path) in process.cwd():  # a run that a failed test has left
                process.kill()
    nodes.remove_all()


def session_of(sweeper: CommandLine) -> Session:
    home = {
        "SWEEPER_HOME": str(sweeper.folder / "sweeps"),
        "SWEEPER_STORE": sweeper.environment["SWEEPER_STORE"],
    }
    return join_study("tiny", Home.from_environment(home))


def until(holds: Callable[[], Any], run: Forked | None = None) -> Any:
    """Wait until something holds, and return it; what a run said is shown when it ends before that."""
    end = time.monotonic() + SECONDS
    while not (found := holds()):
        assert run is None or run.poll() is None, run.communicate() if run else None
        assert time.monotonic() < end
        time.sleep(0.5)
    return found


def states(sweeper: CommandLine) -> list[str]:
    return states_of(sweeper.environment["SWEEPER_STORE"], "tiny")


@pytest.mark.timeout(900)
def test_a_study_runs_to_its_end_while_nodes_come_and_die(nodes: Nodes, sweeper: CommandLine) -> None:
    write_study(sweeper.folder, budget={"trials": 5}, train={"epochs": 24}, ray={"max_workers": 2})
    first = nodes.add()
    run = sweeper.forked("run", "study.yaml")
    until(lambda: "running" in states(sweeper), run)
    second = nodes.add()
    [lost] = until(lambda: nodes.workers(first), run)
    until(lambda: states(sweeper).count("running") == 2, run)
    nodes.lose(first)
    until(lambda: not lost.is_running(), run)
    # The worker dies, and its actor lives: it is started again. Then the actor dies, too.
    [worker] = until(lambda: nodes.workers(second), run)
    worker.send_signal(signal.SIGKILL)
    [again] = until(lambda: [p for p in nodes.workers(second) if p.pid != worker.pid], run)
    actor = again.parent()
    assert actor is not None
    actor.send_signal(signal.SIGKILL)
    third = nodes.add()
    until(lambda: nodes.workers(third), run)
    said = run.communicate(timeout=SECONDS)[1]
    assert run.returncode == 0, said
    assert "ended by signal 9, and is started again" in said
    assert "is gone or out of reach: Ray places it again" in said
    session = session_of(sweeper)
    check_agrees(session, 5)
    assert session.row.ended_because == "all 5 trials are done"
    until(lambda: not nodes.workers(second) and not nodes.workers(third))
    # The URL of the store, which may hold a password, is nowhere in what Ray has written.
    database = sweeper.environment["SWEEPER_STORE"].partition("@")[2]
    written = list(nodes.written())
    assert any(b"worker-" in text for text in written)
    assert not [text for text in written if database.encode() in text]


@pytest.mark.timeout(900)
def test_a_signal_hands_back_and_workers_outlive_their_coordinator(
    nodes: Nodes, sweeper: CommandLine
) -> None:
    write_study(sweeper.folder, budget={"trials": 2}, train={"epochs": 40})
    node = nodes.add()
    run = sweeper.forked("run", "study.yaml")
    until(lambda: "running" in states(sweeper), run)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=SECONDS)[1]
    assert run.returncode == 130, said
    assert "running" not in states(sweeper) and not nodes.workers(node)
    assert list((sweeper.folder / "sweeps" / "checkpoints").rglob("*.safetensors"))
    # What is said about Ray alone makes no other study.
    write_study(sweeper.folder, budget={"trials": 2}, train={"epochs": 40}, ray={"max_workers": 1})
    run = sweeper.forked("run", "study.yaml")
    until(lambda: "running" in states(sweeper), run)
    run.kill()
    run.communicate()
    [worker] = nodes.workers(node)
    run = sweeper.forked("run", "study.yaml")
    said = run.communicate(timeout=SECONDS)[1]
    assert run.returncode == 0, said
    assert "1 worker of this study found on the cluster" in said
    until(lambda: not worker.is_running())
    check_agrees(session_of(sweeper), 2)
    assert all(view.attempts <= 2 for view in session_of(sweeper).ledger.trials("tiny"))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_autoscaler_adds_nodes_for_a_study_and_takes_them_away(tmp_path: Path, postgresql: Path) -> None:
    with autoscaled_ray_cluster(2) as cluster:
        ours = {"SWEEPER_STORE": postgresql_url(postgresql), "SWEEPER_RAY_ADDRESS": cluster.address}
        sweeper = CommandLine(tmp_path, {**ours, "SWEEPER_ENGINE": "ray"})
        write_study(tmp_path, budget={"trials": 2}, train={"epochs": 24}, ray={"max_workers": 2})
        assert len(cluster.processes("raylet/raylet")) == 1 and not cluster.processes("sweeper.worker")
        run = sweeper.forked("run", "study.yaml")
        until(lambda: states(sweeper).count("running") == 2, run)
        said = run.communicate(timeout=SECONDS)[1]
        assert run.returncode == 0, said
        check_agrees(session_of(sweeper), 2)
        until(
            lambda: len(cluster.processes("raylet/raylet")) == 1 and not cluster.processes("sweeper.worker")
        )


def test_a_store_in_a_file_is_refused_where_a_node_is_another_machine(
    nodes: Nodes, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, budget={"trials": 1})
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "sweeps"))
    monkeypatch.setattr("sweeper.engine.ray.socket.gethostname", lambda: "elsewhere")
    assert cli.main(["run", str(study), "--engine", "ray", "--ray-address", nodes.address]) == 2
    assert "the store is a SQLite file, which only one machine can use" in capfd.readouterr().err
    assert not (tmp_path / "sweeps").exists()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


WRONG = [
    (["--ray-address", "auto"], 2, "--ray-address is for --engine ray: give both, or neither"),
    (["--engine", "slurm"], 2, "'slurm'"),
    (["--engine", "ray", "--workers", "2"], 2, "--workers is for --engine local"),
    (["--engine", "ray", "--device", "cpu"], 2, "--device is for --engine local"),
    (["--engine", "ray", "--ray-address", "head"], 2, "give HOST:PORT of the cluster's head, or auto"),
    (["--engine", "ray", "--ray-address", "head:99999"], 2, "give HOST:PORT of the cluster's head, or auto"),
    (["--engine", "ray", "--ray-address", "ray://head:10001"], 2, "Ray's client protocol is not supported"),
    (["--engine", "ray", "--ray-address", "127.0.0.1:FREE"], 4, "no Ray cluster answers at 127.0.0.1:"),
]


@pytest.mark.parametrize(("options", "code", "words"), WRONG, ids=lambda given: str(given)[:40])
def test_what_is_asked_for_wrongly_is_said_in_a_sentence(
    options: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "sweeps"))
    study = write_study(tmp_path, budget={"trials": 1})
    given = [option.replace("FREE", str(free_port())) for option in options]
    assert cli.main(["run", str(study), *given]) == code
    said = capfd.readouterr()
    assert words in said.err and "Traceback" not in said.err and said.out == ""
    assert not (tmp_path / "sweeps").exists()


def test_without_ray_it_is_said_how_to_install_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    study = write_study(tmp_path, budget={"trials": 1})
    assert cli.main(["run", str(study), "--engine", "ray"]) == 2
    assert "--engine ray needs Ray, in the version that constraints.txt pins" in capfd.readouterr().err
