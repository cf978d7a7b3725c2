"""Workers on a real tiny study: outcomes, budgets, limits, repeats, and going on after an interruption."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from sweeper.check import check_study
from sweeper.engine.coordinator import Ending, Moment
from sweeper.engine.crew import WorkerOptions
from sweeper.engine.forkserver import started
from sweeper.engine.local import run_workers
from sweeper.errors import SweeperError, UnreachableError, UsageError
from sweeper.events import Evaluated, Event, Progress
from sweeper.home import Home
from sweeper.ledger import Ledger, WorkerIdentity
from sweeper.session import Session, join_study, open_study
from sweeper.slot import Slot
from sweeper.slotstate import SlotState
from sweeper.study import load_study
from sweeper.task import measure
from sweeper.worker import Options, work
from sweeper.worker import rounds as worker_module
from tests.agreement import check_agrees, optuna_trials
from tests.faults.processes import digests, results
from tests.fork_server import fork_server
from tests.tiny_folder import make_backbone, make_data, write_study


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone and data that all studies here share."""
    folder = tmp_path_factory.mktemp("parts")
    make_backbone(folder / "backbone")
    make_data(folder / "data", (48, 16, 16))
    return folder


@pytest.fixture
def folder(tmp_path: Path, parts: Path) -> Path:
    """A folder for a study file, with the shared backbone and data copied into it."""
    for name in ("backbone", "data"):
        shutil.copytree(parts / name, tmp_path / name)
    return tmp_path


def home_of(folder: Path) -> Home:
    return Home.from_environment({"SWEEPER_HOME": str(folder / "sweeps")})


def begin(folder: Path, **overrides: Any) -> Session:
    return open_study(load_study(write_study(folder, **overrides)), home_of(folder))


def run(session: Session, on_event: Callable[[Event], None] | None = None, **options: Any) -> None:
    work(session, Options("cpu", **options), threading.Event(), on_event=on_event)


def test_a_study_runs_its_trials_and_its_reference(folder: Path) -> None:
    session = begin(folder, budget={"trials": 3})
    events: list[Event] = []
    run(session, on_event=events.append)
    head, *trials = session.ledger.trials("tiny")
    assert (head.label, head.number, head.state, head.adapter_parameters) == (
        "reference-head",
        None,
        "complete",
        0,
    )
    assert [path.split("/")[1:] for path in head.files] == [
        ["reference-head", "attempt-1", "head.safetensors"]
    ]
    assert [view.number for view in trials] == [0, 1, 2]
    assert all(view.state == "complete" and view.attempts == 1 for view in trials)
    assert all(len(view.files) == 2 for view in trials)
    default = {
        "bottleneck_dim": 2,
        "activation": "relu",
        "initialization": "zero_up",
        "placement": "pfeiffer",
    }
    assert default.items() <= trials[0].params.items()
    rows = session.ledger.metric_rows(trials[0].place_id)
    keys = {row.key for row in rows}
    assert {"objective", "accuracy", "train/loss", "validation/loss", "learning_rate"} <= keys
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= keys
    assert {row.evaluation for row in rows} == {1, 2}
    assert session.ledger.status("tiny")["ended_because"] == "all 3 trials are done"
    check_agrees(session, 3)
    assert any(isinstance(event, Evaluated) for event in events)
    run(session)
    assert len(optuna_trials(session)) == 3


def test_results_do_not_depend_on_where_the_study_was_interrupted(folder: Path) -> None:
    overrides = {"budget": {"trials": 3}, "sampler": "random", "train": {"epochs": 4}}
    whole = begin(folder, **overrides)
    run(whole)
    interrupted = open_study(
        load_study(write_study(folder, **overrides)),
        Home.from_environment({"SWEEPER_HOME": str(folder / "other")}),
    )
    for stop_after in (2, 3, 5):
        stop, seen = threading.Event(), 0

        def count(event: Event, stop: threading.Event = stop, stop_after: int = stop_after) -> None:
            nonlocal seen
            seen += isinstance(event, Evaluated)
            if seen == stop_after - 1:
                stop.set()

        work(interrupted, Options("cpu"), stop, on_event=count)
        assert interrupted.row.ended_at is None
    run(interrupted)
    check_agrees(interrupted, 3)

    def results(session: Session) -> list[tuple[Any, ...]]:
        return [(v.number, v.params, v.objective, v.metrics) for v in session.ledger.trials("tiny")]

    assert results(interrupted) == results(whole)
    assert max(view.attempts for view in interrupted.ledger.trials("tiny")) > 1


