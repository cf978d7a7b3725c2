"""Trials that stop anywhere and go on elsewhere: the same bits, whole files or none."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapters import AdapterConfig
from adapters.pack import Pack
from sweeper.checkpoint import CheckpointWriter, Found, drop_checkpoints, read_checkpoint, write_checkpoint
from sweeper.events import Event, Finished, HandedBack, Stepped
from sweeper.ledger import Claim
from sweeper.slot import Job, SlotState
from sweeper.train import train
from tests.tiny_models import tiny_model
from tests.unit.sweeper.test_train import CONFIG, DATA, PROBLEM, job, supply

DROPOUT = AdapterConfig(bottleneck_dim=8, dropout=0.2)
KEEP_BEST = replace(CONFIG, keep="best", learning_rate=3e-2, schedule="cosine", evaluations_per_epoch=2)


def claim(attempt: int = 1, **changes: object) -> Claim:
    fields = {"study": "films", "place_id": 0, "kind": "search", "label": None, "trial_number": 7, **changes}
    return Claim(token="t", attempt=attempt, lease_seconds=60.0, **fields)  # type: ignore[arg-type]


def run(one: Job, stop_after: int | None = None, slots: int = 1) -> Event:
    """The last event of a trial: its end, or where it was handed back after so many steps of the loop."""
    steps = 0
    last: Event | None = None
    for event in train(Pack(tiny_model("bert"), slots), DATA, PROBLEM, supply(one), device="cpu"):
        if isinstance(event, Stepped):
            steps += 1
            event.stop = steps == stop_after
        else:
            last = event
    assert last is not None
    return last


def weights(event: Event) -> list[torch.Tensor]:
    assert isinstance(event, Finished)
    adapter = list(event.adapter.parameters()) if event.adapter is not None else []
    return [*adapter, *event.head.parameters()]


@pytest.mark.parametrize("stop_after", [1, 7, 8, 9, 10, 20, 26])
@pytest.mark.parametrize(
    "one",
    [job(adapter=DROPOUT), job(adapter=DROPOUT, train=KEEP_BEST), job(adapter=None)],
    ids=["dropout", "best", "head"],
)
def test_a_trial_goes_on_to_the_same_bits(one: Job, stop_after: int, tmp_path: Path) -> None:
    whole = run(one)
    stopped = run(one, stop_after)
    assert isinstance(stopped, HandedBack)
    write_checkpoint(tmp_path, claim(), one, stopped.state)
    found = read_checkpoint(tmp_path, claim(2), one)
    assert found is not None and found.attempt == 1
    resumed = run(replace(one, attempt=2, state=found.state))
    assert isinstance(whole, Finished) and isinstance(resumed, Finished)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    measured = ("validation/loss", "train/loss", "accuracy", "learning_rate")
    assert [whole.metrics[key] for key in measured] == [resumed.metrics[key] for key in measured]
    assert (whole.evaluation, whole.step) == (resumed.evaluation, resumed.step)


def state(step: int) -> SlotState:
    return SlotState({"w": torch.full((3,), float(step))}, {"step": step})


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[Path]]:
    return tmp_path, [write_checkpoint(tmp_path, claim(), job(), state(step)) for step in (10, 20, 30)]


def found_step(found: Found | None) -> int | None:
    return None if found is None else found.state.numbers["step"]


def test_the_newest_two_are_kept(written: tuple[Path, list[Path]]) -> None:
    root, paths = written
    assert [path.exists() for path in paths] == [False, True, True]
    assert found_step(read_checkpoint(root, claim(2), job())) == 30


@pytest.mark.parametrize(
    "tear",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:100] + b"x" + path.read_bytes()[101:]),
        lambda path: path.unlink(),
    ],
)
def test_a_torn_one_is_passed_over_for_an_older_one(
    tear: Callable[[Path], object], written: tuple[Path, list[Path]]
) -> None:
    root, paths = written
    tear(paths[2])
    assert found_step(read_checkpoint(root, claim(2), job())) == 20
    tear(paths[1])
    assert read_checkpoint(root, claim(2), job()) is None


def test_another_configuration_is_never_taken(
    written: tuple[Path, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = written
    assert read_checkpoint(root, claim(2), job(seed=12)) is None
    assert "another configuration" in capsys.readouterr().err


def test_the_furthest_attempt_counts_and_none_of_the_future(written: tuple[Path, list[Path]]) -> None:
    root, _ = written
    write_checkpoint(root, claim(2), job(), state(5))
    found = read_checkpoint(root, claim(3), job())
    assert found is not None and (found_step(found), found.attempt) == (30, 1)
    assert read_checkpoint(root, claim(1), job()) is None
    assert read_checkpoint(root, claim(3, trial_number=8), job()) is None
    drop_checkpoints(root, claim(3))
    assert read_checkpoint(root, claim(3), job()) is None


def test_a_disk_without_room_costs_the_checkpoint_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "films").write_text("a file where the folder should be")
    with CheckpointWriter(tmp_path) as writer:
        writer.write(claim(), job(), state(1))
        writer.flush()
        (tmp_path / "films").unlink()
        writer.write(claim(), job(), state(2))
        writer.flush()
    assert "no checkpoint of trial-0007" in capsys.readouterr().err
    assert found_step(read_checkpoint(tmp_path, claim(2), job())) == 2


def test_whatever_goes_wrong_nobody_waits_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: object, **__: object) -> bytes:
        raise MemoryError("no room")

    monkeypatch.setattr("sweeper.checkpoint.save", exhausted)
    with CheckpointWriter(tmp_path) as writer:
        writer.write(claim(), job(), state(1))
        writer.flush()
    assert "no checkpoint of trial-0007: no room" in capsys.readouterr().err


def test_nobody_waits_for_ever_where_nothing_can_be_said_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log beside the checkpoints, on the same full disk."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "films").write_text("a file where the folder should be")
    monkeypatch.setattr("sys.stderr", Full())
    with CheckpointWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(claim(), job(), state(step))
        writer.flush()


def test_a_state_that_does_not_fit_lets_the_trial_begin_again(capsys: pytest.CaptureFixture[str]) -> None:
    one = job(adapter=DROPOUT)
    stopped = run(one, 5)
    assert isinstance(stopped, HandedBack)
    tensors = {**stopped.state.tensors, "dropout": torch.zeros(16, dtype=torch.uint8)}  # as CUDA has it
    resumed = run(replace(one, attempt=2, state=SlotState(tensors, stopped.state.numbers)))
    assert "begins again" in capsys.readouterr().err
    assert all(torch.equal(a, b) for a, b in zip(weights(run(one)), weights(resumed), strict=True))


def test_of_another_study_none_is_taken(written: tuple[Path, list[Path]]) -> None:
    assert read_checkpoint(written[0], claim(2), job(study="other data")) is None
