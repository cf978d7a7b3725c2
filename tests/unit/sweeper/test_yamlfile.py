from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.errors import UsageError
from sweeper.study import yamlfile


def refused(text: str | bytes, folder: Path) -> UsageError:
    path = folder / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError) as caught:
        yamlfile.read(path)
    assert caught.value.file == str(path)
    assert len(caught.value.message) < 300
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("~", None),
        ("null", None),
        ("", None),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("'1'", "1"),
        ('"true"', "true"),
        ('"a\\u00e9"', "aé"),
        ("1e", "1e"),
        ("0x", "0x"),
        ("-", [None]),
        ("<<", "<<"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    data, _ = yamlfile.parse(f"key: {text}\n" if text != "-" else "key:\n  -\n", "f")
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_lines_of_keys_and_items() -> None:
    text = "a: 1\n\nb:\n  # a comment\n  c: [x,\n      y]\n  d:\n  - p\n  - q: 1\n"
    data, lines = yamlfile.parse(text, "f")
    assert data == {"a": 1, "b": {"c": ["x", "y"], "d": ["p", {"q": 1}]}}
    assert lines[("a",)] == 1
    assert lines[("b",)] == 3
    assert lines[("b", "c")] == 5
    assert lines[("b", "c", 1)] == 6
    assert lines[("b", "d", 1)] == 9
    assert lines[("b", "d", 1, "q")] == 9


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_endings_and_byte_order_mark(tmp_path: Path, ending: str, mark: bytes) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(mark + ending.join(["a: 1", "b: é", ""]).encode())
    data, lines = yamlfile.read(path)
    assert data == {"a": 1, "b": "é"}
    assert lines[("b",)] == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: &x 2\n", 2, "anchors such as &x"),
        ("a: &x [1]\nb: *x\n", 1, "anchors"),
        ("a: *x\n", 1, "aliases such as *x"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tags"),
        ("a: !!str 1\n", 1, "tags"),
        ("a: 1\nb: 2\n\na: 3\n", 4, "'a' is here a second time; the first is on line 1"),
        ("a: {b: 1, b: 2}\n", 1, "'b' is here a second time"),
        ("? [a]\n: 1\n", 1, "a key must be a word"),
        ("? {a: 1}\n: 1\n", 1, "a key must be a word"),
        ("a: 1\n---\nb: 2\n", 2, "second YAML document"),
        ("%YAML 1.1\n---\na: 1\n", 1, "directives"),
        ("a:\n\tb: 1\n", 2, "not with tabs"),
        ("a: b: c\n", 1, "quote a text that contains"),
        ("a: [1, 2\nb: 3\n", 2, "not YAML"),
        ("a: 'x\n", 2, "not YAML"),
        ("a: 1\nb: .nan\n", 2, "not a finite number"),
        ("a: -.inf\n", 1, "not a finite number"),
        ("a: 1e999\n", 1, "too large"),
        (f"a: {10**400}\n", 1, "too large"),
        (f"a: {'9' * 10_000}\n", 1, "too large"),
        (f"a: 0x{'f' * 10_000}\n", 1, "too large"),
        (f"a: {2**63}\n", 1, "too large"),
        ("a: 1\nb: x\x00y\n", 2, "control character"),
        ("a: 1\nb: x\x07y\n", 2, "control character"),
        ('a: "\\0"\n', 1, "U+0000"),
        ('a: "\\ud800"\n', 1, "U+D800"),
        ('a: "\\UFFFFFFFF"\n', 1, "not YAML"),
        (b"a: 1\nb: \xff\xfe\n", 2, "not UTF-8"),
        ("a: 1".encode("utf-16"), 1, "not UTF-8"),
        (b"\x80\x04\x95", 1, "not UTF-8"),
    ],
)
def test_refused_with_its_line(tmp_path: Path, text: str | bytes, line: int, words: str) -> None:
    error = refused(text, tmp_path)
    assert words in error.message
    assert error.line == line


def test_bombs_are_refused(tmp_path: Path) -> None:
    laughs = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "anchors" in refused(laughs, tmp_path).message
    assert "nested more than 20 deep" in refused("[" * 100_000, tmp_path).message
    assert "nested more than 20 deep" in refused("{a: " * 50_000, tmp_path).message
    assert "nested more than 20 deep" in refused("- " * 100_000 + "x", tmp_path).message
    assert "more than 10000 values" in refused("[" + "1," * 100_000 + "]", tmp_path).message
    assert "larger than 256 KiB" in refused("#" * (256 * 1024 + 1), tmp_path).message


def test_limits_are_inclusive() -> None:
    data, _ = yamlfile.parse("[" * 20 + "]" * 20, "f")
    assert str(data) == "[" * 20 + "]" * 20
    data, _ = yamlfile.parse("[" + "1," * 9_999 + "]", "f")
    assert len(data) == 9_999


def test_what_is_no_readable_file(tmp_path: Path) -> None:
    for path, words in [
        (tmp_path / "missing.yaml", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / ("x" * 5000), "cannot be read"),
        (Path("a\0b"), "no such file"),
    ]:
        with pytest.raises(UsageError, match=words):
            yamlfile.read(path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="not a regular file"):  # and it does not wait for a writer
        yamlfile.read(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UsageError):
        yamlfile.read(loop)


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    for text in ("", "# only a comment\n", "---\n", "\n\n"):
        path = tmp_path / "file.yaml"
        path.write_text(text)
        assert yamlfile.read(path)[0] is None


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text("abc: #é-1.e\n", max_size=8)
floats = st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    plain | floats,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdé", min_size=1), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(trees)
@settings(max_examples=60, deadline=None)
def test_what_a_yaml_library_writes_is_read_back(tree: object) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    if "&id" in text:  # equal objects may be written as aliases
        return
    data, lines = yamlfile.parse(text, "f")
    assert data == tree
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def refusal(text_or_path: str | Path) -> UsageError | None:
    """The refusal of a text or a file, if it is refused; any other exception goes through."""
    try:
        if isinstance(text_or_path, Path):
            yamlfile.read(text_or_path)
        else:
            yamlfile.parse(text_or_path, "f")
    except UsageError as error:
        return error
    return None


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_data_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    error = refusal(path)
    assert error is None or error.file == str(path)


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_any_run_of_yaml_signs_gives_data_or_a_usage_error(seed: int) -> None:
    signs = [
        "- ",
        ": ",
        "? ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a ",
        "!t ",
        "|",
        ">",
        "'",
        '"',
        "\n",
        "  ",
        "\t",
    ]
    signs += ["a", "1", "---\n", "...\n", "%YAML 1.2\n", "#", "\\", "@", "`", "é", "\u2028", "\ufeff", "<<"]
    error = refusal("".join(random.Random(seed).choices(signs, k=30)))
    assert error is None or error.line is None or error.line >= 1
