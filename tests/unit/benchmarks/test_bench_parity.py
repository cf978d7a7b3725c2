"""What the parity benchmark says of a confirmation."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy.stats import ttest_ind

from benchmarks.parity.__main__ import STUDIES, describe, difference, main, verdict
from sweeper.finalists import Group
from sweeper.study import from_dict

FULL = (0.91, 0.90, 0.92, 0.90, 0.91)


def group(what: str, test: tuple[float, ...], percent: float = 1.0) -> dict[str, Any]:
    return Group(what, {"learning_rate": 1e-4}, 1000, percent, test, test, 1.0).to_json()


def said(winner: tuple[float, ...], percent: float = 1.0) -> dict[str, Any]:
    first, second = group("0003", winner, percent), group("0005", winner)
    return {
        "metric": "accuracy",
        "finalists": [first, second],
        "winner": first,
        "default": group("default", winner),
        "head": group("head", (0.7, 0.71, 0.7, 0.7, 0.7)),
        "full": group("full", FULL, 100.0),
    }


def test_difference_is_welchs() -> None:
    other = (0.88, 0.89, 0.90, 0.87, 0.89)
    apart, half = difference(FULL, other)
    low, high = ttest_ind(FULL, other, equal_var=False).confidence_interval()
    assert apart == pytest.approx(statistics.fmean(FULL) - statistics.fmean(other))
    assert (apart - half, apart + half) == pytest.approx((low, high))


def test_values_that_do_not_vary_differ_surely() -> None:
    assert difference((0.5, 0.5), (0.25, 0.25)) == (0.25, 0.0)


@pytest.mark.parametrize(
    ("values", "percent", "word"),
    [(FULL, 1.0, "reached"), (FULL, 3.7, "missed"), ((0.90, 0.89, 0.91, 0.90, 0.90), 1.0, "missed")],
)
def test_verdict_needs_both_accuracy_and_share(values: tuple[float, ...], percent: float, word: str) -> None:
    assert verdict(said(values, percent)).endswith(word)


def test_verdict_without_full_fine_tuning() -> None:
    assert "nothing to compare" in verdict({**said(FULL), "full": None})


def test_description_names_every_configuration_once() -> None:
    trials = [
        {"number": None, "state": "complete", "device_seconds": 60.0},
        {"number": 0, "state": "complete", "device_seconds": 60.0},
        {"number": 1, "state": "pruned", "device_seconds": None},
    ]
    lines = describe("sst2", said(FULL), trials).splitlines()
    assert lines[0].startswith("sst2: 2 trials, 1 of them pruned, 1.0 minutes")
    names = [line.split("  ")[0] for line in lines[2:-1]]
    assert names == ["winner", "trial-0005", "default configuration", "head alone", "full fine-tuning"]


@pytest.mark.parametrize("task", sorted(STUDIES))
def test_studies_are_valid(task: str) -> None:
    text = STUDIES[task].read_text(encoding="utf-8")
    study = from_dict(yaml.safe_load(text), STUDIES[task], text)
    assert study.name == f"{task}-parity"
    assert study.data.test is not None


def test_one_seed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), "--folder", str(tmp_path / "out"), "--seeds", "1"])
    assert "one seed has no interval" in capsys.readouterr().err
