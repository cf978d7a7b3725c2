"""Reading texts for predictions and labelled rows for an evaluation."""

from __future__ import annotations

import pytest

from sweeper.data.texts import read_labelled, read_texts
from sweeper.errors import UsageError
from sweeper.study.schema import Task


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("content", ["one\ntwo", "one\ntwo\n", "one\r\ntwo\r\n", "\ufeffone\ntwo"])
def test_a_text_file_holds_one_text_a_line(tmp_path, content):
    assert read_texts(write(tmp_path / "a.txt", content), ["sentence"]) == [("one",), ("two",)]


def test_a_form_feed_ends_no_line(tmp_path):
    assert read_texts(write(tmp_path / "a.txt", "one\x0cstill one\u2028and still\n"), ["sentence"]) == [
        ("one\x0cstill one\u2028and still",)
    ]


@pytest.mark.parametrize(
    ("name", "content", "line", "says"),
    [
        ("a.txt", "one\n\nthree\n", 2, "empty"),
        ("a.txt", "", 1, "empty"),
        ("a.txt", b"one\ncaf\xe9\n", 2, "UTF-8"),
        ("a.tsv", "sentence\tlabel\n \t1\n", 2, "empty"),
        ("a.csv", "sentense\nhello\n", None, "did you mean 'sentense'"),
        ("a.doc", "hello", None, "one of .txt, .csv"),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path, name, content, line, says):
    with pytest.raises(UsageError, match=says) as caught:
        read_texts(write(tmp_path / name, content), ["sentence"])
    assert caught.value.file == str(tmp_path / name)
    assert caught.value.line == line


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_texts(tmp_path / "a.txt", ["sentence"])


def test_pairs_come_from_columns_in_their_order(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"second": "b", "first": "a"}\n')
    assert read_texts(path, ["first", "second"]) == [("a", "b")]
    with pytest.raises(UsageError, match="pairs"):
        read_texts(write(tmp_path / "a.txt", "a\n"), ["first", "second"])


def test_labels_are_those_that_the_adapter_knows(tmp_path):
    path = write(tmp_path / "a.tsv", "sentence\tlabel\ngood\tpositive\nbad\tnegative\n")
    task = Task("classification", ("sentence",), ("label",))
    texts, labels, _ = read_labelled(path, task, ("negative", "positive"))
    assert texts == [["good", "bad"]]
    assert labels == ["positive", "negative"]
    with pytest.raises(UsageError, match="does not know the label 'positive'") as caught:
        read_labelled(path, task, ("negative", "neutral"))
    assert caught.value.line == 2


def test_values_of_a_regression_are_numbers(tmp_path):
    path = write(tmp_path / "a.tsv", "sentence\tscore\ngood\t1.5\n")
    assert read_labelled(path, Task("regression", ("sentence",), ("score",)), None)[1] == [1.5]
