"""A predictor gives to the digit what training measured, and refuses what does not belong together."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

import adapters
from adapters.config import AdapterConfig
from adapters.pack import Pack
from sweeper import load_exported
from sweeper.backbone import fingerprint, load_backbone, load_tokenizer
from sweeper.data import prepare, read_tables
from sweeper.errors import UsageError
from sweeper.events import Finished
from sweeper.export.head import HeadFacts, head_bytes, load_head
from sweeper.slot import Job, Problem
from sweeper.study import load_study
from sweeper.task import outputs
from sweeper.train import train
from sweeper.trainconfig import TrainConfig
from tests.tiny_folder import write_study


def train_one(folder, kind):
    """Trains one adapter of a tiny study and writes the two files of an export; returns its metrics."""
    study = load_study(write_study(folder, kind=kind))
    tokenizer = load_tokenizer(study.backbone)
    data = prepare(study, read_tables(study), tokenizer, folder / "cache")
    problem = Problem(
        study.task.kind,
        study.task.pooling,
        outputs(study.task.kind, data.label_names),
        study.objective.metric,
        True,
    )
    jobs = [Job(1, 0, 1, AdapterConfig(bottleneck_dim=4), TrainConfig(epochs=2, batch_size=16), seed=7)]
    pack = Pack(load_backbone(study.backbone, "float32", "cpu"))
    events = train(pack, data, problem, lambda: jobs.pop() if jobs else None, device="cpu")
    finished = next(event for event in events if isinstance(event, Finished))
    facts = HeadFacts(
        kind=study.task.kind,
        text=study.task.text,
        label=study.task.label,
        label_names=data.label_names,
        pooling=study.task.pooling,
        max_length=study.train.max_length,
        dtype="float32",
        backbone={
            "model": study.backbone.model,
            "revision": None,
            "path": str(study.backbone.path),
            "fingerprint": fingerprint(study.backbone),
        },
        data_fingerprint=data.fingerprint,
    )
    out = folder / "best"
    out.mkdir()
    adapters.save(finished.adapter, out / "adapter.safetensors")
    (out / "head.safetensors").write_bytes(head_bytes(dict(finished.head.state_dict()), facts))
    return out, finished.metrics


@pytest.fixture(scope="module", params=["classification", "pair", "regression"])
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    out, metrics = train_one(folder, request.param)
    return request.param, folder, out, metrics


@pytest.fixture(scope="module")
def predictor(exported):
    return load_exported(exported[2])


def test_the_validation_result_is_that_of_training_to_the_digit(exported, predictor):
    kind, folder, _, metrics = exported
    found = predictor.evaluate(folder / "study.yaml")
    assert found["loss"] == metrics["validation/loss"]
    for name in ("pearson",) if kind == "regression" else ("accuracy", "f1_macro"):
        assert found[name] == metrics[name]


def test_a_data_file_of_the_same_rows_gives_the_same(exported, predictor):
    _, folder, _, _ = exported
    found = predictor.evaluate(folder / "data" / "validation.tsv")
    assert found == predictor.evaluate(folder / "study.yaml")
    assert predictor.evaluate(folder / "study.yaml", split="train") != found


def test_predictions_keep_the_order_of_the_texts_and_do_not_depend_on_the_others(exported, predictor):
    kind = exported[0]
    texts = ["a very good film", "dull", "the plot is bad and boring ."]
    rows = [(text, "war") for text in texts] if kind == "pair" else texts
    together = predictor.predict(rows)
    alone = [predictor.predict([row])[0] for row in rows]
    assert [row["label"] for row in together] == [row["label"] for row in alone]
    assert [row["score"] for row in together] == pytest.approx([row["score"] for row in alone], abs=1e-5)
    if kind == "regression":
        assert all(row["label"] is None for row in together)
    else:
        assert all(row["label"] in predictor.label_names for row in together)
        assert all(1 / len(predictor.label_names) <= row["score"] <= 1 for row in together)
    assert predictor.predict([]) == []


def test_texts_that_do_not_fit_are_refused(exported, predictor):
    kind = exported[0]
    wrong = ["one text"] if kind == "pair" else [("one", "two")]
    for texts, says in (
        (wrong, "takes"),
        ([("", "a")] if kind == "pair" else [""], "empty"),
        ([("a\ud800", "b")] if kind == "pair" else ["a\ud800"], "row 1 holds half of a character"),
        (
            [("a", "b") if kind == "pair" else "a", ("a", None) if kind == "pair" else None],
            "row 2 .* no text",
        ),
        ([float("nan")], "takes" if kind == "pair" else "no text"),
        ("text", "list"),
    ):
        with pytest.raises(UsageError, match=says):
            predictor.predict(texts)


def test_another_backbone_is_refused_and_a_moved_one_is_taken(exported, tmp_path):
    _, folder, out, _ = exported
    moved = tmp_path / "moved"
    shutil.copytree(folder / "backbone", moved)
    assert load_exported(out, backbone=moved).predict([]) == []
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-5}))
    with pytest.raises(UsageError, match="is not the backbone that this adapter was trained in"):
        load_exported(out, backbone=moved)


def test_a_head_that_leaves_out_what_is_null_is_read(exported, tmp_path):
    _, folder, out, _ = exported
    shutil.copytree(out, tmp_path / "best")
    head, facts = load_head(out / "head.safetensors")
    short = {key: facts.backbone[key] for key in ("model", "fingerprint")}
    content = head_bytes(dict(head.state_dict()), dataclasses.replace(facts, backbone=short))
    (tmp_path / "best" / "head.safetensors").write_bytes(content)
    assert load_exported(tmp_path / "best", backbone=folder / "backbone").predict([]) == []


@pytest.mark.parametrize(
    ("weight", "bias"), [(torch.float8_e4m3fn, torch.float8_e4m3fn), (torch.float16, torch.float32)]
)
def test_a_head_that_is_of_no_one_floating_dtype_is_refused(exported, tmp_path, weight, bias):
    head, facts = load_head(exported[2] / "head.safetensors")
    path = tmp_path / "head.safetensors"
    tensors = {"weight": head.weight.detach().to(weight), "bias": head.bias.detach().to(bias)}
    path.write_bytes(head_bytes(tensors, facts))
    with pytest.raises(UsageError, match="not of one floating dtype: export it again"):
        load_head(path)


def test_a_backbone_named_where_none_is_says_so(exported, tmp_path):
    with pytest.raises(
        UsageError, match=r"there is no such folder: --backbone \(in Python `backbone=`\) names"
    ):
        load_exported(exported[2], backbone=tmp_path / "nope")


def test_a_folder_that_is_no_export_is_refused(exported, tmp_path):
    _, _, out, _ = exported
    with pytest.raises(UsageError, match="no such folder"):
        load_exported(tmp_path / "missing")
    with pytest.raises(UsageError, match="no exported adapter"):
        load_exported(tmp_path)
    for name in ("trial-0001", "trial-0002"):
        shutil.copytree(out, tmp_path / name)
    with pytest.raises(UsageError, match="several adapters"):
        load_exported(tmp_path)
    shutil.rmtree(tmp_path / "trial-0002")
    assert load_exported(tmp_path).predict([]) == []


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_damaged_head_is_refused_with_its_name(exported, tmp_path, damage):
    _, _, out, _ = exported
    folder = tmp_path / "best"
    shutil.copytree(out, folder)
    path = folder / "head.safetensors"
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut": content[:-8],
            "text": b"hello",
            "other": (folder / "adapter.safetensors").read_bytes(),
        }[damage]
    )
    with pytest.raises(UsageError) as caught:
        load_exported(folder)
    assert caught.value.file == str(path)


def test_rows_that_are_not_the_studys_are_refused(exported, predictor, tmp_path):
    folder = exported[1]
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    data = other / "data" / "validation.tsv"
    data.write_text("\n".join(data.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(UsageError, match="are not those that the adapter was trained and chosen on"):
        predictor.evaluate(other / "study.yaml")


def test_predicting_draws_nothing_from_the_global_generator(exported):
    _, _, out, _ = exported
    before = torch.random.get_rng_state()
    load_exported(out).predict([])
    assert torch.equal(before, torch.random.get_rng_state())
