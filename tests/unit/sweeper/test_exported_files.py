"""An exported folder that was edited, mixed up or is another library's: refused by one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import adapters
from adapters.config import AdapterConfig
from adapters.interop.folders import write_folder
from sweeper import load_exported
from sweeper.console import explain
from sweeper.errors import UsageError
from tests.exported_folder import write_export
from tests.tiny_folder import make_backbone
from tests.tiny_models import tiny_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    backbone = make_backbone(folder / "backbone")
    return write_export(folder / "best", backbone, AdapterConfig(bottleneck_dim=4))


@pytest.fixture
def export(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "best"))


def edit(export: Path, facts: Any = None, **tensors: torch.Tensor) -> None:
    """Write the head again with other facts or weights."""
    path = export / "head.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    if isinstance(facts, dict):
        facts = {**json.loads(metadata["facts"]), **facts}
    if facts is not None:
        metadata["facts"] = json.dumps(facts)
    save_file({**load_file(path), **tensors}, path, metadata)


def refused(export: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of the folder: one line, and no traceback."""
    with pytest.raises(UsageError) as caught:
        load_exported(export, device="cpu")
    assert explain(caught.value, as_json=False) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ([1], "no JSON object"),
        ("text", "no JSON object"),
        ({"kind": ["classification"]}, "kind of task"),
        ({"text": "sentence"}, "no list of names"),
        ({"text": []}, "0 columns of text"),
        ({"label_names": None}, "names no labels"),
        ({"label_names": [1, 2]}, "no list of names"),
        ({"kind": "regression"}, "it names labels"),
        ({"pooling": "words"}, "pooling is 'words'"),
        ({"max_length": "32"}, "max_length is '32'"),
        ({"max_length": 0}, "max_length is 0"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
        ({"backbone": []}, "backbone is not named"),
        ({"backbone": {"model": "m"}}, "backbone is not named"),
        ({"more": 1}, "more"),
    ],
)
def test_facts_that_no_export_writes(
    export: Path, capsys: pytest.CaptureFixture[str], facts: Any, says: str
) -> None:
    edit(export, facts)
    said = refused(export, capsys)
    assert says in said and "does not say what it belongs to" in said and "export it again" in said


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.full((2, 32), float("nan")), "not finite"),
        (torch.zeros(2, 32).long(), "not of one floating dtype"),
        (torch.zeros(3, 32), "2 outputs"),
        (torch.zeros(2, 16), "reads 16 channels, and the backbone has 32"),
    ],
)
def test_weights_of_a_head_that_do_not_fit(
    export: Path, capsys: pytest.CaptureFixture[str], weight: torch.Tensor, says: str
) -> None:
    edit(export, weight=weight)
    assert says in refused(export, capsys)


def test_an_adapter_of_another_export(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = adapters.build(
        AdapterConfig(bottleneck_dim=4), tiny_config("gpt2"), torch.Generator().manual_seed(0)
    )
    adapters.save(other, export / "adapter.safetensors")
    assert "does not fit the backbone" in refused(export, capsys)
    (export / "adapter.safetensors").unlink()
    assert "no such file" in refused(export, capsys)


@pytest.mark.parametrize(("format", "method"), [("adapterhub", "bottleneck"), ("peft", "lora")])
def test_a_folder_for_another_library_is_not_predicted_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str, method: str
) -> None:
    fields: dict[str, Any] = {"bottleneck_dim": 4} if method == "bottleneck" else {}
    config = AdapterConfig(method=method, **fields)
    adapter = adapters.build(config, tiny_config("bert"), torch.Generator().manual_seed(0))
    said = refused(write_folder(tmp_path / "hub", adapter, format), capsys)
    assert "without --format" in said and "docs/interop.md" in said
