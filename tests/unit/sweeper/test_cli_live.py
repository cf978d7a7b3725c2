"""What a running study looks like, from the trials as the ledger lists them."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from sweeper.console import Output
from sweeper.live import PlainDisplay, View, draw, headline
from sweeper.terminal import configuration, duration, memory, percent, print_summary, print_trials


def trial(number, state="complete", objective=0.5, **changes):
    made = {
        "number": number,
        "label": None,
        "state": state,
        "params": {"bottleneck_dim": 24, "activation": "gelu"},
        "objective": objective,
        "metrics": {"accuracy": objective} if objective is not None else {},
        "adapter_parameters": 1000,
        "head_parameters": 10,
        "trainable_parameters": 1010,
        "trainable_percent": 0.5,
        "attempts": 1,
        "seconds": 10.0,
        "device_seconds": 10.0,
        "reason": None,
        "mlflow_run_id": None,
    }
    return {**made, **changes}


def reference(state="complete", objective=0.4):
    return trial(None, state, objective, label="reference-head", params={}, adapter_parameters=0)


def waiting():
    return trial(None, "waiting", None, params={}, seconds=None, device_seconds=None)


def view(*trials, maximize=True, **changes):
    return View("sst2", "accuracy", maximize, list(trials), **changes)


def test_the_best_is_complete_and_numbered_and_of_equals_the_first():
    trials = [
        trial(0, objective=0.5),
        trial(1, objective=0.9),
        trial(2, "pruned", 0.95),
        reference(objective=1.0),
    ]
    assert view(*trials, trial(3, objective=0.9)).best["number"] == 1
    assert view(*trials, maximize=False).best["number"] == 0
    assert view(reference()).best is None


def test_time_left_is_the_mean_of_what_ended_for_what_is_left():
    running = trial(1, "running", None)
    shown = view(trial(0), running, waiting(), steps={"trial-0001": (30, 60)})
    assert shown.seconds_left() == 15.0
    assert view(trial(0), running, waiting(), steps={"trial-0001": (30, 60)}, workers=3).seconds_left() == 5.0
    assert view(running, waiting()).seconds_left() is None


def test_the_headline_counts_everything():
    assert headline(view(trial(0), reference(), trial(1, "running", None), waiting())) == (
        "sst2: 2 of 4 done, 1 running, about 20 s left"
    )


def test_the_live_table_shows_what_runs_and_the_best():
    running = trial(1, "running", None, metrics={"accuracy": 0.75})
    text = io.StringIO()
    Console(file=text, width=160).print(draw(view(trial(0), running, steps={"trial-0001": (30, 60)})))
    assert "trial-0001" in text.getvalue()
    assert "30/60" in text.getvalue()
    assert "0.75" in text.getvalue()
    assert "best so far: trial-0000, accuracy 0.5" in text.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_configuration_does_not_push_the_progress_out(width):
    params = {f"parameter_{number}": "a_long_value" for number in range(9)}
    running = trial(12, "running", None, params=params, metrics={"accuracy": 0.75})
    text = io.StringIO()
    Console(file=text, width=width).print(draw(view(trial(0), running, steps={"trial-0012": (1300, 6000)})))
    line = next(line for line in text.getvalue().splitlines() if line.startswith("trial-0012"))
    assert "1,300/6,000" in line
    assert "0.75" in line


def test_plain_lines_tell_each_start_and_each_end_once(capsys):
    plain = PlainDisplay(Output())
    plain.update(view(trial(0, "running", None), waiting()))
    plain.update(view(trial(0, "running", None), waiting()))
    plain.update(view(trial(0, objective=0.75), trial(1, "running", None)))
    plain.update(view(trial(0, objective=0.75), trial(1, "failed", None, reason="OSError: [disk] full")))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "trial-0000 started: bottleneck_dim=24 activation=gelu",
        "trial-0000 complete: accuracy 0.75, best so far, 10 s; "
        "sst2: 1 of 2 done, 1 running, about 10 s left",
        "trial-0001 started: bottleneck_dim=24 activation=gelu",
        "trial-0001 failed (OSError: [disk] full): 10 s; sst2: 2 of 2 done",
    ]


def test_a_pause_is_told_once_and_so_is_its_end(capsys):
    plain = PlainDisplay(Output())
    for paused in (False, True, True, False, False):
        plain.update(view(waiting(), paused=paused))
    assert capsys.readouterr().err.splitlines() == [
        "sst2 is paused: `sweeper resume sst2` lets it go on",
        "sst2 goes on",
    ]
    PlainDisplay(Output(json=True)).update(view(waiting(), paused=True))
    said = json.loads(capsys.readouterr().err)
    assert (said["study"], said["state"]) == ("sst2", "paused")


def test_the_live_table_says_that_a_study_is_paused_and_how_to_go_on():
    assert headline(view(trial(0), waiting(), paused=True)) == "sst2: paused, 1 of 2 done"
    text = io.StringIO()
    Console(file=text, width=160).print(draw(view(trial(0), waiting(), paused=True)))
    assert "sst2 is paused: `sweeper resume sst2` lets it go on" in text.getvalue()
    assert "the workers are starting" not in text.getvalue()


def test_a_trial_too_quick_to_be_seen_running_has_both_its_lines(capsys):
    plain = PlainDisplay(Output())
    plain.update(view(waiting()))
    plain.update(view(trial(0)))
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["started:", "complete:"]


def test_a_study_that_goes_on_does_not_tell_its_past_again(capsys):
    plain = PlainDisplay(Output())
    plain.update(view(trial(0), trial(1, "running", None)))
    assert capsys.readouterr().err == "trial-0001 started: bottleneck_dim=24 activation=gelu\n"


def test_progress_is_json_lines_under_json(capsys):
    plain = PlainDisplay(Output(json=True))
    plain.update(view(trial(0, "running", None)))
    assert json.loads(capsys.readouterr().err) == {
        "note": "trial-0000 started: bottleneck_dim=24 activation=gelu",
        "trial": "trial-0000",
        "state": "running",
    }


def test_the_table_of_trials_has_a_column_for_every_parameter(capsys):
    print_trials(Output(), [reference(), trial(0), trial(1, params={"layers": "[0, 2]"})])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == [
        "trial", "state", "objective", "trainable", "share",
        "bottleneck_dim", "activation", "layers", "time", "reason",
    ]  # fmt: skip
    assert lines[1][:6] == ["reference-head", "complete", "0.4", "1,010", "0.5 %", "-"]
    assert lines[3][5:8] == ["-", "-", "[0, 2]"]


def test_the_table_counts_the_trials_that_only_wait(capsys):
    enqueued = {**waiting(), "params": {"bottleneck_dim": 8}}
    print_trials(Output(), [reference("waiting", None), trial(0), enqueued, waiting(), waiting()])
    said = capsys.readouterr()
    named = [line.split("\t")[0] for line in said.out.splitlines()]
    assert named == ["trial", "reference-head", "trial-0000", "-"]
    assert said.err == "2 more trials wait for a worker\n"


def test_the_summary_names_the_best_what_it_is_compared_with_and_the_commands(capsys):
    summary = {
        "study": "sst2",
        "state": "complete",
        "ended_because": None,
        "metric": "accuracy",
        "trials": {"complete": 2, "running": 0, "waiting": 0, "pruned": 1, "failed": 0, "cancelled": 0},
        "best": trial(7, objective=0.875),
        "references": {"default configuration": trial(0), "head alone": reference()},
        "next": {
            "sweeper ui sst2": "look at it",
            "sweeper best sst2": "x",
            "sweeper export sst2 --out d": "y",
        },
    }
    print_summary(Output(), summary)
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ["best", "adapter", "trial-0007", "0.875", "1,010", "0.5", "%"] in lines
    assert ["default", "configuration", "trial-0000", "0.5", "1,010", "0.5", "%"] in lines
    assert ["head", "alone", "0.4", "1,010", "0.5", "%"] in lines
    assert "best adapter: bottleneck_dim=24 activation=gelu" in text
    assert "sweeper export sst2 --out d" in text


def test_numbers_for_people():
    assert [duration(s) for s in (None, 1.25, 41.2, 59.7, 192, 7500)] == [
        "-", "1.2 s", "41 s", "1 min 00 s", "3 min 12 s", "2 h 05 min",
    ]  # fmt: skip
    assert [memory(b) for b in (0, 1023, 2048, 3 << 20, 5 << 30)] == [
        "0 bytes", "1023 bytes", "2.0 KiB", "3.0 MiB", "5.0 GiB",
    ]  # fmt: skip
    assert percent(0.50123) == "0.501 %"
    assert (
        configuration({"layers": "[0, 2]", "learning_rate": 0.00123456})
        == "layers=[0, 2] learning_rate=0.001235"
    )
