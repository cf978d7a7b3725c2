"""The sections ``backbone`` and ``data`` of a study file: directories, files and hub names.

A relative path is looked for in the study file's folder, and must stay inside it: neither ``..`` nor a
symbolic link may lead out, so that a study that somebody sends you reads nothing but what came with it.
An absolute path may name any place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.study.node import SECTIONS, Node
from sweeper.study.schema import Backbone, Data, Source
from sweeper.words import nearest, short

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
FILE_KEYS = ("path", "rows")
HUB_KEYS = ("hub", "config", "split", "revision", "rows")

_REVISION = re.compile(r"[0-9a-f]{40}\Z")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?\Z", re.ASCII)


def read_backbone(node: Node, check_files: bool) -> Backbone:
    """The section ``backbone``. A revision makes it a hub name; without one it is a directory."""
    node.mapping(SECTIONS["backbone"])
    model = node.required("model", "the directory of a model, or a hub name with its revision")
    name = model.text()
    revision, sites = node.optional("revision"), _sites(node.optional("sites"))
    if revision is None:
        return Backbone(name, None, _backbone_directory(model, name, check_files), sites)
    commit = _revision(revision)
    if not _HUB_NAME.match(name):
        model.fail(f"{short(name)} is not a hub name; a directory has no revision: remove that key")
    if check_files and exists(node.path.parent / name):
        model.fail(
            f"{short(name)} is a directory here and has a revision; remove the revision to use the directory"
        )
    return Backbone(name, commit, None, sites)


def _sites(node: Node | None) -> Mapping[str, Any] | None:
    """The sites of a family that is not in the table of the library."""
    if node is None:
        return None
    from adapters.errors import AdapterError
    from adapters.row import Architecture

    try:
        Architecture.from_dict("the backbone", node.value)
    except AdapterError as error:
        node.fail(str(error))
    sites: Mapping[str, Any] = node.value
    return sites


def _backbone_directory(node: Node, name: str, check_files: bool) -> Path:
    path = local_path(node, name)
    if not check_files:
        return path
    if not exists(path):
        hint = ""
        if _HUB_NAME.match(name):
            hint = "; if it is a hub name, give 'revision', the 40 hex digits of a commit"
        node.fail(f"there is no directory {short(name)}{_beside(node, name)}{hint}")
    if not path.is_dir():
        node.fail(f"{short(name)} is not a directory; name the folder that holds config.json")
    if not (path / "config.json").is_file():
        node.fail(f"the directory {short(name)} has no config.json; is it a saved model?")
    return path


def read_data(node: Node, check_files: bool) -> Data:
    """The section ``data``: three splits, of which the last two may be fractions of the first."""
    node.mapping(SECTIONS["data"])
    train_node = node.required("train", "a file, or {hub: NAME, split: SPLIT, revision: COMMIT}")
    train = read_source(train_node, check_files)
    validation_node = node.required("validation", "a file, or a fraction of train such as 0.1")
    validation = _split(validation_node, check_files)
    test_node = node.optional("test")
    test = _split(test_node, check_files) if test_node else None
    pairs: list[tuple[Node | None, Source | float | None, Source | float, str]] = [
        (validation_node, validation, train, "train"),
        (test_node, test, train, "train"),
    ]
    if check_files:  # not of a study that is in a store: earlier versions took it
        pairs.append((test_node, test, validation, "validation"))
    for split_node, split, other, name in pairs:
        if split_node is not None and _same_rows(split, other):
            split_node.fail(
                f"these are the rows of {name}; name other rows, or a fraction of train such as 0.1"
            )
    drawn = sum(split for split in (validation, test) if isinstance(split, float))
    if drawn >= 1:
        assert test_node is not None
        test_node.fail(f"validation and test together take {drawn:g} of train and leave nothing to train on")
    return Data(train, validation, test)


def _same_rows(one: Source | float | None, other: Source | float) -> bool:
    if not isinstance(one, Source) or not isinstance(other, Source):
        return False  # fractions are drawn without what another one drew
    if one.hub is not None:
        return (one.hub, one.config, one.split) == (other.hub, other.config, other.split)
    return one.path == other.path


def _split(node: Node, check_files: bool) -> Source | float:
    if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        return read_source(node, check_files)
    if not 0 < node.value < 1:
        node.fail(
            f"a fraction of train is above 0 and below 1, not {short(node.value)}; "
            "for a number of rows name a file: {path: FILE, rows: N}"
        )
    return node.number()


def read_source(node: Node, check_files: bool) -> Source:
    """A split: FILE, or {path: FILE, rows: N}, or {hub: NAME, config: C, split: S, revision: R, rows: N}.

    Raises:
        UsageError: an unknown key, no such file, or a hub data set without its commit.
    """
    if isinstance(node.value, str):
        return _file_source(node, None, check_files)
    if not isinstance(node.value, dict):
        node.fail(f"must be a file, or a mapping with the key 'path' or 'hub', not {node.described()}")
    if "path" in node.value and "hub" in node.value:
        node.child("hub").fail("a split comes from a path or from the hub, not from both; remove one")
    if "hub" not in node.value:
        node.mapping(FILE_KEYS if "path" in node.value else (*FILE_KEYS, *HUB_KEYS[:-1]))
        path = node.required("path", "a file, such as {path: data/train.tsv, rows: 1000}; or give 'hub'")
        return _file_source(path, _rows(node), check_files)
    node.mapping(HUB_KEYS)
    hub = node.required("hub", "the name of a data set")
    if not _HUB_NAME.match(hub.text()):
        hub.fail(
            f"{short(hub.value)} is not a hub name, such as 'stanfordnlp/sst2'; a file goes under 'path'"
        )
    config = node.optional("config")
    split = node.required("split", "the split to read, such as train")
    revision = node.required(
        "revision", "the 40 hex digits of the data set's commit, so that its rows stay the same"
    )
    return Source(
        hub=hub.text(),
        config=config.text() if config else None,
        split=split.text(),
        revision=_revision(revision),
        rows=_rows(node),
    )


def _rows(node: Node) -> int | None:
    rows = node.optional("rows")
    return rows.integer(minimum=1) if rows else None


def _file_source(node: Node, rows: int | None, check_files: bool) -> Source:
    written = node.text()
    path = local_path(node, written)
    source = Source(written=written, path=path, rows=rows)
    if source.suffix not in SUFFIXES:
        node.fail(
            f"{short(Path(written).suffix or written)} is no kind of data file; known: {', '.join(SUFFIXES)}"
        )
    if check_files and not exists(path):
        node.fail(f"there is no file {short(written)}{_beside(node, written)}{_similar_file(path)}")
    if check_files and not path.is_file():
        node.fail(f"{short(written)} is not a file")
    return source


def _beside(node: Node, written: str) -> str:
    return "" if Path(written).is_absolute() else f" beside {node.path.name}"


def _similar_file(path: Path) -> str:
    try:
        names = sorted(item.name for item in path.parent.iterdir() if item.suffix in SUFFIXES)[:20]
    except OSError:
        return "; its folder does not exist either"
    return nearest(path.name, names) if names else ""


def _revision(node: Node) -> str:
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        node.fail("quote the revision, so that it is not read as a number")
    commit = node.text()
    if not _REVISION.match(commit):
        node.fail(f"must be the 40 hex digits of a commit, not {short(commit)}; a branch or a tag can move")
    return commit


def local_path(node: Node, written: str) -> Path:
    """The absolute path that is meant by one in a study file.

    Raises:
        UsageError: it is relative and leaves the study file's folder, or cannot be a path at all.
    """
    if written.startswith("~"):
        node.fail("'~' is not expanded; write the absolute path")
    try:
        folder = node.path.parent.resolve()
        path = (folder / written).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of symbolic links
        node.fail(f"{short(written)} cannot be a path: {error}")
    if not Path(written).is_absolute() and not path.is_relative_to(folder):
        node.fail(
            f"{short(written)} leaves its folder; keep it beside the study file, or write an absolute path"
        )
    return path


def exists(path: Path) -> bool:
    """Whether there is a file or folder of that name; of a name that cannot be there is none."""
    try:
        return path.exists()
    except (OSError, ValueError):  # such as a name that is too long
        return False
