"""What MLflow is told of a study, computed from the ledger's values alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sweeper.ledger import MetricRow, StudyRow, TrialView
from sweeper.study import Study, from_dict
from sweeper.study.layerbits import bits_of, columns
from sweeper.study.search import shared_keys
from sweeper.tracking import note, picture
from tests.made_study import spec


def make_study(**changes: Any) -> Study:
    return from_dict({**spec("films", "maximize", 3), **changes}, "films.yaml", "text")


def make_row(**changes: Any) -> StudyRow:
    values: dict[str, Any] = {
        "name": "films",
        "spec": {},
        "path": "/folder/films.yaml",
        "text": "text",
        "dtype": "float32",
        "backbone_fingerprint": "b",
        "backbone_parameters": 1000,
        "data_fingerprint": "d",
        "data_report": {"rows": {"train": 8, "validation": 2}, "truncated": {"train": 1, "validation": 2}},
        "label_names": ["a", "b"],
        "versions": {"torch": "2.13.0"},
        "command": "sweeper run films.yaml",
        "git_commit": None,
        "created_at": 100.0,
        "ended_at": None,
        "ended_because": None,
        "experiment_id": None,
        "run_id": None,
    }
    return StudyRow(**{**values, **changes})


def make_trial(
    number: int | None, state: str = "complete", objective: float | None = 0.5, **changes: Any
) -> TrialView:
    values: dict[str, Any] = {
        "study": "films",
        "place_id": 10 + (number or 0),
        "position": number or 0,
        "kind": "search" if number is not None else "reference",
        "label": None if number is not None else "reference-head",
        "number": number,
        "state": state,
        "params": {},
        "objective": objective,
        "metrics": {},
        "adapter_parameters": 90,
        "head_parameters": 10,
        "trainable_parameters": 100,
        "trainable_percent": 10.0,
        "attempts": 1,
        "seconds": 2.0,
        "device_seconds": 1.0,
        "reason": None,
        "mlflow_run_id": None,
        "attempt": 1,
        "files": {},
        "started_at": 101.0,
        "ended_at": 110.0 + (number or 0),
        "device": "cpu",
        "host": "here",
        "version": 1,
    }
    return TrialView(**{**values, **changes})


def metric(key: str, evaluation: int, value: float, attempt: int = 1, time: float = 105.0) -> MetricRow:
    return MetricRow(1, 10, attempt, evaluation, 25 * evaluation, float(evaluation), time, key, value)


def test_a_result_that_the_curve_ends_with_is_not_written_twice() -> None:
    trial = make_trial(0, objective=0.8, metrics={"accuracy": 0.8})
    rows = [
        metric(key, step, value) for key in ("objective", "accuracy") for step, value in ((1, 0.7), (2, 0.8))
    ]
    assert {point.key for point in picture.result_points(trial, rows)} == {"seconds", "device_seconds"}


def test_the_result_of_kept_weights_comes_after_the_last_evaluation() -> None:
    trial = make_trial(0, objective=0.9, metrics={"accuracy": 0.9})
    rows = [
        metric(key, step, value) for key in ("objective", "accuracy") for step, value in ((1, 0.9), (2, 0.8))
    ]
    points = {point.key: point for point in picture.result_points(trial, rows)}
    assert points["objective"] == picture.Point("objective", 0.9, 110.0, 2)
    assert points["accuracy"].step == 2


def test_the_result_of_a_repeat_is_shown_and_not_what_was_copied_behind_its_end() -> None:
    """MLflow shows the latest of the points at one step, and of the same millisecond the greatest."""
    trial = make_trial(0, objective=0.9, metrics={"accuracy": 0.9}, ended_at=110.0)
    rows = [metric(key, 2, 0.95, time=110.0004) for key in ("objective", "accuracy")]
    points = {point.key: point for point in picture.result_points(trial, rows)}
    for key in ("objective", "accuracy"):
        assert points[key].value == 0.9 and int(1000 * points[key].time) > int(1000 * rows[0].time)


def test_the_attempt_that_counts_has_the_last_word() -> None:
    trial = make_trial(0, "pruned", objective=0.6)
    rows = [metric("objective", step, 0.1, time=102.0) for step in (1, 2, 3)]
    rows.append(metric("objective", 1, 0.6, attempt=2, time=108.0))
    points = {point.key: point for point in picture.result_points(trial, rows)}
    assert points["objective"] == picture.Point("objective", 0.6, 110.0, 3)


def test_a_trial_that_runs_has_no_result() -> None:
    assert picture.result_points(make_trial(0, "running", ended_at=None), []) == []


def test_sizes_are_known_before_there_is_a_result() -> None:
    points = {point.key: point.value for point in picture.size_points(make_row(), make_trial(0, "running"))}
    assert points == {
        "adapter_parameters": 90.0,
        "head_parameters": 10.0,
        "trainable_parameters": 100.0,
        "trainable_percent": 10.0,
    }
    unknown = make_trial(
        0, adapter_parameters=None, head_parameters=None, trainable_parameters=None, trainable_percent=None
    )
    assert picture.size_points(make_row(), unknown) == []


@pytest.mark.parametrize(
    ("direction", "best"), [("maximize", [0.5, 0.5, 0.9]), ("minimize", [0.5, 0.5, 0.5])]
)
def test_progress_counts_what_ended_and_ignores_what_did_not_succeed(
    direction: str, best: list[float]
) -> None:
    trials = [
        make_trial(2, objective=0.9),
        make_trial(1, "pruned", objective=0.99 if direction == "maximize" else 0.01),
        make_trial(0),
        make_trial(3, "running", ended_at=None),
        make_trial(None, objective=2.0),
    ]
    points = picture.progress_points(trials, direction)
    assert [point.value for point in points if point.key == "best_objective"] == best
    assert [point.value for point in points if point.key == "trials_pruned"] == [0.0, 1.0, 1.0]
    assert [point.time for point in points if point.key == "trials_complete"] == [110.0, 111.0, 112.0]


def test_data_sets_name_their_source_and_how_much_of_it() -> None:
    study = make_study(data={"train": "folder/train.tsv", "validation": "folder/check.csv"})
    train, validation = picture.data_sets(make_row(), study)
    assert (train.name, train.context) == ("train.tsv (train)", "training")
    assert (validation.name, validation.context) == ("check.csv (validation)", "validation")
    assert json.loads(train.source) == {"path": "folder/train.tsv"}
    assert json.loads(train.profile)["num_rows"] == 8
    assert train.digest != validation.digest and len(train.digest) <= 36
    fraction = picture.data_sets(make_row(), make_study())[1]
    assert json.loads(fraction.source) == {"path": "train.tsv", "fraction": 0.2}


def test_a_hub_data_set_is_named_by_its_revision() -> None:
    hub = {"hub": "owner/films", "config": None, "split": "train", "revision": "a" * 40}
    train = picture.data_sets(make_row(), make_study(data={"train": hub, "validation": 0.1}))[0]
    assert (train.name, train.source_type) == ("owner/films (train)", "hugging_face")
    assert json.loads(train.source)["revision"] == "a" * 40


def test_no_tag_is_longer_than_mlflow_takes() -> None:
    tags = picture.trial_tags(make_study(), make_trial(0, "failed", reason="x" * 9000))
    assert max(map(len, tags.values())) == 5000
    assert max(map(len, picture.common_tags(make_row(command="c" * 9000), make_study()).values())) == 5000


def test_a_reference_has_no_parameters_of_an_adapter() -> None:
    params = picture.trial_params(make_study(), make_trial(None, params={"learning_rate": 0.002}))
    assert params["learning_rate"] == "0.002" and params["epochs"] == "3"
    assert not {"bottleneck_dim", "placement", "dtype", "max_length"} & set(params)


def summary(**changes: Any) -> dict[str, Any]:
    best = make_trial(1, objective=0.87, params={"activation": "gelu"}).to_json()
    counts = {"waiting": 0, "running": 0, "complete": 2, "pruned": 0, "failed": 0, "cancelled": 0}
    return {
        "study": "films",
        "state": "ended",
        "trials": counts,
        "budget": {"trials": 2, "hours": None, "failures": None},
        "best": best,
        "ended_because": "all 2 trials are done",
        "metric": "accuracy",
        "direction": "maximize",
        "references": {
            "default configuration": make_trial(0, objective=0.85).to_json(),
            "head alone, no adapter": make_trial(None, objective=0.7).to_json(),
        },
        "next": {},
        **changes,
    }


def test_the_first_line_says_who_won_by_how_much_at_what_size() -> None:
    assert note.headline(summary()) == (
        "Best: trial-0001 · accuracy 0.8700 · 100 parameters (10 %) · default 0.8500 · head 0.7000"
    )
    assert note.headline(summary(state="running")).startswith("Best so far: trial-0001")
    assert note.headline(summary(best=None, state="running")) == "No trial has ended yet"
    assert note.headline(summary(best=None)) == "No trial succeeded"


def test_the_name_of_a_metric_is_no_markdown_either() -> None:
    text = note.note(make_row(), make_study(), summary(metric="mean_squared_error"))
    assert text.splitlines()[0].startswith(r"### Best: trial-0001 · mean\_squared\_error 0.8700")


def test_the_default_configuration_may_win() -> None:
    won = make_trial(0, objective=0.85).to_json()
    assert note.headline(summary(best=won)).endswith("(10 %) · is the default · head 0.7000")


def test_a_note_without_results_is_whole() -> None:
    nothing = summary(best=None, references={"default configuration": None, "head alone, no adapter": None})
    text = note.note(make_row(), make_study(), nothing)
    assert text.startswith("### No trial succeeded\n") and "None" not in text


def test_text_from_outside_means_nothing_to_markdown() -> None:
    assert note.plain("a | <b>\n# c [d](e)") == r"a \| \<b\> \# c \[d\]\(e\)"
    backbone = Path("/data/a`b|c")
    study = make_study(backbone={"model": str(backbone)})
    line = next(
        line for line in note.note(make_row(), study, summary()).splitlines() if "| backbone&" in line
    )
    assert line.count("`") == 2 and line.replace("\\|", "").count("|") == 3


def test_of_several_methods_each_run_has_its_layers_under_the_name_of_their_column() -> None:
    methods = {
        "lora": {"rank": [4, 8], "layers": {"bits": [0, 1, 2]}},
        "bottleneck": {"bottleneck_dim": [16, 64]},
    }
    study = make_study(search={"method": methods, "learning_rate": [0.001, 0.002]})
    bits = {f"lora.layers.{layer}": layer != 1 for layer in range(len(bits_of(study.search, "lora")))}
    params = {"method": "lora", "lora.rank": 4, "learning_rate": 0.001, **bits}
    found = picture.configuration_params(study, params)
    assert "lora.layers" in columns(study.searched)
    assert found["lora.layers"] == found["layers"]
    # A chart that leaves out whoever lacks a parameter is given those that everybody has.
    assert set(shared_keys(study.search, study.searched)) == {"method", "learning_rate"}
    alone = make_study(search={"bottleneck_dim": [16, 64], "activation": ["relu", "gelu"]})
    assert shared_keys(alone.search, alone.searched) == alone.searched


@pytest.mark.parametrize(
    ("search", "params"),
    [
        ({"method": "prompt", "prompt_length": [2, 4]}, {"prompt_length": 2}),
        ({"method": "head", "learning_rate": [1e-3, 1e-2]}, {"learning_rate": 1e-3}),
        ({"bottleneck_dim": 8, "layers": {"bits": [0, 1]}}, {"layers.0": False, "layers.1": False}),
    ],
)
def test_what_has_no_layers_has_parameters_all_the_same(
    search: dict[str, Any], params: dict[str, Any]
) -> None:
    found = picture.configuration_params(make_study(search=search), params)
    assert params.keys() <= found.keys() and found.get("layers", "[]") == "[]"


def test_a_long_front_is_cut_and_counted() -> None:
    objectives = {"accuracy": 0.5, "loss": 0.25, "trainable_parameters": 1000}
    front = [{"number": number, "label": None, "objectives": objectives} for number in range(500)]
    text = note._front({"front": front})
    assert text.startswith("The front, 30 of 500 trials:") and text.count("trial-") == 30
    assert len(text) < 5000
    assert note._front({"front": front[:3]}).startswith("The front:")
