"""Means, intervals and who can be told apart, against figures worked out elsewhere."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper.confirmed import conclusions, explanation, said_beside, table_of
from sweeper.console import Output
from sweeper.figures.finalists import headline
from sweeper.finalists import (
    METHOD,
    Group,
    alike,
    label_of,
    p_value,
    parse_label,
    preferred_front,
    spread,
    verdict,
)
from sweeper.metrics import METRICS, RANGES
from sweeper.results import read_results
from sweeper.slot import Problem
from sweeper.study import from_dict
from sweeper.summary import summarize
from sweeper.terminal import configuration
from sweeper.testbench import Bench
from sweeper.tracking.confirmations import is_over
from sweeper.tracking.note import confirmed_headline, note
from tests.made_study import BEST, TRIALS, MadeStudy, home_in


def group(what: str, parameters: int, *validation: float) -> Group:
    return Group(what, {}, parameters, 1.0, validation, validation, None)


def test_a_training_without_the_metric_on_the_test_rows_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a correlation of predictions that are all equal."""
    trained = [
        SimpleNamespace(
            kind="confirm", state="complete", label=label_of(number, 1), metrics={}, place_id=number
        )
        for number in (1, 2)
    ]
    noted: dict[int, Any] = {}
    ledger = SimpleNamespace(confirmations=lambda study: trained, note_measured=noted.__setitem__)
    found = iter([{"test/loss": 0.5}, {"test/loss": 0.25, "test/pearson": 0.5}])
    monkeypatch.setattr(Bench, "_weights", lambda *arguments: (None, None))
    monkeypatch.setattr(Bench, "_measured", lambda *arguments, **how: next(found))
    session: Any = SimpleNamespace(name="films", ledger=ledger)
    pack: Any = SimpleNamespace(put=lambda *arguments: None, clear=lambda slot: None)
    data: Any = None
    Bench(session, "cpu", data, Problem("regression", "mean", 1, "pearson", True), pack).read(Output())
    said = "confirm-0001-1 has no pearson on the test rows: it is not counted\n"
    assert capsys.readouterr().err == said and set(noted) == {1, 2}


def test_labels_are_read_back() -> None:
    assert label_of(7, 3) == "confirm-0007-3" and parse_label("confirm-0007-3") == ("0007", "3")
    assert parse_label(label_of("head", 12)) == ("head", "12")


def test_the_interval_is_students() -> None:
    """t for 95 % and 4 degrees of freedom is 2.7764 in any table."""
    found = spread([0.80, 0.82, 0.84, 0.86, 0.88])
    assert found["mean"] == pytest.approx(0.84) and found["sd"] == pytest.approx(0.0316228, abs=1e-6)
    half = 2.7764 * 0.0316228 / 5**0.5
    assert found["interval"] == pytest.approx([0.84 - half, 0.84 + half], abs=1e-5)


def test_the_interval_of_a_bounded_metric_lies_within_its_bounds() -> None:
    found = spread([0.99, 1.0], (0.0, 1.0))
    assert found["mean"] == 0.995 and 0 < found["interval"][0] < 0.995 < found["interval"][1] < 1
    # Far from the bounds it is the plain one.
    values = [0.850, 0.851, 0.852]
    assert spread(values, (0.0, 1.0))["interval"] == pytest.approx(spread(values)["interval"], abs=2e-5)
    low, high = spread([-0.9, -1.0, -0.95], (-1.0, 1.0))["interval"]
    assert -1 < low < -0.95 < high
    low, high = spread([0.01, 0.3], (0.0, math.inf))["interval"]
    assert 0 < low < 0.155 < high
    assert spread([1.0, 1.0], (0.0, 1.0))["interval"] == [1.0, 1.0]


def test_each_metric_has_bounds_and_its_interval_keeps_them() -> None:
    metrics = {name for kind in METRICS.values() for name in kind}
    assert set(RANGES) == metrics
    for name in ("entity_f1", "f1_micro", "subset_accuracy"):
        low, high = spread([0.9, 1.0], RANGES[name])["interval"]
        assert 0 < low < 0.95 < high < 1
    low, high = spread([1.5, 40.0], RANGES["perplexity"])["interval"]
    assert 1 < low < 20.75 < high


def test_one_value_has_no_interval() -> None:
    assert spread([0.8]) == {"mean": 0.8, "sd": None, "interval": None, "values": [0.8]}


def test_what_stands_beside_the_best_says_only_what_can_be_done() -> None:
    assert "`sweeper confirm films`" in said_beside(None, "films", {"data": {"test": "test.tsv"}})
    nothing = said_beside(None, "films", {"data": {"test": None}})
    assert "no test rows" in nothing and "sweeper confirm" not in nothing


