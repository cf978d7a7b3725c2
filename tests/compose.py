"""docker-compose.yml as `docker compose` reads it: variables filled in, or an error for a missing one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from sweeper.cli import app

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<rest>[^}]*))?\})")
"""What the file may say: ``${NAME}``, ``${NAME:?message}``, ``${NAME:-default}`` and ``$$``."""


class MissingVariable(Exception):
    """A variable that has to be set is not, or is empty: compose would stop with its message."""


def raw() -> dict[str, Any]:
    """The file with its anchors resolved, its variables as written."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def filled_in(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables filled in. Raises MissingVariable."""
    return _filled(raw(), variables)


def written_variables() -> list[tuple[str, str | None, str | None]]:
    """(name, ``?``, ``-`` or None, message or default) of each variable of the file."""
    text = FILE.read_text(encoding="utf-8")
    return [(m["name"], m["kind"], m["rest"]) for m in VARIABLE.finditer(text) if m["name"]]


def check_sweeper(command: list[str]) -> None:
    """Parses a command line of ours with the program's own parser; nothing is run."""
    assert command[0] == "sweeper"
    group: Any = typer.main.get_command(app)
    group.commands[command[1]].make_context(command[1], command[2:])


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        name, kind, rest = found["name"], found["kind"], found["rest"]
        if name is None:
            return "$"
        if variables.get(name):
            return variables[name]
        if kind == "?":
            raise MissingVariable(f"{name}: {rest}")
        return rest or ""

    return VARIABLE.sub(replace, value)
