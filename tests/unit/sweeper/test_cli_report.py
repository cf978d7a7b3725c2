"""Tables on terminals of several widths, and the lines of ``check`` and of a card that depend on a study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper import check
from sweeper.check.printed import _known, _named, _pairs
from sweeper.console import Output
from sweeper.control import resume_study
from sweeper.export import Exported
from sweeper.export.card import card
from sweeper.study import from_dict
from sweeper.terminal import number, print_exports, print_studies, print_trials
from tests.made_study import STUDY_TEXT, TRIALS, MadeStudy, home_in


@pytest.fixture
def study(tmp_path: Path) -> MadeStudy:
    made = MadeStudy(home_in(tmp_path))
    made.run_all()
    return made


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes stdout a terminal of a width."""

    def of(width: int) -> Output:
        monkeypatch.setattr(Output, "stdout_is_terminal", True)
        monkeypatch.setenv("COLUMNS", str(width))
        return Output()

    return of


@pytest.mark.parametrize("width", [80, 120])
def test_no_cell_of_the_trials_is_broken_on_a_narrow_terminal(
    study: MadeStudy, terminal: Any, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    print_trials(terminal(width), [trial.to_json() for trial in study.ledger.trials(study.name)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["trial", "state", "objective", "trainable", "share", "time", "reason"]
    row = next(place for place, line in enumerate(lines) if line.startswith("trial-0001"))
    assert lines[row + 1].startswith("    bottleneck_dim=97 activation=gelu initialization=truncated_normal")
    assert max(map(len, lines)) <= width


def test_a_wide_terminal_has_a_column_for_every_parameter(
    study: MadeStudy, terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    print_trials(terminal(200), [trial.to_json() for trial in study.ledger.trials(study.name)])
    assert "learning_rate" in capsys.readouterr().out.splitlines()[0]


def test_no_count_of_the_studies_is_broken_on_a_narrow_terminal(
    study: MadeStudy, terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    status = study.ledger.status(study.name)
    print_studies(terminal(80), [status])
    assert "3 complete, 2 pruned, 1 failed" in capsys.readouterr().out
    print_studies(terminal(140), [status])
    assert "cancelled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "grows", "says"),
    [
        ("ended", False, "which has ended (all 6 trials are done): to go on, raise its budget"),
        ("ended", True, "with 6 of 9 trials ended: `sweeper run` goes on with it"),
        ("enqueued", False, "which has ended (all 6 trials are done): to go on, raise its budget"),
        ("begun", False, "with 1 of 6 trials ended: `sweeper run` goes on with it"),
        ("paused", False, "with 1 of 6 trials ended: `sweeper resume films` lets it go on"),
        (
            "unfinished",
            False,
            "which has ended (enough), but for what had begun: `sweeper run` finishes that",
        ),
        ("stopped", False, "which its user stopped: `sweeper resume films` lets it go on"),
    ],
)
def test_check_says_what_is_left_of_a_known_study(
    what: str, grows: bool, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MadeStudy(home_in(tmp_path), trials=5 if what == "enqueued" else 6)
    written = made.ledger.study("films").spec
    written["budget"] |= {"terminator": {"name": "emmr", "warm_up_trials": 1, "n_initial_trials": 2}}
    made.ledger.replace_spec("films", from_dict(written, "films.yaml").to_dict(), "films.yaml", STUDY_TEXT)
    monkeypatch.setenv("SWEEPER_HOME", str(made.home.root))
    if what == "enqueued":
        made.ledger.enqueue("films", TRIALS[5].params)
    for _ in range(7 if what in ("ended", "enqueued") else 1):
        made.run_next()
    made.ledger.end_if_done("films")
    if what == "unfinished":
        made.run_next()
        claim = made.run_next(evaluations=1)
        assert made.ledger.end_over_budget("films", "enough")
        made.ledger.release(claim)
        assert resume_study(made.ledger, "films").startswith(
            "films has ended, but for what had begun: `sweeper"
        )
    if what == "paused":
        made.ledger.pause("films")
    if what == "stopped":
        made.ledger.stop("films")
    row = made.ledger.study("films")
    study = from_dict(row.spec, row.path, row.text)
    if grows:
        study = replace(study, budget=replace(study.budget, trials=9))
    _, known = check._known(study)
    assert _known({"known": known, "study": "films"}) == says
    made.ledger.close()


def test_check_prints_a_budget_with_plugins_as_people_say_it() -> None:
    budget = {"trials": 1000, "hours": None, "terminator": {"name": "emmr", "min_n_trials": 20}}
    assert _pairs({**budget, "repeats": True}) == ("trials 1,000, terminator emmr (min_n_trials 20), repeats")
    assert _named({"name": "tpe", "gamma": None, "group": True, "n_startup_trials": 10}) == (
        "tpe (group, n_startup_trials 10)"
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [(1_234_567.0, "1,234,567"), (1_234_567, "1,234,567"), (0.8642578, "0.864258"), (1000.5, "1000.5"),
     (999.0, "999"), (1e300, "1e+300"), (float("inf"), "inf"), (float("nan"), "nan"), (-2000.0, "-2,000")],
)  # fmt: skip
def test_numbers_are_short_and_counts_whole(value: float, said: str) -> None:
    assert number(value) == said


def facts(state: str, reason: str | None) -> dict[str, Any]:
    trial = {"number": 2, "state": state, "reason": reason, "objective": 0.9, "metrics": {"accuracy": 0.9}}
    trial |= {f"{part}_parameters": 9 for part in ("adapter", "head", "trainable")}
    return {
        "study": "films",
        "trial": trial | {"trainable_percent": 0.5},
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "configuration": {"adapter": {"method": "bottleneck"}, "train": {"epochs": 3}},
        "seed": 0,
        "task": {"text": ["sentence"], "label": "label", "label_names": ["no", "yes"]},
        "backbone": {"model": "b", "revision": None, "path": "/b", "fingerprint": "f", "parameters": 9},
        "data": {"rows": {"validation": 8}, "sources": {"train": {"path": "t"}}, "fingerprint": "f"},
    }


def test_the_card_of_a_pruned_trial_says_so() -> None:
    pruned = facts("pruned", "pruner")
    assert "was pruned before its end (pruner): this is what its last evaluation gave" in card(pruned, "")
    pruned["configuration"]["train"]["keep"] = "best"
    assert "this is what its best evaluation gave" in card(pruned, "")
    assert "before its end" not in card(facts("complete", None), "")


def test_export_names_the_command_as_this_shell_can_start_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/sweeper", "export"])
    monkeypatch.setenv("PATH", "")
    print_exports(Output(), [Exported(Path("/best"), 3, "accuracy", 0.9)])
    assert "Predict with it: .venv/bin/sweeper predict /best FILE." in capsys.readouterr().err
