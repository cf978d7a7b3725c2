"""One value of a study file that knows its name and its line, and checks its own type.

All errors about a study file are made here, so that they read alike: ``file:line: section.key: what is
wrong``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sweeper.errors import UsageError
from sweeper.words import nearest, short

SECTIONS: dict[str, tuple[str, ...]] = {
    "": (
        "study",
        "backbone",
        "task",
        "data",
        "placements",
        "search",
        "train",
        "objective",
        "limits",
        "budget",
        "sampler",
        "pruner",
        "warm_start",
        "seed",
        "ray",
    ),
    "backbone": ("model", "revision", "sites"),
    "task": ("kind", "text", "label", "pooling", "separator"),
    "data": ("train", "validation", "test"),
    "objective": ("metric", "direction"),
    "limits": ("trainable_parameters", "flops_per_token"),
    "budget": ("trials", "hours", "failures", "repeats", "target", "patience", "terminator"),
    "ray": ("num_gpus", "num_cpus", "resources", "max_workers"),
}
"""The keys of each section that has always the same ones; ``""`` is the top of the file."""


@dataclass(frozen=True)
class Node:
    """A value, its path such as ``("search", "activation")``, and where its file's lines are."""

    value: Any
    keys: tuple[str | int, ...]
    path: Path
    lines: Mapping[tuple[str | int, ...], int]

    @property
    def name(self) -> str:
        """``search.layers[2]``, as messages name it."""
        text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys)
        return text.removeprefix(".")

    @property
    def line(self) -> int | None:
        for end in range(len(self.keys), -1, -1):
            if self.keys[:end] in self.lines:
                return self.lines[self.keys[:end]]
        return None

    def fail(self, message: str) -> NoReturn:
        """Raise a UsageError about this value, at its line."""
        raise UsageError(f"{self.name}: {message}" if self.keys else message, self.path, self.line)

    def child(self, key: str | int) -> Node:
        return Node(self.value[key], (*self.keys, key), self.path, self.lines)

    def has(self, key: str) -> bool:
        """Whether the mapping has the key, with a value; a key with nothing after its colon is absent."""
        return self.value.get(key) is not None

    def optional(self, key: str) -> Node | None:
        return self.child(key) if self.has(key) else None

    def required(self, key: str, meaning: str) -> Node:
        """The value of a key that must be there; ``meaning`` says what it is for, with an example."""
        if not self.has(key):
            at = self.child(key) if key in self.value else self
            at.fail(f"the key '{key}' {'has no value' if key in self.value else 'is missing'}: {meaning}")
        return self.child(key)

    def mapping(self, known: Collection[str], elsewhere: Mapping[str, str] | None = None) -> Node:
        """Check that this is a mapping with known keys only; ``elsewhere`` says where other keys belong."""
        if not isinstance(self.value, dict):
            self.fail(f"must be a mapping with keys among {', '.join(known)}, not {self.described()}")
        for key in self.value:
            if key in known:
                continue
            section = (elsewhere or {}).get(key)
            if section is not None:
                self.child(key).fail(f"this key belongs under '{section}'; move it there")
            place = f" in '{self.name}'" if self.keys else " at the top of a study file"
            at = Node(None, (*self.keys, key), self.path, self.lines)
            raise UsageError(f"there is no key {short(key)}{place}{nearest(key, known)}", self.path, at.line)
        return self

    def described(self) -> str:
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        return short(self.value)

    def text(self) -> str:
        if not isinstance(self.value, str):
            hint = ""
            if isinstance(self.value, (bool, int, float)):
                hint = "; quote it if it is a name"
            self.fail(f"must be a text, not {self.described()}{hint}")
        if not self.value.strip():
            self.fail("is empty; write a text")
        return self.value

    def one_of(self, known: Collection[str], later: Mapping[str, str] | None = None) -> str:
        """One of the known names; ``later`` explains names that are refused with a reason of their own."""
        value = self.text()
        if value in (later or {}):
            self.fail(f"{(later or {})[value]}; known: {', '.join(known)}")
        if value not in known:
            self.fail(f"{short(value)} is not known{nearest(value, known)}")
        return value

    def integer(self, minimum: int, maximum: int | None = None) -> int:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"must be a whole number, not {self.described()}")
        if value < minimum:
            self.fail(f"must be {minimum} or more, not {short(value)}")
        if maximum is not None and value > maximum:
            self.fail(f"must be {maximum:,} or less, not {short(value)}")
        if value >= 2**63:
            self.fail(f"{short(value)} is too large; whole numbers have at most 64 bits")
        return value

    def number(self) -> float:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"must be a number, not {self.described()}")
        if not abs(value) <= 1e300:  # true for nan, too
            self.fail(f"must be a finite number, not {short(value)}")
        return float(value)

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            self.fail(f"must be true or false, not {self.described()}")
        return self.value
