"""A study over several methods by the command line: each brings its own parameters, all train, the best exports."""

from __future__ import annotations

from pathlib import Path

import adapters
from tests.command_line import CommandLine
from tests.tiny_folder import write_study

METHODS = ("lora", "prompt", "ia3", "mam", "compacter")


def test_a_study_of_several_methods_by_the_command_line(tmp_path: Path) -> None:
    write_study(
        tmp_path,
        search={
            "method": {
                "bottleneck": {"bottleneck_dim": {"from": 2, "to": 16, "log": True}},
                "lora": {"rank": [2, 4], "targets": ["query_value", "all"]},
                "ia3": None,
                "compacter": {"bottleneck_dim": [4, 8]},
                "prompt": {"prompt_length": {"from": 2, "to": 4}},
                "mam": {"bottleneck_dim": 4, "prefix_length": 3},
            },
            "learning_rate": {"from": 3.0e-3, "to": 3.0e-2, "log": True},
        },
        train={"epochs": 1, "batch_size": 16, "max_length": 24},
        budget={"trials": 1},
    )
    sweeper = CommandLine(tmp_path)
    for arguments in (("check", "study.yaml", "--no-measure"), ("run", "study.yaml")):
        done = sweeper(*arguments)
        assert done.returncode == 0, done.stderr
    for method in METHODS:
        done = sweeper("enqueue", "tiny", "--set", f"method={method}")
        assert done.returncode == 0, done.stderr
    wrong = sweeper("enqueue", "tiny", "--set", "lora.rank=4")
    assert wrong.returncode == 2 and "set the method as well" in wrong.stderr
    done = sweeper("worker", "tiny", "--pack", "4")
    assert done.returncode == 0, done.stderr
    trials = sweeper.json("trials", "tiny")
    assert {trial["state"] for trial in trials} == {"complete"}
    by_method = {trial["params"]["method"]: trial for trial in trials if trial["number"] is not None}
    assert set(by_method) == {"bottleneck", *METHODS} and by_method["bottleneck"]["number"] == 0
    assert set(by_method["lora"]["params"]) == {"method", "lora.rank", "lora.targets", "learning_rate"}
    assert set(by_method["ia3"]["params"]) == {"method", "learning_rate"}
    done = sweeper("export", "tiny", "--out", "best", "--top", "1")
    assert done.returncode == 0, done.stderr
    best = sweeper.json("best", "tiny")
    adapter = adapters.load(next((tmp_path / "best").rglob("adapter.safetensors")))
    assert adapter.config.method == best["params"]["method"]
    assert sum(parameter.numel() for parameter in adapter.parameters()) == best["adapter_parameters"]
    assert len(sweeper.json("predict", "best", "data/test.tsv")) == 32