def test_a_trial_whose_checkpoint_is_of_no_use_here_begins_again_with_its_curve(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, budget={"trials": 1}, train={"epochs": 4})
    stop, at = threading.Event(), 3

    def stop_there(event: Event) -> None:
        if isinstance(event, Evaluated) and (event.job.number, event.evaluation) == (0, at):
            stop.set()

    work(session, Options("cpu"), stop, on_event=stop_there)
    [_, trial] = session.ledger.trials("tiny")
    first = session.ledger.curves("tiny")[trial.place_id]
    assert trial.state == "waiting" and len(first) == at

    def useless(slot: Slot, state: SlotState) -> None:
        raise RuntimeError("the generator is of another device")

    monkeypatch.setattr("sweeper.train.restore", useless)
    lengths = []

    def note(event: Event) -> None:
        if isinstance(event, Evaluated) and event.job.number == 0:
            lengths.append((event.evaluation, len(session.ledger.curves("tiny")[trial.place_id])))

    run(session, on_event=note)
    assert lengths == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert session.ledger.curves("tiny")[trial.place_id][:at] == first
    check_agrees(session, 1)


def test_what_a_worker_keeps_of_the_backbone_changes_no_bit(folder: Path) -> None:
    """It is computed by all cores, where there are several; with what is trained next, by one."""
    search = {
        "bottleneck_dim": [2, 8],
        "layers": [[1], "upper_half", "all"],
        "placement": ["pfeiffer", "attention"],
    }
    overrides: dict[str, Any] = {"budget": {"trials": 4}, "search": search, "sampler": "random"}
    found = []
    for name, cache_bytes in (("kept", None), ("bare", 0)):
        home = Home.from_environment({"SWEEPER_HOME": str(folder / name)})
        session = open_study(load_study(write_study(folder, **overrides)), home)
        run(session, cache_bytes=cache_bytes)
        assert bool(list((home.cache / "frozen").rglob("*.safetensors"))) == (cache_bytes is None)
        found.append((results(session), digests(session)))
    assert found[0] == found[1]


def test_between_rungs_nobody_asks_what_the_others_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = {"name": "successive_halving", "minimum": 2, "reduction_factor": 2}
    session = begin(folder, budget={"trials": 3}, train={"epochs": 4}, pruner=pruner)
    asked: list[int] = []
    read = Ledger.curves

    def curves(ledger: Ledger, study: str) -> Any:
        found = read(ledger, study)
        asked.append(max(map(len, found.values())))
        return found

    monkeypatch.setattr(Ledger, "curves", curves)
    run(session)
    assert len(asked) == 2  # of three trials, the first of which is the default
    assert [view.state for view in session.ledger.trials("tiny")][:2] == ["complete", "complete"]


def test_a_handed_back_trial_is_free_at_once(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1}, train={"epochs": 40})
    stop = threading.Event()
    work(
        session,
        Options("cpu"),
        stop,
        on_event=lambda event: stop.set() if isinstance(event, Progress) else None,
    )
    [_, trial] = session.ledger.trials("tiny")
    assert (trial.state, trial.number, trial.attempts) == ("waiting", 0, 1)


def test_a_grown_budget_goes_on_and_a_changed_file_is_refused(folder: Path) -> None:
    run(begin(folder, budget={"trials": 2}))
    session = begin(folder, budget={"trials": 3})
    assert session.row.ended_at is None
    run(session)
    check_agrees(session, 3)
    path = write_study(folder, budget={"trials": 3}, train={"epochs": 5})
    with pytest.raises(UsageError, match=r"train\.epochs was 2, is 5") as caught:
        open_study(load_study(path), home_of(folder))
    assert caught.value.file == str(path) and caught.value.line is not None
    with pytest.raises(UsageError, match=r"budget\.trials was 3, is 2"):
        begin(folder, budget={"trials": 2})


def test_changed_data_or_backbone_is_refused(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1})
    data = folder / "data" / "train.tsv"
    before = data.read_text()
    data.write_text(before.replace("funny", "clumsy"))
    for again in (lambda: begin(folder, budget={"trials": 1}), lambda: run(join_study("tiny", session.home))):
        with pytest.raises(UsageError, match="the data or the tokenizer has changed"):
            again()
    data.write_text(before)
    make_backbone(folder / "backbone", seed=1)
    with pytest.raises(UsageError, match="the backbone has changed"):
        begin(folder, budget={"trials": 1})


