"""What keeps input from becoming SQL, code or a path, and what the pinned packages are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sweeper.errors import UsageError
from sweeper.lookup import STUDY_NAME
from sweeper.study import load_study
from tests.study_text import replaced, write_study_text
from tests.unit.house.test_house import PROJECT, ROOT, SOURCES

RUNS_SQL = (
    "text",
    "execute",
    "exec_driver_sql",
    "executescript",
    "literal_column",
    "scalar",
    "scalars",
    "DDL",
)
"""Calls whose first argument may be SQL as a string."""
CONSTANTS = {"BEGIN IMMEDIATE", "BEGIN"}


def built_sql(source: str) -> Iterator[int]:
    """Lines of calls that are given SQL which is put together when the program runs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
            if name in RUNS_SQL and _is_built(node.args[0]):
                yield node.lineno


def _is_built(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr | ast.BinOp):
        return True
    if isinstance(node, ast.IfExp):
        return _is_built(node.body) or _is_built(node.orelse)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"


def test_no_sql_is_put_together_from_strings() -> None:
    found = [f"{path}:{line}" for path in SOURCES for line in built_sql(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "call",
    [
        'text(f"SELECT {x}")',
        'c.execute("SELECT " + x)',
        'c.exec_driver_sql("SELECT %s" % x)',
        'text("{}".format(x))',
    ],
)
def test_built_sql_would_be_found(call: str) -> None:
    assert list(built_sql(call)) == [1]
    assert list(built_sql('c.execute(text("SELECT :x"), {"x": x})')) == []


BAD_NAMES = [
    "../up",
    "a/b",
    ".hidden",
    "-rf",
    "_x",
    "A",
    "a b",
    "a;b",
    "a'b",
    "ä",
    "a\\nb",
    "x" * 65,
    "$(x)",
    "a\\0b",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_studies_are_plain_words_since_they_become_paths(name: str, tmp_path: Path) -> None:
    assert not STUDY_NAME.fullmatch(name)
    text = replaced("study: films", f'study: "{name}"')
    with pytest.raises(UsageError):
        load_study(write_study_text(tmp_path, text))


def needed() -> dict[str, str]:
    """Every package that an installation for development needs, by the installed ones, with its version."""
    found: dict[str, str] = {}
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    waiting = [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]
    asked: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if name == PROJECT["name"] or (name, extra) in asked:
                continue
            asked.add((name, extra))
            found[name] = metadata.version(name)
            for line in metadata.requires(name) or ():
                further = Requirement(line)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
    return found


def test_everything_that_is_installed_for_us_is_pinned_to_what_was_tested() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert len(pinned) == len(lines) - 1
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pinned.values())
    found = {canonicalize_name(name): version for name, version in pinned.items()}
    # What follows a + says how it was built, such as for which GPU.
    assert {name: found.get(name) for name in needed()} == {n: v.split("+")[0] for n, v in needed().items()}
