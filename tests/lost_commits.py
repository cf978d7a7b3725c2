"""A commit that goes through, and whose confirmation is lost on the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine


@contextmanager
def lost_confirmation(engine: Engine) -> Iterator[list[str]]:
    """Inside, the first commit of an engine fails once it is done; what is yielded says so then."""
    dialect, lost = engine.dialect, []
    commit = dialect.do_commit

    def lose(connection: object) -> None:
        commit(connection)
        if not lost:
            lost.append("committed")
            raise dialect.dbapi.OperationalError("the database is locked, or so it seems")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dialect, "do_commit", lose)
        yield lost
