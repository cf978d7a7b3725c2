"""Measurements of the makespan that are kept in a folder: gone on with, told of, and refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from benchmarks.makespan import __main__ as makespan
from benchmarks.makespan import kept as keeping
from benchmarks.makespan.columns import Columns, Results
from benchmarks.makespan.kept import Kept, KeptError
from benchmarks.makespan.trials import Trial
from tests.tiny_folder import make_backbone, make_data

ABOUT = {"--trials": 3, "the processor": "one", "torch": "2.0"}
HUB = {"adapters": "1.3.0", "torch": "2.0"}


def result(seconds: float, versions: dict[str, str] | None = None) -> Results:
    return Results(seconds, 2 * seconds, {0: 0.5, 1: None, 2: 0.75}, 10**9, versions or {})


def test_what_is_kept_comes_back_equal(tmp_path: Path) -> None:
    measured = {(1, "b"): result(30.0, HUB), (1, "e2"): result(10.0), (2, "b"): result(40.0, HUB)}
    kept = Kept(tmp_path, ABOUT, HUB)
    for (number, column), results in measured.items():
        kept.add(number, column, results)
    again = Kept(tmp_path, ABOUT, HUB)
    assert again.count == kept.count == 3
    assert {place: again.get(*place) for place in measured} == measured
    assert again.get(2, "e2") is None and again.get(3, "b") is None


def test_a_write_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    Kept(tmp_path, ABOUT, {}).add(1, "c", result(1.0))
    whole = (tmp_path / "round-1-c.json").read_bytes()
    (tmp_path / ".round-2-c.json").write_bytes(whole[:40])
    kept = Kept(tmp_path, ABOUT, {})
    assert kept.get(2, "c") is None
    kept.add(2, "c", result(2.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-1-c.json", "round-2-c.json"]
    assert Kept(tmp_path, ABOUT, {}).get(2, "c") == result(2.0)


def test_what_was_measured_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    Kept(tmp_path, ABOUT, {}).add(1, "c", result(1.0))
    with pytest.raises(KeptError) as raised:
        Kept(tmp_path, ABOUT | {"--trials": 24, "the processor": "another"}, {})
    assert str(raised.value) == (
        f"{tmp_path} keeps what was measured otherwise, name another folder: "
        "--trials is 3 there and 24 here; the processor is one there and another here"
    )
    with pytest.raises(KeptError, match=r"torch is 2\.0 there and None here$"):
        Kept(tmp_path, {name: value for name, value in ABOUT.items() if name != "torch"}, {})


def test_another_adapterhub_is_refused_where_its_columns_are_asked_for(tmp_path: Path) -> None:
    kept = Kept(tmp_path, ABOUT, HUB)
    kept.add(1, "b", result(1.0, HUB))
    kept.add(1, "c", result(1.0))
    with pytest.raises(KeptError, match=r"AdapterHub's adapters is 1\.3\.0 there and 1\.4\.0 here$"):
        Kept(tmp_path, ABOUT, HUB | {"adapters": "1.4.0"})
    assert Kept(tmp_path, ABOUT, {}).count == 2


@pytest.mark.parametrize("text", ["", "[]", '{"round": 1}', '{"results": {"accuracies": 1}}', "\0"])
def test_a_file_that_is_no_measurement_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "round-1-c.json").write_text(text, encoding="utf-8")
    with pytest.raises(KeptError, match=r"round-1-c\.json is no measurement that can be read"):
        Kept(tmp_path, ABOUT, {})


def test_rounds_of_several_runs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Kept(tmp_path, ABOUT, {})
    for number, column in [(1, "b"), (1, "c"), (2, "b")]:
        first.add(number, column, result(1.0))
    assert first.runs(1, ["b", "c"]) == "measured in 1 run"
    second = Kept(tmp_path, ABOUT, {})
    second.add(2, "c", result(1.0))
    assert second.runs(1, ["b", "c"]) == "measured in 1 run"
    assert second.runs(2, ["b", "c"]) == (
        "measured in 2 runs\nround 2 in 2 of them: its ratios are not of the same minutes"
    )
    assert second.runs(2, ["b"]) == "measured in 1 run"
    code = tmp_path / "code" / "sweeper"
    code.mkdir(parents=True)
    (code / "train.py").write_text("changed = True\n", encoding="utf-8")
    monkeypatch.setattr(keeping, "ROOT", code.parent)
    third = Kept(tmp_path, ABOUT, {})
    third.add(3, "b", result(1.0))
    assert third.runs(3, ["b"]).splitlines() == [
        "measured in 2 runs",
        "this project's code changed in between: 2 states of it were measured",
    ]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """The benchmark's options over a tiny backbone that is wide enough for the space."""
    make_data(tmp_path)
    config = BertConfig(
        vocab_size=8, hidden_size=256, num_hidden_layers=3, num_attention_heads=4, intermediate_size=8
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "backbone")
    listed = f"--data {tmp_path} --model {tmp_path / 'backbone'} --folder {tmp_path / 'kept'}"
    return f"{listed} --rows 20 --validation-rows 10 --trials 3 --columns c,e2 --rounds 2 --threads 1".split()


