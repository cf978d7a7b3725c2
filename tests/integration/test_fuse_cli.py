"""A study over a fusion by the command line, from exported adapters to predictions with what came of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import yaml

import adapters
from adapters.config import AdapterConfig
from tests.command_line import CommandLine
from tests.exported_folder import write_export
from tests.tiny_folder import write_study


def test_a_fusion_by_the_command_line(tmp_path: Path) -> None:
    write_study(
        tmp_path,
        search={"method": "fuse", "adapters": ["a", "b"], "temperature": [1.0, 2.0], "learning_rate": 3.0e-3},
        train={"epochs": 1, "batch_size": 16, "max_length": 24},
        budget={"trials": 2},
    )
    parts = []
    for seed, name in enumerate("ab"):
        config = AdapterConfig(bottleneck_dim=4 + seed, placement=("houlsby", "pfeiffer")[seed])
        folder = write_export(tmp_path / name, tmp_path / "backbone", config, seed)
        parts.append(adapters.load(folder / "adapter.safetensors"))
    sweeper = CommandLine(tmp_path)
    done = sweeper("run", "study.yaml", "--workers", "1", "--pack", "2")
    assert done.returncode == 0 and "MLflow does not show" not in done.stderr, done.stderr
    for name in "ab":
        shutil.rmtree(tmp_path / name)
    done = sweeper("export", "tiny", "--out", "best")
    assert done.returncode == 0, done.stderr
    exported = tmp_path / "best"
    trial = json.loads((exported / "metrics.json").read_text())["trial"]
    assert trial["state"] == "complete" and trial["params"].keys() == {"temperature"}
    fused = adapters.load(exported / "adapter.safetensors")
    assert sum(parameter.numel() for parameter in fused.parameters()) == trial["adapter_parameters"]
    inside = fused.state_dict()
    for number, part in enumerate(parts):
        for key, tensor in part.state_dict().items():
            site, rest = key.split(".", 1)
            assert torch.equal(inside[f"{site}.frozen.{number}.{rest}"], tensor)
    assert yaml.safe_load((exported / "adapter.yaml").read_text())["search"]["adapters"] == [["a", "b"]]
    (tmp_path / "texts.txt").write_text("a good film\na bad one\n")
    assert len(sweeper.json("predict", "best", "texts.txt")) == 2
