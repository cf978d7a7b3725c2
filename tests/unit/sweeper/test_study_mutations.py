"""Whatever is done to a valid study file, reading it gives a study or a UsageError, and nothing else."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sweeper.errors import UsageError
from sweeper.space import configuration, default_params, distributions, size
from sweeper.study import Study, from_dict, load_study, yamlfile
from tests.study_text import STUDY, write_study_text

VALID: dict[str, Any] = yamlfile.parse(STUDY, "study.yaml")[0]
NAMES = [
    "relu",
    "all",
    "pfeiffer",
    "bottleneck",
    "tpe",
    "median",
    "last",
    "loss",
    "classification",
    "rows",
    "path",
]
NAMES += [
    "from",
    "to",
    "log",
    "step",
    "name",
    "minimum",
    "hub",
    "revision",
    "epochs",
    "keep",
    "[0, 1]",
    "[",
    "~/x",
]
NAMES += ["", " ", "é", "../data/train.tsv", "data/train.tsv", "/", ".", "..", "\u2028", "a" * 300, "0" * 40]
NUMBERS = [0, 1, -1, 2, 3, 100, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 10**400]
NUMBERS += [
    0.0,
    -0.0,
    0.1,
    0.3,
    0.5,
    1.0,
    1e-300,
    5e-324,
    1e300,
    1.7e308,
    -1.5,
    math.inf,
    -math.inf,
    math.nan,
]

scalars = st.sampled_from([*NAMES, *NUMBERS, None, True, False]) | st.text(max_size=6) | st.floats()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
ranges = st.fixed_dictionaries(
    {"from": scalars, "to": scalars}, optional={"log": st.booleans(), "step": scalars}
)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield tree, key
        yield from places(value)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The valid study with one to three values exchanged, keys removed, renamed or added."""
    tree = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(tree))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        action = draw(st.sampled_from(["exchange", "range", "remove", "rename", "move"]))
        if action == "exchange":
            container[key] = draw(values)
        elif action == "range":
            container[key] = draw(ranges)
        elif action == "remove":
            del container[key]
        elif action == "move":
            other, place = draw(st.sampled_from(found))
            container[key] = copy.deepcopy(other[place])
        elif isinstance(container, dict):
            container[draw(st.sampled_from(NAMES) | st.text(max_size=5))] = container.pop(key)
    return tree


def check_holds_together(study: Study) -> None:
    """What every study that was accepted can do."""
    stored = json.loads(json.dumps(study.to_dict(), allow_nan=False))
    again = from_dict(stored, study.path)
    assert again == study
    assert again.to_dict() == stored
    distributions(study)
    count = size(study)
    assert count is None or count >= 1
    for width in (1, 384, 10_000):
        configuration(study, default_params(study, width))


def outcome(read: Callable[[], Study]) -> Study | UsageError:
    """What reading a file came to; any other exception goes through, and fails the test."""
    try:
        return read()
    except UsageError as error:
        return error


def check(result: Study | UsageError, path: Path, line_limit: int | None = None) -> None:
    if isinstance(result, Study):
        check_holds_together(result)
        return
    assert result.file == str(path)
    assert len(result.message) < 600
    assert str(result).encode()  # printable: no lone surrogate of the file gets into a message
    assert result.line is None or 1 <= result.line <= (line_limit or 10**6)


@given(mutated())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_data(tree: dict[str, Any]) -> None:
    path = Path("/studies/study.yaml")
    check(outcome(lambda: from_dict(tree, path)), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies")
    write_study_text(path)
    return path


@given(mutated())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_data_in_a_file(folder: Path, tree: dict[str, Any]) -> None:
    path = folder / "mutated.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="replace")
    check(outcome(lambda: load_study(path)), path)


@given(st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_bytes(folder: Path, data: st.DataObject) -> None:
    raw = bytearray(STUDY.encode())
    pieces = [b"[", b"{", b"&a ", b"*a", b"\t", b"- ", b": ", b"\n", b"!!x ", b"9" * 500, b".nan", b"\xff"]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(start, min(len(raw), start + 12)))
        raw[start:end] = data.draw(st.binary(max_size=4) | st.sampled_from(pieces))
    path = folder / "bytes.yaml"
    path.write_bytes(raw)
    lines = len(raw.decode("utf-8", "replace").splitlines()) + 1
    check(outcome(lambda: load_study(path)), path, line_limit=lines)


@given(st.lists(st.integers(0, len(STUDY.splitlines()) - 1), max_size=60))
@settings(max_examples=50, deadline=None)
def test_shuffled_lines(folder: Path, order: list[int]) -> None:
    lines = STUDY.splitlines(keepends=True)
    path = folder / "lines.yaml"
    path.write_text("".join(lines[index] for index in order))
    check(outcome(lambda: load_study(path)), path)
