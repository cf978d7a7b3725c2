"""What workers do when a user pauses, stops, adds to, retries or deletes the study that they train."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

import sweeper.slot
from sweeper.asktell import Trials, create_optuna_study, delete_optuna_study, warm_notes
from sweeper.console import Output
from sweeper.control import enqueue_trial, retry_trials
from sweeper.deleting import delete_study
from sweeper.errors import UsageError
from sweeper.events import Evaluated, Event, Finished, HandedBack, Progress
from sweeper.joining import join_as_worker
from sweeper.ledger import Ledger, StudyGone, this_worker
from sweeper.session import join_study, open_study, prepare_store
from sweeper.space import distributions
from sweeper.study import load_study
from sweeper.tracking import Tracker
from sweeper.worker import Options, work
from sweeper.worker.heartbeat import Heartbeat
from tests.agreement import check_agrees, optuna_trials
from tests.integration.test_worker import begin, folder, home_of, parts, run
from tests.lost_commits import lost_confirmation
from tests.stores import new_ledger, sqlite_url
from tests.tiny_folder import make_data, write_study

__all__ = ["folder", "parts"]


def trials_of(session: Any) -> list[Any]:
    return [view for view in session.ledger.trials("tiny") if view.kind == "search"]


def test_a_trial_of_a_paused_study_goes_on_to_its_next_evaluation_and_is_handed_back(folder: Path) -> None:
    session = begin(folder, budget={"trials": 2}, train={"epochs": 4}, pruner="none")
    evaluations: list[int] = []
    handed_back: list[tuple[int | None, int]] = []

    def told(event: Event) -> None:
        if isinstance(event, Evaluated) and event.job.number == 0:
            evaluations.append(event.evaluation)
            if event.evaluation == 1:
                assert session.ledger.pause("tiny")
        if isinstance(event, HandedBack):
            handed_back.append((event.job.number, event.state.numbers["evaluation"]))
            assert session.ledger.reserve("tiny", this_worker("cpu")) is None
            assert [view.state for view in trials_of(session)] == ["waiting", "waiting"]
            assert session.ledger.resume("tiny")

    work(session, Options("cpu", 1), threading.Event(), on_event=told)
    # It goes on from there: no evaluation is lost, and none is made twice.
    assert handed_back == [(0, 2)] and evaluations == [1, 2, 3, 4]
    assert [view.attempts for view in trials_of(session)] == [2, 1]
    assert session.row.ended_because == "all 2 trials are done"
    check_agrees(session, 2)


def test_the_last_evaluation_of_a_trial_is_its_end_also_in_a_paused_study(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1}, pruner="none")
    events: list[Event] = []

    def told(event: Event) -> None:
        events.append(event)
        if isinstance(event, Evaluated) and event.evaluation == 1:
            assert session.ledger.pause("tiny")
        if isinstance(event, Finished):
            assert session.ledger.resume("tiny")

    work(session, Options("cpu", 1), threading.Event(), on_event=told)
    assert not any(isinstance(event, HandedBack) for event in events)
    assert [view.attempts for view in trials_of(session)] == [1]
    check_agrees(session, 1)


def test_a_stopped_study_ends_its_workers_and_goes_on_when_it_is_told_to(folder: Path) -> None:
    session = begin(folder, budget={"trials": 2}, train={"epochs": 4}, pruner="none")
    events: list[Event] = []

    def told(event: Event) -> None:
        events.append(event)
        if isinstance(event, Evaluated) and event.evaluation == 2:
            session.ledger.stop("tiny")

    work(session, Options("cpu", 1), threading.Event(), on_event=told)
    assert [event.job.number for event in events if isinstance(event, HandedBack)] == [0]
    assert [view.state for view in trials_of(session)] == ["waiting", "waiting"]
    assert session.row.is_stopped and session.row.ended_because == "its user stopped it"
    run(session)  # there is nothing to do
    assert [view.attempts for view in trials_of(session)] == [1, 0]
    assert session.ledger.resume("tiny")
    run(session)
    check_agrees(session, 2)


def test_a_stop_is_heard_between_two_evaluations(folder: Path) -> None:
    make_data(folder / "data", (3000, 16, 16))
    session = begin(folder, budget={"trials": 1}, train={"epochs": 2, "batch_size": 1}, pruner="none")
    events: list[Event] = []

    def told(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress):
            session.ledger.stop("tiny")

    # The first evaluation is 3,000 steps away, the next heartbeat a twentieth of a second.
    work(session, Options("cpu", 1, lease_seconds=1.5), threading.Event(), on_event=told)
    assert [event.job.number for event in events if isinstance(event, HandedBack)] == [0]
    assert not any(isinstance(event, Evaluated) for event in events)
    assert [view.state for view in trials_of(session)] == ["waiting"]


def test_a_heartbeat_carries_what_the_user_says(url: str) -> None:
    ledger = new_ledger(url)
    claim = ledger.reserve("one", this_worker("cpu"))
    assert claim is not None

    def hears(heartbeat: Heartbeat, wanted: str) -> bool:
        deadline = time.monotonic() + 60
        while heartbeat.control != wanted and time.monotonic() < deadline:
            heartbeat.advance()
            time.sleep(0.01)
        return heartbeat.control == wanted

    with Heartbeat(ledger, 0.3) as heartbeat:
        heartbeat.add(claim)
        assert heartbeat.control is None
        ledger.pause("one")
        assert hears(heartbeat, "paused")
        ledger.stop("one")
        assert hears(heartbeat, "stopped")


def test_a_claim_is_kept_while_its_worker_is_busy_and_no_longer(url: str) -> None:
    """A draw over many trials takes longer than a lease, and advances nothing."""
    ledger = new_ledger(url)
    claim = ledger.reserve("one", this_worker("cpu"), 1.0)
    assert claim is not None
    with Heartbeat(ledger, 1.0) as heartbeat:
        heartbeat.add(claim)
        with heartbeat.busy():
            time.sleep(2.5)
            assert ledger.expire("one") == 0
        deadline = time.monotonic() + 60
        while not ledger.expire("one") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert time.monotonic() < deadline


def test_enqueued_parameters_are_tried_next_and_the_rest_is_drawn(folder: Path) -> None:
    session = begin(folder, budget={"trials": 2}, pruner="none")
    trial, said = enqueue_trial(session.ledger, "tiny", ["bottleneck_dim=7", "activation=gelu"])
    assert (trial.number, trial.state) == (None, "waiting") and "3 in all" in said
    run(session)
    default, enqueued, drawn = trials_of(session)
    assert (default.number, enqueued.number, drawn.number) == (0, 1, 2)
    assert default.params["bottleneck_dim"] == 2 and enqueued.place_id == trial.place_id
    assert {"bottleneck_dim": 7, "activation": "gelu"}.items() <= enqueued.params.items()
    assert len(enqueued.params) == len(default.params)
    check_agrees(session, 3)
    # The same file again is no change of the study, and trains nothing.
    again = begin(folder, budget={"trials": 2}, pruner="none")
    assert again.row.ended_because == "all 3 trials are done" and len(trials_of(again)) == 3
    enqueue_trial(again.ledger, "tiny", ["bottleneck_dim=5"])
    run(again)
    assert trials_of(again)[3].params["bottleneck_dim"] == 5
    check_agrees(again, 4)


@pytest.mark.parametrize("way", [{"target": 0.0}, {"hours": 1.0e-7}])
def test_an_enqueued_trial_is_trained_though_the_budget_is_used_up(folder: Path, way: dict[str, Any]) -> None:
    session = begin(
        folder, budget={"trials": 12, **way}, sampler="random", pruner="none", train={"epochs": 1}
    )
    run(session)
    because = session.row.ended_because
    assert [view.state for view in trials_of(session)] == ["complete", *["waiting"] * 11]
    enqueue_trial(session.ledger, "tiny", ["bottleneck_dim=7"])
    run(session)
    _, enqueued, *others = trials_of(session)
    assert (enqueued.number, enqueued.state, enqueued.params["bottleneck_dim"]) == (1, "complete", 7)
    assert {view.state for view in others} == {"waiting"} and session.row.ended_because == because


def test_an_enqueued_trial_past_the_limits_says_so_and_no_other_takes_its_place(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1}, limits={"trainable_parameters": 900})
    enqueue_trial(session.ledger, "tiny", ["bottleneck_dim=16", "placement=houlsby", "layers=all"])
    run(session)
    _, enqueued = trials_of(session)
    assert enqueued.state == "pruned" and enqueued.params["bottleneck_dim"] == 16
    assert enqueued.reason.endswith("trainable parameters past the limit")
    assert enqueued.objective is None and enqueued.trainable_parameters > 900
    check_agrees(session, 2)


def test_a_failed_trial_is_tried_again_with_the_same_parameters(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, budget={"trials": 3, "failures": 2}, sampler="random", pruner="none")

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no such adapter")

    with monkeypatch.context() as patched:
        patched.setattr(sweeper.slot.adapters, "build", broken)
        run(session)
    failed = [view for view in trials_of(session) if view.state == "failed"]
    assert [view.number for view in failed] == [0, 1]
    assert session.row.ended_because == "2 trials failed, and budget.failures is 2"
    for wrong, message in (
        ((), "name the trials to retry"),
        (("9",), "has no trial '9'"),
        (("reference-head",), "only trials of the search"),
    ):
        with pytest.raises(UsageError, match=message):
            retry_trials(session.ledger, "tiny", wrong)
    [first], _ = retry_trials(session.ledger, "tiny", ["0", "trial-0000"])
    with pytest.raises(UsageError, match="trial-0000 has a retry already"):
        retry_trials(session.ledger, "tiny", ["0"])
    [second], said = retry_trials(session.ledger, "tiny", failed=True)
    assert (first.retry_of, second.retry_of) == (0, 1) and "trial-0001" in said
    assert retry_trials(session.ledger, "tiny", failed=True) == (
        [],
        "no trial of tiny failed that has no retry yet",
    )
    run(session)
    check_agrees(session, 5)
    views = {view.place_id: view for view in trials_of(session)}
    for old, new in zip(failed, (first, second), strict=True):
        again = views[new.place_id]
        assert (again.state, again.params, again.retry_of) == ("complete", old.params, old.number)
    with pytest.raises(UsageError, match="is complete: only a trial that failed"):
        retry_trials(session.ledger, "tiny", [str(views[first.place_id].number)])


def test_a_worker_of_a_study_that_is_deleted_ends_with_a_sentence(folder: Path) -> None:
    session = begin(folder, budget={"trials": 2}, train={"epochs": 4}, pruner="none")
    caught: list[BaseException] = []
    waits = threading.Event()

    def told(event: Event) -> None:
        session.ledger.pause("tiny")
        if isinstance(event, HandedBack):
            waits.set()

    def train() -> None:
        try:
            work(session, Options("cpu", 1), threading.Event(), on_event=told)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    assert waits.wait(120)
    assert session.ledger.delete_study("tiny") == 0
    thread.join(120)
    assert not thread.is_alive() and [type(error) for error in caught] == [StudyGone]


def test_a_worker_of_a_study_that_was_deleted_and_begun_anew_takes_nothing_of_the_new_one(
    folder: Path,
) -> None:
    session = begin(folder, budget={"trials": 2})
    delete_study(session.ledger, session.home, "tiny")
    again = begin(folder, budget={"trials": 2}, train={"epochs": 4})
    for confirm in (False, True):
        with pytest.raises(StudyGone):
            work(session, Options("cpu", confirm=confirm), threading.Event())
    assert [view.attempts for view in again.ledger.trials("tiny")] == [0, 0, 0]
    run(again)
    check_agrees(again, 2)


def test_a_study_begins_with_its_own_directions_whatever_an_interrupted_beginning_left(folder: Path) -> None:
    minimized = load_study(write_study(folder, objective={"metric": "loss", "direction": "minimize"}))
    home = home_of(folder)
    prepare_store(home)
    create_optuna_study(home, minimized, {"trials": [], "notes": ["a"]})
    session = begin(folder, budget={"trials": 1})
    own = Trials(home, session.study)._optuna
    assert [direction.name for direction in own.directions] == ["MAXIMIZE"] and own.user_attrs == {}


def test_an_optuna_study_of_somebody_else_of_the_same_name_is_refused_and_kept(folder: Path) -> None:
    home = home_of(folder)
    prepare_store(home)
    theirs = optuna.create_study(storage=home.store_url, study_name="tiny")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with pytest.raises(UsageError, match=r"has an Optuna study 'tiny' already.*another name"):
        begin(folder, budget={"trials": 1})
    assert len(optuna.load_study(study_name="tiny", storage=home.store_url).trials) == 2
    assert Ledger(home.store_url).studies() == []


def test_methods_in_another_order_are_drawn_as_they_were(folder: Path) -> None:
    methods: dict[str, Any] = {"lora": {"rank": [2, 4]}, "bottleneck": {"bottleneck_dim": [2, 4]}}
    before = begin(folder, search={"method": methods}, budget={"trials": 2}, train={"epochs": 1})
    run(before)
    turned = {name: methods[name] for name in reversed(methods)}
    after = begin(folder, search={"method": turned}, budget={"trials": 4}, train={"epochs": 1})
    for session in (after, join_study("tiny", after.home)):
        assert distributions(session.study) == distributions(before.study)
    run(after)
    assert {view.state for view in trials_of(after)} == {"complete"}


def test_a_worker_that_would_keep_its_weights_elsewhere_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = begin(folder, budget={"trials": 1})
    monkeypatch.setenv("SWEEPER_HOME", str(session.home.root))
    monkeypatch.setenv("SWEEPER_ARTIFACTS", str(folder / "elsewhere"))
    with pytest.raises(UsageError, match=r"does not keep its weights in .*elsewhere.*SWEEPER_ARTIFACTS"):
        join_as_worker(Output(), "tiny", "cpu")
    assert [view.attempts for view in session.ledger.trials("tiny")] == [0, 0]


def test_a_deleted_study_leaves_nothing_and_can_be_begun_anew(folder: Path) -> None:
    other = begin(folder, study="other", budget={"trials": 1})
    run(other)
    session = begin(folder, budget={"trials": 2})
    run(session)
    checkpoints = session.home.checkpoints / "tiny" / "trial-0000"
    checkpoints.mkdir(parents=True)
    before = [view.to_json() for view in trials_of(session)]
    deleted = delete_study(session.ledger, session.home, "tiny")
    assert deleted.folders == [str(session.home.artifacts / "tiny"), str(session.home.checkpoints / "tiny")]
    assert not any(Path(path).exists() for path in deleted.folders)
    assert deleted.notes == [] and not deleted.in_mlflow
    assert session.ledger.studies() == ["other"]
    check_agrees(other, 1)
    with pytest.raises(KeyError):
        optuna_trials(session)
    again = begin(folder, budget={"trials": 2})
    run(again)
    check_agrees(again, 2)
    same = ("number", "state", "params", "objective")
    assert [[view.to_json()[key] for key in same] for view in trials_of(again)] == [
        [trial[key] for key in same] for trial in before
    ]


def test_nobody_draws_a_study_that_is_being_deleted(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1})
    run(session)
    home, others = session.home, Tracker(session.home, "tiny", session.ledger)
    others.show()
    with Tracker(home, "tiny", session.ledger).deleted() as had:
        assert had and others.show(wait_seconds=0.0) == 0
        assert session.ledger.delete_study("tiny") == 0
    client = MlflowClient(tracking_uri=home.tracking_uri)
    assert client.get_experiment_by_name("tiny") is None
    again = begin(folder, study="again", budget={"trials": 1})
    run(again)
    # What one began that was killed another one ends, who does not wait for its lease.
    killed = Tracker(home, "again", again.ledger).deleted()
    assert killed.__enter__() is False
    with Tracker(home, "again", again.ledger).deleted(wait_seconds=0.0) as had:
        assert had is False
    # One that cannot be deleted now can be drawn as before.
    with Tracker(home, "again", again.ledger).deleted() as had:
        assert not had and Tracker(home, "again", again.ledger).show(wait_seconds=0.0) == 0
    Tracker(home, "again", again.ledger).show(wait_seconds=0.0)
    assert client.get_experiment_by_name("again") is not None


def test_a_study_whose_deletion_was_interrupted_says_how_to_go_on(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1})
    trials = Trials(session.home, session.study)
    claim = session.ledger.reserve("tiny", this_worker("cpu"))
    delete_optuna_study(session.home, "tiny")
    said = "are gone from Optuna's tables: .* `sweeper delete tiny` takes away what is left"
    for call in (
        lambda: Trials(session.home, session.study),
        lambda: warm_notes(session.home, session.study),
        lambda: trials.create(claim),
        lambda: work(session, Options("cpu"), threading.Event()),
    ):
        with pytest.raises(UsageError, match=said):
            call()
    session.ledger.release(claim)
    assert delete_study(session.ledger, session.home, "tiny").trials == 1


def test_a_trial_whose_commit_was_not_confirmed_is_made_once(folder: Path) -> None:
    session = begin(folder, budget={"trials": 1})
    trials = Trials(session.home, session.study)
    claim = session.ledger.reserve("tiny", this_worker("cpu"))
    with lost_confirmation(trials._storage._backend.engine) as lost:
        number, _ = trials.create(claim)
    assert lost and number == 0
    states = [(trial.number, trial.state.name) for trial in optuna_trials(session)]
    assert states == [(0, "RUNNING"), (1, "FAIL")]


def test_two_stores_do_not_write_over_the_files_of_each_other(folder: Path) -> None:
    first = begin(folder, budget={"trials": 1})
    run(first)
    kept = {path: path.read_bytes() for path in first.home.artifacts.rglob("*") if path.is_file()}
    second = replace(first.home, store_url=sqlite_url(folder))
    study = load_study(folder / "study.yaml")
    with pytest.raises(
        UsageError, match="tiny has the files of a study tiny of another store: give this study"
    ):
        open_study(study, second)
    assert {path: path.read_bytes() for path in first.home.artifacts.rglob("*") if path.is_file()} == kept
    assert Ledger(second.store_url).studies() == []
    # One that had begun before in a folder of its own is not joined here either, and deletes nothing here.
    open_study(
        study, replace(second, artifacts=folder / "moved", checkpoints=folder / "moved" / "checkpoints")
    )
    with pytest.raises(UsageError, match="of another store"):
        join_study("tiny", second)
    deleted = delete_study(Ledger(second.store_url), second, "tiny")
    assert (
        deleted.folders == []
        and [note.split(" is left: ")[1] for note in deleted.notes] == ["it belongs to another store"] * 2
    )
    assert {path: path.read_bytes() for path in first.home.artifacts.rglob("*") if path.is_file()} == kept
    assert join_study("tiny", first.home).name == "tiny"


def test_what_a_link_leads_to_is_not_deleted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    session = begin(folder, budget={"trials": 1})
    run(session)
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious.txt").write_text("mine")
    (session.home.artifacts / "tiny" / "link").symlink_to(outside)
    shutil.rmtree(session.home.checkpoints / "tiny")
    (session.home.checkpoints / "tiny").symlink_to(outside)
    deleted = delete_study(session.ledger, session.home, "tiny")
    assert (outside / "precious.txt").read_text() == "mine"
    assert not (session.home.artifacts / "tiny").exists()
    assert not (session.home.checkpoints / "tiny").is_symlink()
    assert deleted.notes == [f"{session.home.checkpoints / 'tiny'} was a link: what it led to is left there"]
