"""Tokens: the same as the tokenizer's own, cut and counted, and kept until anything changes."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeper import data as data_module
from sweeper.backbone import load_tokenizer
from sweeper.data import Split, TaskData, prepare, read_tables, tokenise
from sweeper.errors import UsageError
from sweeper.study import Backbone, load_study
from tests.tiny_folder import make_backbone, make_data, write_study

FAMILIES = ["bert", "roberta", "distilbert", "gpt2"]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    for family in FAMILIES:
        make_backbone(folder / family, family)
    return folder


@pytest.fixture
def folder(tmp_path: Path, backbones: Path) -> Path:
    shutil.copytree(backbones / "bert", tmp_path / "backbone")
    return tmp_path


def prepared(folder: Path, **overrides: Any) -> TaskData:
    study = load_study(write_study(folder, **overrides))
    return prepare(study, read_tables(study), load_tokenizer(study.backbone), folder / "cache")


def rows(flat: torch.Tensor, split: Split) -> list[list[int]]:
    return [part.tolist() for part in flat.split(split.lengths.tolist())]


@pytest.mark.parametrize("kind", ["classification", "pair"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_the_tokenizer(tmp_path: Path, backbones: Path, family: str, kind: str) -> None:
    shutil.copytree(backbones / family, tmp_path / "backbone")
    study = load_study(write_study(tmp_path, kind=kind, train={"max_length": 12}))
    tables = read_tables(study)
    tokenizer = load_tokenizer(study.backbone)
    split = prepare(study, tables, tokenizer, tmp_path / "cache").train
    expected = [
        tokenizer(*texts, truncation=True, max_length=12) for texts in zip(*tables.train.texts, strict=True)
    ]
    assert rows(split.input_ids, split) == [one["input_ids"] for one in expected]
    assert split.input_ids.dtype == torch.int32
    assert split.offsets.dtype == torch.int64
    if kind == "pair" and family == "bert":
        assert split.token_type_ids is not None
        assert rows(split.token_type_ids, split) == [one["token_type_ids"] for one in expected]
    else:
        assert split.token_type_ids is None


def test_labels(tmp_path: Path, folder: Path) -> None:
    data = prepared(folder)
    assert data.label_names == ("negative", "positive")
    assert data.train.labels.tolist() == [0, 1] * 48
    assert data.train.labels.dtype == torch.int64


def test_labels_of_a_regression(folder: Path) -> None:
    study = load_study(write_study(folder, kind="regression"))
    data = prepare(study, read_tables(study), load_tokenizer(study.backbone), folder / "cache")
    assert data.label_names is None
    assert data.train.labels.dtype == torch.float32
    assert data.train.labels[:5].tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert data.report["label_counts"]["train"] == {}


def test_the_report(folder: Path) -> None:
    whole = prepared(folder)
    report = whole.report
    assert report["rows"] == {"train": 96, "validation": 32, "test": 32}
    assert report["label_counts"]["test"] == {"negative": 16, "positive": 16}
    assert report["truncated"] == {"train": 0, "validation": 0, "test": 0}
    assert report["max_length_seen"]["train"] == int(whole.train.lengths.max())
    cut = prepared(folder, train={"max_length": 8})
    assert cut.report["truncated"]["train"] == int((whole.train.lengths > 8).sum()) > 0
    assert cut.report["max_length_seen"] == report["max_length_seen"]
    assert cut.report["mean_length"]["train"] == cut.train.lengths.double().mean().item()
    assert int(cut.train.lengths.max()) == 8
    # The rows are the same, and the test rows are others.
    assert cut.report["digest"] == report["digest"] and cut.fingerprint != whole.fingerprint
    assert len(set(report["digest"].values())) == 3


def test_more_texts_than_are_tokenised_at_once(folder: Path) -> None:
    tokenizer = load_tokenizer(load_study(write_study(folder)).backbone)
    texts = ["good " * (1 + number % 7) for number in range(2500)]
    split, full = tokenise([texts], torch.arange(2500), tokenizer, 6)
    assert full == [3 + number % 7 for number in range(2500)]
    assert split.lengths.tolist() == [min(length, 6) for length in full]
    assert split.labels.tolist() == list(range(2500))


def test_settings_of_the_tokenizer_file_do_not_cut_or_pad(folder: Path) -> None:
    study = load_study(write_study(folder))
    plain = prepare(study, read_tables(study), load_tokenizer(study.backbone), folder / "cache")
    path = folder / "backbone" / "tokenizer.json"
    content = json.loads(path.read_text())
    length = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pad = {"Fixed": 20}, "Right", None, 0, 0, "[PAD]"
    names = ("strategy", "direction", "pad_to_multiple_of", "pad_id", "pad_type_id", "pad_token")
    path.write_text(
        json.dumps(content | {"truncation": length, "padding": dict(zip(names, pad, strict=True))})
    )
    again = prepare(study, read_tables(study), load_tokenizer(study.backbone), folder / "other")
    assert torch.equal(again.train.input_ids, plain.train.input_ids)
    assert again.fingerprint == plain.fingerprint


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_cache_gives_the_same_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(folder, kind="pair")
    kept = files_of(folder / "cache")
    with monkeypatch.context() as patch:
        patch.setattr("sweeper.data._tokenise_tables", None)  # whoever builds again fails
        second = prepared(folder, kind="pair")
    assert files_of(folder / "cache") == kept
    assert second.report == first.report
    for name in ("train", "validation", "test"):
        a, b = getattr(first, name), getattr(second, name)
        for field in ("input_ids", "token_type_ids", "offsets", "labels"):
            assert torch.equal(getattr(a, field), getattr(b, field))
            assert getattr(a, field).dtype == getattr(b, field).dtype


def test_the_token_that_a_language_model_begins_with_decides_its_tokens(tmp_path: Path) -> None:
    def begun() -> TaskData:
        task = {"kind": "causal_lm", "text": "sentence", "label": None, "pooling": None}
        return prepared(tmp_path, task=task, objective={"metric": "perplexity", "direction": "minimize"})

    make_backbone(tmp_path / "backbone", "gpt2")
    make_data(tmp_path / "data")
    with_it = begun()
    path = tmp_path / "backbone" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": None}))
    without = begun()
    assert len(with_it.train.input_ids) - len(without.train.input_ids) == len(without.train.lengths)
    assert with_it.fingerprint != without.fingerprint


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["tokens.safetensors", "about.json"])
@pytest.mark.parametrize("harm", [cut_short, Path.unlink])
def test_a_torn_cache_is_built_again(folder: Path, name: str, harm: Any) -> None:
    first = prepared(folder)
    kept = files_of(folder / "cache")
    harm(folder / "cache" / "tokens" / first.fingerprint / name)
    second = prepared(folder)
    assert torch.equal(second.train.input_ids, first.train.input_ids)
    assert files_of(folder / "cache") == kept


def test_a_failed_build_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        prepared(folder)
    assert [path.suffix for path in (folder / "cache" / "tokens").iterdir()] == [".lock"]


def test_the_fingerprint_follows_what_decides_the_tokens(folder: Path) -> None:
    base = prepared(folder).fingerprint
    assert base == prepared(folder, budget={"trials": 9}).fingerprint
    assert base != prepared(folder, train={"max_length": 31}).fingerprint
    assert base != prepared(folder, data={"test": None}).fingerprint
    train = folder / "data" / "train.tsv"
    lines = train.read_text().splitlines()
    train.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    reordered = prepared(folder).fingerprint
    assert reordered != base
    train.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n\n")
    assert prepared(folder).fingerprint == reordered
    tokenizer = folder / "backbone" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"Lowercase"', '"NFC"'))
    assert prepared(folder).fingerprint != reordered


def refused(folder: Path, **overrides: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        prepared(folder, **overrides)
    return caught.value


def line_of(error: UsageError) -> str:
    assert error.file is not None and error.line is not None
    return Path(error.file).read_text().splitlines()[error.line - 1]


def test_texts_longer_than_the_positions(folder: Path) -> None:
    error = refused(folder, train={"max_length": 65})
    assert "positions for 64 tokens" in error.message
    assert "max_length: 65" in line_of(error)


def test_two_positions_of_roberta_hold_no_token(tmp_path: Path, backbones: Path) -> None:
    shutil.copytree(backbones / "roberta", tmp_path / "backbone")
    prepared(tmp_path, train={"max_length": 62})
    assert "positions for 62" in refused(tmp_path, train={"max_length": 63}).message


def test_no_room_for_a_token(folder: Path) -> None:
    error = refused(folder, train={"max_length": 2})
    assert "need 3" in error.message
    assert "max_length: 2" in line_of(error)


def test_the_first_token_of_a_causal_model(tmp_path: Path, backbones: Path) -> None:
    shutil.copytree(backbones / "gpt2", tmp_path / "backbone")
    error = refused(tmp_path, task={"pooling": "cls"})
    assert "pooling: last or pooling: mean" in error.message
    assert "pooling: cls" in line_of(error)


def test_a_text_without_tokens(tmp_path: Path, backbones: Path) -> None:
    shutil.copytree(backbones / "gpt2", tmp_path / "backbone")
    write_study(tmp_path)
    path = tmp_path / "backbone" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "~"}, "content": ""}
    path.write_text(json.dumps(content))
    with open(tmp_path / "data" / "validation.tsv", "a") as file:
        file.write("~~~\tpositive\n")
    error = refused(tmp_path)
    assert "no token" in error.message
    assert (error.file, error.line) == (str(tmp_path / "data" / "validation.tsv"), 34)


def test_a_text_without_tokens_outside_of_a_table(backbones: Path) -> None:
    tokenizer = load_tokenizer(Backbone("gpt2", None, backbones / "gpt2"))
    with pytest.raises(UsageError, match="row 1002: the tokenizer makes no token"):
        tokenise([["good"] * 1001 + ["", "fine"]], torch.zeros(1003), tokenizer, 8)


def test_of_several_workers_one_tokenises(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(write_study(folder))
    tables = read_tables(study)
    built = []
    tokenise_tables = data_module._tokenise_tables

    def counted(*arguments: Any) -> Any:
        built.append(1)
        return tokenise_tables(*arguments)

    monkeypatch.setattr(data_module, "_tokenise_tables", counted)

    def one(_: int) -> TaskData:
        return prepare(study, tables, load_tokenizer(study.backbone), folder / "cache")

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(one, range(8)))
    assert len(built) == 1
    assert all(torch.equal(data.train.input_ids, made[0].train.input_ids) for data in made)


def test_a_tokenizer_of_another_backbone(folder: Path) -> None:
    path = folder / "backbone" / "config.json"
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole) | {"vocab_size": 20}))
    assert "do not belong together" in refused(folder).message
    # Also where the tokens of another backbone with this tokenizer are there.
    path.write_text(whole)
    prepared(folder)
    path.write_text(json.dumps(json.loads(whole) | {"vocab_size": 20}))
    assert "do not belong together" in refused(folder).message


def test_what_a_tokenizer_without_a_backend_is_told_is_part_of_what_it_is() -> None:
    from transformers import ByT5Tokenizer

    identities = {
        data_module._tokenizer_identity(ByT5Tokenizer(**options))
        for options in (
            {},
            {"name_or_path": "elsewhere", "is_local": True, "local_files_only": True},
            {"truncation_side": "left"},
            {"extra_ids": 3},
        )
    }
    assert len(identities) == 3


def test_importing_data_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = "{'torch', 'transformers', 'datasets', 'pandas', 'sklearn', 'scipy'}"
    code = f"import sweeper.data, sys; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
