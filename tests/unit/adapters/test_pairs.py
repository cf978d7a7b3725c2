"""Every pair of a method and a family: the laws are run, and docs/adapters.md says what came of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapters.architectures import ARCHITECTURES
from adapters.config import METHODS
from adapters.pairs import pairs
from tests.laws import LAYERS, PASSED, verdict
from tests.tiny_models import tiny_config

RECORD = json.loads(
    (Path(__file__).resolve().parents[3] / "docs" / "adapter_pairs.json").read_text(encoding="utf-8")
)
PAIRS = [(method, family) for family in ARCHITECTURES for method in METHODS]


def test_the_record_covers_all_and_most_of_it_passed() -> None:
    assert {family: set(found) for family, found in RECORD.items()} == {
        family: set(METHODS) for family in ARCHITECTURES
    }
    passed = [pair for pair in PAIRS if RECORD[pair[1]][pair[0]] == PASSED]
    assert {method for method, _ in passed} == set(METHODS)
    assert {family for _, family in passed} == set(ARCHITECTURES)
    assert len(passed) > 4 * (len(PAIRS) - len(passed)) > 0


@pytest.mark.parametrize(("method", "family"), PAIRS)
def test_a_pair_comes_to_what_is_recorded_of_it(method: str, family: str) -> None:
    """Identity where promised, gradients of its parameters alone, its count, removal by bits; or a reason."""
    assert verdict(method, family) == RECORD[family][method]


def test_what_is_refused_is_known_without_a_model() -> None:
    found = pairs({family: tiny_config(family, LAYERS) for family in ARCHITECTURES})
    assert found == {
        (method, family): None if RECORD[family][method] == PASSED else RECORD[family][method]
        for method, family in PAIRS
    }
