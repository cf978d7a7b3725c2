"""A study of ladders by the command line, from nothing to predictions with its winner."""

from __future__ import annotations

from pathlib import Path

import adapters
from sweeper import load_exported
from tests.command_line import CommandLine
from tests.tiny_folder import write_study


def test_a_study_of_ladders_by_the_command_line(tmp_path: Path) -> None:
    write_study(
        tmp_path,
        search={
            "method": "ladder",
            "bottleneck_dim": {"from": 2, "to": 16, "log": True},
            "layers": ["all", [0, 1]],
            "learning_rate": {"from": 3.0e-3, "to": 3.0e-2, "log": True},
        },
        budget={"trials": 2},
    )
    sweeper = CommandLine(tmp_path)
    for arguments in (
        ("check", "study.yaml"),
        ("run", "study.yaml"),
        ("export", "tiny", "--out", "best", "--top", "1"),
    ):
        done = sweeper(*arguments)
        assert done.returncode == 0, done.stderr
    best = sweeper.json("best", "tiny")
    folder = tmp_path / "best"
    adapter = adapters.load(next(folder.rglob("adapter.safetensors")))
    assert adapter.config.method == "ladder"
    assert sum(parameter.numel() for parameter in adapter.parameters()) == best["adapter_parameters"]
    first = next(trial for trial in sweeper.json("trials", "tiny") if trial["number"] == 0)
    assert first["state"] == "complete" and first["params"]["layers"] == "all"
    rows = sweeper.json("predict", "best", "data/test.tsv")
    assert len(rows) == 32 and set(rows[0]) == {"label", "score"}
    predictor = load_exported(folder, device="cpu")
    assert predictor.evaluate(tmp_path / "study.yaml")["accuracy"] == best["objective"]
