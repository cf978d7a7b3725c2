"""Writes docs/commands.md from the command line itself; with --check, fails if the page is out of date."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from sweeper.cli import app

PAGE = Path(__file__).with_suffix(".md")
HEADER = """\
# Commands

Made by `make docs` from the command line itself: what `sweeper COMMAND --help` says, on one page.
A flag wins over its environment variable.
"""


def page() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("sweeper", [], resilient_parsing=True)
    parts = [HEADER, _plain(group.epilog)]
    for name in group.list_commands(context):
        parts.append(_command(name, group.get_command(context, name)))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _command(name: str, command: Any) -> str:
    arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
    lines = [f"## {name}", "", "    " + " ".join(["sweeper", name, *arguments, "[OPTIONS]"]), ""]
    lines += [_plain(command.help), ""]
    if rows := [_row(parameter) for parameter in command.params]:
        lines += ["| | | environment |", "|---|---|---|", *rows, ""]
    return "\n".join([*lines, _plain(command.epilog)])


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar}`"
    elif parameter.metavar:
        names = f"`{parameter.opts[0]} {parameter.metavar}`"
    else:
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    words, default = parameter.help or "", parameter.default
    if default is True:
        words += f" Default: `{parameter.opts[0]}`."
    elif default not in (None, False, ...):
        words += f" Default: `{default}`."
    variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    cells = [names, words, variable]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str | None) -> str:
    return "\n".join(
        line.rstrip() + ("  " if line.endswith("  ") else "") for line in (text or "").splitlines()
    )


def main() -> int:
    """Write or check the page; the exit code."""
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        print(f"error: {PAGE.name} is not what the commands say: run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
