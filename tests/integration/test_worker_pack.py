"""Workers that train several trials at once: the same study, and what happens when a pack does not fit."""

from __future__ import annotations

import threading
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch

import sweeper.train
from adapters.pack import Pack
from sweeper.control import stop_study
from sweeper.errors import SweeperError
from sweeper.events import Event, Exhausted, Failed, Finished, Stepped
from sweeper.home import Home
from sweeper.ledger import this_worker
from sweeper.session import Session, open_study
from sweeper.slot import Job, Problem, Slot
from sweeper.study import load_study
from sweeper.worker import Options, work
from tests.agreement import check_agrees
from tests.integration.test_worker import begin, folder, parts, run
from tests.tiny_folder import write_study

__all__ = ["folder", "parts"]

TRIALS = 6
OVERRIDES: dict[str, Any] = {
    "budget": {"trials": TRIALS},
    "sampler": "random",
    "pruner": "none",
    "train": {"epochs": 3, "dtype": "float64"},
}


def results(session: Session) -> list[tuple[Any, ...]]:
    return [(v.label, v.number, v.state, v.params) for v in session.ledger.trials(session.name)]


def test_a_study_comes_to_the_same_whatever_its_packs(folder: Path) -> None:
    packed = begin(folder, **OVERRIDES)
    alone = open_study(
        load_study(write_study(folder, **OVERRIDES)),
        Home.from_environment({"SWEEPER_HOME": str(folder / "alone")}),
    )
    most: dict[str, int] = {}
    for session, pack in ((packed, 3), (alone, 1)):
        events: list[Event] = []
        run(session, on_event=events.append, pack=pack)
        most[session.home.root.name] = max(event.slots for event in events if isinstance(event, Stepped))
        check_agrees(session, TRIALS)
        assert all(view.state == "complete" for view in session.ledger.trials("tiny"))
    assert most == {"sweeps": 3, "alone": 1}
    assert results(packed) == results(alone)
    for one, other in zip(packed.ledger.trials("tiny"), alone.ledger.trials("tiny"), strict=True):
        assert one.metrics == pytest.approx(other.metrics, rel=1e-9)


def test_a_pack_trains_no_configuration_twice_and_ends(folder: Path) -> None:
    session = begin(folder, **OVERRIDES, search={"bottleneck_dim": [2, 4], "learning_rate": 0.001})
    run(session, pack=3)
    views = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    trained = {str(view.params): view for view in views if view.reason is None}
    assert len(trained) == len([view for view in views if view.reason is None]) == 2
    for view in views:
        source = trained[str(view.params)]
        assert view.reason in (None, f"repeat of trial {source.number}")
        assert (view.state, view.objective, view.files) == ("complete", source.objective, source.files)
    check_agrees(session, TRIALS)


def no_room_for(slots: int, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """A device whose memory does not do for steps of so many trials, from some step on."""
    real, calls = sweeper.train.forward_head, 0

    def forward_head(pack: Pack, parts: list, pooling: str) -> list[torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls > after and len(parts) >= slots:
            raise torch.OutOfMemoryError("no room")
        return real(pack, parts, pooling)

    monkeypatch.setattr(sweeper.train, "forward_head", forward_head)


def test_a_pack_without_room_steps_down_and_no_trial_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, **OVERRIDES)
    no_room_for(2, monkeypatch)
    events: list[Event] = []
    run(session, on_event=events.append, pack=4)
    exhausted = [len(event.jobs) for event in events if isinstance(event, Exhausted)]
    assert exhausted == [4, 2]
    assert not any(isinstance(event, Failed) for event in events)
    assert all(view.state == "complete" for view in session.ledger.trials("tiny"))
    assert session.row.ended_because == f"all {TRIALS} trials are done"
    check_agrees(session, TRIALS)


def test_after_a_device_failed_each_trial_is_trained_alone_and_the_culprit_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, **OVERRIDES)
    real = sweeper.train.step

    def step(pack: Pack, slots: list[Slot], problem: Problem) -> list[float]:
        if any(slot.job.number == 1 for slot in slots):
            raise torch.AcceleratorError("device-side assert")
        return real(pack, slots, problem)

    monkeypatch.setattr(sweeper.train, "step", step)
    said: list[str] = []
    while session.row.ended_at is None:
        try:
            run(session, pack=3)
        except SweeperError as error:
            said.append(str(error))
    check_agrees(session, TRIALS)
    views = {view.number: view for view in session.ledger.trials("tiny") if view.kind == "search"}
    assert [views[number].state for number in range(TRIALS)] == ["complete", "failed", *["complete"] * 4]
    assert views[1].reason == "AcceleratorError: device-side assert"
    assert said == ["the device failed: AcceleratorError: device-side assert"] * 3  # once packed, twice alone


