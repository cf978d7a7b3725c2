"""Folders of an export, the card and the configuration that go into them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from sweeper.console import Output
from sweeper.errors import SweeperError, UsageError
from sweeper.export import Exported
from sweeper.export.card import configuration_yaml, snippet
from sweeper.export.folders import FORMAT, as_json, sha256, verified, write_folders
from sweeper.study.schema import Task
from sweeper.terminal import print_exports


def export_of(text: str = "card") -> dict[str, bytes]:
    content = {"README.md": text.encode(), "adapter.yaml": b"search: {}\n"}
    digests = {name: sha256(value) for name, value in content.items()}
    return {**content, "metrics.json": as_json({"format": FORMAT, "files": digests})}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_folder_appears_whole_and_nothing_is_left_beside_it(tmp_path):
    write_folders(tmp_path / "a" / "best", {"": export_of()})
    assert names(tmp_path / "a") == ["best"]
    assert names(tmp_path / "a" / "best") == ["README.md", "adapter.yaml", "metrics.json"]


def test_an_earlier_export_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / "best"
    write_folders(out, {"": export_of("one")})
    write_folders(out, {"trial-0001": export_of("two"), "trial-0002": export_of("three")})
    assert names(out) == ["trial-0001", "trial-0002"]
    write_folders(out, {"": export_of("four")})
    assert (out / "README.md").read_text() == "four"
    assert names(tmp_path) == ["best"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "best").mkdir()
    write_folders(tmp_path / "best", {"": export_of()})
    assert (tmp_path / "best" / "README.md").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda out: (out / "notes.txt").write_text("mine"),
        lambda out: (out / "README.md").write_text("my own words"),
        lambda out: (out / "metrics.json").write_text("{}"),
        lambda out: (out / "metrics.json").write_text("not json"),
        lambda out: (out / "metrics.json").unlink(),
        lambda out: (out / "sub").mkdir(),
    ],
)
def test_a_folder_with_anything_of_the_users_is_refused_and_unharmed(tmp_path, spoil):
    out = tmp_path / "best"
    write_folders(out, {"": export_of()})
    spoil(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="--out"):
        write_folders(out, {"": export_of("new")})
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == ["best"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "best").write_text("a file")
    for out in (tmp_path / "best", tmp_path / "best" / "x" / "y"):
        with pytest.raises(UsageError, match="best: is a file"):
            write_folders(out, {"": export_of()})


def test_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="the folder you are in"):
        write_folders(Path("."), {"": export_of()})


def test_artifacts_are_verified_against_their_digest(tmp_path):
    (tmp_path / "weights").write_bytes(b"weights")
    assert verified(tmp_path, "weights", sha256(b"weights")) == b"weights"
    with pytest.raises(SweeperError, match="not those that the ledger recorded"):
        verified(tmp_path, "weights", sha256(b"others"))
    with pytest.raises(SweeperError, match="are gone"):
        verified(tmp_path, "missing", sha256(b""))
    with pytest.raises(SweeperError, match="outside the artifact folder"):
        verified(tmp_path, "../weights", sha256(b"weights"))


def test_the_configuration_is_yaml_with_layers_as_a_choice_of_one():
    adapter = {"method": "bottleneck", "bottleneck_dim": 24, "layers": [0, 2], "scaling": 1.0}
    text = configuration_yaml("trial-0007", adapter, {"learning_rate": 1e-5, "epochs": 3})
    assert yaml.safe_load(text) == {
        "search": {
            "method": "bottleneck",
            "bottleneck_dim": 24,
            "layers": [[0, 2]],
            "scaling": 1.0,
            "learning_rate": 1e-5,
        },
        "train": {"epochs": 3},
    }
    assert text.startswith("# trial-0007")


def test_the_snippet_has_five_lines_of_python_whatever_the_paths_are():
    task = Task("classification", ("sentence",), ("label",))
    code = snippet(Path("/a \"quoted\" 'folder'"), Path("/b\\c.yaml"), "accuracy", task)
    compile(code, "snippet", "exec")
    assert len(code.splitlines()) == 5


def test_numbers_that_json_cannot_hold_are_null():
    assert json.loads(as_json({"loss": float("nan")})) == {"loss": None}


def test_the_command_to_predict_with_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    print_exports(Output(False), [Exported(Path("/a place/best"), 3, "accuracy", 0.9)])
    assert "sweeper predict '/a place/best' FILE." in capsys.readouterr().err


def test_no_prediction_is_promised_of_files_for_another_library(capsys: pytest.CaptureFixture[str]) -> None:
    files = ("README.md", "adapter_config.json", "metrics.json")
    print_exports(Output(False), [Exported(Path("/best"), 3, "accuracy", 0.9, files)])
    said = capsys.readouterr().err
    assert "predict" not in said and "How to load it in Python: /best/README.md" in said