def test_the_same_command_goes_on_where_it_was_stopped(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []
    seconds = {1: 40.0, 2: 8.0, 4: 50.0, 5: 10.0}

    def measured(self: Columns, name: str, trials: Sequence[Trial]) -> Results:
        begun.append(name)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return result(seconds[len(begun)])

    monkeypatch.setattr(Columns, "run", measured)
    assert makespan.main(command) == 130
    stopped = capsys.readouterr()
    assert stopped.err == "stopped: the same command goes on\n"
    assert f"kept in {tmp_path / 'kept'}: 0\n" in stopped.out and "times faster" not in stopped.out

    assert makespan.main([*command, "--json", str(tmp_path / "all.json")]) == 0
    assert begun == ["c", "e2", "c", "c", "e2"]
    told = capsys.readouterr().out
    assert f"kept in {tmp_path / 'kept'}: 2\nround 1, (c): 40.0 s, kept\nround 1, (e2): 8.0 s, kept\n" in told
    assert "round 2 of 2, (c) ...\nround 2, (c): 50.0 s\n" in told
    assert "45.0 (40.0 to 50.0)" in told and "9.0 (8.0 to 10.0)" in told
    assert told.endswith("measured in 2 runs\n")
    written = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))["rounds"]
    assert [one["seconds"] for one in written["c"]] == [40.0, 50.0]

    for options, difference in {
        "--trials 2": "--trials is 3 there and 2 here; the digest of the trials is ",
        "--seed 1": "--seed is 0 there and 1 here; the digest of train.tsv is ",
        "--pooling mean": "--pooling is cls there and mean here",
    }.items():
        assert makespan.main([*command, *options.split()]) == 2
        refused = capsys.readouterr().err
        start = f"error: {tmp_path / 'kept'} keeps what was measured otherwise, name another folder: "
        assert refused.startswith(start + difference) and refused.count("\n") == 1
    assert len(begun) == 5


def test_a_folder_that_cannot_be_made_is_refused(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").write_text("", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        makespan.main(command)
    assert f"--folder {tmp_path / 'kept'}: File exists" in capsys.readouterr().err


def test_the_trials_are_shared_out_and_trained(tmp_path: Path) -> None:
    """For real: two processes, and what both read cached by the one that comes first."""
    make_data(tmp_path)
    backbone = make_backbone(tmp_path / "backbone")
    config = BertConfig.from_pretrained(backbone, hidden_size=256, intermediate_size=8)
    BertModel(config, add_pooling_layer=False).save_pretrained(backbone)
    listed = f"--data {tmp_path} --model {backbone} --folder {tmp_path / 'kept'} --space all --rounds 1"
    options = "--rows 20 --validation-rows 10 --trials 3 --columns e2 --threads 1 --workers 2"
    assert makespan.main([*listed.split(), *options.split()]) == 0
    kept = json.loads((tmp_path / "kept" / "round-1-e2.json").read_text())["results"]
    assert sorted(kept["accuracies"]) == ["0", "1", "2"]
    assert all(0 <= accuracy <= 1 for accuracy in kept["accuracies"].values())