def test_a_finalist_that_lost_trainings_does_not_win_for_want_of_values(tmp_path: Path) -> None:
    """One value tells nothing apart: the smallest would win that diverged under all seeds but one."""
    study = MadeStudy(home_in(tmp_path))
    study.run_all()
    study.confirm(finalists=3, seeds=3, lost=2)
    said = verdict(study.ledger, "films")
    assert said is not None
    seeds = {row["name"]: row["seeds"] for row in said["finalists"]}
    [lost] = [name for name, count in seeds.items() if count == 1]
    assert sorted(seeds.values()) == [1, 3, 3] and lost not in said["alike"]
    assert said["winner"]["name"] != lost
    assert said["failed"] == [lost] and said["waiting"] == []
    assert f" {lost} failed under a seed, and cannot win." in conclusions(said)[0]
    assert "all other finalists" not in headline(read_results(study.ledger, "films"))
    study.ledger.close()


@pytest.mark.parametrize(("before_it", "asked"), [(2, 4), (2, 3)])
def test_a_confirm_that_was_interrupted_while_it_read_changes_no_winner(
    tmp_path: Path, before_it: int, asked: int
) -> None:
    """The one finalist with a reading more than the others won for want of values to compare with."""
    study = MadeStudy(home_in(tmp_path))
    study.run_all()
    study.confirm(finalists=3, seeds=before_it)
    before = verdict(study.ledger, "films")
    study.confirm(finalists=3, seeds=asked, read=label_of(BEST, before_it + 1).__eq__)
    said = verdict(study.ledger, "films")
    assert not is_over(study.ledger.confirmations("films"))
    assert before is not None and said is not None
    assert said["winner"]["name"] == before["winner"]["name"] != f"trial-{BEST:04d}"
    assert said["alike"] == before["alike"] and said["compared_seeds"] == 2
    assert said["failed"] == said["waiting"] == []
    assert "They are compared under the 2 seeds that all have." in conclusions(said)[0]
    study.ledger.close()


@pytest.mark.parametrize(("seeds", "is_compared"), [(2, False), (3, True)])
def test_new_finalists_are_compared_once_they_have_most_of_their_seeds(
    tmp_path: Path, seeds: int, is_compared: bool
) -> None:
    """Two under four seeds are more trainings than three under two, and fewer than three under three."""
    study = MadeStudy(home_in(tmp_path))
    study.run_all()
    study.confirm(finalists=2, seeds=4)
    study.confirm(finalists=3, seeds=seeds)
    said = verdict(study.ledger, "films")
    assert said is not None and sorted(row["seeds"] for row in said["finalists"]) == [seeds, 4, 4]
    assert said["compared_seeds"] == (3 if is_compared else 4)
    assert len(said["alike"]) == (3 if is_compared else 2) and len(said["waiting"]) == 1 - is_compared
    if not is_compared:
        assert f"{said['waiting'][0]} is not trained and read to the end." in conclusions(said)[0]
    study.ledger.close()


def test_what_was_interrupted_before_anything_was_compared_is_not_confirmed(tmp_path: Path) -> None:
    study = MadeStudy(home_in(tmp_path))
    study.run_all()
    study.confirm(finalists=3, seeds=2, read=lambda label: False)
    assert verdict(study.ledger, "films") is None
    study.ledger.close()


def test_the_confirmed_winner_stands_before_the_others_of_a_front(tmp_path: Path) -> None:
    study = MadeStudy(home_in(tmp_path), several=True)
    study.run_all()
    ledger = study.ledger
    front = ledger.front("films")
    assert len(front) > 1 and preferred_front(ledger, "films") == (front, None)
    study.confirm(finalists=len(front))
    found, said = preferred_front(ledger, "films")
    assert said is not None and found[0].number == said["winner"]["number"] != front[0].number
    assert found[1:] == [view for view in front if view != found[0]]
    ledger.close()


def verdict_of(*finalists: Group, head: Group) -> dict[str, Any]:
    same = alike(finalists, True)
    return {
        "metric": "accuracy", "direction": "maximize", "finalists": [one.to_json() for one in finalists],
        "alike": [one.name for one in same], "winner": min(same, key=lambda one: one.parameters).to_json(),
        "default": finalists[0].to_json(), "head": head.to_json(), "full": None, "test_used": METHOD,
        "compared_seeds": len(finalists[0].validation), "failed": [], "waiting": [],
    }  # fmt: skip


