"""The command line without a study: help, wrong usage, an empty home, a foreign `adapters`."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import sweeper
from sweeper import cli
from tests.tiny_folder import write_study

GROUP = typer.main.get_command(cli.app)
COMMANDS = tuple(GROUP.commands)
NEEDS_A_STUDY = (
    ["trials", "x"],
    ["show", "x", "1"],
    ["best", "x"],
    ["export", "x", "--out", "d"],
    ["status", "x"],
    ["worker", "x"],
    ["pause", "x"],
    ["resume", "x"],
    ["stop", "x"],
    ["enqueue", "x", "--set", "bottleneck_dim=2"],
    ["retry", "x", "--failed"],
    ["sync", "x"],
    ["delete", "x", "--yes"],
    ["report", "x"],
    ["compare", "x", "y"],
    ["confirm", "x"],
    ["status"],
    ["gc"],
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("SWEEPER_JSON", "SWEEPER_STORE", "SWEEPER_ARTIFACTS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "sweeps"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(arguments, capsys):
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_names_every_command(arguments, capsys):
    code, out, err = run(arguments, capsys)
    assert code == 0
    assert err == ""
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", out)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example_that_parses(command, capsys):
    code, out, _ = run([command, "--help"], capsys)
    assert code == 0
    examples = re.findall(r"`([^`]+)`", GROUP.commands[command].epilog or "")
    assert examples and all(example in out for example in examples)
    for example in examples:
        program, name, *words = shlex.split(example.partition(" | ")[0])
        assert (program, name) == ("sweeper", command)
        GROUP.commands[command].make_context(command, words)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_can_be_given_by_the_environment(command, capsys):
    _, out, _ = run([command, "--help"], capsys)
    text = " ".join(out.split())
    for option in set(re.findall(r"--[a-z-]+", out.partition("Examples:")[0])) - {"--help", "--no-measure"}:
        assert f"SWEEPER_{option[2:].upper().replace('-', '_')}" in text, option


def test_the_version_is_the_distributions(capsys):
    assert run(["--version"], capsys) == (0, f"adapter-sweeper {sweeper.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bset"], "Did you mean 'best'?"),
        (["best"], "Missing argument 'STUDY'"),
        (["best", "x", "--top", "many"], "--top"),
        (["best", "x", "--top", "0"], "--top"),
        (["best", "x", "--tpo", "3"], "--top"),
        (["export", "x"], "--out"),
        (["check"], "Missing argument 'FILE'"),
        (["check", "missing.yaml"], "missing.yaml"),
        (["run", "missing.yaml"], "missing.yaml"),
        (["run", "missing.yaml", "--lease-seconds", "inf"], "--lease-seconds"),
        (["run", "missing.yaml", "--lease-seconds", "nan"], "--lease-seconds"),
        (["predict", "missing", "texts.txt"], "no such folder"),
        (["ui", "--port", "70000"], "--port"),
        (["enqueue"], "Missing argument 'STUDY'"),
        (["delete", "x", "--ye"], "--yes"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_usage_is_one_message_and_code_2(arguments, says, as_json, capsys, home):
    code, out, err = run([*arguments, *(["--json"] if as_json and arguments[0] != "ui" else [])], capsys)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    message = json.loads(err)["error"]["message"] + err if err.startswith("{") else err
    assert says in message
    assert "Traceback" not in err
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("arguments", NEEDS_A_STUDY)
def test_without_a_store_nothing_is_made_and_the_way_on_is_named(arguments, capsys, home):
    code, out, err = run(arguments, capsys)
    assert (code, out) == (2, "")
    assert "sweeper run FILE" in err
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("url", ["mysql://x/y", "not a url", "sqlite://"])
def test_a_store_that_cannot_be_is_refused_without_showing_it(url, capsys, monkeypatch):
    monkeypatch.setenv("SWEEPER_STORE", url.replace("//", "//user:secret@", 1) if "mysql" in url else url)
    code, _, err = run(["status"], capsys)
    assert code == 2
    assert "SWEEPER_STORE" in err
    assert "secret" not in err


@pytest.mark.parametrize("uri", ["file:///somewhere/mlruns", "sqlite://"])
@pytest.mark.parametrize("command", [["run", "study.yaml"], ["confirm", "tiny"]])
def test_an_mlflow_that_cannot_be_begins_nothing(uri, command, capsys, home, monkeypatch):
    write_study(home)
    before = sorted(home.rglob("*"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, out, err = run(command, capsys)
    assert (code, out) == (2, "")
    assert "MLFLOW_TRACKING_URI" in err and len(err.splitlines()) == 1
    assert sorted(home.rglob("*")) == before


def test_json_by_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("SWEEPER_JSON", "1")
    code, _, err = run(["trials", "x"], capsys)
    assert code == 2
    assert json.loads(err)["error"]["line"] is None


def test_a_foreign_adapters_is_refused_in_one_sentence_and_never_imported(tmp_path):
    foreign = tmp_path / "site" / "adapters"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("raise RuntimeError('imported')\n")
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(sweeper.__file__).parents[1])])

    def python(*arguments):
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    refused = python("-m", "sweeper", "status")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert len(refused.stderr.splitlines()) == 1
    assert "AdapterHub" in refused.stderr
    assert "ImportError: the package `adapters`" in python("-c", "from sweeper import load_exported").stderr
    looked = python("-m", "sweeper", "doctor", "--json")
    assert looked.returncode == 1
    assert "AdapterHub" in looked.stdout


def test_the_adapters_here_are_ours():
    assert sweeper.foreign_adapters() is None


def test_completion_stays_quiet_without_a_store(capsys):
    from sweeper.lookup import complete_study

    assert complete_study("s") == []
    assert capsys.readouterr() == ("", "")
