"""Results, figures, pages, comparisons and the notebook's view of a study whose results are known."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sweeper
from sweeper import figures
from sweeper.cli import main
from sweeper.compare import compare_studies, comparison_page
from sweeper.errors import UsageError
from sweeper.figures import finalists, progress, style
from sweeper.importance import importances
from sweeper.ledger import Attached, AttemptRow, Result, this_worker, trialview
from sweeper.ledger.records import PAST_THE_LIMIT
from sweeper.page import cell, figure_section, report_page, write_page
from sweeper.results import Finalist, Goal, Results, goals_of, non_dominated, read_results
from sweeper.study.schema import Fixed, Range
from sweeper.summary import summarize
from sweeper.terminal import duration, percent
from sweeper.terminal import number as shown_number
from tests.made_study import BEST, TRIALS, MadeStudy, home_in

FIGURES = ("front", "parallel", "importance", "slices", "curves", "timeline", "finalists")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadeStudy]:
    study = MadeStudy(home_in(tmp_path_factory.mktemp("reports")))
    study.run_all()
    yield study
    study.ledger.close()


@pytest.fixture(scope="module")
def results(made: MadeStudy) -> Results:
    return read_results(made.ledger, "films")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[MadeStudy]:
    study = MadeStudy(home_in(tmp_path))
    yield study
    study.ledger.close()


def titles(results: Results) -> dict[str, str]:
    found = {name: figures.figure(results, name).layout.title.text for name in figures.FIGURES}
    return {name: re.sub(r"<[^>]+>", " ", text) for name, text in found.items()}


def test_the_front_holds_what_nothing_beats(results: Results) -> None:
    # Trial 1 is the best, trial 5 smaller and worse, trial 0 smaller and worse again; no other is complete.
    assert [trial.number for trial in results.front] == [1, 5, 0]
    assert [trial.number for trial in results.top(2)] == [BEST, 5]
    assert results.best is not None and results.best.number == BEST
    assert results.default is not None and results.head is not None


def test_equal_and_beaten_trials_are_not_on_the_front(results: Results) -> None:
    def variant(number: int, objective: float, size: int) -> Any:
        changes = {"number": number, "place_id": 100 + number, "objective": objective}
        return dataclasses.replace(results.complete[0], **changes, trainable_parameters=size)

    trials = [variant(0, 0.8, 10), variant(1, 0.8, 10), variant(2, 0.9, 20), variant(3, 0.85, 20)]
    trials += [variant(4, 0.7, 5), variant(5, 0.6, 5)]
    assert [trial.number for trial in non_dominated(trials, results.axes)] == [2, 0, 4]
    least = (Goal("loss", "minimize", lambda t: t.objective), results.axes[1])
    assert [trial.number for trial in non_dominated(trials, least)] == [5]
    # Equal in all that counts: the smaller one stands for both, here as in `best` and `export --pareto`.
    alike = [variant(6, 0.9, 30), variant(7, 0.9, 20), variant(8, 0.9, 20)]
    assert [trial.number for trial in non_dominated(alike, results.axes[:1])] == [7]
    objectives = [{"metric": "accuracy", "direction": "maximize"}]
    assert [trial.number for trial in trialview.front(alike, objectives)] == [7]


def test_several_objectives_are_read_by_their_names(results: Results) -> None:
    written = [
        {"metric": "accuracy", "direction": "maximize"},
        {"metric": "trainable_parameters", "direction": "minimize"},
    ]
    goals = goals_of({"objective": written})
    best = results.best
    assert best is not None
    assert [goal.value(best) for goal in goals] == [best.metrics["accuracy"], best.trainable_parameters]
    two = {trace.name: trace.line.shape for trace in figures.figure(results, "front").data}
    assert two["Pareto front"] == "hv"
    third = Goal("flops_per_token", "minimize", lambda trial: 1.0)
    three = figures.figure(dataclasses.replace(results, goals=(goals[0], third, goals[1])), "front")
    assert {trace.name: trace.line.shape for trace in three.data}["Pareto front"] == "linear"
    assert three.layout.xaxis.title.text == "FLOPs per token (less is better)"
    several = dataclasses.replace(results, goals=goals)
    assert [trial.number for trial in several.front] == [1, 5, 0]
    assert set(titles(several)) == set(FIGURES)


def test_there_is_every_figure_and_its_title_says_what_was_found(results: Results) -> None:
    said = titles(results)
    assert tuple(said) == FIGURES
    assert "trial-0001 is best: accuracy 0.8643 with 450,746 trainable parameters" in said["front"]
    assert "default configuration 0.8135; head alone 0.6797" in said["front"]
    assert "2 of 6 trials were stopped early" in said["curves"]
    assert "trained 7 runs" in said["timeline"]
    assert "not confirmed" in said["finalists"]
    assert "cannot be said yet" in said["importance"]  # three complete trials are too few


def test_the_front_draws_the_references_and_the_curves_mark_what_was_pruned(results: Results) -> None:
    front = {trace.name: trace for trace in figures.figure(results, "front").data}
    assert list(front["Pareto front"].y) == [0.8134765625, 0.822265625, 0.8642578125]
    assert list(front["default configuration (trial 0)"].y) == [0.8134765625]
    assert list(front["head alone, no adapter"].x) == [770]
    curves = {trace.name: trace for trace in figures.figure(results, "curves").data}
    assert list(curves["stopped here"].y) == [0.9]
    assert list(curves["best"].y)[:-1] == list(TRIALS[BEST].curve)


def test_importance_is_one_in_all_and_finds_what_decides(results: Results) -> None:
    # Forty trials whose objective follows from the learning rate alone.
    base = results.complete[0]
    trials = []
    for number in range(40):
        rate = 1e-4 * 100 ** (number / 39)
        activation = ("relu", "gelu", "silu")[number * 7 % 3]
        params = base.params | {"learning_rate": rate, "activation": activation}
        params["bottleneck_dim"] = 4 + number * 37 % 200
        trials.append(
            dataclasses.replace(base, number=number, place_id=number, params=params, objective=number / 40)
        )
    many = dataclasses.replace(results, trials=tuple(trials))
    found = importances(many)
    assert next(iter(found)) == "learning_rate" and found["learning_rate"] > 0.5
    assert sum(found.values()) == pytest.approx(1.0)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert "learning_rate matters most" in titles(many)["importance"]
    same = dataclasses.replace(many, trials=tuple(dataclasses.replace(t, objective=0.5) for t in trials))
    assert importances(same) == {} and "matters most" not in titles(same)["importance"]


def test_the_best_of_the_importance_are_as_many_as_its_evaluator_takes(results: Results) -> None:
    base = results.complete[0]
    trials = [
        dataclasses.replace(
            base,
            number=number,
            place_id=number,
            params=base.params | {"learning_rate": 1e-4 * 1.09**number},
            objective=number / 52,
        )
        for number in range(52)
    ]
    shown = figures.figure(dataclasses.replace(results, trials=tuple(trials)), "importance")
    assert "over 52 complete trials, the best 6 against all" in shown.layout.title.text


def test_what_pruning_left_out_is_of_what_each_trial_was_to_have(results: Results) -> None:
    """A trial of one epoch that was stopped before its end has left out one evaluation, not the longest's."""
    assert "which left out 33% of all evaluations" in titles(results)["curves"]  # 5 of 5 times 3
    short = [
        dataclasses.replace(trial, params=trial.params | {"epochs": 1}) if trial.number == 3 else trial
        for trial in results.trials
    ]
    study = dataclasses.replace(results.study, search=results.study.search | {"epochs": Range(1, 3)})
    said = titles(dataclasses.replace(results, study=study, trials=tuple(short)))["curves"]
    assert "2 of 6 trials were stopped early, which left out 23% of all evaluations" in said  # 3 of 13
    refused = [
        dataclasses.replace(trial, reason=f"its size is{PAST_THE_LIMIT}") if trial.number == 3 else trial
        for trial in results.trials
    ]
    said = titles(dataclasses.replace(results, trials=tuple(refused)))["curves"]
    assert "1 of 6 trials were stopped early, which left out 17% of all evaluations" in said  # 2 of 12