def test_a_wrong_study_leaves_no_store(folder: Path) -> None:
    (folder / "data" / "train.tsv").write_text("sentence\tlabel\n")
    with pytest.raises(UsageError):
        begin(folder)
    assert not (folder / "sweeps" / "store.db").exists()


def test_a_store_with_a_study_of_another_name_is_shared(folder: Path) -> None:
    begin(folder, budget={"trials": 1})
    second = begin(folder, study="second", budget={"trials": 1})
    assert second.ledger.studies() == ["tiny", "second"]
    run(second)
    check_agrees(second, 1)
    with pytest.raises(UsageError, match="has no study 'third'"):
        join_study("third", second.home)


def test_trials_that_raise_fail_and_end_the_study_at_their_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, budget={"trials": 6, "failures": 2})
    import sweeper.slot

    build = sweeper.slot.adapters.build
    built = 0

    def fail_from_the_second(*arguments: Any) -> Any:
        nonlocal built
        built += 1
        if built > 1:
            raise RuntimeError("no room for this adapter\nand a second line")
        return build(*arguments)

    monkeypatch.setattr(sweeper.slot.adapters, "build", fail_from_the_second)
    run(session)
    states = [(view.state, view.reason) for view in session.ledger.trials("tiny") if view.kind == "search"]
    assert states[:3] == [("complete", None), *[("failed", "RuntimeError: no room for this adapter")] * 2]
    assert [state for state, _ in states[3:]] == ["waiting"] * 3
    status = session.ledger.status("tiny")
    assert (status["state"], status["ended_because"]) == (
        "ended",
        "2 trials failed, and budget.failures is 2",
    )
    assert status["best"]["number"] == 0
    assert [trial.state for trial in optuna_trials(session)] == [
        TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL,
    ]  # fmt: skip
    run(session)
    assert len(optuna_trials(session)) == 3
    again = begin(folder, budget={"trials": 6, "failures": 4})
    monkeypatch.setattr(sweeper.slot.adapters, "build", build)
    run(again)
    check_agrees(again, 6)


