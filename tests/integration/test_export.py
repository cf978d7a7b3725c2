"""An export by the command line: its files, its card, and that they say and give what the study found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

import adapters
from sweeper.space import configuration
from sweeper.study import load_study
from tests.command_line import CommandLine
from tests.tiny_folder import make_data, write_study

FILES = ["README.md", "adapter.safetensors", "adapter.yaml", "head.safetensors", "metrics.json"]


@pytest.fixture(scope="module")
def sweeper(tmp_path_factory):
    """A finished study of four trials, two of them with an explicit set of layers."""
    folder = tmp_path_factory.mktemp("study")
    make_data(folder / "data", rows=(200, 60, 60))
    write_study(
        folder,
        search={
            "bottleneck_dim": {"from": 2, "to": 16, "log": True},
            "layers": ["all", [0, 2]],
            "learning_rate": {"from": 3.0e-3, "to": 3.0e-2, "log": True},
        },
        train={"epochs": 3},
        data={"validation": 0.2},
    )
    run = CommandLine(folder)
    done = run("run", "study.yaml")
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def best(sweeper):
    return sweeper.json("best", "tiny")


@pytest.fixture(scope="module")
def exported(sweeper):
    done = sweeper("export", "tiny", "--out", "best")
    assert done.returncode == 0, done.stderr
    return sweeper.folder / "best"


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def snippet(folder):
    found = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(found) == 1
    assert len(found[0].strip().splitlines()) == 5
    return found[0]


def test_the_best_is_written_with_every_file(sweeper, best, exported):
    assert names(exported) == FILES
    facts = json.loads((exported / "metrics.json").read_text())
    assert facts["trial"] == best
    assert names(sweeper.folder).count("best") == 1
    assert not [name for name in names(sweeper.folder) if name.startswith(".best")]


def test_the_snippet_of_the_card_gives_the_accuracy_that_mlflow_shows(sweeper, best, exported, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", snippet(exported)],
        cwd=tmp_path,
        env=sweeper.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()[-1]
    client = MlflowClient(f"sqlite:///{sweeper.folder / 'sweeps' / 'mlflow.db'}")
    shown = client.get_run(best["mlflow_run_id"]).data.metrics
    assert printed == repr(shown["accuracy"]) == repr(best["objective"])
    assert 0.5 < best["objective"] <= 1.0
    assert list(tmp_path.iterdir()) == []


def test_the_card_names_result_sizes_backbone_and_data(best, exported):
    text = (exported / "README.md").read_text()
    facts = json.loads((exported / "metrics.json").read_text())
    for expected in (
        repr(best["metrics"]["accuracy"]),
        f"{best['trainable_parameters']:,}",
        facts["backbone"]["fingerprint"],
        facts["data"]["fingerprint"],
        "negative, positive",
        f"trial-{best['number']:04d}",
    ):
        assert expected in text


def test_the_configuration_is_that_of_the_trial_when_put_into_a_study_file(sweeper, exported, best):
    whole = yaml.safe_load((sweeper.folder / "study.yaml").read_text())
    pasted = {**whole, "study": "again", **yaml.safe_load((exported / "adapter.yaml").read_text())}
    (sweeper.folder / "again.yaml").write_text(yaml.safe_dump(pasted))
    again = load_study(sweeper.folder / "again.yaml")
    original = load_study(sweeper.folder / "study.yaml")
    assert again.searched == ()
    assert configuration(again, {}) == configuration(original, best["params"])
    assert again.train.max_length == original.train.max_length


def test_the_adapter_alone_loads_with_the_library(exported, best):
    adapter = adapters.load(exported / "adapter.safetensors")
    assert sum(parameter.numel() for parameter in adapter.parameters()) == best["adapter_parameters"]


def test_the_top_k_are_folders_of_their_own_best_first(sweeper):
    best = sweeper.json("best", "tiny", "--top", "2")
    written = sweeper.json("export", "tiny", "--out", "two", "--top", "2")
    assert [entry["trial"] for entry in written] == [trial["number"] for trial in best]
    assert names(sweeper.folder / "two") == sorted(f"trial-{trial['number']:04d}" for trial in best)
    for entry in written:
        assert names(Path(entry["folder"])) == entry["files"] == FILES


def test_fewer_than_the_top_k_is_said(sweeper):
    done = sweeper("export", "tiny", "--out", "many", "--top", "50")
    written = len(names(sweeper.folder / "many"))
    assert done.returncode == 0
    assert f"--top 50: {written} configurations have succeeded, and all of them are written" in done.stderr


def test_a_trial_by_its_number_replaces_an_earlier_export(sweeper):
    complete = [trial["number"] for trial in sweeper.json("trials", "tiny") if trial["state"] == "complete"]
    numbers = [number for number in complete if number is not None]
    for number, named in zip(numbers, (numbers[0], f"trial-{numbers[1]:04}"), strict=False):
        assert sweeper("export", "tiny", "--out", "one", "--trial", named).returncode == 0
        facts = json.loads((sweeper.folder / "one" / "metrics.json").read_text())
        assert facts["trial"]["number"] == number


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["export", "tiny", "--out", "x", "--trial", "99"], 2, "has no trial '99'"),
        (["export", "tiny", "--out", "x", "--trial", "-1"], 2, "has no trial '-1'"),
        (["export", "tiny", "--out", "x", "--trial", "reference-head"], 2, "reference-head is a reference"),
        (["export", "tiny", "--out", "x", "--trial", "0", "--top", "2"], 2, "exclude each other"),
        (["export", "tiny", "--out", "data"], 2, "which is no export"),
        (["export", "tiny", "--out", "study.yaml"], 2, "is a file"),
        (["export", "tiny", "--out", "."], 2, "the folder you are in"),
        (["export", "tyni", "--out", "x"], 2, "Did you mean 'tiny'?"),
        (["export", "../tiny", "--out", "x"], 2, "cannot be the name of a study"),
    ],
)
def test_what_cannot_be_exported_is_one_message(sweeper, arguments, code, says):
    before = names(sweeper.folder)
    done = sweeper(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert names(sweeper.folder) == before


def test_weights_that_are_not_those_recorded_are_not_exported(sweeper, best):
    found = sorted((sweeper.folder / "sweeps" / "artifacts").rglob("adapter.safetensors"))
    path = next(path for path in found if f"trial-{best['number']:04d}" in path.parts)
    content = path.read_bytes()
    changed = bytearray(content)
    changed[-1] ^= 1
    try:
        path.write_bytes(changed)
        done = sweeper("export", "tiny", "--out", "tampered")
        assert done.returncode == 1
        assert "not those that the ledger recorded" in done.stderr
        path.unlink()
        done = sweeper("export", "tiny", "--out", "tampered")
        assert done.returncode == 1
        assert "are gone" in done.stderr
    finally:
        path.write_bytes(content)
    assert not (sweeper.folder / "tampered").exists()


def test_predict_reads_texts_and_keeps_their_order(sweeper, exported, tmp_path):
    texts = ["a good film", "dull, and bad", "quite clever"]
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    numbered = "".join(f'{number},"{text}"\n' for number, text in enumerate(texts))
    (tmp_path / "texts.csv").write_text(f"id,sentence\n{numbered}")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"sentence": text}) + "\n" for text in texts))
    rows = sweeper.json("predict", exported, tmp_path / "texts.txt")
    assert len(rows) == len(texts)
    assert all(sorted(row) == ["label", "score"] and 0.5 <= row["score"] <= 1 for row in rows)
    assert sweeper.json("predict", exported, tmp_path / "texts.jsonl") == rows
    lines = [
        line.split("\t") for line in sweeper("predict", exported, tmp_path / "texts.csv").stdout.splitlines()
    ]
    assert lines[0] == ["label", "score", "sentence"]
    assert [[label, text] for label, _, text in lines[1:]] == [
        [row["label"], text] for row, text in zip(rows, texts, strict=True)
    ]


def test_a_backbone_that_has_moved_is_named_on_the_command_line(sweeper, exported, tmp_path):
    (tmp_path / "texts.txt").write_text("a good film\n")
    backbone = sweeper.folder / "backbone"
    before = sweeper.json("predict", exported, tmp_path / "texts.txt")
    os.rename(backbone, tmp_path / "elsewhere")
    try:
        done = sweeper("predict", exported, tmp_path / "texts.txt")
        assert done.returncode == 2
        assert "--backbone" in done.stderr
        moved = ["--backbone", str(tmp_path / "elsewhere")]
        assert sweeper.json("predict", exported, tmp_path / "texts.txt", *moved) == before
        weights = tmp_path / "elsewhere" / "model.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = sweeper("predict", exported, tmp_path / "texts.txt", *moved)
        assert done.returncode == 2
        assert "not the backbone that this adapter was trained in" in done.stderr
        weights.write_bytes(content)
    finally:
        shutil.move(tmp_path / "elsewhere", backbone)


def test_for_adapterhub_the_files_hold_the_adapter_and_the_head_that_predict(sweeper, best, exported):
    from adapters.interop.folders import load_head
    from sweeper import load_exported

    entry = sweeper.json("export", "tiny", "--out", "hub", "--format", "adapterhub")[0]
    folder = Path(entry["folder"])
    assert names(folder) == entry["files"] == sorted(
        ["README.md", "adapter.safetensors", "adapter_config.json", "head_config.json", "metrics.json",
         "model_head.safetensors"]
    )  # fmt: skip
    adapter, head = adapters.load(folder), load_head(folder)
    own = adapters.load(exported / "adapter.safetensors")
    assert own.state_dict().keys() == adapter.state_dict().keys()
    assert all((value == own.state_dict()[key]).all() for key, value in adapter.state_dict().items())
    assert head is not None
    predictor = load_exported(exported)
    assert (head.layers[0][0] == predictor._head.weight).all() and (
        head.layers[0][1] == predictor._head.bias
    ).all()
    assert (head.labels, head.pooling) == (predictor.label_names, predictor.facts.pooling)
    backbone = str(sweeper.folder / "backbone")  # whoever loads it stands elsewhere than the study file
    assert (
        f"AutoAdapterModel.from_pretrained({backbone!r}, dtype='float32')"
        in (folder / "README.md").read_text()
    )
    assert json.loads((folder / "adapter_config.json").read_text())["model_name"] == backbone
    assert sweeper("export", "tiny", "--out", "hub", "--format", "adapterhub").returncode == 0  # replaced


def test_what_a_format_cannot_express_is_refused_and_nothing_is_written(sweeper):
    done = sweeper("export", "tiny", "--out", "not-there", "--format", "peft")
    assert done.returncode == 2
    assert "PEFT has nothing that computes what the method bottleneck does" in done.stderr
    assert "not-there" not in names(sweeper.folder)
