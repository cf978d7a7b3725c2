"""What the command line says and where: data on stdout, everything else on stderr, one message an error.

With ``--json`` stdout carries one JSON document and stderr JSON lines, so that a script can read both.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any, TextIO

from sweeper.errors import SweeperError

INTERRUPTED = 130
CLOSED_PIPE = 141  # 128 + SIGPIPE, as for every tool whose reader went away


class ClosedPipeError(Exception):
    """Whoever read stdout has gone: nothing is left to say."""


class InterruptedByUser(Exception):
    """A command was interrupted and has put everything in order; the message says how to go on."""


def one_line(value: object) -> str:
    """Text without line breaks, tabs and control characters, for a cell of a table or a message.

    A label or a reason comes from the user's data or from a library: left as it is, it could move the cursor
    or break a row in two.
    """
    text = str(value)
    return "".join(" " if c in "\t\r\n" else c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def json_ready(value: Any) -> Any:
    """The value with every number that JSON cannot hold (nan, inf) as null; tuples are lists, paths texts."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return str(value)


@dataclass
class Output:
    """Where a command writes. ``json`` is what ``--json`` said.

    Args:
        json: stdout is one JSON document, stderr is JSON lines.
    """

    json: bool = False

    @property
    def stdout_is_terminal(self) -> bool:
        return not self.json and sys.stdout.isatty()

    @property
    def stderr_is_terminal(self) -> bool:
        return not self.json and sys.stderr.isatty()

    def data(self, text: str) -> None:
        """Writes text and a line break to stdout. Raises ClosedPipeError if nobody reads it any more."""
        try:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ClosedPipeError from error

    def document(self, value: Any) -> None:
        """Writes one JSON document to stdout."""
        self.data(json.dumps(json_ready(value), ensure_ascii=_escapes(sys.stdout), indent=2, allow_nan=False))

    def note(self, text: str, **fields: Any) -> None:
        """Says something on stderr; with ``json`` as ``{"note": …}`` and the fields, on one line."""
        to_stderr(_json_line({"note": text, **fields}) if self.json else text)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None
    ) -> None:
        """A table for eyes on a terminal; tab-separated lines with a header elsewhere."""
        cells = [[one_line(cell) for cell in row] for row in rows]
        if not self.stdout_is_terminal:
            self.data("\n".join("\t".join(row) for row in [list(columns), *cells]))
            return
        from rich.table import Table
        from rich.text import Text

        # Every cell is a Text: brackets in a reason or a label are not markup.
        table = Table(
            title=Text(title) if title else None, title_justify="left", header_style="bold", box=None
        )
        for column in columns:
            table.add_column(Text(column), overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        self.render(table)

    def fits(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bool:
        """Whether ``table`` would show these without breaking a cell; what is no terminal has any width."""
        if not self.stdout_is_terminal:
            return True
        lines = [list(columns), *([one_line(cell) for cell in row] for row in rows)]
        widths = [max(len(cell) for cell in column) + 2 for column in zip(*lines, strict=True)]
        return sum(widths) <= self.width()

    def width(self) -> int:
        """How many letters a line of the terminal holds."""
        from rich.console import Console

        return Console(file=sys.stdout).width

    def render(self, renderable: Any) -> None:
        """Draws a Rich object on stdout, through ``data`` so that a closed pipe is noticed."""
        from rich.console import Console

        console = Console(file=sys.stdout)
        with console.capture() as capture:
            console.print(renderable)
        self.data(capture.get().rstrip("\n"))


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether errors are to be JSON, known before the arguments are parsed (parsing may be what fails)."""
    before_end = list(arguments)[: list(arguments).index("--")] if "--" in arguments else arguments
    if "--no-json" in before_end:
        return False
    return "--json" in before_end or os.environ.get("SWEEPER_JSON", "").lower() in {
        "1",
        "true",
        "t",
        "yes",
        "y",
        "on",
    }


def explain(error: BaseException, as_json: bool) -> int:
    """Turns an error into one message on stderr and the exit code that goes with it.

    Errors of ours and of the operating system become one sentence. Anything else is a bug of ours and keeps
    its traceback (with ``as_json`` inside the object).
    """
    known = _known(error)
    if known is not None:
        if as_json:
            to_stderr(_json_line(known.to_json()))
        else:
            to_stderr(f"error: {one_line(known)}")
        return known.exit_code
    trace = "".join(traceback.format_exception(error)).rstrip()
    message = f"{type(error).__name__}: {error} (this is a bug in Adapter Sweeper: please report it)"
    if as_json:
        to_stderr(_json_line({"error": {"message": message, "file": None, "line": None, "traceback": trace}}))
    else:
        to_stderr(f"{trace}\nerror: {message}")
    return 1


def _known(error: BaseException) -> SweeperError | None:
    if isinstance(error, SweeperError):
        return error
    if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
        what = error.strerror or str(error)
        return SweeperError(what[:1].lower() + what[1:], error.filename)
    if type(error).__module__.startswith("sqlalchemy.") and type(error).__name__ in {
        "OperationalError",
        "DBAPIError",
    }:
        from sweeper.errors import UnreachableError

        reason = str(getattr(error, "orig", None) or error)
        return UnreachableError(f"the store cannot be used: {one_line(reason)}")
    if type(error).__name__ == "AdapterError" and type(error).__module__.startswith("adapters."):
        from sweeper.errors import UsageError

        return UsageError(str(error))
    return None


def _json_line(value: dict[str, Any]) -> str:
    return json.dumps(json_ready(value), ensure_ascii=_escapes(sys.stderr), allow_nan=False)


def _escapes(stream: TextIO) -> bool:
    """Whether an escape is the only way that a letter of JSON can take through a stream."""
    return (stream.encoding or "").lower() not in ("utf-8", "utf8")


def to_stderr(text: str) -> None:
    """Writes text and a line break to stderr, if that can be written: no worker ends for want of it."""
    with suppress(OSError, ValueError):  # closed, read by nobody, or a log on a full disk
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def open_streams() -> None:
    """Makes stdout and stderr safe to write to, whatever they are.

    A stream that was closed by whoever started us is None: it becomes one that keeps nothing. A letter that a
    stream cannot hold is written as an escape.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """In a main thread, SIGTERM does inside what Ctrl-C does, unless whoever works there catches both."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def silence_closed_pipe() -> None:
    """Points stdout at nothing, so that the interpreter's last flush does not complain."""
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
