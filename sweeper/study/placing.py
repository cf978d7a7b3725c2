"""The section ``placements`` of a study file: placements of the study's own, which ``search`` then names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from adapters.errors import AdapterError
from adapters.placements import PLACEMENTS, checked_placement
from sweeper.errors import UsageError
from sweeper.study.node import Node
from sweeper.words import short

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_FORMS = "a list such as [{sublayer: attention, wiring: after}, {sublayer: ffn, wiring: parallel}]"


def read_placements(node: Node | None) -> Mapping[str, str]:
    """The placements of a study by their names, each as (sublayer, wiring) pairs in one text.

    Raises:
        UsageError: a name that is taken or none, a pair that is none, or a placement that has a name already.
    """
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        node.fail(f"must be a mapping from names to placements, not {node.described()}")
    found: dict[str, str] = {}
    for name in node.value:
        at = node.child(name)
        if not isinstance(name, str) or not _NAME.match(name):
            at.fail(f"{short(name)} cannot be a name; use up to 64 of a-z, 0-9 and _, a letter first")
        if name in PLACEMENTS:
            at.fail(f"{name} is a built-in placement; give yours another name")
        pairs = _placement(at)
        same = pairs if pairs in PLACEMENTS else next((n for n, p in found.items() if p == pairs), None)
        if same is not None:
            at.fail(f"is the placement {same!r} by another name; use that name")
        found[name] = pairs
    return found


def _placement(node: Node) -> str:
    if isinstance(node.value, str):
        if ":" not in node.value:
            node.fail(f"{short(node.value)} is no (sublayer, wiring) pair; write {_FORMS}")
        return _checked(node, node.value)
    if not isinstance(node.value, list):
        node.fail(f"must be {_FORMS}, not {node.described()}")
    if not node.value:
        node.fail(f"the list is empty; write {_FORMS}")
    pairs = [_pair(node.child(index)) for index in range(len(node.value))]
    return _checked(node, pairs)


def _pair(node: Node) -> Any:
    pair = node.value
    if isinstance(pair, dict):
        node.mapping(("sublayer", "wiring"))
        meanings = {"sublayer": "attention or ffn", "wiring": "after, parallel or norm_inside"}
        pair = [node.required(key, meaning).text() for key, meaning in meanings.items()]
    elif isinstance(pair, str):
        pair = pair.split(":")
    elif not isinstance(pair, list):
        node.fail(f"must be {{sublayer: …, wiring: …}}, not {node.described()}")
    _checked(node, [pair])  # for the line of the pair
    return pair


def _checked(node: Node, value: object) -> str:
    try:
        return checked_placement(value)
    except AdapterError as error:
        raise UsageError(f"{node.name}: {error}", node.path, node.line) from error
