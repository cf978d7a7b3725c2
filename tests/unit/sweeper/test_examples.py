"""The example data: the same at every call, fit for its kind of task, and whole or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import transformers

from sweeper import examples, quickstart
from sweeper.metrics import marks_entities
from tests.rated_archive import Index, write_archive

PRODUCTS = "1\t2.5\tA fine  phone.\r\n2\t-0.1\tBlack.\r\n3\t-3\tA fine phone.\r\n"
RATINGS = "sentence\trating\nA fine phone.\t2.5\nBlack.\t-0.1\n"
FILMS = "sentence\tlabel\nA moving film.\tpositive\nA dull plot.\tnegative\nFine acting.\tpositive\n"


def test_sentences_have_a_tag_a_word_and_entities_that_begin_with_b() -> None:
    rows = list(examples.entity_rows(200))
    assert rows == list(examples.entity_rows(200)) != list(examples.entity_rows(200, seed=1))
    assert all(len(row["tokens"]) == len(row["tags"]) for row in rows)
    tags = {tag for row in rows for tag in row["tags"]}
    assert tags == {"O", *(f"{part}-{kind}" for part in "BI" for kind in ("PER", "LOC", "ORG"))}
    assert marks_entities(sorted(tags))
    for row in rows:
        for before, tag in zip(["O", *row["tags"]], row["tags"], strict=False):
            assert tag[0] != "I" or before[2:] == tag[2:]


def test_reviews_name_what_they_speak_of() -> None:
    rows = list(examples.aspect_rows(200))
    assert rows == list(examples.aspect_rows(200))
    assert {len(row["aspects"]) for row in rows} == {0, 1, 2, 3}
    for row in rows:
        for aspect, sentences in examples._ASPECTS.items():
            assert (aspect in row["aspects"]) == any(sentence in row["review"] for sentence in sentences)


def test_what_is_written_and_what_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "BACKBONE_FILES", {})
    monkeypatch.setattr(quickstart, "FILMS_SHA256", hashlib.sha256(FILMS.encode()).hexdigest())
    monkeypatch.setattr(examples, "make_gpt2", partial(examples.make_gpt2, steps=1))
    index = Index(write_archive(tmp_path / "archive.zip", {"products": PRODUCTS}))
    pinned = replace(quickstart.FILMS, sha256=hashlib.sha256(index.path.read_bytes()).hexdigest())
    for module in (quickstart, examples):
        monkeypatch.setattr(module, "FILMS", pinned)
    monkeypatch.setattr(examples, "pip_download", index)
    monkeypatch.setattr(examples, "RATINGS_SHA256", hashlib.sha256(RATINGS.encode()).hexdigest())
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "films.tsv").write_text(FILMS)
    folder = tmp_path / "examples"
    (folder / "gpt2").mkdir(parents=True)
    (folder / "gpt2" / "config.json").write_text("torn")
    assert examples.main([str(folder)]) == 0
    made = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert json.loads(made["sentences.jsonl"]) == {"text": "A dull plot."}
    assert made["ratings.tsv"].decode() == RATINGS and index.asked == 1
    assert made["entities.jsonl"].count(b"\n") == made["aspects.jsonl"].count(b"\n") == examples.ROWS
    assert (
        transformers.AutoModelForCausalLM.from_pretrained(folder / "gpt2").config.n_layer == examples.LAYERS
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "gpt2")
    assert tokenizer.decode(tokenizer("A moving film.")["input_ids"]) == "A moving film."
    weights = (folder / "gpt2" / "model.safetensors").stat().st_mtime_ns
    assert examples.main([str(folder)]) == 0
    assert (folder / "gpt2" / "model.safetensors").stat().st_mtime_ns == weights
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == made
    assert index.asked == 1
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]
