"""Placements as data: which sublayers of a layer carry a module, and how each is wired.

The named ones are entries of a table. Any other is written as pairs of a sublayer and a wiring, such as
``[["attention", "after"], ["ffn", "parallel"]]``, or as one text: "attention:after+ffn:parallel".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from adapters.errors import AdapterError, one_of, short

Sublayer = Literal["attention", "ffn"]
Wiring = Literal["after", "parallel", "norm_inside"]
Wirings = tuple[tuple[Sublayer, Wiring], ...]

TABLE: Mapping[str, Wirings] = {
    "houlsby": (("attention", "after"), ("ffn", "after")),
    "pfeiffer": (("ffn", "after"),),
    "attention": (("attention", "after"),),
    "parallel": (("ffn", "parallel"),),
    "pfeiffer_original": (("ffn", "norm_inside"),),
}
"""The named placements: (sublayer, wiring) each, in the order of the layer."""
PLACEMENTS = tuple(TABLE)

SUBLAYERS: Mapping[str, tuple[str, ...]] = {
    "attention": ("after", "parallel"),
    "ffn": ("after", "parallel", "norm_inside"),
}
"""The sublayers of a layer in their order, and how a module can be wired at each."""


def wirings_of(placement: str) -> Wirings:
    """The (sublayer, wiring) pairs of a placement that :func:`checked_placement` gave."""
    if placement in TABLE:
        return TABLE[placement]
    pairs: Any = tuple(tuple(pair.split(":")) for pair in placement.split("+"))
    found: Wirings = pairs
    return found


def checked_placement(value: object) -> str:
    """A placement in the one form in which it is kept: its name in the table, else its pairs as text.

    Args:
        value: a name, such a text, or a list of (sublayer, wiring) pairs; each sublayer once, in any order.

    Raises:
        AdapterError: it is none of these, or names a sublayer or a wiring that is not there.
    """
    if isinstance(value, str):
        if value in PLACEMENTS:
            return value
        if ":" not in value:
            raise AdapterError(f"unknown placement {value[:60]!r}; {one_of(value[:60], PLACEMENTS)}{_OR}", _F)
        pairs: list[Any] = [pair.strip().split(":") for pair in value.split("+")]
    elif isinstance(value, (list, tuple)):
        pairs = list(value)
    else:
        message = f"placement is {short(value)} ({type(value).__name__}); {one_of('', PLACEMENTS)}{_OR}"
        raise AdapterError(message, _F)
    if not pairs:
        raise AdapterError(f"placement is an empty list; {one_of('', PLACEMENTS)}{_OR}", _F)
    found: dict[str, str] = {}
    for pair in pairs:
        sublayer, wiring = _checked_pair(pair)
        if sublayer in found:
            raise AdapterError(f"placement names the sublayer {sublayer!r} twice; it carries one module", _F)
        found[sublayer] = wiring
    wirings = tuple((sublayer, found[sublayer]) for sublayer in SUBLAYERS if sublayer in found)
    named = next((name for name, own in TABLE.items() if own == wirings), None)
    return named or "+".join(f"{sublayer}:{wiring}" for sublayer, wiring in wirings)


_F = "placement"
_OR = ", or (sublayer, wiring) pairs such as attention:after+ffn:parallel"


def _checked_pair(pair: object) -> tuple[str, str]:
    texts = list(pair) if isinstance(pair, (list, tuple)) else []
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise AdapterError(f"placement holds {short(pair)!r}, which is no pair of sublayer and wiring", _F)
    sublayer, wiring = (text.strip() for text in texts)
    if sublayer not in SUBLAYERS:
        raise AdapterError(f"unknown sublayer {sublayer[:60]!r}; {one_of(sublayer[:60], SUBLAYERS)}", _F)
    known = SUBLAYERS[sublayer]
    if wiring not in known:
        message = f"unknown wiring {wiring[:60]!r} of {sublayer}; {one_of(wiring[:60], known)}"
        raise AdapterError(message, _F)
    return sublayer, wiring
