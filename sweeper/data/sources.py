"""A source of data, read: a local file by its suffix, or a split of a hub data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.data.plainrows import READERS, read_plain
from sweeper.data.rows import Rows
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.study import Source

SUFFIXES = (*READERS, ".parquet")


def read_source(
    source: Source,
    columns: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    study_file: Path | None = None,
    line: int | None = None,
) -> Rows:
    """Read every row of a source; its ``rows`` is not applied.

    Args:
        columns: what is read of a parquet file or a hub data set, as far as it is there; None for all.
        cache_dir: where ``datasets`` keeps what it fetched from the hub; None for its own default.
        study_file, line: where the study file names the source, for messages.

    Raises:
        UsageError: not a file of the format that its suffix says, or no such hub data set.
        UnreachableError: the hub cannot be reached.
    """
    if source.hub is not None:
        from sweeper.data.typedrows import read_hub

        return read_hub(source, columns, cache_dir, study_file, line)
    assert source.path is not None
    return read_file(source.path, source.written, columns, source.suffix)


def read_file(
    path: Path, name: str | None = None, columns: Sequence[str] | None = None, suffix: str | None = None
) -> Rows:
    """Read a csv, tsv, jsonl or parquet file.

    A TSV is read without quoting, so that a quotation mark in a text is only that. Empty lines are skipped.

    Args:
        name: what the file is called in messages; its path if None.
        columns: what is read of a parquet file, as far as it is there; None for all.
        suffix: the format, such as ``.tsv``; None for the path's own.

    Raises:
        UsageError: the file has no rows, or is not what its suffix says; it names the line.
    """
    name = name or str(path)
    suffix = suffix or path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"the format is told by the suffix: one of {', '.join(SUFFIXES)}", file=path)
    try:
        if path.stat().st_size == 0:
            raise UsageError("the file is empty", file=path, line=1)
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror or error}", file=path) from error
    if suffix != ".parquet":
        return read_plain(path, suffix, name)
    from sweeper.data.typedrows import read_parquet

    return read_parquet(path, name, columns)