def test_the_timeline_is_of_the_search_alone(fresh: MadeStudy) -> None:
    fresh.run_all()
    before = titles(read_results(fresh.ledger, "films"))["timeline"]
    fresh.confirm()
    assert titles(read_results(fresh.ledger, "films"))["timeline"] == before


def test_the_timeline_has_what_was_trained_and_came_to_nothing(fresh: MadeStudy) -> None:
    ledger, worker = fresh.ledger, this_worker("cpu")
    fresh.run_next()
    for failure in ("raised", "out_of_memory"):
        claim = ledger.reserve("films", worker)
        assert claim is not None and not ledger.fail(claim, failure, "it did not do")
    fresh.run_next()
    first = ledger.trial("films", 1)
    waits = ledger.reserve("films", worker)
    assert waits is not None and first.configuration is not None
    ledger.attach(waits, Attached(1, 1, first.params, first.configuration, 1, 1))
    assert ledger.record_repeat(waits, first.configuration) == 0
    ledger.enqueue("films", first.params)
    refused = ledger.reserve("films", worker)
    assert refused is not None
    ledger.attach(refused, Attached(2, 2, first.params, "another", 1, 1))
    ledger.record_result(refused, Result("pruned", reason=f"its size is{PAST_THE_LIMIT}"))
    found = read_results(ledger, "films")
    drawn = {trace.name: len(trace.y) for trace in figures.figure(found, "timeline").data}
    assert drawn == {"complete": 2, "failed: it raised": 1, "failed: it did not fit": 1}
    said = titles(found)["timeline"]
    assert "trained 2 runs" in said and "2 attempts more after interruptions or failures" in said


