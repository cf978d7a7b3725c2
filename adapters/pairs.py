"""Which method goes into which family: what the tests go through, and what docs/adapters.md shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.architectures import ARCHITECTURES
from adapters.config import METHODS, AdapterConfig
from adapters.errors import AdapterError
from adapters.fields import DEFAULTS, REQUIRED
from adapters.methods import check


def default_of(method: str, bottleneck_dim: int) -> AdapterConfig:
    """A method with its defaults, and what has none: a fusion of two bottlenecks, a stack on one of them."""
    missing: dict[str, Any] = {}
    if DEFAULTS[method].get("bottleneck_dim") is REQUIRED:
        missing["bottleneck_dim"] = bottleneck_dim
    if DEFAULTS[method].get("adapters") is REQUIRED:
        # Such that they do something.
        part = AdapterConfig(bottleneck_dim=bottleneck_dim, initialization="kaiming")
        missing["adapters"] = (part, part) if method == "fuse" else (part,)
    return AdapterConfig(method=method, **missing)


def pairs(backbones: Mapping[str, Any]) -> dict[tuple[str, str], str | None]:
    """Every (method, family), and why the two do not go together, or None where they do.

    Args:
        backbones: a Hugging Face configuration for each family of the table; no weights are needed.

    Raises:
        KeyError: a family of the table has no configuration.
    """
    found: dict[tuple[str, str], str | None] = {}
    for method in METHODS:
        config = default_of(method, bottleneck_dim=8)
        for family in ARCHITECTURES:
            try:
                check(config, backbones[family])
            except AdapterError as error:
                found[method, family] = str(error)
            else:
                found[method, family] = None
    return found
