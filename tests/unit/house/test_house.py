"""Rules of the house that no linter knows."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sweeper

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted([*(ROOT / "adapters").rglob("*.py"), *(ROOT / "sweeper").rglob("*.py")])


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in found.items()}


def requirements() -> list[Requirement]:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    every = [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]
    return [requirement for requirement in every if requirement.name != PROJECT["name"]]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[requirement.name.lower().replace("_", "-")])


def test_the_version_is_the_same_everywhere() -> None:
    assert PROJECT["version"] == sweeper.__version__
    assert f"## {sweeper.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_only_the_search_space_draws_parameters() -> None:
    drawing = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if re.search(r"\.suggest_", path.read_text(encoding="utf-8"))
    }
    assert drawing == {"sweeper/space.py"}


def test_every_file_says_what_it_is_for() -> None:
    unexplained = [str(p) for p in SOURCES if p.stat().st_size and not p.read_text("utf-8").startswith('"""')]
    assert not unexplained


@pytest.mark.parametrize("package", ["adapters", "sweeper", "sweeper.cli"])
def test_importing_loads_nothing_heavy(package: str) -> None:
    heavy = ["datasets", "mlflow", "optuna", "pandas", "sklearn", "sqlalchemy", "torch", "transformers"]
    code = f"import sys, json, {package}; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_architecture_page_names_every_file() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_]+\.py|[a-z]+/)`", page))
    parts = {path.relative_to(ROOT).parts[1:] for path in SOURCES if not path.name.startswith("__")}
    there = {parts[0] if len(parts) == 1 else f"{parts[0]}/" for parts in parts}
    packages = {"adapters/", "sweeper/", "benchmarks/"}
    assert (there - named, named - packages - there) == (set(), set())
