"""The page about the study file names every key that there is, with its default."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from adapters.fields import ACTIVATIONS, INITIALIZATIONS, LAYER_SETS, METHODS, TARGET_SETS
from adapters.placements import PLACEMENTS
from sweeper.study.files import HUB_KEYS
from sweeper.study.node import SECTIONS
from sweeper.study.plugins import PRUNERS, SAMPLERS
from sweeper.study.schema import TrainSettings
from sweeper.study.search import FIXED_TRAIN_FIELDS, SEARCH_FIELDS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "study-file.md").read_text(encoding="utf-8")
PARTS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
TOP = PAGE.partition("\n## ")[0]
JOINT = "objective, limits, budget"


def first_cells(part: str) -> list[str]:
    """The names in the first column of a part's tables."""
    rows = [line.split(" | ")[0] for line in part.splitlines() if line.startswith("| ")]
    return [name for cell in rows for name in re.findall(r"`([\w.]+)`", cell)]


@pytest.mark.parametrize(
    ("part", "keys"),
    [
        (TOP, SECTIONS[""]),
        (PARTS["backbone"], SECTIONS["backbone"]),
        (PARTS["task"], SECTIONS["task"]),
        (PARTS["data"], SECTIONS["data"]),
        (PARTS["search"], SEARCH_FIELDS),
        (PARTS["train"], [field.name for field in fields(TrainSettings)]),
        (
            PARTS[JOINT],
            [
                f"{section}.{key}"
                for section in ("objective", "limits", "budget")
                for key in SECTIONS[section]
            ],
        ),
    ],
)
def test_every_key_has_its_row_and_no_row_is_of_another(part: str, keys: list[str]) -> None:
    assert sorted(name for name in first_cells(part) if not name.startswith(".")) == sorted(keys)


@pytest.mark.parametrize("name", [*SAMPLERS, *PRUNERS])
def test_samplers_and_pruners_are_named(name: str) -> None:
    assert f"`{name}`" in TOP


@pytest.mark.parametrize(
    "name", [*METHODS, *ACTIVATIONS, *INITIALIZATIONS, *PLACEMENTS, *LAYER_SETS, *TARGET_SETS]
)
def test_every_value_of_the_search_is_named(name: str) -> None:
    assert f"`{name}`" in PARTS["search"]


def test_the_keys_of_a_hub_data_set_are_named() -> None:
    assert "{" + ", ".join(HUB_KEYS) + "}" in PARTS["data"]


def test_the_defaults_of_the_training_are_those_of_the_code() -> None:
    rows = [line.strip("| ").split(" | ") for line in PARTS["train"].splitlines() if line.startswith("| `")]
    said = {row[0].strip("`"): (row[2], row[3]) for row in rows}
    for field in fields(TrainSettings):
        assert field.default is not MISSING
        searched = "no" if field.name in FIXED_TRAIN_FIELDS else "yes"
        assert said[field.name] == (str(field.default), searched)
