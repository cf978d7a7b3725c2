"""The benchmark's table is made by the engine, in processes of its own."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from benchmarks.table import make
from benchmarks.table.rows import read_rows
from tests.tiny_folder import make_backbone, study_data


def test_the_table_is_made_by_the_engine_and_goes_on_where_it_was(tmp_path: Path) -> None:
    make_backbone(tmp_path / "model")
    words = ("good great", "bad awful")
    lines = [json.dumps({"sentence": f"{words[n % 2]} film {n}", "label": "yn"[n % 2]}) for n in range(48)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = study_data()
    content |= {
        "study": "table",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl"},
        "search": {"bottleneck_dim": 2, "learning_rate": [1e-3, 1e-2], "placement": ["houlsby", "pfeiffer"]},
        "train": {
            "epochs": 1,
            "evaluations_per_epoch": 2,
            "batch_size": 8,
            "max_length": 16,
            "dtype": "float32",
        },
        "budget": {"trials": 1},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [
        "--data", str(tmp_path), "--folder", str(tmp_path / "kept"), "--out", str(tmp_path / "table.csv"),
        "--study", str(tmp_path / "grid.yaml"), "--model", str(tmp_path / "model"), "--seeds", "1",
        "--rows", "32", "--validation-rows", "16", "--workers", "1",
    ]  # fmt: skip
    assert make.main(command) == 0
    rows = read_rows(tmp_path / "table.csv")
    assert len({json.dumps(dict(row.params), sort_keys=True) for row in rows}) == len(rows) == 4
    assert all(row.steps == (2, 4) and len(row.values) == 2 and row.trainable_parameters > 0 for row in rows)
    before = (tmp_path / "table.csv").read_bytes()
    (tmp_path / "table.csv").unlink()
    assert make.main(command) == 0  # nothing is trained again: no worker is started
    assert (tmp_path / "table.csv").read_bytes() == before
