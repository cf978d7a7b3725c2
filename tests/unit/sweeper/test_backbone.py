"""Backbones: loaded whole, frozen and quietly, or refused."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from threading import Event, Thread, current_thread
from time import sleep
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from sweeper.backbone import (
    fingerprint,
    hub_error,
    is_causal,
    load_backbone,
    load_config,
    load_tokenizer,
    parameter_count,
    position_limit,
    quiet,
)
from sweeper.errors import UnreachableError, UsageError
from sweeper.study import Backbone
from tests.tiny_folder import make_backbone

FAMILIES = ["bert", "roberta", "distilbert", "gpt2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("backbones")
    return {family: make_backbone(root / family, family) for family in FAMILIES}


@pytest.fixture
def folder(tmp_path: Path, folders: dict[str, Path]) -> Path:
    return Path(shutil.copytree(folders["bert"], tmp_path / "backbone"))


def at(folder: Path) -> Backbone:
    return Backbone(str(folder), None, folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backbone_is_frozen_quiet_and_the_saved_one(
    folders: dict[str, Path], family: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    state = torch.get_rng_state()
    model = load_backbone(at(folders[family]))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    saved = load_file(folders[family] / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items() if name in saved)
    assert {name for name, _ in model.named_parameters()} <= set(saved)
    assert not any("pooler" in name for name, _ in model.named_parameters())
    assert parameter_count(model) == sum(
        value.numel() for name, value in saved.items() if not name.startswith("pooler")
    )
    assert load_tokenizer(at(folders[family]))("good")["input_ids"]
    assert capfd.readouterr() == ("", "")


def test_threads_that_load_at_once_leave_the_classes_of_transformers_as_they_were(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that overlap, the first to begin ends first: what it restores is not what the other saved."""
    before, began = PreTrainedModel.tie_weights, Event()
    init = PreTrainedModel.__init__

    def slow(model: PreTrainedModel, *arguments: Any, **named: Any) -> None:
        if current_thread() is second:
            first.join(5.0)
        elif not began.is_set():
            began.set()
            sleep(0.5)  # time for the second to come this far, if it can
        init(model, *arguments, **named)

    monkeypatch.setattr(PreTrainedModel, "__init__", slow)
    load = partial(load_backbone, at(folders["gpt2"]), language_head=True)
    first, second = Thread(target=load), Thread(target=lambda: began.wait(5.0) and load())
    first.start(), second.start()
    first.join(), second.join()
    assert PreTrainedModel.tie_weights is before
    load()  # its head is tied to its words, and no weight is missing


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_dtype(folders: dict[str, Path], dtype: str) -> None:
    model = load_backbone(at(folders["bert"]), dtype, "cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


def test_positions_and_direction(folders: dict[str, Path]) -> None:
    limits = {family: position_limit(load_config(at(path))) for family, path in folders.items()}
    assert limits == {"bert": 64, "roberta": 62, "distilbert": 64, "gpt2": 64}
    assert [family for family, path in folders.items() if is_causal(load_config(at(path)))] == ["gpt2"]


def test_a_family_without_a_row_of_ours_counts_positions_as_it_does() -> None:
    from transformers import CamembertConfig, CamembertModel

    config = CamembertConfig(
        vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=20,
    )  # fmt: skip
    model, limit = CamembertModel(config), position_limit(config)
    assert limit == 18 and model(input_ids=torch.full((1, limit), 7)).last_hidden_state.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 7))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_position_limit_is_the_last_length_that_runs(folders: dict[str, Path], family: str) -> None:
    model = load_backbone(at(folders[family]))
    limit = position_limit(model.config)
    assert limit is not None
    ids = torch.full((1, limit + 1), 7)
    assert model(input_ids=ids[:, :-1]).last_hidden_state.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=ids)


def test_the_fingerprint_covers_weights_and_configuration(folder: Path) -> None:
    first = fingerprint(at(folder))
    assert first.startswith("sha256:") and len(first) == 71
    assert first == fingerprint(at(folder))
    (folder / "README.md").write_text("words")
    assert first == fingerprint(at(folder))
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    second = fingerprint(at(folder))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert len({first, second, fingerprint(at(folder))}) == 3


def test_the_fingerprint_of_a_hub_model() -> None:
    assert fingerprint(Backbone("some/model", "a" * 40, None)) == "some/model@" + "a" * 40


