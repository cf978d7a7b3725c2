"""Adapter Sweeper: finds the best adapter for a frozen transformer.

Importing this package loads nothing heavy and touches nothing; ``load``, which opens a study in a notebook,
and ``load_exported`` are looked up when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.export.predict import Predictor as Predictor
    from sweeper.export.predict import load_exported as load_exported
    from sweeper.loaded import load as load

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "foreign_adapters", "load", "load_exported"]

_MARK = '__distribution__ = "adapter-sweeper"'


def foreign_adapters() -> str | None:
    """The sentence that says why the installed ``adapters`` is not ours, or None if it is ours.

    AdapterHub's library has the same import name. Its ``__init__`` is read as text and never imported:
    importing it would load another transformers.
    """
    spec = find_spec("adapters")
    if spec is None or spec.origin is None:
        return "the package `adapters` of adapter-sweeper is missing: install adapter-sweeper again"
    text = Path(spec.origin).read_text(encoding="utf-8", errors="replace")
    if _MARK in text:
        return None
    return (
        f"the package `adapters` found at {Path(spec.origin).parent} belongs to another distribution "
        "(AdapterHub's has this name): give Adapter Sweeper a virtual environment of its own"
    )


def __getattr__(name: str) -> Any:
    if name in {"load", "load_exported", "Predictor"}:
        refusal = foreign_adapters()
        if refusal is not None:
            raise ImportError(refusal)
        module = import_module("sweeper.loaded" if name == "load" else "sweeper.export.predict")
        return getattr(module, name)
    raise AttributeError(f"module 'sweeper' has no attribute {name!r}")