def test_a_retry_of_the_default_configuration_is_never_pruned(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the others are measured against is whole, by whichever number."""
    import sweeper.slot

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("no room for this adapter")

    given: dict[str, Any] = {"train": {"epochs": 3}, "pruner": "successive_halving"}
    session = begin(folder, budget={"trials": 1}, **given)
    with monkeypatch.context() as patched:
        patched.setattr(sweeper.slot.adapters, "build", fail)
        run(session)
    first = next(view for view in session.ledger.trials("tiny") if view.number == 0)
    assert first.state == "failed" and session.ledger.retry("tiny", [first.place_id])
    monkeypatch.setattr(worker_module.Rounds, "_is_pruned", lambda *arguments: True)
    again = begin(folder, budget={"trials": 3}, **given)
    run(again)
    trials = [view for view in again.ledger.trials("tiny") if view.kind == "search"]
    retries = [view.state for view in trials if view.retry_of == 0]
    others = [view.state for view in trials if view.retry_of is None and view.number != 0]
    assert retries == ["complete"] and others == ["pruned", "pruned"]


def test_a_trial_that_diverges_is_pruned_and_never_best(folder: Path) -> None:
    data = yaml.safe_load(write_study(folder, budget={"trials": 2}).read_text())
    session = begin(
        folder, budget={"trials": 2}, search={**data["search"], "learning_rate": [1.0e-3, 1.0e30]}
    )
    for view in session.ledger.trials("tiny"):
        assert view.state == "waiting"
    with session.ledger.database.engine.begin() as connection:
        # The second place is given what makes it diverge, as `enqueue` would.
        fixed = json.dumps({"learning_rate": 1.0e30})
        connection.exec_driver_sql(f"UPDATE places SET fixed_params = '{fixed}' WHERE position = 2")
    run(session)
    trials = {view.number: view for view in session.ledger.trials("tiny")}
    assert (trials[1].state, trials[1].reason, trials[1].files) == ("pruned", "diverged", {})
    assert trials[1].objective is None
    assert session.ledger.status("tiny")["best"]["number"] == 0
    check_agrees(session, 2)


def test_a_further_objective_that_stops_being_finite_ends_its_trial_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(folder / "data", (48, 16, 16), "regression")
    objective = [{"metric": name} for name in ("mean_squared_error", "pearson", "trainable_parameters")]
    path = write_study(folder, "regression", budget={"trials": 2}, objective=objective)
    session = open_study(load_study(path), home_of(folder))
    measured: list[float] = []

    def constant_once(*arguments: Any) -> dict[str, float]:
        """As of a trial that predicts the same for every row: the last one, at its second evaluation."""
        found = measure(*arguments)
        measured.append(found["pearson"])
        return {**found, "pearson": math.nan} if len(measured) == 6 else found

    monkeypatch.setattr("sweeper.train.measure", constant_once)
    run(session, pack=1)
    views = session.ledger.trials("tiny")
    outcomes = [(view.number, view.state, view.reason) for view in views]
    assert outcomes == [(None, "complete", None), (0, "complete", None), (1, "pruned", "diverged")]
    assert views[2].metrics["pearson"] == measured[4] and views[2].files == {}
    told = optuna_trials(session)[1]
    assert told.state == TrialState.PRUNED and views[2].objectives is not None
    assert told.values == list(views[2].objectives.values())


def test_pruned_trials_are_told_with_their_last_value(folder: Path) -> None:
    pruner = {"name": "successive_halving", "minimum": 1, "reduction_factor": 4}
    session = begin(
        folder,
        budget={"trials": 6},
        train={"epochs": 3},
        pruner=pruner,
        objective={"metric": "loss", "direction": "minimize"},
    )
    run(session)
    pruned = [view for view in session.ledger.trials("tiny") if view.state == "pruned"]
    assert pruned and all(view.reason == "pruner" for view in pruned)
    told = {trial.number: trial for trial in optuna_trials(session)}
    for view in pruned:
        assert view.number is not None
        assert told[view.number].value == view.objective == view.metrics["loss"]
        assert len(view.files) == 2
    check_agrees(session, 6)


def test_configurations_past_the_limits_are_never_trained(folder: Path) -> None:
    session = begin(folder, budget={"trials": 4}, limits={"trainable_parameters": 900}, sampler="random")
    run(session)
    views = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    assert all(view.state == "complete" and view.trainable_parameters <= 900 for view in views)
    assert all(view.attempts == 1 for view in views)
    refused = [trial for trial in optuna_trials(session) if trial.user_attrs.get("past_limits")]
    assert refused and all(trial.state == TrialState.PRUNED for trial in refused)
    assert all(trial.constraints["trainable_parameters"] > 0 for trial in refused)
    check_agrees(session, 4)


def test_a_hundred_past_the_limits_in_a_row_end_the_study(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.worker.ending.PAST_LIMITS_IN_A_ROW", 7)
    for check in ("check_space", "check_head"):
        monkeypatch.setattr(f"sweeper.corners.{check}", lambda *arguments: None)
    session = begin(folder, budget={"trials": 4}, limits={"trainable_parameters": 10}, sampler="random")
    run(session)
    because = "7 configurations in a row were past the limits"
    assert session.ledger.status("tiny")["ended_because"] == because
    assert len(optuna_trials(session)) == 7
    [head] = [view for view in session.ledger.trials("tiny") if view.kind == "reference"]
    assert head.state == "complete"


def test_equal_configurations_are_trained_once_unless_repeats_are_wanted(folder: Path) -> None:
    search = {"bottleneck_dim": [2, 4], "learning_rate": 0.001}
    session = begin(folder, budget={"trials": 5}, search=search, sampler="random")
    run(session)
    views = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    trained = [view for view in views if view.reason is None]
    assert len(trained) == 2 and len(views) == 5
    for view in views:
        source = next(t for t in trained if t.params == view.params)
        assert (view.objective, view.files) == (source.objective, source.files)
        assert view.reason in (None, f"repeat of trial {source.number}")
    check_agrees(session, 5)
    again = begin(
        folder, study="again", budget={"trials": 3, "repeats": True}, search=search, sampler="random"
    )
    run(again)
    assert all(view.reason is None for view in again.ledger.trials("again"))


def test_the_hours_of_the_budget_end_the_study(folder: Path) -> None:
    session = begin(folder, budget={"trials": 50, "hours": 1.0e-7})
    run(session)
    status = session.ledger.status("tiny")
    assert status["ended_because"] == "the 1e-07-hour budget is used up"
    assert status["trials"]["complete"] == 1 and status["trials"]["waiting"] == 49


def test_a_worker_that_lost_its_lease_writes_nothing(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1})
    thief = WorkerIdentity("thief", "elsewhere", 1, 0.0, "cpu")
    stolen = []

    def steal(event: Event) -> None:
        if isinstance(event, Evaluated) and event.job.number == 0 and not stolen:
            [row] = session.ledger.database.read(worker_rows, event.job.place_id)
            session.ledger.database.write(lose, event.job.place_id, row.token)
            claim = session.ledger.reserve("tiny", thief)
            assert claim is not None and claim.attempt == 2
            stolen.append(claim)
            session.ledger.release(claim)

    from sqlalchemy import select

    from sweeper.ledger.failing import lose as lose_place
    from sweeper.ledger.schema import places

    def worker_rows(connection: Any, place_id: int) -> Any:
        return connection.execute(select(places.c.token).where(places.c.id == place_id)).all()

    def lose(connection: Any, place_id: int, token: str) -> None:
        lose_place(connection, place_id, token, "lost")

    run(session, on_event=steal)
    view = next(view for view in session.ledger.trials("tiny") if view.number == 0)
    assert stolen and view.attempts == 3 and view.state == "complete"
    assert {path.split("/")[2] for path in view.files} == {"attempt-3"}
    check_agrees(session, 1)


def test_an_artifact_folder_that_is_full_ends_the_worker_and_costs_no_trial(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, budget={"trials": 2})

    def full(*arguments: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(worker_module, "write_weights", full)
        with pytest.raises(UnreachableError, match=r"No space left on device\. Make room in .*artifacts"):
            run(session, pack=2)
    assert {view.state for view in session.ledger.trials("tiny")} == {"waiting"}
    assert session.row.ended_at is None
    run(session)
    views = session.ledger.trials("tiny")
    assert [view.state for view in views] == ["complete"] * 3 and views[1].attempts == 2
    check_agrees(session, 2)


def test_a_dtype_that_the_device_cannot_compute_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, budget={"trials": 1})
    monkeypatch.setattr("sweeper.device.supports", lambda dtype, device: False)
    with pytest.raises(UsageError, match="which cpu cannot"):
        run(session)


def test_check_of_a_study_that_has_begun_is_in_the_dtype_that_it_began_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, budget={"trials": 1}, train={"dtype": "auto"})
    monkeypatch.setenv("SWEEPER_HOME", str(session.home.root))
    other = "float32" if session.row.dtype == "bfloat16" else "bfloat16"
    monkeypatch.setattr("sweeper.device.measure_dtype", lambda device: other)
    checked = check_study(folder / "study.yaml", measure=False, device="cpu")
    assert checked["dtype"] == session.row.dtype
    monkeypatch.setattr("sweeper.device.supports", lambda dtype, device: False)
    with pytest.raises(UsageError, match="which cpu cannot"):
        check_study(folder / "study.yaml", measure=False, device="cpu")


@contextlib.contextmanager
def environment(home: Home) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(home.environment())
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def follow(session: Session, on_moment: Any = None, is_forked: bool = True, **options: Any) -> Ending:
    """Coordinate a study in this process; its workers are forked, or begin from nothing."""
    with (
        started(fork_server()) if is_forked else contextlib.nullcontext() as server,
        environment(session.home),
    ):
        moments = run_workers(session, ["cpu"], server=server, poll_seconds=0.1, **options)
        while True:
            try:
                moment = next(moments)
            except StopIteration as end:
                return end.value
            if on_moment is not None:
                on_moment(moment)


def test_the_coordinator_hands_back_at_the_first_signal_and_goes_on(folder: Path) -> None:
    session = begin(folder, budget={"trials": 3}, train={"epochs": 6})
    shown: list[int] = []

    def interrupt_once(moment: Moment) -> None:
        if not moment.stopping and any(view.state == "running" for view in moment.trials):
            signal.raise_signal(signal.SIGINT)

    ending = follow(session, interrupt_once, show=lambda: shown.append(1))
    assert ending == Ending(interrupted=True, not_shown=None) and shown
    assert session.row.ended_at is None
    assert all(view.state != "running" for view in session.ledger.trials("tiny"))
    moments: list[Moment] = []
    assert follow(session, moments.append) == Ending(interrupted=False, not_shown=None)
    assert moments[-1].workers == 0 and session.row.ended_at is not None
    check_agrees(session, 3)
    assert follow(session) == Ending(interrupted=False, not_shown=None)


def test_the_coordinator_kills_at_the_second_signal_and_frees_the_trials(folder: Path) -> None:
    session = begin(folder, budget={"trials": 2}, train={"epochs": 400, "batch_size": 1})

    def insist(moment: Moment) -> None:
        if any(view.state == "running" for view in moment.trials):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    assert follow(session, insist).interrupted
    assert all(view.state == "waiting" for view in session.ledger.trials("tiny"))


def test_the_coordinator_starts_a_dead_worker_again_and_gives_up_in_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, budget={"trials": 1})
    monkeypatch.setattr("sweeper.engine.local.RESTARTS", 1)
    monkeypatch.setenv("SWEEPER_CRASH_AT", "after_attach")
    with pytest.raises(SweeperError, match="ended by signal 9, 2 times in a row before any trial ended: see"):
        follow(session, is_forked=False)
    monkeypatch.delenv("SWEEPER_CRASH_AT")
    assert not follow(session).interrupted
    [_, trial] = session.ledger.trials("tiny")
    assert (trial.state, trial.attempts) == ("complete", 3)


def test_workers_that_die_once_each_end_no_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is reset takes all of them along, before any trial has ended."""
    session = begin(folder, budget={"trials": 4}, train={"epochs": 40, "batch_size": 4})
    monkeypatch.setattr("sweeper.engine.local.RESTARTS", 1)
    killed: set[int] = set()

    def kill_all_once(moment: Moment) -> None:
        attempts = session.ledger.attempts("tiny")
        running = {int(one.worker.split(":")[1]) for one in attempts if one.outcome == "running"}
        if not killed and len(running) == 2:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            killed.update(running)

    assert not follow(session, kill_all_once, options=WorkerOptions(workers=2)).interrupted
    assert len(killed) == 2 and session.row.ended_at is not None
    check_agrees(session, 4)


def test_what_a_dead_worker_left_of_a_study_that_has_ended_is_finished(folder: Path) -> None:
    session = begin(folder, budget={"trials": 6, "target": 0.0}, train={"epochs": 4})
    stop = threading.Event()
    work(session, Options("cpu"), stop, on_event=lambda event: stop.set())
    dead = session.ledger.reserve("tiny", WorkerIdentity("dead", "elsewhere", 1, 0.0, "cpu"))
    assert dead is not None and dead.trial_number == 0
    run(session)
    because = session.row.ended_because
    assert because == "trial-0001 reached the target of 0"
    waited: list[int] = []

    def run_out(moment: Moment) -> None:
        if not waited:  # a run waits for the other
            assert [view.number for view in moment.trials if view.state == "running"] == [0]
            session.ledger.heartbeat([replace(dead, lease_seconds=-1.0)])
        waited.append(moment.workers)

    assert not follow(session, run_out).interrupted
    assert waited[0] == 0 and max(waited) == 1 and session.row.ended_because == because
    trials = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    assert [view.state for view in trials] == ["complete"] * 2 + ["waiting"] * 4
    assert [view.attempts for view in trials] == [3, 1, 0, 0, 0, 0]


def test_what_a_worker_refuses_is_said_by_the_coordinator(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1})
    (folder / "data" / "train.tsv").write_text("sentence\tlabel\ngood\tpositive\nbad\tnegative\n")
    with pytest.raises(UsageError, match="the data or the tokenizer has changed"):
        follow(session)