def test_what_is_not_complete_is_nothing_to_compare_with(fresh: MadeStudy) -> None:
    for _ in range(2):
        fresh.run_next(evaluations=1)
    found = read_results(fresh.ledger, "films")
    assert found.default is None and found.head is None
    assert set(summarize(fresh.ledger, "films")["references"].values()) == {None}
    curves = {trace.name for trace in figures.figure(found, "curves").data}
    assert curves == {"default configuration (trial 0)", "head alone, no adapter"}  # drawn so far


@pytest.mark.parametrize(
    ("low", "high", "marks"), [(22, 44, [22, 44]), (16, 32, [16, 32]), (4, 256, [5, 10, 20, 50, 100, 200])]
)
def test_a_log_axis_has_numbers_on_it(low: float, high: float, marks: list[float]) -> None:
    assert style.log_axis([low, high])["tickvals"] == marks


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_page_is_written_to_files_alone(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "there"
    os.mkfifo(there) if kind == "pipe" else there.mkdir()
    with pytest.raises(UsageError, match="give the page a file's name"):
        write_page(there, "a page")
    file, link = tmp_path / "page.html", tmp_path / "link.html"
    link.symlink_to(file)
    write_page(link, "a page")
    assert link.is_symlink() and file.read_text() == "a page"


def test_finalists_are_drawn_with_their_intervals_and_ties_named(results: Results) -> None:
    found = (
        Finalist("trial-0001", 0.86, 0.01, 0.85, 0.87, (0.85, 0.87), 450_746),
        Finalist("trial-0005", 0.855, 0.01, 0.845, 0.865, (0.85, 0.86), 24_000),
        Finalist("trial-0000", 0.80, 0.01, 0.79, 0.81, (0.79, 0.81), 18_000),
        Finalist("full fine-tuning", 0.87, 0.01, 0.86, 0.88, (0.86, 0.88), 22_000_000, is_reference=True),
    )
    verdict = {
        "winner": {"name": "trial-0005", "seeds": 2, "test": {"mean": 0.855}},
        "alike": ["trial-0001", "trial-0005"],
        "finalists": [{"name": "trial-0001"}, {"name": "trial-0005"}, {"name": "trial-0000"}],
        "failed": ["trial-0000"],
        "waiting": [],
    }
    confirmed = dataclasses.replace(results, finalists=found, confirmed=verdict)
    said = finalists.headline(confirmed)
    assert said == (
        "trial-0005: test accuracy 0.855 over 2 seeds, the smallest of 2 finalists that validation cannot "
        "tell apart"
    )
    means = {trace.name: trace for trace in figures.figure(confirmed, "finalists").data if trace.name}
    assert list(means["finalists"].error_x.array) == pytest.approx([0.01, 0.01, 0.01])
    assert list(means["references"].x) == [0.87]
    # One seed has no interval, which is not one of no width.
    once = tuple(dataclasses.replace(one, low=None, high=None) for one in found)
    drawn = figures.figure(dataclasses.replace(confirmed, finalists=once), "finalists")
    bars = [trace.error_x for trace in drawn.data if trace.name]
    assert all(value is None for bar in bars for value in (*bar.array, *bar.arrayminus))
    assert "interval" not in drawn.layout.title.text


def test_what_only_some_of_the_best_have_is_not_said_of_them_all(results: Results) -> None:
    """No trial has the rank of one method and the dimension of another."""
    search = {"lora.rank": Range(1, 64), "learning_rate": Range(1e-4, 1e-2)}
    study = dataclasses.replace(results.study, search=search)
    trials = tuple(
        dataclasses.replace(
            trial, params={"learning_rate": 1e-3, **({"lora.rank": 4 + index} if index != 1 else {})}
        )
        for index, trial in enumerate(results.top(3))
    )
    said = titles(dataclasses.replace(results, study=study, trials=trials))["slices"]
    assert "The best 3 trials lie at learning_rate 0.001 to 0.001 " in said


def test_a_number_in_a_table_is_sorted_by_its_value() -> None:
    """As texts 113,810 comes before 9,000, and 2 h before 41 s."""
    shown = [
        shown_number(113_810),
        shown_number(9_000),
        percent(10.3),
        percent(9.1),
        duration(7500),
        duration(41),
    ]
    assert shown == ["113,810", "9,000", "10.3 %", "9.1 %", "2 h 05 min", "41 s"]
    values = [113_810, 9_000, 10.3, 9.1, 7500, 41]
    assert [cell(one) for one in shown] == [
        f'<td class="number" data-value="{value}">{text}</td>'
        for value, text in zip(values, shown, strict=True)
    ]
    assert cell(shown_number(None)) == "<td>-</td>"


def test_what_a_worker_did_at_once_is_in_rows_of_its_own() -> None:
    def attempt(place: int, start: float, end: float, worker: str = "one") -> AttemptRow:
        return AttemptRow(place, 1, f"trial-{place:04d}", worker, "host", "cpu", start, end, "complete")

    rows = progress.lanes([attempt(0, 0, 5), attempt(1, 1, 3), attempt(2, 3, 9), attempt(3, 2, 4, "two")])
    assert {a.place_id: lane for a, lane in rows} == {
        0: ("one (cpu)", 1),
        1: ("one (cpu)", 2),
        2: ("one (cpu)", 2),
        3: ("two (cpu)", 1),
    }


def test_a_study_without_any_result_has_a_report(fresh: MadeStudy) -> None:
    study = sweeper.load("films", home=fresh.home.root)
    assert study.best is None and study.trials.empty and study.front.empty
    assert "no trial has ended yet" in report_page(study.results)
    assert "no trial has ended yet" in study._repr_html_()
    fresh.run_next()
    fresh.run_next(evaluations=1)
    running = sweeper.load("films", home=fresh.home.root)
    assert set(running.trials["state"]) <= {"complete", "running"}
    assert set(titles(running.results)) == set(FIGURES)


def test_what_no_trial_has_drawn_and_a_space_without_choice_are_drawn_too(results: Results) -> None:
    undrawn = {**results.study.search, "lora.rank": Range(1, 8)}
    fixed = {"bottleneck_dim": Fixed(24)}
    for search in (undrawn, fixed):
        study = dataclasses.replace(results.study, search=search)
        trials = [
            dataclasses.replace(trial, params={k: v for k, v in trial.params.items() if k in search})
            for trial in results.trials
        ]
        said = titles(dataclasses.replace(results, study=study, trials=trials))
        assert tuple(said) == FIGURES
    assert "Nothing is searched" in said["slices"]


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(results: Results) -> None:
    page = report_page(results)
    assert page == report_page(results)
    assert "RuntimeError: | &lt;b&gt;no&lt;/b&gt;" in page and "<b>no</b>" not in page
    outside = re.sub(r'<script id="plotly".*?</script>', "", page, flags=re.DOTALL)
    assert not re.search(r'(src|href)\s*=\s*"?(https?:)?//', outside)
    assert "default-src 'none'" in outside
    sources = re.findall(
        r'<script type="application/json" data-figure="(\w+)">(.*?)</script>', outside, re.DOTALL
    )
    assert [name for name, _ in sources] == list(FIGURES)
    assert all({"data", "layout"} <= set(json.loads(source)) for _, source in sources)


def test_a_text_that_would_end_the_script_does_not(results: Results) -> None:
    evil = dataclasses.replace(results.complete[0], params={"activation": "</script><script>alert(1)"})
    page = figure_section("x", figures.described(dataclasses.replace(results, trials=(evil,)), "front"))
    assert "alert(1)" in page and page.count("<script") == page.count("</script>") == 1


@pytest.mark.parametrize("name", [".", "missing/report.html"])
def test_where_no_page_can_be_written_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="folder"):
        write_page(tmp_path / name, "text")
    assert not list(tmp_path.iterdir())