def test_trials_of_a_pack_that_no_longer_fits_go_on_from_their_checkpoints(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, **OVERRIDES)
    # Three steps an epoch: at the fifth step, each of the three has one evaluation behind it.
    no_room_for(2, monkeypatch, after=4)
    run(session, pack=3)
    check_agrees(session, TRIALS)
    views = [view for view in session.ledger.trials("tiny") if view.attempts > 1]
    assert len(views) == 3
    for view in views:
        rows = session.ledger.metric_rows(view.place_id)
        assert [r.evaluation for r in rows if r.attempt == 1 and r.key == "objective"] == [1]
        counts = {r.evaluation: r.time for r in rows if r.attempt == 2 and r.key == "objective"}
        assert list(counts) == [1, 2, 3]
        assert counts[1] == next(r.time for r in rows if r.attempt == 1)


def test_a_trial_without_room_for_itself_fails_until_the_budget_of_failures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, **{**OVERRIDES, "budget": {"trials": TRIALS, "failures": 2}})
    no_room_for(1, monkeypatch)
    run(session, pack=2)
    trials = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    failed = [view for view in trials if view.state == "failed"]
    assert len(failed) == 2 and {view.reason for view in failed} == {"OutOfMemoryError: no room"}
    assert {view.state for view in trials} == {"failed", "waiting"}
    assert session.row.ended_because == "2 trials failed, and budget.failures is 2"


def test_a_worker_that_stalls_may_take_its_own_trials_again(folder: Path) -> None:
    session = begin(folder, **{**OVERRIDES, "budget": {"trials": 3}})
    stalled = False

    def stall_once(event: Event) -> None:
        nonlocal stalled
        if isinstance(event, Stepped) and event.slots >= 3 and not stalled:
            stalled = True
            sleep(3.0)  # longer than the leases: all its trials are free
            assert session.ledger.expire("tiny") >= 3

    run(session, on_event=stall_once, pack=8, lease_seconds=1.0)
    assert stalled
    check_agrees(session, 3)
    views = session.ledger.trials("tiny")
    assert all(view.state == "complete" for view in views)
    assert max(view.attempts for view in views) > 1


def test_a_trial_over_which_a_worker_died_is_trained_alone(folder: Path) -> None:
    session = begin(folder, **{**OVERRIDES, "budget": {"trials": 3}})
    lost = session.ledger.reserve("tiny", this_worker("cpu"), lease_seconds=0.0)
    assert lost is not None
    together: set[tuple[int, ...]] = set()
    running: dict[int, Job] = {}

    def watch(event: Event) -> None:
        if isinstance(event, Stepped):
            together.add(tuple(sorted(running)))
        elif isinstance(event, Finished):
            running.pop(event.job.place_id)

    work(
        session,
        Options("cpu", pack=3),
        threading.Event(),
        on_begin=lambda job: running.update({job.place_id: job}),
        on_event=watch,
    )
    check_agrees(session, 3)
    with_it = {places for places in together if lost.place_id in places}
    assert with_it == {(lost.place_id,)}
    assert max(len(places) for places in together) == 3


def test_what_waits_to_be_confirmed_alone_waits_whatever_became_of_its_study(folder: Path) -> None:
    session = begin(
        folder,
        search={"method": "prefix", "prefix_length": [2, 3]},
        budget={"trials": 1},
        train={"epochs": 12},
    )
    stop_study(session.ledger, "tiny")
    params = {"prefix_length": 2}
    session.ledger.confirm(
        "tiny", [("confirm", "confirm-head-1", params), ("confirm", "confirm-0000-1", params)]
    )
    # The study's word is read 30 times a lease, while the head trains and the prefix waits for it.
    run(session, pack=2, lease_seconds=2.0, confirm=True)
    found = {view.label: (view.state, view.attempts) for view in session.ledger.confirmations("tiny")}
    assert found == {"confirm-head-1": ("complete", 1), "confirm-0000-1": ("complete", 1)}
