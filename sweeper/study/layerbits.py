"""``layers: bits``: a parameter for each layer, true where it carries a module.

In a space each is a choice of its own, by a key such as ``layers.3``, or ``lora.layers.3`` where the layers
of one of several methods are meant. In a study file, and as it is stored, they are ``{bits: [0, 1, 2, 3]}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from adapters.errors import AdapterError
from adapters.fields import DEFAULTS, LAYER_SETS, checked
from sweeper.study.node import Node
from sweeper.words import nearest, short

if TYPE_CHECKING:
    from sweeper.study.schema import Spec

_BIT = re.compile(r"(.+\.)?layers\.(\d+)\Z")


def is_bit(key: str) -> bool:
    """Whether a key of a space is the bit of a layer."""
    return _BIT.match(key) is not None


def read_bits(node: Node, layers: Callable[[], int] | None) -> tuple[int, ...] | None:
    """The layers that have a bit; None if the value of ``layers`` asks for none.

    Args:
        layers: how many the backbone has; None where that cannot be known.

    Raises:
        UsageError: no such set, fewer than two layers, or a named set where their number is not known.
    """
    value: Any = node.value
    if isinstance(value, dict) and "bits" in value:
        node.mapping(("bits",))
        node = node.child("bits")
        value = node.value
    elif value != "bits":
        return None
    else:
        value = "all"
    if isinstance(value, str):
        if value not in LAYER_SETS:
            node.fail(f"{short(value)} is no set of layers{nearest(value, LAYER_SETS)}")
        if layers is None:
            node.fail("how many layers the backbone has is not known here; write {bits: [0, 1, 2]}")
        from adapters.architectures import layer_indices

        chosen = layer_indices(value, layers())
    else:
        chosen = _listed(node)
    if len(chosen) < 2:
        node.fail(f"one layer has nothing to choose from; write layers: [{list(chosen)}]")
    return chosen


def _listed(node: Node) -> tuple[int, ...]:
    if not isinstance(node.value, list):
        node.fail(f"must be a set of layers such as all or [0, 1, 2], not {node.described()}")
    try:
        found: tuple[int, ...] = checked("layers", node.value)
    except AdapterError as error:
        node.fail(str(error))
    return found


def bits_of(search: Mapping[str, Spec], method: str) -> dict[int, str]:
    """The key of the bit of each layer of a method, by layer; empty if its layers are no bits."""
    if "layers" not in DEFAULTS[method] or f"{method}.layers" in search:
        return {}
    for start in (f"{method}.layers.", "layers."):
        found = {int(key[len(start) :]): key for key in search if key.startswith(start)}
        if found:
            return found
    return {}


def layers_on(search: Mapping[str, Spec], method: str, values: Mapping[str, Any]) -> list[int] | None:
    """The layers whose bit is set; None if the layers of the method are no bits."""
    bits = bits_of(search, method)
    return [layer for layer, key in bits.items() if values[key]] if bits else None


def columns(keys: Iterable[str]) -> tuple[str, ...]:
    """Keys for a table that people read: the bits of a set of layers are one column."""
    return tuple(dict.fromkeys(key.rpartition(".")[0] if is_bit(key) else key for key in keys))


def collapsed(search: Mapping[str, Spec]) -> dict[str, Any]:
    """A space as JSON, by its keys, the bits of a set of layers as one ``{"bits": [...]}``."""
    found: dict[str, Any] = {}
    for key, spec in search.items():
        if is_bit(key):
            whole, _, layer = key.rpartition(".")
            found.setdefault(whole, {"bits": []})["bits"].append(int(layer))
        else:
            found[key] = spec.to_json()
    return found
