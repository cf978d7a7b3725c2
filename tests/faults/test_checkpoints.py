"""Workers killed with SIGKILL in the middle of a trial: the next one goes on from its checkpoint."""

from __future__ import annotations

import multiprocessing
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from sweeper.ledger import MetricRow
from sweeper.session import Session
from sweeper.tracking import Tracker
from tests.agreement import check_agrees
from tests.faults.test_crash_points import begin, ended, results, server, start
from tests.mlflow_server import picture_of
from tests.tiny_folder import write_study

__all__ = ["server"]

TRIALS, EPOCHS = 2, 6
OVERRIDES: dict[str, Any] = {
    "budget": {"trials": TRIALS},
    "sampler": "random",
    "pruner": "none",
    "train": {"epochs": EPOCHS},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, **OVERRIDES)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, server: multiprocessing.context.ForkServerContext) -> tuple[Any, Any]:
    """What the study comes to when nothing happens to it."""
    session = begin(folder, folder / "uninterrupted")
    assert ended(start(server, session, None, "--pack", "1")) == 0
    return results(session), digests(session)


def digests(session: Session) -> list[list[str]]:
    """Of all weights."""
    return [sorted(view.files.values()) for view in session.ledger.trials(session.name)]


def furthest(session: Session) -> tuple[str, int]:
    """The trial that has a checkpoint, and the steps that it has behind it."""
    files = list((session.home.checkpoints / session.name).rglob("*.safetensors"))
    [trial] = {file.parents[1].name for file in files}
    return trial, max(int(re.findall(r"step-(\d+)", file.name)[0]) for file in files)


def curve(session: Session, place_id: int, attempt: int) -> dict[tuple[int, str], MetricRow]:
    rows = [row for row in session.ledger.metric_rows(place_id) if row.attempt == attempt]
    found = {(row.evaluation, row.key): row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize(
    ("crash_at", "drawn_between"),
    [("after_checkpoint:1", False), ("after_checkpoint:2", True), ("after_checkpoint:5", True)],
)
def test_a_killed_trial_goes_on_from_its_checkpoint_to_the_same_bits(
    crash_at: str,
    drawn_between: bool,
    folder: Path,
    tmp_path: Path,
    server: multiprocessing.context.ForkServerContext,
    uninterrupted: tuple[Any, Any],
) -> None:
    session = begin(folder, tmp_path)
    evaluations = int(crash_at[-1])
    assert ended(start(server, session, crash_at, "--pack", "1")) == -signal.SIGKILL
    name, steps = furthest(session)
    assert name == "trial-0000"
    if drawn_between:
        Tracker(session.home, session.name, session.ledger).show()
    assert ended(start(server, session, None, "--pack", "1")) == 0

    check_agrees(session, TRIALS)
    assert results(session) == uninterrupted[0]
    assert digests(session) == uninterrupted[1]
    trial = next(view for view in session.ledger.trials(session.name) if view.number == 0)
    assert (trial.attempts, trial.attempt) == (2, 2)
    killed, resumed = curve(session, trial.place_id, 1), curve(session, trial.place_id, 2)
    assert {evaluation for evaluation, _ in resumed} == set(range(1, EPOCHS + 1))
    adopted = {key: row for key, row in resumed.items() if key[0] <= evaluations}
    assert {row.step for row in adopted.values() if row.evaluation == evaluations} == {steps}
    # What came before the checkpoint was not done again: it is the first attempt's, with its times.
    for key, row in adopted.items():
        assert (row.value, row.time, row.step, row.epoch) == (
            killed[key].value,
            killed[key].time,
            killed[key].step,
            killed[key].epoch,
        )
    last = max(row.time for row in killed.values())
    assert all(row.time >= last for key, row in resumed.items() if key not in adopted)

    Tracker(session.home, session.name, session.ledger).show()
    drawn = picture_of(session.home.tracking_uri, session.name)[name]["curves"]["objective"]
    once = {step: (value, time) for step, value, time in drawn}
    assert set(once) == set(range(1, EPOCHS + 1))
    # An evaluation that was recorded after the checkpoint was made again, to the same value.
    again = sum(key == "objective" and number > evaluations for number, key in killed)
    assert len(drawn) == EPOCHS + again and again <= 1
    assert len({(step, value) for step, value, _ in drawn}) == EPOCHS
    assert once == {
        number: (row.value, round(row.time * 1000))
        for (number, key), row in resumed.items()
        if key == "objective"
    }


def test_trials_of_a_killed_pack_each_go_on_from_their_own_checkpoint(
    tmp_path: Path,
    server: multiprocessing.context.ForkServerContext,
) -> None:
    write_study(tmp_path, **{**OVERRIDES, "train": {"epochs": EPOCHS, "dtype": "float64"}})
    whole, killed = begin(tmp_path, tmp_path / "whole"), begin(tmp_path, tmp_path / "killed")
    assert ended(start(server, whole)) == 0
    # Their epochs are equal: each has its first checkpoint before any has its second.
    code = ended(start(server, killed, f"after_checkpoint:{TRIALS + 2}", "--pack", "3"))
    assert code == -signal.SIGKILL
    assert len(list((killed.home.checkpoints / killed.name).glob("*/"))) == TRIALS + 1
    assert ended(start(server, killed, None, "--pack", "2")) == 0
    check_agrees(killed, TRIALS)
    for view in killed.ledger.trials(killed.name):
        first, second = (curve(killed, view.place_id, attempt) for attempt in (1, 2))
        same = [key for key, row in second.items() if key in first and first[key].time == row.time]
        adopted = {number for number, _ in same}
        assert view.attempt == 2 and 1 in adopted
    for one, other in zip(*(session.ledger.trials(session.name) for session in (whole, killed)), strict=True):
        assert (one.number, one.state, one.params) == (other.number, other.state, other.params)
        assert one.metrics == pytest.approx(other.metrics, rel=1e-9)