def refused(folder: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load_backbone(at(folder))
    assert caught.value.file == str(folder)
    return caught.value


def test_pickled_weights_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    # A pickle that would leave a mark if it were loaded.
    (folder / "pytorch_model.bin").write_bytes(f"cposix\nmkdir\n(S'{tmp_path / 'ran'}'\ntR.".encode())
    assert "pickled weights are not loaded" in refused(folder).message
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="pickled weights are not loaded"):
        fingerprint(at(folder))


def test_torn_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in refused(folder).message


def test_weights_that_do_not_fill_the_model(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    lost = "encoder.layer.1.output.dense.weight"
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert lost in refused(folder).message


def test_weights_of_another_shape(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 60}))
    assert "9 tensors are missing or of another shape, encoder.layer.0" in refused(folder).message


def test_code_of_a_model_is_not_run(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "modeling.py").write_text(f"open({str(ran)!r}, 'w')\n")
    names = {"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard_of", "auto_map": names}))
    assert "never run" in refused(folder).message
    assert not ran.exists()


def test_an_unknown_family_and_a_broken_configuration(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "unheard_of"}')
    assert "unheard_of" in refused(folder).message
    (folder / "config.json").write_text("{")
    assert "cannot be loaded" in refused(folder).message
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder).message


def test_a_directory_without_a_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UsageError, match="without its tokenizer"):
        load_tokenizer(at(folder))


def test_a_directory_without_the_vocabulary_of_its_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match=r"without its tokenizer: .* Save it there"):
        load_tokenizer(at(folder))


def test_a_tokenizer_of_a_later_version_is_refused(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**values, "pre_tokenizer": {"type": "Unheard"}}))
    with pytest.raises(UsageError, match="the backbone cannot be loaded: "):
        load_tokenizer(at(folder))


def test_quiet_puts_back_what_was_set() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quiet():
        assert logging.get_verbosity() == logging.ERROR
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_a_hub_model_without_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UnreachableError, match="cannot be reached") as caught:
        load_config(Backbone("nobody/nothing", "a" * 40, None))
    assert "nobody/nothing@" in caught.value.message


def test_a_folder_with_the_name_of_a_hub_model_is_not_read_in_its_place(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers itself would take it, whatever the revision."""
    shutil.copytree(folders["gpt2"], tmp_path / "gpt2")
    monkeypatch.chdir(tmp_path)
    for load in (load_config, load_tokenizer):
        with pytest.raises(UsageError, match="gpt2 is a name of the hub, and something here has it"):
            load(Backbone("gpt2", "a" * 40, None))


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        ("RepositoryNotFoundError", UsageError, "no such repository"),
        ("RevisionNotFoundError", UsageError, "no such revision"),
        ("GatedRepoError", UsageError, "gated"),
        ("LocalEntryNotFoundError", UnreachableError, "cannot be reached"),
        ("OfflineModeIsEnabled", UnreachableError, "cannot be reached"),
    ],
)
def test_what_a_failure_of_the_hub_means(cause: str, kind: type[Exception], words: str) -> None:
    from huggingface_hub import errors

    outer = OSError("some words of transformers")
    made = getattr(errors, cause)
    outer.__cause__ = made.__new__(made, "words of the hub")
    found = hub_error(outer, "model@revision")
    assert type(found) is kind
    assert words in found.message and found.message.startswith("model@revision")


def test_other_failures_of_the_hub() -> None:
    assert isinstance(hub_error(ConnectionError("refused"), "m"), UnreachableError)
    found = hub_error(ValueError("no split 'dev'\nand more"), "m")
    assert (type(found), found.message) == (UsageError, "m cannot be loaded: no split 'dev'")


BLOOM = {
    "layers": "h",
    "attention": "self_attention.dense",
    "ffn": "mlp.dense_4h_to_h",
    "linears": {"query_key_value": "self_attention.query_key_value", "ffn_up": "mlp.dense_h_to_4h"},
}


def test_the_sites_that_a_study_names_make_a_row_of_its_backbones_family(tmp_path: Path) -> None:
    from adapters.architectures import ARCHITECTURES, architecture_of

    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bloom", "hidden_size": 32, "n_layer": 2})
    )
    try:
        config = load_config(Backbone("it", None, tmp_path, BLOOM))
        assert architecture_of(config).ffn == "mlp.dense_4h_to_h"
        load_config(Backbone("it", None, tmp_path, BLOOM))  # once more is no other row
        with pytest.raises(UsageError, match="row already"):
            load_config(Backbone("it", None, tmp_path, {**BLOOM, "ffn": "other"}))
    finally:
        ARCHITECTURES.pop("bloom", None)