def test_a_notebook_sees_what_the_commands_print(
    made: MadeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("SWEEPER_HOME", str(made.home.root))
    study = sweeper.load("films")
    assert main(["best", "films", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == study.best
    assert main(["status", "films", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == study.status
    frame = study.trials
    assert len(frame) == len(TRIALS) + 1
    assert (
        frame.loc["trial-0001", "bottleneck_dim"] == 97
        and frame.loc["trial-0001", "accuracy"] == 0.8642578125
    )
    assert str(frame["number"].dtype) == str(frame["bottleneck_dim"].dtype) == "Int64"
    assert list(study.front.index) == ["trial-0001", "trial-0005", "trial-0000"]
    assert "trial-0001" in study._repr_html_()
    with pytest.raises(
        UsageError, match=r"no figure 'fornt'. Did you mean 'front'\? There are: front, parallel"
    ):
        study.figure("fornt")
    file = tmp_path / "report.html"
    assert main(["report", "films", "--out", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "study": "films",
        "file": str(file),
        "figures": list(FIGURES),
    }
    assert file.read_text(encoding="utf-8") == report_page(study.results)


@pytest.mark.parametrize("name", ["sst2", "../films", 3, ""])
def test_a_study_that_is_none_is_refused(made: MadeStudy, name: Any) -> None:
    with pytest.raises(UsageError):
        sweeper.load(name, home=made.home.root)


def test_two_studies_are_compared(
    made: MadeStudy,
    results: Results,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    other = MadeStudy(made.home, name="other", trials=2)
    other.run_all()
    monkeypatch.setenv("SWEEPER_HOME", str(made.home.root))
    file = tmp_path / "comparison.html"
    assert main(["compare", "films", "other", "--json", "--out", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["study"] for one in found["studies"]] == ["films", "other"]
    assert [point["number"] for point in found["studies"][1]["front"]] == [1, 0]
    assert found["differences"] == {"budget.trials": {"films": 6, "other": 2}}
    assert found["same_data"] is True
    page = file.read_text(encoding="utf-8")
    assert "films and other reach the same accuracy: 0.8643" in page and "budget.trials" in page
    assert main(["compare", "films", "other"]) == 0
    assert "budget.trials\t6\t2" in capsys.readouterr().out
    three = [results, read_results(made.ledger, "other"), dataclasses.replace(results, data_fingerprint="x")]
    assert compare_studies(three[1:])["same_data"] is False
    # The same rows in other tokens are the same rows, but not where tokens are predicted.
    rows = {"train": "t", "validation": "v"}
    ours, theirs = (
        dataclasses.replace(one, data_fingerprint=one.name, data_digests=rows) for one in three[:2]
    )
    assert compare_studies([ours, theirs])["same_data"] is True
    tested = dataclasses.replace(theirs, data_digests={**rows, "test": "e"})
    assert compare_studies([ours, tested])["same_data"] is True
    fewer = dataclasses.replace(theirs, data_digests={**rows, "train": "u"})
    assert compare_studies([ours, fewer])["same_data"] is False
    task = dataclasses.replace(results.study.task, kind="causal_lm")
    predicts = [
        dataclasses.replace(one, study=dataclasses.replace(one.study, task=task)) for one in (ours, theirs)
    ]
    assert compare_studies(predicts)["same_data"] is False
    renamed = dataclasses.replace(results.study, name="again")
    again = dataclasses.replace(results, study=renamed, backbone_fingerprint="x", dtype="bfloat16")
    assert compare_studies([results, again])["differences"] == {
        "backbone_fingerprint": {"films": "b" * 64, "again": "x"},
        "dtype": {"films": "float32", "again": "bfloat16"},
    }
    assert "different rows" in comparison_page(three[1:], compare_studies(three[1:]))


def test_what_cannot_be_compared_is_refused(made: MadeStudy, results: Results) -> None:
    loss = MadeStudy(made.home, name="loss", direction="minimize", trials=1)
    with pytest.raises(UsageError, match="'films' has the objective maximize accuracy, 'loss' minimize loss"):
        compare_studies([results, read_results(loss.ledger, "loss")])
    with pytest.raises(UsageError, match="named twice"):
        compare_studies([results, results])
    with pytest.raises(UsageError, match="two studies or more"):
        compare_studies([results])
