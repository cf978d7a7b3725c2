"""A database with MLflow's tables and nothing in them, to start from: MLflow takes seconds to make one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from sweeper.home import Home
from sweeper.tracking import Board


@cache
def _made() -> Path:
    folder = tempfile.mkdtemp(prefix="sweeper-mlflow-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    home = Home.from_environment({"SWEEPER_HOME": folder})
    Board(home)
    return home.root / "mlflow.db"


def put_mlflow_tables(database: Path) -> None:
    """A file becomes such a database, unless it is there; its folder is made."""
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_made(), database)
