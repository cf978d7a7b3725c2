"""The commands on a real study: what they print where, exit codes, going on, and clumsy users."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.command_line import CommandLine
from tests.tiny_folder import write_study

TRIAL_KEYS = [
    "number", "state", "params", "objective", "metrics", "adapter_parameters", "head_parameters",
    "trainable_parameters", "trainable_percent", "attempts", "seconds", "device_seconds", "reason",
    "mlflow_run_id",
]  # fmt: skip
STATES = ["waiting", "running", "complete", "pruned", "failed", "cancelled"]


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def sweeper(tmp_path_factory):
    """A folder with a study that has run."""
    folder = tmp_path_factory.mktemp("cli")
    write_study(folder)
    run = CommandLine(folder, tables=False)
    run.first = run("run", "study.yaml")
    assert run.first.returncode == 0, run.first.stderr
    return run


def test_run_ends_with_the_best_what_it_is_compared_with_and_three_commands(sweeper):
    text = sweeper.first.stdout
    best = sweeper.json("best", "tiny")
    rows = [line.split("  ") for line in text.splitlines()]
    rows = {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert rows["best adapter"] == [
        f"trial-{best['number']:04d}",
        f"{best['objective']:.6g}",
        f"{best['trainable_parameters']:,}",
        f"{best['trainable_percent']:.3g} %",
    ]
    assert rows["default configuration"][0] == "trial-0000"
    assert len(rows["head alone, no adapter"]) == 3
    for command in ("ui tiny", "best tiny", "export tiny --out tiny-best"):
        assert f"sweeper {command}" in text


def test_run_tells_each_trial_in_plain_lines_on_stderr(sweeper):
    lines = sweeper.first.stderr.splitlines()
    for name in ("trial-0000", "trial-0001", "trial-0002", "trial-0003", "reference-head"):
        assert sum(line.startswith(f"{name} started") for line in lines) == 1
        assert sum(line.startswith((f"{name} complete", f"{name} pruned")) for line in lines) == 1
    assert "\x1b" not in sweeper.first.stderr + sweeper.first.stdout


def test_the_commands_to_go_on_with_work(sweeper):
    commands = [line.strip() for line in sweeper.first.stdout.partition("Go on with:")[2].splitlines()]
    named = ("ui", "report", "best", "confirm", "export")
    assert [line.partition(" tiny")[0].split()[-1] for line in commands if line] == list(named)
    export = next(line for line in commands if " export " in line)
    arguments = shlex.split(export)[: shlex.split(export).index("tiny-best") + 1]
    done = subprocess.run(
        arguments, cwd=sweeper.folder, env=sweeper.variables(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (sweeper.folder / "tiny-best" / "README.md").is_file()


def test_the_same_run_again_is_done_at_once_and_trains_nothing(sweeper):
    before = sweeper.json("trials", "tiny")
    again = sweeper.json("run", "study.yaml")
    assert sweeper.json("trials", "tiny") == before
    assert again["best"] == sweeper.json("best", "tiny")
    assert list(again["references"]) == ["default configuration", "head alone, no adapter"]


def test_json_of_every_command_has_the_documented_shape(sweeper):
    trials = sweeper.json("trials", "tiny")
    numbered = [trial for trial in trials if trial["number"] is not None]
    assert [trial["number"] for trial in numbered] == [0, 1, 2, 3]
    assert all(list(trial)[: len(TRIAL_KEYS)] == TRIAL_KEYS for trial in trials)
    assert [trial["label"] for trial in trials if trial["number"] is None] == ["reference-head"]
    assert sweeper.json("show", "tiny", "2") == numbered[2]
    assert sweeper.json("show", "tiny", "reference-head") == trials[0]
    best = sweeper.json("best", "tiny")
    complete = [trial["objective"] for trial in numbered if trial["state"] == "complete"]
    assert best["objective"] == max(complete)
    assert sweeper.json("best", "tiny", "--top", "1") == [best]
    objectives = [trial["objective"] for trial in sweeper.json("best", "tiny", "--top", "9")]
    assert objectives == sorted(complete, reverse=True)
    beside = "not confirmed on new seeds and test rows yet: `sweeper confirm tiny`"
    for command in (("best", "tiny"), ("export", "tiny", "--out", "told")):
        assert beside in sweeper(*command).stderr
    status = sweeper.json("status", "tiny")
    assert list(status) == ["study", "state", "trials", "budget", "best", "ended_because"]
    assert list(status["trials"]) == STATES
    assert sum(status["trials"].values()) == 4
    assert sweeper.json("status") == [status]


def test_a_trial_s_sizes_add_up(sweeper):
    backbone = sweeper.json("check", "study.yaml", "--no-measure")["backbone"]["parameters"]
    for trial in sweeper.json("trials", "tiny"):
        assert trial["trainable_parameters"] == trial["adapter_parameters"] + trial["head_parameters"]
        assert trial["trainable_percent"] == pytest.approx(100 * trial["trainable_parameters"] / backbone)


def test_tables_are_tab_separated_when_piped(sweeper):
    lines = [line.split("\t") for line in sweeper("trials", "tiny").stdout.splitlines()]
    assert lines[0][:4] == ["trial", "state", "objective", "trainable"]
    assert [line[0] for line in lines[1:]] == ["reference-head", *(f"trial-{n:04d}" for n in range(4))]
    assert len({len(line) for line in lines}) == 1
    facts = dict(line.split("\t") for line in sweeper("best", "tiny").stdout.splitlines())
    assert facts["state"] == "complete"


@pytest.mark.parametrize("command", ["sweeper trials tiny", "sweeper trials tiny --json", "sweeper status"])
def test_a_reader_that_goes_away_leaves_no_traceback(sweeper, command):
    program = shlex.join(sweeper.arguments()) + command.removeprefix("sweeper")
    done = subprocess.run(
        ["sh", "-c", f"{program} | true"],
        cwd=sweeper.folder,
        env=sweeper.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_bug(sweeper, redirect):
    program = shlex.join(sweeper.arguments("trials", "tiny"))
    done = subprocess.run(
        ["sh", "-c", f"{program} {redirect}"],
        cwd=sweeper.folder,
        env=sweeper.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_stream_that_holds_ascii_alone_gets_escapes(sweeper, tmp_path):
    out = tmp_path / "größte"
    for arguments in (["export", "tiny", "--out", out], ["export", "tiny", "--out", out, "--json"]):
        done = sweeper(*arguments, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert "gr\\" in done.stdout
    assert json.loads(done.stdout)[0]["folder"] == str(out)
    done = sweeper("check", tmp_path / "größte.yaml", "--json", PYTHONIOENCODING="ascii")
    assert done.returncode == 2 and "größte.yaml" in str(json.loads(done.stderr))


def test_check_says_what_would_run_and_leaves_no_trace(sweeper, tmp_path):
    write_study(tmp_path)
    before = listing(tmp_path)
    check = CommandLine(tmp_path)
    found = check.json("check", "study.yaml")
    assert listing(tmp_path) == before
    assert found["space"]["size"] is None
    assert found["data"]["rows"] == {"train": 96, "validation": 32, "test": 32}
    assert found["data"]["label_counts"]["validation"] == {"negative": 16, "positive": 16}
    assert found["data"]["truncated"]["train"] == 0
    assert found["adapter_parameters"]["smallest"] < found["adapter_parameters"]["largest"]
    assert found["sites"]["houlsby, upper_half"] == [
        f"encoder.layer.{layer}.{path}.dense" for layer in (1, 2) for path in ("attention.output", "output")
    ]
    forecast = found["forecast"]
    assert forecast["measured_steps"] >= 4
    assert min(forecast["seconds_per_trial"], forecast["memory_bytes"], forecast["disk_bytes"]) > 0
    write_study(tmp_path, limits={"trainable_parameters": 900, "flops_per_token": 90_000})
    text = check("check", "study.yaml", "--no-measure")
    assert text.returncode == 0
    for limit in ("900 trainable parameters", "90,000 FLOPs per token"):
        assert f"limit      {limit}; configurations past it are never trained" in text.stdout
    assert "houlsby, upper_half: encoder.layer.{1,2}.attention.output.dense" in text.stdout
    assert "negative: 48" in text.stdout


def test_a_file_that_changed_is_refused_with_the_difference_and_a_larger_budget_is_taken(tmp_path):
    write_study(tmp_path, budget={"trials": 2})
    sweeper = CommandLine(tmp_path)
    assert sweeper("run", "study.yaml").returncode == 0
    write_study(tmp_path, budget={"trials": 3}, seed=1)
    before = sweeper.json("trials", "tiny")
    for command in ("run", "check"):
        done = sweeper(command, "study.yaml", "--json")
        assert done.returncode == 2
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert "seed was 0, is 1" in error["message"]
        assert error["file"] == str(tmp_path / "study.yaml")
        assert "seed" in (tmp_path / "study.yaml").read_text().splitlines()[error["line"] - 1]
    assert sweeper.json("trials", "tiny") == before
    write_study(tmp_path, budget={"trials": 3})
    assert sweeper("run", "study.yaml").returncode == 0
    grown = sweeper.json("trials", "tiny")
    assert grown[: len(before)] == before
    assert [trial["number"] for trial in grown] == [None, 0, 1, 2]


def test_a_limit_that_no_trial_can_meet_with_its_head_begins_nothing(tmp_path):
    write_study(
        tmp_path,
        search={"bottleneck_dim": [2, 8], "layers": [[0]], "learning_rate": 0.001},
        limits={"trainable_parameters": 200},  # of the smallest adapter 162, of the head 66
    )
    sweeper = CommandLine(tmp_path)
    for command in ("check", "run"):
        done = sweeper(command, "study.yaml")
        assert done.returncode == 2, done.stderr
        assert "has 162 and the head 66" in done.stderr
    assert not (tmp_path / "sweeps" / "store.db").exists()


def test_limits_that_no_trial_can_meet_at_once_begin_nothing(tmp_path):
    """The smallest adapter is not the cheapest: of two limits each is met by one of them."""
    write_study(
        tmp_path,
        search={"bottleneck_dim": 2, "layers": [[0], [1, 2]], "learning_rate": {"from": 0.001, "to": 0.01}},
        limits={"trainable_parameters": 250, "flops_per_token": 70_000},
    )
    sweeper = CommandLine(tmp_path)
    for command in ("check", "run"):
        done = sweeper(command, "study.yaml")
        assert done.returncode == 2, done.stderr
        assert "within trainable_parameters and flops_per_token at once" in done.stderr
        assert "study.yaml:" in done.stderr
    assert not (tmp_path / "sweeps" / "store.db").exists()


def test_data_that_changed_is_refused_by_check_as_by_run(tmp_path):
    path = write_study(tmp_path, budget={"trials": 1}, train={"epochs": 1})
    sweeper = CommandLine(tmp_path)
    assert sweeper("run", "study.yaml").returncode == 0
    assert sweeper("check", path, "--no-measure").returncode == 0
    with open(tmp_path / "data" / "train.tsv", "a") as file:
        file.write("one more good film\tpositive\n")
    write_study(tmp_path, budget={"trials": 2}, train={"epochs": 1})
    for command in (["check", path, "--no-measure"], ["run", path]):
        done = sweeper(*command)
        assert done.returncode == 2
        assert "the data or the tokenizer has changed since the study tiny began" in done.stderr


def test_exit_code_3_when_no_trial_succeeded(tmp_path):
    write_study(
        tmp_path,
        search={"bottleneck_dim": 4, "learning_rate": {"from": 1.0e29, "to": 1.0e30}},
        budget={"trials": 2},
    )
    sweeper = CommandLine(tmp_path)
    done = sweeper("run", "study.yaml")
    assert done.returncode == 3, done.stderr
    assert "no trial" in done.stderr
    trials = [trial for trial in sweeper.json("trials", "tiny") if trial["number"] is not None]
    assert {(trial["state"], trial["reason"]) for trial in trials} == {("pruned", "diverged")}
    assert sweeper("best", "tiny").returncode == 3
    assert sweeper("export", "tiny", "--out", "x").returncode == 3
    assert sweeper("best", "tiny", "--json").stdout == ""


def test_an_interrupted_run_ends_with_130_and_the_same_command_goes_on(tmp_path):
    write_study(tmp_path, train={"epochs": 20}, budget={"trials": 2})
    sweeper = CommandLine(tmp_path)
    process = sweeper.forked("run", "study.yaml")
    for line in process.stderr:
        if line.startswith("trial-0000 started"):
            break
    # All of the tree at once, as a service manager does it: the coordinator's word is no second signal.
    for child in psutil.Process(process.pid).children(recursive=True):
        child.terminate()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "same command" in err
    status = sweeper.json("status", "tiny")
    assert status["trials"]["running"] == 0
    assert status["trials"]["failed"] == 0
    with sqlite3.connect(tmp_path / "sweeps" / "store.db") as store:
        outcomes = {outcome for (outcome,) in store.execute("SELECT outcome FROM attempts")}
    assert "handed_back" in outcomes and "lost" not in outcomes
    done = sweeper("run", "study.yaml")
    assert done.returncode == 0, done.stderr
    trials = [trial for trial in sweeper.json("trials", "tiny") if trial["number"] is not None]
    assert [trial["number"] for trial in trials] == [0, 1]


def test_a_run_that_is_terminated_before_it_has_workers_ends_as_by_ctrl_c(tmp_path):
    write_study(tmp_path, budget={"trials": 1})
    process = CommandLine(tmp_path).start("run", "study.yaml")
    assert process.stderr.readline() == "study tiny: reading the data and the backbone\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "interrupted\n")


def test_two_runs_at_once_share_the_trials(tmp_path):
    write_study(tmp_path, budget={"trials": 4})
    sweeper = CommandLine(tmp_path)
    processes = [sweeper.forked("run", "study.yaml") for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    trials = sweeper.json("trials", "tiny")
    assert [trial["number"] for trial in trials] == [None, 0, 1, 2, 3]
    assert all(trial["state"] in ("complete", "pruned") for trial in trials)
    assert sum(trial["attempts"] for trial in trials) == 5


@pytest.mark.parametrize("variable", ["SWEEPER_HOME", "SWEEPER_ARTIFACTS"])
def test_a_home_that_cannot_be_written_is_one_message(tmp_path, variable):
    write_study(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    sweeper = CommandLine(tmp_path, {variable: str(tmp_path / "file" / "home")}, tables=False)
    done = sweeper("run", "study.yaml")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"{tmp_path / 'file'} is not a folder: set {variable}" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "data", "file", "study.yaml"]
    looked = sweeper("doctor", "--json")
    assert looked.returncode == 1
    assert any(finding["state"] == "broken" for finding in json.loads(looked.stdout))


@pytest.mark.parametrize("variable", ["SWEEPER_HOME", "SWEEPER_ARTIFACTS"])
def test_a_home_of_no_user_is_one_message(tmp_path, variable):
    done = CommandLine(tmp_path, {variable: "~nobody-of-that-name/sweeps"})("status")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"{variable} is '~nobody-of-that-name/sweeps'" in done.stderr


def test_gc_removes_what_an_ended_study_leaves(tmp_path):
    write_study(tmp_path, budget={"trials": 1})
    sweeper = CommandLine(tmp_path)
    refused = sweeper("gc")
    assert refused.returncode == 2
    assert "sweeper run FILE" in refused.stderr
    assert not (tmp_path / "sweeps").exists()
    before = sweeper.json("run", "study.yaml")["best"]
    told = sweeper.json("gc", "--dry-run")
    [states] = told["leftovers"]
    assert (states["kind"], states["kept_because"]) == ("frozen states", None)
    folder = Path(states["path"])
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*.safetensors")}
    assert told["dry_run"] and told["bytes"] == states["bytes"] > sum(sizes.values()) // 2 > 0
    done = sweeper("gc")
    assert done.returncode == 0, done.stderr
    assert "in 1 folder were removed." in done.stderr and str(folder) in done.stdout
    assert not list(folder.rglob("*.safetensors"))
    assert sweeper.json("gc") == {"dry_run": False, "bytes": 0, "leftovers": []}
    assert sweeper.json("best", "tiny") == before


def test_doctor_is_well_on_this_machine_and_makes_nothing(tmp_path):
    found = CommandLine(tmp_path).json("doctor")
    names = [finding["name"] for finding in found]
    assert {"python", "torch", "mlflow", "adapters", "store", "tracking", "disk", "threads"} <= set(names)
    assert all(finding["state"] != "broken" for finding in found)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_no_database_is_exit_code_4(tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "store.db").write_text(
        "this is no database, and long enough to look like a header"
    )
    done = CommandLine(tmp_path)("status", "--json")
    assert done.returncode == 4
    assert "store.db" in json.loads(done.stderr)["error"]["message"]


def test_the_shell_completes_names_of_studies(sweeper):
    done = sweeper(_SWEEPER_COMPLETE="complete_bash", COMP_WORDS="sweeper best t", COMP_CWORD="2")
    assert done.stdout.split() == ["tiny"]
    assert done.stderr == ""
