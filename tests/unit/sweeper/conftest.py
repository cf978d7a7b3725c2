"""What the tests of the ledger share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores import store_url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind: what holds on one must hold on the other."""
    return store_url(request.param, tmp_path)
