"""What tests of more than one house share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores import postgresql_server, postgresql_url, sqlite_url


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Path]:
    """A real PostgreSQL server; see ``tests.stores.postgresql_url`` for a database on it."""
    with postgresql_server() as folder:
        yield folder


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind: what holds on one must hold on the other."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    return postgresql_url(request.getfixturevalue("postgresql"))
