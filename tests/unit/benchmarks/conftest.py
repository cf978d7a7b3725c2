"""A tiny backbone and rows, as benchmarks find them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.material import Material, prepare_material, write_study
from tests.tiny_folder import make_backbone, make_data


@pytest.fixture
def settings(tmp_path: Path) -> argparse.Namespace:
    """What the command line of a benchmark gives, with rows beside the study file to be written."""
    make_data(tmp_path)
    model = make_backbone(tmp_path / "backbone")
    return argparse.Namespace(model=model, shapes=None, max_length=32, seed=0)


@pytest.fixture
def make_material(tmp_path: Path, settings: argparse.Namespace) -> Callable[[str], Material]:
    """Tokens and a backbone of a family, on the CPU."""

    def make(family: str = "bert") -> Material:
        model = make_backbone(tmp_path / family, family)
        return prepare_material(write_study(tmp_path, settings, model=model), "cpu", tmp_path)

    return make
