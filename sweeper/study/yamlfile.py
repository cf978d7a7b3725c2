"""Read a small YAML file that a stranger may have written, and remember the line of every key.

The rules are YAML 1.2's core schema, so that ``1e-4`` is a number and ``no`` is a word, with less in it:
no anchors, aliases, tags or directives, no duplicate keys, no second document, and limits on size, depth and
nodes. Nothing is constructed but dict, list, str, int, float, bool and None. Parsing is by events, without
recursion, so no file can exhaust the stack or the memory.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from sweeper.errors import UsageError

SIZE_BYTES_LIMIT = 256 * 1024
DEPTH_LIMIT = 20
NODE_LIMIT = 10_000
INTEGER_LIMIT = 2**63

Keys = tuple[str | int, ...]
Lines = dict[Keys, int]

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def read(path: str | Path) -> tuple[Any, Lines]:
    """Read a YAML file.

    Args:
        path: a regular file of at most 256 KiB, in UTF-8.

    Returns:
        The data, and the line (from 1) of every key and list item by its path, such as
        ``("search", "layers", 2)``. ``()`` is where the document starts.

    Raises:
        UsageError: the file cannot be read, or holds anything but plain data within the limits.
    """
    return parse(read_text(path), path)


def read_text(path: str | Path) -> str:
    """The text of a small UTF-8 file, without its byte order mark.

    Raises:
        UsageError: it is missing, no regular file, unreadable, too large, or not UTF-8.
    """
    try:
        if Path(path).is_dir():
            raise UsageError("this is a folder, not a study file; name the file in it", path)
        if not Path(path).exists():
            raise UsageError("there is no such file", path)
        if not Path(path).is_file():
            raise UsageError("this is not a regular file", path)
        with open(path, "rb") as file:
            raw = file.read(SIZE_BYTES_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"the file cannot be read: {reason}", path) from error
    if len(raw) > SIZE_BYTES_LIMIT:
        raise UsageError(f"the file is larger than {SIZE_BYTES_LIMIT // 1024} KiB; is it a study file?", path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError("the file is not UTF-8 text; save it as UTF-8", path, line) from error


def parse(text: str, path: str | Path) -> tuple[Any, Lines]:
    """Parse YAML text as :func:`read` does; ``path`` is named in the errors."""
    builder = _Builder(path)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UsageError("there is a control character here; remove it", path, line) from error
    except yaml.MarkedYAMLError as error:
        raise _plain_syntax_error(error, path) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets a ValueError through for an escape such as "\UFFFFFFFF".
        raise UsageError(f"this is not YAML: {error}", path, builder.line) from error
    return builder.root, builder.lines


def _plain_syntax_error(error: yaml.MarkedYAMLError, path: str | Path) -> UsageError:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or str(error)
    hint = ""
    if "\\t" in problem:
        hint = "; indent with spaces, not with tabs"
    elif "mapping values are not allowed" in problem:
        hint = "; check the indentation, and quote a text that contains ': '"
    elif "expected <block end>" in problem or "could not find expected ':'" in problem:
        hint = "; check the indentation and the brackets above this line"
    return UsageError(f"this is not YAML: {problem}{hint}", path, mark.line + 1 if mark else None)


@dataclass
class _Container:
    value: dict[str, Any] | list[Any]
    keys: Keys
    key: str | None = None  # of a mapping: the key whose value comes next


@dataclass
class _Builder:
    """Builds data from events; refuses at the first event that is not allowed."""

    path: str | Path
    root: Any = None
    lines: Lines = field(default_factory=dict)
    line: int = 1
    nodes: int = 0
    documents: int = 0
    stack: list[_Container] = field(default_factory=list)

    def take(self, event: yaml.Event) -> None:
        self.line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._start_document(event)
        elif isinstance(event, yaml.AliasEvent):
            self._refuse(f"aliases such as *{_short(event.anchor)} are not allowed; write the value out")
        elif isinstance(event, yaml.NodeEvent):
            self._start_node(event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.stack.pop()

    def _refuse(self, message: str) -> NoReturn:
        raise UsageError(message, self.path, self.line)

    def _start_document(self, event: yaml.DocumentStartEvent) -> None:
        self.documents += 1
        if self.documents > 1:
            self._refuse("a second YAML document starts here; one file holds one document")
        if event.version or event.tags:
            self._refuse("YAML directives (lines that start with %) are not allowed")

    def _start_node(self, event: yaml.NodeEvent) -> None:
        self.nodes += 1
        if self.nodes > NODE_LIMIT:
            self._refuse(f"the file holds more than {NODE_LIMIT} values")
        if event.anchor is not None:
            self._refuse(f"anchors such as &{_short(event.anchor)} are not allowed; write the value out")
        if event.tag is not None:
            self._refuse(f"tags such as {_short(event.tag)} are not allowed; write plain values")
        parent = self.stack[-1] if self.stack else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self._take_key(parent, event)
            return
        if isinstance(event, yaml.ScalarEvent):
            self._place(self._scalar(event))
            return
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        keys = self._place(value)
        self.stack.append(_Container(value, keys))
        if len(self.stack) > DEPTH_LIMIT:
            self._refuse(f"values are nested more than {DEPTH_LIMIT} deep")

    def _take_key(self, parent: _Container, event: yaml.NodeEvent) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            self._refuse("a key must be a word, not a list or a mapping")
        key = self._checked_text(event.value)
        if key in parent.value:
            first = self.lines[(*parent.keys, key)]
            self._refuse(f"the key '{_short(key)}' is here a second time; the first is on line {first}")
        parent.key = key
        self.lines[(*parent.keys, key)] = self.line

    def _place(self, value: Any) -> Keys:
        """Put a value where it belongs and return its path."""
        if not self.stack:
            self.root = value
            self.lines[()] = self.line
            return ()
        parent = self.stack[-1]
        if isinstance(parent.value, list):
            keys: Keys = (*parent.keys, len(parent.value))
            self.lines[keys] = self.line
            parent.value.append(value)
            return keys
        assert parent.key is not None
        keys = (*parent.keys, parent.key)
        parent.value[parent.key] = value
        parent.key = None
        return keys

    def _scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text = self._checked_text(event.value)
        if event.style is not None:  # quoted or a block: always text
            return text
        if _NULL.match(text):
            return None
        if _TRUE.match(text) or _FALSE.match(text):
            return bool(_TRUE.match(text))
        if _INTEGER.match(text) or _OCTAL_OR_HEX.match(text):
            return self._integer(text)
        if _NOT_FINITE.match(text):
            self._refuse(f"{text} is not a finite number; write a number")
        if _FLOAT.match(text):
            number = float(text)
            if math.isinf(number):
                self._refuse(f"the number {_short(text)} is too large")
            return number
        return text

    def _integer(self, text: str) -> int:
        # The length is checked first: Python itself refuses to convert very long ones, with a ValueError.
        number = None
        if len(text) <= 64:
            number = int(text, 10) if _INTEGER.match(text) else int(text, 0)
        if number is None or not -INTEGER_LIMIT <= number < INTEGER_LIMIT:
            self._refuse(f"the number {_short(text)} is too large for 64 bits; quote it if it is a text")
        return number

    def _checked_text(self, text: str) -> str:
        if found := _UNPRINTABLE.search(text):
            self._refuse(f"the character U+{ord(found.group()):04X} is not allowed here")
        return text


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "…"
