"""The ledger drawn in a real MLflow: what is there, again and again, through interruptions and losses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sweeper import tracking
from sweeper.confirmed import conclusions, explanation
from sweeper.errors import UnreachableError, UsageError
from sweeper.figures import FIGURES
from sweeper.finalists import verdict
from sweeper.ledger import Attached, Ledger, TrialView, this_worker
from sweeper.page import report_page
from sweeper.results import read_results
from sweeper.tracking import Tracker, charts, note, views
from tests.made_study import BEST, COMMAND, STUDY_TEXT, TRIALS, MadeStudy, home_in, spec
from tests.mlflow_server import free_port, mlflow_server, picture_of
from tests.mlflow_tables import put_mlflow_tables

ROOT = Path(__file__).parents[2]


class Interrupted(BaseException):
    """The process is gone; nothing in it may handle that."""


class CountedClient:
    """MLflow's client; after so many calls the process that makes them is gone.

    Args:
        calls: how many are made; the last one does its work, but nobody learns of it.
    """

    def __init__(self, client: Any, calls: int = 10**9) -> None:
        self._client = client
        self._left = calls
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            answer = method(*arguments, **named)
            self.names.append(name)
            self._left -= 1
            if self._left <= 0:
                raise Interrupted
            return answer

        return call


@pytest.fixture
def study(tmp_path: Path) -> MadeStudy:
    put_mlflow_tables(tmp_path / "mlflow.db")
    return MadeStudy(home_in(tmp_path))


def show(study: MadeStudy) -> int:
    return Tracker(study.home, study.name, study.ledger).show()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeStudy, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("finished")
    put_mlflow_tables(folder / "mlflow.db")
    study = MadeStudy(home_in(folder))
    study.run_all()
    assert show(study) == len(TRIALS) + 1
    return study, picture_of(study.home.tracking_uri)


def test_there_is_a_run_for_the_study_and_one_for_each_trial(finished) -> None:
    _, picture = finished
    trials = {f"trial-{number:04d}" for number in range(len(TRIALS))}
    assert set(picture) == {"tags", "films", "reference-head", *trials}
    assert "mlflow.parentRunId" not in picture["films"]["tags"]
    assert all(picture[name]["tags"]["mlflow.parentRunId"] == "films" for name in (*trials, "reference-head"))


def test_a_trial_has_its_configuration_curves_sizes_and_files(finished) -> None:
    study, picture = finished
    run = picture[f"trial-{BEST:04d}"]
    trial = next(trial for trial in study.ledger.trials("films") if trial.number == BEST)
    made = TRIALS[BEST]
    assert {key: str(value) for key, value in made.params.items()}.items() <= run["params"].items()
    assert run["params"]["batch_size"] == "32" and run["params"]["method"] == "bottleneck"
    rows = {(row.key, row.evaluation): row for row in study.ledger.metric_rows(trial.place_id)}
    for key in ("train/loss", "validation/loss", "objective", "learning_rate", "examples_per_second",
                "peak_memory_bytes", "accuracy", "system/cpu_utilization_percentage"):  # fmt: skip
        wanted = [(step, rows[key, step].value, round(rows[key, step].time * 1000)) for step in (1, 2, 3)]
        assert run["curves"][key] == wanted, key
    sizes = (
        "adapter_parameters",
        "head_parameters",
        "trainable_parameters",
        "trainable_percent",
        "objective",
    )
    assert {key: run["latest"][key] for key in sizes} == {key: getattr(trial, key) for key in sizes}
    assert set(run["files"]) == {"adapter.safetensors", "head.safetensors"}
    for path in trial.files:
        assert run["files"][Path(path).name] == (study.home.artifacts / path).read_bytes()


def test_times_are_those_of_the_ledger(finished) -> None:
    study, picture = finished
    row = study.ledger.study("films")
    assert row.ended_at is not None
    assert picture["films"]["times"] == (round(row.created_at * 1000), round(row.ended_at * 1000))
    for trial in study.ledger.trials("films"):
        assert trial.started_at is not None and trial.ended_at is not None
        wanted = (round(trial.started_at * 1000), round(trial.ended_at * 1000))
        assert picture[trial.name]["times"] == wanted


def test_states_and_reasons(finished) -> None:
    _, picture = finished
    assert picture["films"]["status"] == "FINISHED"
    words = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    for number, made in enumerate(TRIALS):
        run = picture[f"trial-{number:04d}"]
        assert run["status"] == words[made.state]
        assert run["tags"]["sweeper.state"] == ("best" if number == BEST else made.state)
        assert run["tags"].get("sweeper.reason") == made.reason
    # A summary also of pruned trials, and even of one that diverged at once.
    assert picture["trial-0002"]["latest"]["objective"] == 0.9
    assert picture["trial-0003"]["latest"]["trainable_parameters"] > 0
    assert "objective" not in picture["trial-0003"]["latest"]


def test_tags_say_what_made_the_runs(finished) -> None:
    _, picture = finished
    for name in ("films", "trial-0001", "reference-head"):
        wanted = {
            "sweeper.command": COMMAND,
            "mlflow.source.name": COMMAND,
            "sweeper.seed": "3",
            "sweeper.git_commit": "c" * 40,
            "mlflow.source.git.commit": "c" * 40,
            "sweeper.version.torch": "2.13.0",
        }
        assert wanted.items() <= picture[name]["tags"].items()


def test_data_sets_are_inputs_of_every_run(finished) -> None:
    _, picture = finished
    for name in ("films", "trial-0000"):
        assert {(data[0], data[3]) for data in picture[name]["data"]} == {
            ("train.tsv (train)", "training"),
            ("train.tsv (validation)", "validation"),
        }


def test_the_parent_has_the_study_file_the_summary_and_how_it_went(finished) -> None:
    study, picture = finished
    parent = picture["films"]
    figures = {f"figures/{name}.json" for name in FIGURES}
    assert set(parent["files"]) == {"study.yaml", "report.html", *figures}
    assert parent["files"]["study.yaml"] == STUDY_TEXT.encode()
    assert (
        "trial-0001 is best" in json.loads(parent["files"]["figures/front.json"])["layout"]["title"]["text"]
    )
    assert parent["files"]["report.html"].decode() == report_page(read_results(study.ledger, "films"))
    note = parent["tags"]["mlflow.note.content"]
    assert note == picture["tags"]["mlflow.note.content"]
    assert note.splitlines()[0] == (
        "### Best: trial-0001 · accuracy 0.8643 · 450,746 parameters (1.98 %) · default 0.8135 · head 0.6797"
    )
    assert "trial-0000&emsp; | 0.8135&emsp; | -0.05078&emsp;" in note
    assert "6 trials are done" in note and "`bottleneck_dim=97 activation=gelu" in note
    assert [value for _, value, _ in parent["curves"]["best_objective"]] == [0.8134765625] + [
        0.8642578125
    ] * 5
    assert parent["latest"]["trials_pruned"] == 2.0


def test_the_saved_view_is_a_tag_of_the_experiment(finished) -> None:
    study, picture = finished
    row = study.ledger.study("films")
    state = views.state(tuple(TRIALS[0].params), "maximize")
    assert picture["tags"][views.TAG] == views.encode(state, row.created_at)
    state = charts.state(tuple(TRIALS[0].params), tuple(TRIALS[0].params), "maximize")
    assert picture["tags"][charts.TAG] == views.encode(state, row.created_at, charts.NAME)
    assert row.experiment_id is not None and row.run_id is not None


def test_drawing_again_changes_nothing(finished) -> None:
    study, picture = finished
    tracker = Tracker(study.home, "films", study.ledger)
    assert [tracker.show(), tracker.show(), show(study)] == [0, 0, 0]
    assert picture_of(study.home.tracking_uri) == picture
    study.ledger.hide_all("films")
    assert tracker.show() == len(TRIALS) + 1
    assert picture_of(study.home.tracking_uri) == picture


def test_a_study_is_drawn_while_it_runs(study: MadeStudy) -> None:
    tracker = Tracker(study.home, "films", study.ledger)
    tracker.show()
    assert (
        "No trial has ended yet"
        in picture_of(study.home.tracking_uri)["films"]["tags"]["mlflow.note.content"]
    )
    study.run_next()
    study.run_next()
    claim = study.run_next(evaluations=1)
    tracker.show()
    picture = picture_of(study.home.tracking_uri)
    assert picture["films"]["status"] == picture["trial-0001"]["status"] == "RUNNING"
    assert picture["films"]["tags"]["mlflow.note.content"].startswith("### Best so far: trial-0000 · ")
    assert picture["trial-0000"]["tags"]["sweeper.state"] == "best"
    assert picture["trial-0001"]["latest"]["objective"] == 0.74
    study.ledger.release(claim)
    tracker.show()
    assert picture_of(study.home.tracking_uri)["trial-0001"]["status"] == "SCHEDULED"


def test_the_best_of_the_moment_is_marked(study: MadeStudy) -> None:
    tracker = Tracker(study.home, "films", study.ledger)
    for _ in range(3):
        study.run_next()
        tracker.show()
    picture = picture_of(study.home.tracking_uri)
    assert picture["trial-0000"]["tags"]["sweeper.state"] == "complete"
    assert picture["trial-0001"]["tags"]["sweeper.state"] == "best"


def test_what_an_attempt_that_does_not_count_left_is_not_the_result(study: MadeStudy) -> None:
    tracker = Tracker(study.home, "films", study.ledger)
    study.run_next()
    study.run_next()
    study.run_next()
    # Trial 2 is pruned at its first evaluation; before, it got as far as the third.
    claim = study.run_next(evaluations=0)
    for evaluation in (1, 2, 3):
        study.ledger.record_metrics(claim, evaluation, evaluation, 1.0, {"objective": 0.1, "accuracy": 0.1})
    tracker.show()
    study.ledger.release(claim)
    study.run_next()
    tracker.show()
    run = picture_of(study.home.tracking_uri)["trial-0002"]
    assert run["latest"]["objective"] == run["latest"]["accuracy"] == 0.9
    assert run["tags"]["sweeper.attempts"] == "2"


def test_a_budget_that_grows_opens_the_study_again(study: MadeStudy) -> None:
    study.run_next()
    study.run_next()  # the head alone
    assert study.ledger.end_over_budget("films", "enough for now")
    tracker = Tracker(study.home, "films", study.ledger)
    tracker.show()
    assert picture_of(study.home.tracking_uri)["films"]["status"] == "FINISHED"
    grown = STUDY_TEXT + "# more\n"
    study.ledger.replace_spec("films", spec("films", "maximize", len(TRIALS)), "films.yaml", grown)
    tracker.show()
    again = picture_of(study.home.tracking_uri)["films"]
    assert again["status"] == "RUNNING"
    assert again["files"]["study.yaml"] == grown.encode()
    for _ in range(len(TRIALS) - 1):
        study.run_next()
    assert study.ledger.end_if_done("films")
    tracker.show()
    assert picture_of(study.home.tracking_uri)["films"]["status"] == "FINISHED"


def test_an_interruption_after_any_call_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = tracking._connect
    study = MadeStudy(home_in(tmp_path / "clean"), trials=1)
    put_mlflow_tables(study.home.root / "mlflow.db")
    study.run_all()
    study.ledger.close()
    clean = tmp_path / "clean"
    calls = 0
    while True:
        calls += 1
        folder = tmp_path / f"calls-{calls}"
        shutil.copytree(clean, folder)
        home = home_in(folder)
        ledger = Ledger(home.store_url)
        client: list[CountedClient] = []

        def counted(home: Any, calls: int = calls, client: list[CountedClient] = client) -> Any:
            client.append(CountedClient(connect(home), calls))
            return client[0]

        monkeypatch.setattr(tracking, "_connect", counted)
        try:
            Tracker(home, "films", ledger).show()
            interrupted = False
        except Interrupted:
            interrupted = True
        monkeypatch.setattr(tracking, "_connect", connect)
        Tracker(home, "films", ledger).show()
        picture = picture_of(home.tracking_uri)
        ledger.close()
        if calls == 1:
            wanted = picture
        assert _without_files(picture) == _without_files(wanted), client[0].names[-1]
        if not interrupted:
            break
    # Interrupted in every place there is, and few calls: not one a metric.
    assert 15 < calls <= 15 + 2 * 7, client[0].names


def _without_files(picture: dict[str, Any]) -> dict[str, Any]:
    return {name: {**run, "files": set(run.get("files", ()))} for name, run in picture.items()}


def test_what_confirm_trained_are_runs_of_their_own(study: MadeStudy) -> None:
    study.run_all()
    study.confirm(finalists=2, seeds=3)
    assert show(study) == len(TRIALS) + 1 + 4 * 3
    picture = picture_of(study.home.tracking_uri)
    trained = [name for name in picture if name.startswith("confirm-")]
    assert len(trained) == 4 * 3
    for name in trained:
        run = picture[name]
        assert run["tags"]["mlflow.parentRunId"] == "films"
        assert run["tags"]["sweeper.kind"] == ("full" if "full" in name else "confirm")
        # It stands in no chart of the search.
        assert "objective" not in run["latest"] and "accuracy" in run["latest"]
    assert "bottleneck_dim" in picture[f"confirm-{BEST:04d}-1"]["params"]
    assert "bottleneck_dim" not in picture["confirm-head-1"]["params"]
    seeds = [picture[f"confirm-{what}-2"]["tags"]["sweeper.trial_seed"] for what in (f"{BEST:04d}", "head")]
    assert seeds[0] == seeds[1] != picture["confirm-head-1"]["tags"]["sweeper.trial_seed"]
    said = verdict(study.ledger, "films")
    assert said is not None
    for one in [*said["finalists"], said["head"], said["full"]]:
        run = picture[f"confirmed {one['name']}"]
        assert run["tags"]["sweeper.kind"] == "confirmed" and run["tags"]["mlflow.parentRunId"] == "films"
        last = run["latest"]
        assert last["test/accuracy_mean"] == pytest.approx(one["test"]["mean"])
        assert last["test/accuracy_sd"] == pytest.approx(one["test"]["sd"])
        interval = [last["test/accuracy_low"], last["test/accuracy_high"]]
        assert interval == pytest.approx(one["test"]["interval"])
        by_seed = [(step, value) for step, value, _ in sorted(run["curves"]["test/accuracy"])]
        assert by_seed == list(enumerate(one["test"]["values"], start=1))
    standing = {name: run["tags"]["sweeper.state"] for name, run in picture.items() if "confirmed" in name}
    assert standing[f"confirmed {said['winner']['name']}"] == "winner"
    assert standing["confirmed head alone"] == standing["confirmed full fine-tuning"] == "reference"
    assert charts.FINALISTS_TAG in picture["tags"]
    text = picture["films"]["tags"]["mlflow.note.content"]
    assert charts.FINALISTS_KEY in text
    assert all(note.plain(line) in text for line in [explanation(said), *conclusions(said)])
    # All of it drawn anew, it is the same.
    Tracker(study.home, "films", study.ledger).show(anew=True)
    assert _without_files(picture_of(study.home.tracking_uri)) == _without_files(picture)


def test_full_fine_tuning_that_was_interrupted_hides_nothing_that_was_confirmed(study: MadeStudy) -> None:
    study.run_all()
    study.confirm(seeds=2)
    study.ledger.confirm("films", [("full", "confirm-full-3", {"learning_rate": 5e-5})])
    Tracker(study.home, "films", study.ledger).show()
    picture = picture_of(study.home.tracking_uri)
    assert charts.FINALISTS_TAG in picture["tags"] and "confirmed head alone" in picture


def test_a_confirmation_that_is_not_over_has_no_finalists_yet(study: MadeStudy) -> None:
    study.run_all()
    study.ledger.confirm("films", [("confirm", "confirm-head-1", {}), ("confirm", "confirm-head-2", {})])
    claim = study.ledger.reserve("films", this_worker("cpu"), kind="confirm")
    assert claim is not None
    study.ledger.attach(claim, Attached(None, None, {}, "head", 0, 770))
    show(study)
    picture = picture_of(study.home.tracking_uri)
    assert [name for name in picture if "confirm" in name] == ["confirm-head-1"]  # the other one waits
    assert charts.FINALISTS_TAG not in picture["tags"]
    assert study.ledger.unshown_places("films") == []


def test_a_lost_mlflow_is_drawn_again(finished, tmp_path: Path) -> None:
    made, wanted = finished
    made.ledger.close()
    shutil.copytree(made.home.root, tmp_path / "again")
    home = home_in(tmp_path / "again")
    ledger = Ledger(home.store_url)
    shutil.rmtree(home.mlflow_artifacts)
    (home.root / "mlflow.db").unlink()
    put_mlflow_tables(home.root / "mlflow.db")
    Tracker(home, "films", ledger).show()
    assert picture_of(home.tracking_uri) == wanted


def test_a_deleted_run_is_drawn_again(study: MadeStudy) -> None:
    from mlflow import MlflowClient

    study.run_all()
    show(study)
    wanted = picture_of(study.home.tracking_uri)
    client = MlflowClient(tracking_uri=study.home.tracking_uri)
    gone = next(trial.mlflow_run_id for trial in study.ledger.trials("films") if trial.number == 0)
    assert gone is not None
    client.delete_run(gone)
    show(study)
    assert picture_of(study.home.tracking_uri) == wanted
    client.delete_experiment(study.ledger.study("films").experiment_id)
    show(study)
    assert picture_of(study.home.tracking_uri) == wanted


def test_what_is_recorded_while_others_are_drawn_is_drawn_the_next_time(
    study: MadeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # the default configuration and the reference
        study.run_next()
    refused = study.ledger.reserve("films", this_worker("cpu"))
    assert refused is not None
    study.ledger.release(refused, "past_limits")  # its place has changed, and has no trial to draw
    tracker, trials, begun = Tracker(study.home, "films", study.ledger), study.ledger.trials, []

    def then_one_begins(name: str) -> list[TrialView]:
        found = trials(name)
        monkeypatch.setattr(study.ledger, "trials", trials)
        begun.append(study.run_next())
        return found

    tracker.show()
    study.ledger.hide_all("films")
    monkeypatch.setattr(study.ledger, "trials", then_one_begins)
    tracker.show()
    tracker.show()
    assert begun and begun[0].place_id == refused.place_id
    found = picture_of(study.home.tracking_uri)
    tracker.show(anew=True)
    assert picture_of(study.home.tracking_uri) == found


def test_two_at_once_draw_each_run_once(study: MadeStudy) -> None:
    study.run_all()
    trackers = [Tracker(study.home, "films", Ledger(study.home.store_url)) for _ in range(2)]
    drawn: list[int] = []
    threads = [threading.Thread(target=lambda t=t: drawn.append(t.show())) for t in trackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(drawn) == [0, len(TRIALS) + 1]
    picture_of(study.home.tracking_uri)  # fails if a run is there twice


def test_who_lost_its_turn_draws_no_more(study: MadeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of MLflow that took too long: another process draws by then, perhaps in a run of its own."""
    study.run_all()
    tracker = Tracker(study.home, "films", study.ledger)
    create = tracking.Board.create

    def slow(board: Any, experiment: str, name: str, *rest: Any) -> Any:
        run = create(board, experiment, name, *rest)
        if name == "trial-0001":
            study.ledger.drop_sender("films", tracker._sender)
            assert study.ledger.hold_sender("films", "another", 60.0)
        return run

    with monkeypatch.context() as patch:
        patch.setattr(tracking.Board, "create", slow)
        with pytest.raises(UnreachableError, match="is being drawn by another process"):
            tracker.show()
    names = {view.place_id: view.name for view in study.ledger.trials("films")}
    left = {names[place] for place in study.ledger.unshown_places("films")}
    assert "trial-0000" not in left and {"trial-0001", "trial-0005"} <= left
    assert "trial-0005" not in picture_of(study.home.tracking_uri)
    study.ledger.drop_sender("films", "another")
    assert tracker.show() == len(left)