def test_a_picture_that_cannot_be_drawn_stops_nothing(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1})

    def refuse() -> None:
        raise OSError("the server is gone")

    assert follow(session, show=refuse) == Ending(interrupted=False, not_shown="the server is gone")
    check_agrees(session, 1)


def test_a_study_in_either_store_is_begun_and_worked_on_by_several(folder: Path, url: str) -> None:
    environment = {"SWEEPER_HOME": str(folder / "sweeps"), "SWEEPER_STORE": url}
    path = write_study(folder, budget={"trials": 6}, pruner="successive_halving")
    home, errors = Home.from_environment(environment), []

    def begin_and_run() -> None:
        try:
            run(open_study(load_study(path), home))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin_and_run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    session = open_study(load_study(path), home)
    assert session.row.ended_because == "all 6 trials are done"
    check_agrees(session, 6)
    default = next(view for view in session.ledger.trials("tiny") if view.position == 0)
    assert default.number == 0


def test_two_coordinators_begin_one_study(folder: Path) -> None:
    path = write_study(folder, budget={"trials": 3})
    barrier, errors = threading.Barrier(4), []

    def begin_too() -> None:
        try:
            barrier.wait()
            open_study(load_study(path), home_of(folder))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=begin_too) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    ledger = Ledger(home_of(folder).store_url)
    assert ledger.studies() == ["tiny"] and len(ledger.trials("tiny")) == 4
