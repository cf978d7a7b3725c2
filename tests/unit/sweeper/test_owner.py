"""Which store a study's folders are of: said once, and read by workers at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.errors import UsageError
from sweeper.owner import MARK, mark, refuse_elsewhere, refuse_others
from tests.made_study import home_in

ONE, OTHER = "a" * 32, "b" * 32


def test_a_mark_that_is_right_is_not_written_again(tmp_path: Path) -> None:
    """A worker that reads it at that moment would find it empty, and end; all would, if the disk is full."""
    home = home_in(tmp_path)
    mark(home, "films", ONE)
    files = [folder / "films" / MARK for folder in (home.artifacts, home.checkpoints)]
    before = [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files]
    mark(home, "films", ONE)
    assert [(file.stat().st_ino, file.stat().st_mtime_ns) for file in files] == before
    assert [path for file in files for path in file.parent.iterdir() if path.is_file()] == files


def test_an_empty_mark_is_written(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    mark(home, "films", ONE)
    (home.artifacts / "films" / MARK).write_text("")
    with pytest.raises(UsageError, match="does not keep its weights in"):
        refuse_elsewhere(home, "films", ONE)
    mark(home, "films", ONE)
    refuse_elsewhere(home, "films", ONE)
    with pytest.raises(UsageError, match="of another store"):
        refuse_others(home, "films", OTHER)
