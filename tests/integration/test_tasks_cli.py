"""A study of each newer kind of task by the command line: run, exported, and predicted with the export."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweeper import load_exported
from sweeper.cli import app
from sweeper.errors import UsageError
from tests.tiny_folder import BAD, FILLER, GOOD, make_backbone, write_study

TAG = {**dict.fromkeys(GOOD, "B-GOOD"), **dict.fromkeys(BAD, "B-BAD")}
TASKS: dict[str, tuple[dict[str, Any], str, str]] = {
    "token_classification": ({"text": "words", "label": "tags"}, "entity_f1", "bert"),
    "multi_label": ({"text": "text", "label": "labels", "pooling": "mean"}, "f1_micro", "bert"),
    "causal_lm": ({"text": "text"}, "perplexity", "gpt2"),
}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    random_ = random.Random(seed)
    made = []
    for _ in range(count):
        words = random_.choices(FILLER, k=random_.randint(2, 9)) + random_.choices([*GOOD, *BAD], k=2)
        random_.shuffle(words)
        labels = sorted({TAG[word][2:].lower() for word in words if word in TAG})
        tags = [TAG.get(word, "O") for word in words]
        made.append({"text": " ".join(words), "words": words, "tags": tags, "labels": labels})
    return made


def study(folder: Path, kind: str) -> None:
    task, metric, family = TASKS[kind]
    (folder / "data").mkdir()
    for seed, (name, count) in enumerate({"train": 96, "validation": 40, "test": 20}.items()):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count, seed))
        (folder / "data" / f"{name}.jsonl").write_text(lines)
    make_backbone(folder / "backbone", family)
    write_study(
        folder,
        task={"pooling": None, "label": None, **task, "kind": kind},
        data={name: f"data/{name}.jsonl" for name in ("train", "validation", "test")},
        search={"bottleneck_dim": [4, 8], "learning_rate": 1.0e-2},
        train={"epochs": 6, "max_length": 8},
        objective={"metric": metric, "direction": "minimize" if kind == "causal_lm" else "maximize"},
        budget={"trials": 1},
    )


@pytest.mark.parametrize("kind", TASKS)
def test_a_study_of_each_kind_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    study(tmp_path, kind)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "sweeps"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def sweeper(*arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    sweeper("run", "study.yaml", "--workers", "1")
    checked = sweeper("check", "study.yaml", "--no-measure")
    best = sweeper("best", "tiny")
    head = next(trial for trial in sweeper("trials", "tiny") if trial["number"] is None)
    metric = TASKS[kind][1]
    assert set(best["metrics"]) >= {metric, "loss"} and best["objective"] == best["metrics"][metric]
    sweeper("export", "tiny", "--out", "best")
    predictor = load_exported("best", device="cpu")
    assert predictor.evaluate("study.yaml")[metric] == best["objective"]
    assert predictor.evaluate("data/validation.jsonl")[metric] == best["objective"]
    foreign = CliRunner().invoke(app, ["export", "tiny", "--out", "hub", "--format", "adapterhub"])
    assert isinstance(foreign.exception, UsageError) == (kind == "causal_lm"), foreign.output
    found, texts = sweeper("predict", "best", "data/test.jsonl"), rows(20, 2)
    assert len(found) == 20
    if kind == "token_classification":
        assert [len(row["labels"]) for row in found] == [len(row["words"]) for row in texts]
        cut = sum(tag is None for row in found for tag in row["labels"])
        assert cut == checked["data"]["words_cut"]["test"] > 0
        right = sum(a == b for row, text in zip(found, texts, strict=True)
                    for a, b in zip(row["labels"], text["tags"], strict=True))  # fmt: skip
        assert right > 0.9 * (sum(len(text["words"]) for text in texts) - cut)
    elif kind == "multi_label":
        assert all(set(row["scores"]) == {"bad", "good"} for row in found)
        assert sum(row["labels"] == text["labels"] for row, text in zip(found, texts, strict=True)) > 12
    else:
        assert head["trainable_parameters"] == 0 and best["head_parameters"] == 0
        assert best["objective"] < head["objective"]
        assert checked["data"]["pieces"]["test"] > 20
        predicted = checked["data"]["predicted"]["test"]
        assert sum(row["tokens"] for row in found) == predicted == sum(len(text["words"]) for text in texts)