def test_what_was_confirmed_is_said_in_words() -> None:
    """At 3.4 degrees of freedom t is 18.7 against the head, and -0.32 against the default."""
    default, close, worse = (
        group("0000", 900, 0.90, 0.91, 0.92),
        group("0004", 100, 0.89, 0.91, 0.92),
        group("0002", 50, 0.50, 0.51, 0.52),
    )
    said = verdict_of(default, close, worse, head=group("head", 7, 0.70, 0.71, 0.72))
    assert [row[0] for row in table_of(said)[1]] == ["trial-0000", "trial-0004", "trial-0002", "head alone"]
    assert explanation(said).startswith("± is the standard deviation over the seeds.")
    assert conclusions(said) == [
        f"trial-0000 and trial-0004 cannot be told apart; trial-0002 is worse ({METHOD}).",
        "Confirmed: trial-0004, the smallest of them. Test accuracy 0.9067 ± 0.0153, with 100 trainable "
        "parameters, 1 % of the backbone's.",
        "On the test rows it is 0.0033 below the default configuration (p = 0.77) and 0.1967 above the head "
        "alone (p < 0.001). Above p = 0.05 (Welch's t-test) chance may make such a difference.",
    ]
    said = verdict_of(default, worse, head=group("head", 7, 0.70, 0.71, 0.72))
    assert conclusions(said)[0] == f"trial-0000 is better than trial-0002 ({METHOD})."


def test_the_first_line_in_mlflow_is_the_confirmed_winner() -> None:
    default, close = group("0000", 900, 0.90, 0.91, 0.92), group("0004", 100, 0.89, 0.91, 0.92)
    said = verdict_of(default, close, head=group("head", 7, 0.70, 0.71, 0.72))
    assert confirmed_headline(said) == (
        "Confirmed: trial-0004 · test accuracy 0.9067 (± 0.0153, 3 seeds) · 100 parameters (1 %) · "
        "default 0.9100 · head 0.7100"
    )
    alone = verdict_of(group("0000", 9, 0.9), head=group("head", 7, 0.7))
    assert confirmed_headline(alone).endswith(
        "0.9000 (one seed) · 9 parameters (1 %) · is the default · head 0.7000"
    )


def test_what_mlflow_says_of_a_confirmed_study_is_what_export_writes(tmp_path: Path) -> None:
    """The confirmed winner, though another one was better in the search."""
    made = MadeStudy(home_in(tmp_path))
    made.run_all()
    made.confirm(finalists=2, seeds=3)
    row, said = made.ledger.study("films"), verdict(made.ledger, "films")
    assert said is not None
    said = {**said, "winner": next(one for one in said["finalists"] if one["number"] != BEST)}
    text = note(row, from_dict(row.spec, row.path, row.text), summarize(made.ledger, "films"), None, said)
    assert text.startswith("### Confirmed: trial-0005")
    assert "sweeper show films 5\n" in text
    assert f"The best configuration: `{configuration(TRIALS[5].params)}`" in text
    made.ledger.close()


def test_one_seed_is_said_to_tell_little() -> None:
    said = verdict_of(group("0000", 9, 0.9), group("0001", 8, 0.8), head=group("head", 7, 0.7))
    assert "neither a standard deviation nor an interval" in explanation(said)
    assert "--seeds" in conclusions(said)[0]
    assert conclusions(said)[-1] == (
        "On the test rows it is 0.1000 below the default configuration and 0.1000 above the head alone."
    )


def test_welch_by_hand() -> None:
    """t = -2 at 8 degrees of freedom: p = 0.0805, for 1..5 against 3..7."""
    assert p_value([1, 2, 3, 4, 5], [3, 4, 5, 6, 7]) == pytest.approx(0.0805, abs=1e-4)
    # One of the two does not vary: t = -3.46 at 2 degrees of freedom.
    assert p_value([1, 1, 1], [2, 3, 4]) == pytest.approx(0.0742, abs=1e-4)
    assert p_value([1, 1], [1, 1]) == 1.0 and p_value([1, 1], [2, 2]) == 0.0 and p_value([1], [2]) == 1.0


def test_who_cannot_be_told_from_the_best() -> None:
    best = group("0001", 900, 0.90, 0.91, 0.92)
    close = group("0002", 100, 0.89, 0.91, 0.92)
    worse = group("0003", 50, 0.50, 0.51, 0.52)
    assert alike([best, close, worse], True) == [best, close]
    assert alike([best, close, worse], False) == [worse]
    assert alike([worse], True) == [worse]


def test_holm_asks_more_of_more_finalists() -> None:
    """A difference of p = 0.034 holds alone, and not as the smaller of two."""
    best = group("0001", 9, 3.0, 4.0, 5.0, 6.0, 7.0)
    lower = group("0002", 9, 0.5, 1.5, 2.5, 3.5, 4.5)
    same = group("0003", 9, 2.9, 3.9, 4.9, 5.9, 6.9)
    assert 0.025 < p_value(best.validation, lower.validation) < 0.05
    assert alike([best, lower], True) == [best]
    assert alike([best, lower, same], True) == [best, lower, same]
