"""What the console writes where, and how errors become messages and exit codes."""

from __future__ import annotations

import json
import math
import os

import pytest

from sweeper import console
from sweeper.console import ClosedPipeError, Output, explain, json_ready, one_line, wants_json
from sweeper.errors import NothingSucceededError, SweeperError, UnreachableError, UsageError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SweeperError("broken"), 1),
        (UsageError("wrong", "a.yaml", 3), 2),
        (NothingSucceededError("none"), 3),
        (UnreachableError("away"), 4),
        (PermissionError(13, "Permission denied", "/root/x"), 1),
        (RuntimeError("a bug"), 1),
    ],
)
def test_an_error_has_the_exit_code_of_its_class(error, code, capsys):
    assert explain(error, as_json=False) == code
    assert explain(error, as_json=True) == code
    assert capsys.readouterr().out == ""


def test_an_error_of_the_user_is_one_line_that_names_file_and_line(capsys):
    explain(UsageError("the range is turned round", "a.yaml", 3), as_json=False)
    assert capsys.readouterr().err == "error: a.yaml:3: the range is turned round\n"


def test_a_json_error_has_the_documented_shape(capsys):
    explain(UsageError("the range is turned round", "a.yaml", 3), as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": {"message": "the range is turned round", "file": "a.yaml", "line": 3}
    }


def test_a_bug_keeps_its_traceback(capsys):
    try:
        raise RuntimeError("a bug")
    except RuntimeError as error:
        explain(error, as_json=False)
        text = capsys.readouterr().err
        explain(error, as_json=True)
    assert "Traceback" in text
    assert "report it" in text
    assert "Traceback" in json.loads(capsys.readouterr().err)["error"]["traceback"]


def test_an_error_of_the_operating_system_is_a_sentence_with_the_file(capsys):
    explain(FileNotFoundError(2, "No such file or directory", "texts.txt"), as_json=False)
    assert capsys.readouterr().err == "error: texts.txt: no such file or directory\n"


def test_json_holds_no_number_that_json_cannot_hold():
    assert json_ready({"a": math.nan, "b": [math.inf, 1.5], 3: (True, None)}) == {
        "a": None,
        "b": [None, 1.5],
        "3": [True, None],
    }


def test_control_characters_cannot_reach_the_terminal():
    assert one_line("a\tb\n\x1b[31mred") == "a b \\x1b[31mred"
    assert one_line("näive ünïcode") == "näive ünïcode"


def test_a_table_is_tab_separated_where_stdout_is_no_terminal(capsys):
    Output().table(["name", "reason"], [["a", "two\nlines"], ["b", "[bold]"]])
    assert capsys.readouterr().out == "name\treason\na\ttwo lines\nb\t[bold]\n"


def test_a_table_on_a_terminal_keeps_brackets(capsys, monkeypatch):
    monkeypatch.setattr(Output, "stdout_is_terminal", True)
    Output().table(["name"], [["[bold]not markup"]])
    assert "[bold]not markup" in capsys.readouterr().out


def test_notes_are_json_lines_under_json(capsys):
    Output(json=True).note("started", trial="trial-0001")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {"note": "started", "trial": "trial-0001"}


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["best", "x", "--json"], "", True),
        (["best", "x"], "", False),
        (["best", "x"], "1", True),
        (["best", "x"], "true", True),
        (["best", "x"], "0", False),
        (["best", "--", "--json"], "", False),
    ],
)
def test_json_is_known_before_the_arguments_are_parsed(arguments, environment, expected, monkeypatch):
    monkeypatch.setenv("SWEEPER_JSON", environment)
    assert wants_json(arguments) is expected


def test_a_reader_who_goes_away_is_noticed(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1, closefd=True) as pipe:
        monkeypatch.setattr(console.sys, "stdout", pipe)
        with pytest.raises(ClosedPipeError):
            Output().data("x" * 100_000)
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())