def make_all_twice(study: MadeStudy) -> None:
    """Beside each run of a study an empty one for the same, as a slow server makes it too late."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=study.home.tracking_uri)
    for run in client.search_runs([study.ledger.study("films").experiment_id]):
        client.create_run(run.info.experiment_id, run.info.start_time, run.data.tags, run.info.run_name)


def test_a_run_that_a_slow_server_made_too_late_is_gone_in_the_end(study: MadeStudy) -> None:
    tracker = Tracker(study.home, "films", study.ledger)
    study.run_next()
    tracker.show()
    make_all_twice(study)
    while study.ledger.study("films").ended_at is None:
        study.run_next()
        study.ledger.end_if_done("films")
    tracker.show()
    picture_of(study.home.tracking_uri)  # fails if a run is there twice


def test_of_a_run_that_is_there_twice_the_one_that_was_drawn_in_stays(study: MadeStudy) -> None:
    study.run_all()
    study.confirm(finalists=2, seeds=2)
    tracker = Tracker(study.home, "films", study.ledger)
    tracker.show()
    wanted = picture_of(study.home.tracking_uri)
    make_all_twice(study)
    study.ledger.hide_all("films")
    tracker.show()
    assert picture_of(study.home.tracking_uri) == wanted


def test_a_real_server_shows_the_same(finished, tmp_path: Path) -> None:
    made, wanted = finished
    made.ledger.close()
    shutil.copytree(made.home.root, tmp_path / "home")
    with mlflow_server(tmp_path) as address:
        home = home_in(tmp_path / "home", MLFLOW_TRACKING_URI=address)
        ledger = Ledger(home.store_url)
        tracker = Tracker(home, "films", ledger)
        assert tracker.show() == len(TRIALS) + 1
        assert picture_of(address) == wanted
        assert tracker.show() == 0
    # The server has gone: another call says so, and loses nothing.
    ledger.hide_all("films")
    with pytest.raises(UnreachableError):
        tracker.show()
    assert len(ledger.unshown_places("films")) == len(TRIALS) + 1


def test_a_server_that_is_down_is_named_without_its_password(study: MadeStudy) -> None:
    study.run_next()
    address = f"http://me:hunter2@127.0.0.1:{free_port()}"
    home = home_in(study.home.root, MLFLOW_TRACKING_URI=address)
    with pytest.raises(UnreachableError) as caught:
        Tracker(home, "films", study.ledger).show()
    assert "127.0.0.1" in str(caught.value) and "hunter2" not in str(caught.value)
    assert study.ledger.unshown_places("films")
    assert show(study) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "databricks",
        "file:///somewhere",
        "mlruns",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+pysqlite:///?a=b",
    ],
)
def test_a_tracking_uri_of_another_kind_is_refused(study: MadeStudy, uri: str) -> None:
    home = home_in(study.home.root, MLFLOW_TRACKING_URI=uri)
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_URI"):
        Tracker(home, "films", study.ledger).show()


def test_a_damaged_database_is_no_traceback(study: MadeStudy) -> None:
    (study.home.root / "mlflow.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(UnreachableError, match=r"not a database.*move it away"):
        show(study)


def test_a_kill_while_the_tables_are_made_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow cannot go on from half of its tables: nothing that has only half of them may be taken for it."""
    import mlflow.store.db.utils as utils

    study = MadeStudy(home_in(tmp_path / "a home? 100%25"))
    study.run_next()
    upgrade = utils._upgrade_db

    def interrupted(engine: Any) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE _alembic_tmp_trace_tags (request_id VARCHAR(50))")
        raise Interrupted

    monkeypatch.setattr(utils, "_upgrade_db", interrupted)
    with pytest.raises(Interrupted):
        show(study)
    monkeypatch.setattr(utils, "_upgrade_db", upgrade)
    assert show(study) == 1
    assert (study.home.root / "mlflow.db").is_file()
    assert not list(study.home.root.glob("*.unfinished*"))


