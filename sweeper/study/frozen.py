"""The frozen adapters of a study: folders of exports, named under ``search.adapters``.

A study knows each by its configuration, the digest of its weights and the fingerprint of its backbone, so
that an adapter that has changed makes it another study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapters.config import AdapterConfig, Part
from adapters.errors import AdapterError
from sweeper.errors import UsageError
from sweeper.study.files import exists, local_path
from sweeper.study.node import Node
from sweeper.study.schema import Backbone, Fixed, FrozenAdapter, Range, Spec
from sweeper.study.search import PARTS_FIELD, field_of, method_names
from sweeper.words import short

ADAPTER_FILE, HEAD_FILE = "adapter.safetensors", "head.safetensors"


def read_frozen(search: Node, specs: Mapping[str, Spec], backbone: Backbone) -> dict[str, FrozenAdapter]:
    """The adapters that a study file names, by their folders as they are written.

    Raises:
        UsageError: a folder is missing or no export, its adapter cannot be read, or its method is not taken.
    """
    found: dict[str, FrozenAdapter] = {}
    for node in _nodes(search):
        for item in _items(node):
            if item.text() not in found:
                found[item.text()] = _read(item, backbone)
    for key, spec in specs.items():
        if field_of(key) == PARTS_FIELD:
            _check_sets(search, key, spec, method_names(specs["method"]), found)
    return found


def stored_frozen(node: Node | None) -> dict[str, FrozenAdapter]:
    """The adapters that the store remembers of a study."""
    if node is None:
        return {}
    return {
        name: FrozenAdapter(Part(AdapterConfig.from_dict(each["config"]), each["weights"]), each["backbone"])
        for name, each in node.value.items()
    }


def _nodes(search: Node) -> Iterator[Node]:
    """Every place of a study file that names adapters."""
    if search.has(PARTS_FIELD):
        yield search.child(PARTS_FIELD)
    method = search.optional("method")
    for name in method.value if method is not None and isinstance(method.value, dict) else ():
        assert method is not None
        fields = method.child(name)
        if isinstance(fields.value, dict) and fields.has(PARTS_FIELD):
            yield fields.child(PARTS_FIELD)


def _items(node: Node) -> Iterator[Node]:
    for index, item in enumerate(node.value):
        if isinstance(item, list):
            yield from _items(node.child(index))
        else:
            yield node.child(index)


def _read(node: Node, backbone: Backbone) -> FrozenAdapter:
    """One folder, which holds an export or the folder of one: ``trial-0007``."""
    import adapters
    from sweeper.backbone import load_config
    from sweeper.export.head import adapter_folder, load_head

    folder = local_path(node, node.text())
    if not (exists(folder) and folder.is_dir()):
        node.fail(
            f"there is no folder {short(node.value)}; write one with `sweeper export STUDY --out "
            f"{folder.name}`"
        )
    if backbone.sites is not None:  # they have to be known before the adapter is read
        load_config(backbone)
    try:
        place = adapter_folder(folder)
        content = (place / ADAPTER_FILE).read_bytes()
        adapter = adapters.load(place / ADAPTER_FILE)
        _, facts = load_head(place / HEAD_FILE)
    except (UsageError, AdapterError) as error:
        node.fail(str(error))
    except OSError as error:
        node.fail(f"{short(node.value)} holds no {ADAPTER_FILE} that can be read: {error.strerror}")
    part = Part(adapter.config, hashlib.sha256(content).hexdigest())
    return FrozenAdapter(part, str(facts.backbone["fingerprint"]), place / ADAPTER_FILE)


def _check_sets(
    search: Node, key: str, spec: Spec, methods: tuple[str, ...], found: Mapping[str, FrozenAdapter]
) -> None:
    """Fail at the line of a set of adapters that its method cannot be made of."""
    assert not isinstance(spec, Range)
    of, _, _ = key.rpartition(".")
    under = search.child(PARTS_FIELD) if not of and search.has(PARTS_FIELD) else None
    if under is None:
        under = next(node for node in _nodes(search) if not of or of in node.keys)
    sets = (spec.value,) if isinstance(spec, Fixed) else spec.values
    for index, names in enumerate(sets):
        assert isinstance(names, tuple)
        at = under.child(index) if isinstance(under.value[index], list) else under
        parts = tuple(found[str(name)].part for name in names)
        for method in (of,) if of else (each for each in methods if each in ("fuse", "stack")):
            needed: dict[str, Any] = {"bottleneck_dim": 1} if method == "stack" else {}
            try:
                AdapterConfig(method=method, adapters=parts, **needed)
            except AdapterError as error:
                at.fail(str(error))


def weights_file(artifacts: Path, study: str, frozen: FrozenAdapter) -> Path:
    """Where the artifact folder has the weights of a frozen adapter, for every worker of a study."""
    return artifacts / study / "frozen" / f"{frozen.part.weights}.safetensors"
