"""A study over several methods by the command line: each brings its own parameters, and all of them train."""

from __future__ import annotations

from pathlib import Path

import adapters
from tests.command_line import CommandLine
from tests.tiny_folder import write_study

FIELDS = {
    "bottleneck": {"bottleneck.bottleneck_dim"},
    "lora": {"lora.rank", "lora.targets"},
    "ia3": set(),
    "prompt": {"prompt.prompt_length"},
    "mam": set(),
}


def test_a_study_of_several_methods_by_the_command_line(tmp_path: Path) -> None:
    write_study(
        tmp_path,
        search={
            "method": {
                "bottleneck": {"bottleneck_dim": {"from": 2, "to": 16, "log": True}},
                "lora": {"rank": [2, 4], "targets": ["query_value", "all"]},
                "ia3": None,
                "prompt": {"prompt_length": {"from": 2, "to": 4}},
                "mam": {"bottleneck_dim": 4, "prefix_length": 3},
            },
            "learning_rate": {"from": 3.0e-3, "to": 3.0e-2, "log": True},
        },
        train={"epochs": 1, "batch_size": 16, "max_length": 24},
        budget={"trials": 8},
        sampler="random",
        seed=2,  # draws every method
    )
    sweeper = CommandLine(tmp_path)
    for arguments in (("run", "study.yaml", "--pack", "4"), ("export", "tiny", "--out", "best")):
        done = sweeper(*arguments)
        assert done.returncode == 0 and "MLflow does not show" not in done.stderr, done.stderr
    trials = [trial for trial in sweeper.json("trials", "tiny") if trial["number"] is not None]
    assert {trial["state"] for trial in trials} == {"complete"}
    for trial in trials:
        method = trial["params"]["method"]
        assert set(trial["params"]) == {"method", "learning_rate", *FIELDS[method]}
    assert {trial["params"]["method"] for trial in trials} == set(FIELDS)
    assert next(t for t in trials if t["number"] == 0)["params"]["method"] == "bottleneck"
    adapter = adapters.load(next((tmp_path / "best").rglob("adapter.safetensors")))
    sizes = {trial["adapter_parameters"] for trial in trials}
    assert sum(parameter.numel() for parameter in adapter.parameters()) in sizes