def test_nothing_is_said_and_no_secret_written(tmp_path: Path) -> None:
    study = MadeStudy(home_in(tmp_path))
    study.run_all()
    study.ledger.close()
    program = (
        "import sys; from sweeper.home import Home; from sweeper.ledger import Ledger\n"
        "from sweeper.tracking import Tracker\n"
        "assert 'mlflow' not in sys.modules\n"
        "home = Home.from_environment(); print(Tracker(home, 'films', Ledger(home.store_url)).show())\n"
    )
    variables = {"SWEEPER_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "A_TOKEN": "hunter2hunter2"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "SWEEPER_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(TRIALS) + 1}\n", "")
    assert b"hunter2" not in (tmp_path / "mlflow.db").read_bytes()


def test_the_smaller_is_better_where_it_is_minimised(tmp_path: Path) -> None:
    put_mlflow_tables(tmp_path / "mlflow.db")
    study = MadeStudy(home_in(tmp_path), direction="minimize")
    study.run_all()
    show(study)
    picture = picture_of(study.home.tracking_uri)
    assert picture["trial-0000"]["tags"]["sweeper.state"] == "best"
    assert "is the default" in picture["films"]["tags"]["mlflow.note.content"].splitlines()[0]
    assert picture["films"]["latest"]["best_objective"] == 0.8134765625
