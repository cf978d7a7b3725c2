"""The commands that steer a study, as processes of their own: on made-up results, and on real training."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sweeper import cli
from sweeper.asktell import create_optuna_study
from sweeper.finalists import label_of
from sweeper.home import Home
from sweeper.ledger import this_worker
from sweeper.ledger.confirmation import CONFIRM
from sweeper.session import open_study
from sweeper.study import from_dict, load_study
from tests.command_line import CommandLine
from tests.faults.processes import wait_until
from tests.made_study import BEST, TRIALS, MadeStudy, home_in, spec
from tests.mlflow_server import picture_of
from tests.mlflow_tables import put_mlflow_tables
from tests.tiny_folder import write_study

PATIENCE_SECONDS = 120


@dataclass
class InThisProcess:
    """The command line without a process of its own, for what neither trains nor is interrupted."""

    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            self.capsys.readouterr()
            code = cli.main(list(arguments))
        out, err = self.capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def sweeper(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> InThisProcess:
    for name in ("SWEEPER_JSON", "SWEEPER_STORE", "SWEEPER_ARTIFACTS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "sweeps"))
    return InThisProcess(capsys, monkeypatch)


@pytest.fixture
def process(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def films(tmp_path: Path) -> MadeStudy:
    """A study whose first two trials are complete."""
    made = MadeStudy(home_in(tmp_path / "sweeps"))
    create_optuna_study(made.home, from_dict(spec("films", "maximize", 1), tmp_path / "films.yaml"))
    for _ in range(3):
        made.run_next()
    return made


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    [line] = done.stderr.splitlines()
    return line.removeprefix("error: ")


def test_a_study_is_paused_resumed_and_stopped_from_elsewhere(
    sweeper: InThisProcess, films: MadeStudy, tmp_path: Path
) -> None:
    variables = {"SWEEPER_HOME": str(tmp_path / "other"), "SWEEPER_STORE": films.home.store_url}

    def elsewhere(*arguments: str) -> subprocess.CompletedProcess[str]:
        return sweeper(*arguments, **variables)

    running = films.run_next(evaluations=1)
    paused = elsewhere("pause", "films")
    assert (paused.returncode, paused.stdout) == (0, "")
    assert paused.stderr == (
        "films is paused, and 1 trial that runs is handed back at the next evaluation; "
        "`sweeper resume films` lets it go on\n"
    )
    assert json.loads(elsewhere("pause", "films", "--json").stdout)["state"] == "paused"
    assert sweeper("status", "films").stdout.splitlines()[0] == "study films: paused"
    assert films.ledger.reserve("films", this_worker("cpu")) is None
    assert "films goes on" in elsewhere("resume", "films").stderr
    assert sweeper.json("status", "films")["state"] == "running"
    assert "neither paused nor stopped" in elsewhere("resume", "films").stderr

    assert sweeper.json("stop", "films")["ended_because"] == "its user stopped it"
    films.ledger.release(running)
    assert sweeper("stop", "films").stderr == "films is stopped already\n"
    assert "has ended (its user stopped it): nothing to pause" in refused(sweeper("pause", "films"))
    assert sweeper.json("resume", "films")["state"] == "waiting"
    for _ in range(len(TRIALS) - 2):
        films.run_next()
    films.ledger.end_if_done("films")
    assert sweeper("stop", "films").stderr == "films has ended: all 6 trials are done\n"
    assert "raise its budget" in refused(sweeper("resume", "films"))


def test_a_trial_is_enqueued_and_a_failed_one_retried(sweeper: InThisProcess, films: MadeStudy) -> None:
    trial = sweeper.json("enqueue", "films", "--set", "bottleneck_dim=64", "--set", "layers=[0,2,4]")
    assert (trial["number"], trial["state"]) == (None, "waiting")
    assert trial["params"] == {"bottleneck_dim": 64, "layers": "[0, 2, 4]"}
    assert sweeper.json("status", "films")["budget"]["trials"] == 7
    assert "did you mean 'activation'" in refused(sweeper("enqueue", "films", "--set", "activatoin=relu"))
    assert "name what to try" in refused(sweeper("enqueue", "films"))
    by_environment = sweeper("enqueue", "films", SWEEPER_SET="bottleneck_dim=8 activation=gelu")
    assert "bottleneck_dim=8 activation=gelu" in by_environment.stderr

    while not (failed := [t.number for t in films.ledger.trials("films") if t.state == "failed"]):
        films.run_next()
    assert "is complete: only a trial that failed" in refused(sweeper("retry", "films", "0"))
    assert "or give --failed" in refused(sweeper("retry", "films"))
    assert "or give --failed" in refused(sweeper("retry", "films", "4", "--failed"))
    [again] = sweeper.json("retry", "films", "--failed")
    assert again["retry_of"] == failed[0] and again["state"] == "waiting"
    assert again["params"] == TRIALS[failed[0]].params
    assert sweeper.json("retry", "films", "--failed") == []
    assert "has a retry already" in refused(sweeper("retry", "films", str(failed[0])))


def test_deleting_asks_and_deletes_what_was_made(
    sweeper: InThisProcess, process: CommandLine, films: MadeStudy
) -> None:
    put_mlflow_tables(films.home.root / "mlflow.db")
    drawn = sweeper.json("sync", "films")
    assert drawn == {"study": "films", "drawn": 3, "missing": 0}
    weights = films.home.artifacts / "films"
    running = films.run_next(evaluations=1)
    assert "1 trial of it runs. Stop it first: `sweeper stop films`" in refused(
        sweeper("delete", "films", "--yes")
    )
    assert films.ledger.study("films").control is None
    sweeper("stop", "films")
    assert "cannot be deleted yet" in refused(sweeper("delete", "films", "--yes"))
    films.ledger.release(running)
    films.confirm(finalists=1, seeds=1)
    films.ledger.confirm("films", [(CONFIRM, label_of(BEST, 2), {})])
    confirming = films.ledger.reserve("films", this_worker("cpu"), kind=CONFIRM)
    assert confirming is not None
    assert "`sweeper confirm films` trains. End that with Ctrl-C" in refused(
        sweeper("delete", "films", "--yes")
    )
    films.ledger.release(confirming)

    question = f"Delete the study films with 3 trials, and all files in {weights}?"
    assert refused(sweeper("delete", "films")) == f"{question} Nobody is here to answer: give --yes"
    code, said = answered(process, "n", "delete", "films")
    assert code == 1 and f"{question} [y/N]" in said and "nothing was deleted" in said
    assert weights.is_dir() and films.ledger.studies() == ["films"]
    code, said = answered(process, "\x04", "delete", "films")  # Ctrl-D
    assert code == 130 and "interrupted" in said and "Traceback" not in said
    assert films.ledger.studies() == ["films"]
    code, said = answered(process, "y", "delete", "films")
    assert code == 0 and "the study films is deleted, its experiment in MLflow is in the bin there" in said
    assert films.ledger.studies() == [] and not weights.exists()
    assert "there is no study 'films'" in refused(sweeper("delete", "films", "--yes"))

    # Its name is free again, in MLflow too: nothing of the old study shows in the new one.
    anew = MadeStudy(films.home)
    anew.run_next()
    assert sweeper.json("sync", "films")["drawn"] == 1
    assert set(picture_of(films.home.tracking_uri)) == {"tags", "films", "trial-0000"}


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "mysql://127.0.0.1/mlflow"])
def test_deleting_goes_on_where_mlflow_does_not_answer(
    sweeper: InThisProcess, films: MadeStudy, uri: str
) -> None:
    """A server that is away, or a database whose driver is not installed."""
    films.ledger.note_drawn("films", "1", "a")
    if uri.startswith("mysql"):
        assert "driver cannot be loaded" in refused(sweeper("sync", "films", MLFLOW_TRACKING_URI=uri))
    done = sweeper("delete", "films", "--yes", "--json", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    deleted = json.loads(done.stdout)
    assert (deleted["study"], deleted["trials"], deleted["in_mlflow"]) == ("films", 6, False)
    assert "the experiment films in MLflow is left there" in deleted["notes"][0]
    assert films.ledger.studies() == []


def test_weights_that_another_machine_holds_are_not_deleted_in_silence(
    sweeper: InThisProcess, films: MadeStudy, tmp_path: Path
) -> None:
    done = sweeper("delete", "films", "--yes", "--json", SWEEPER_ARTIFACTS=str(tmp_path / "elsewhere"))
    deleted = json.loads(done.stdout)
    assert (films.home.artifacts / "films").is_dir() and films.ledger.studies() == []
    [note] = [note for note in deleted["notes"] if "weights" in note]
    assert str(tmp_path / "elsewhere" / "films") in note and "on the machines that trained it" in note


def test_a_picture_is_completed_and_drawn_anew(sweeper: InThisProcess, films: MadeStudy) -> None:
    database = films.home.root / "mlflow.db"
    put_mlflow_tables(database)
    assert sweeper("sync", "films").stderr == "3 runs of films were drawn in MLflow\n"
    whole = picture_of(films.home.tracking_uri)
    assert sweeper.json("sync", "films") == {"study": "films", "drawn": 0, "missing": 0}
    # What a picture lost of its files, no tag of MLflow's tells.
    shutil.rmtree(films.home.mlflow_artifacts)
    assert sweeper.json("sync", "films", "--rebuild")["drawn"] == 3
    assert picture_of(films.home.tracking_uri) == whole
    # All of it lost: what is there instead is empty.
    put_mlflow_tables(database.with_name("other.db"))
    other = f"sqlite:///{database.with_name('other.db')}"
    drawn = sweeper("sync", "films", "--rebuild", "--json", MLFLOW_TRACKING_URI=other)
    assert json.loads(drawn.stdout) == {"study": "films", "drawn": 3, "missing": 0}
    assert picture_of(other) == whole
    unreachable = sweeper("sync", "films", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert "Nothing is lost" in refused(unreachable, 4)


def answered(process: CommandLine, answer: str, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command on a terminal whose user answers its question."""
    leader, follower = pty.openpty()
    started = subprocess.Popen(
        process.arguments(*arguments),
        cwd=process.folder,
        env={**process.variables(), "COLUMNS": "500"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    said = b""
    try:
        while True:
            said += os.read(leader, 4096)
            if said.rstrip().endswith(b"[y/N]:"):
                os.write(leader, f"{answer}\n".encode())
                answer = ""
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    return started.wait(PATIENCE_SECONDS), said.decode().replace("\r\n", "\n")


def begin(folder: Path, **overrides: Any) -> Any:
    file = write_study(folder, **{"pruner": "none", **overrides})
    return open_study(load_study(file), Home.from_environment({"SWEEPER_HOME": str(folder / "sweeps")}))


def test_a_worker_joins_by_the_store_alone_and_says_what_it_trains(
    process: CommandLine, tmp_path: Path
) -> None:
    session = begin(tmp_path, budget={"trials": 2})
    elsewhere = CommandLine(
        tmp_path,
        {
            "SWEEPER_HOME": str(tmp_path / "other"),
            "SWEEPER_STORE": session.home.store_url,
            "SWEEPER_ARTIFACTS": str(session.home.artifacts),
        },
    )
    done = elsewhere("worker", "tiny", "--device", "cpu")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "study tiny: reading the data and the backbone for cpu"
    assert lines[-1] == "tiny has ended: all 2 trials are done"
    for name in ("trial-0000", "trial-0001", "reference-head"):
        begun = next(i for i, line in enumerate(lines) if line.startswith(f"{name} started: "))
        ended = next(i for i, line in enumerate(lines) if line.startswith(f"{name} complete: accuracy "))
        assert begun < ended
    assert [view.state for view in session.ledger.trials("tiny")] == ["complete"] * 3
    again = elsewhere("worker", "tiny")
    assert (again.returncode, again.stderr) == (0, "tiny has ended: all 2 trials are done\n")


def test_an_interrupted_worker_hands_back_and_ends_with_130(process: CommandLine, tmp_path: Path) -> None:
    session = begin(tmp_path, budget={"trials": 1}, train={"epochs": 5000})
    started = process.forked("worker", "tiny")
    wait_until(lambda: any(view.state == "running" for view in session.ledger.trials("tiny")))
    wait_until(lambda: any(row.key == "objective" for row in session.ledger.metric_rows(1)))
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate(timeout=PATIENCE_SECONDS)
    assert started.returncode == 130
    assert "trial-0000 handed back: interrupted" in said and said.splitlines()[-1].startswith("interrupted: ")
    assert [view.state for view in session.ledger.trials("tiny")] == ["waiting", "waiting"]


def test_a_worker_refuses_with_a_sentence(
    sweeper: InThisProcess, process: CommandLine, tmp_path: Path
) -> None:
    assert "there is no study yet" in refused(sweeper("worker", "tiny"))
    session = begin(tmp_path, budget={"trials": 1})
    assert "Did you mean 'tiny'?" in refused(sweeper("worker", "tiyn"))
    assert "there is no device 'cuda:7' here" in refused(sweeper("worker", "tiny", "--device", "cuda:7"))
    with session.ledger.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE sweeper_studies SET dtype = 'float8'")
    done = process("worker", "tiny", "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: the study tiny computes in float8, which cpu cannot"
    )
    with session.ledger.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE sweeper_alembic_version SET version_num = '0001'")
    assert "has tables of version 0001, this program of" in refused(sweeper("worker", "tiny"), 1)


def test_a_run_waits_while_its_study_is_paused_and_ends_when_it_is_stopped(
    sweeper: InThisProcess, process: CommandLine, tmp_path: Path
) -> None:
    session = begin(tmp_path, budget={"trials": 1}, train={"epochs": 5000})
    assert session.ledger.pause("tiny")
    started = process.forked("run", "study.yaml", "--workers", "1")
    said = [""]
    try:
        for line, command in (
            ("tiny is paused: `sweeper resume tiny` lets it go on", "resume"),
            ("tiny goes on", None),
            ("trial-0000 started: ", "stop"),
        ):
            while not said[-1].startswith(line):
                said.append(started.stderr.readline())
                assert said[-1], said
            assert command is None or sweeper(command, "tiny").returncode == 0
    finally:
        out, rest = started.communicate(timeout=PATIENCE_SECONDS)
    way_on = "tiny is stopped: `sweeper resume tiny`, then the same run, let it go on"
    again = process("run", "study.yaml")
    for code, data, notes in (
        (started.returncode, out, rest),
        (again.returncode, again.stdout, again.stderr),
    ):
        assert code == 3 and data.startswith("study tiny: ended, 1 waiting; its user stopped it")
        assert notes.splitlines()[-2:] == [
            way_on,
            "error: no trial of the study 'tiny' has succeeded so far",
        ]
    assert session.row.is_stopped
