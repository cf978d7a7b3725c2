"""Where MLflow is: its address without secrets, and its failures as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from sweeper.errors import SweeperError, UnreachableError, UsageError


def shown_uri(uri: str) -> str:
    """A tracking URI, or a text that holds one, without user and password, nor those among its options."""
    return re.sub(
        r"([?&][^=&\s]*password[^=&\s]*=)[^&\s]*", r"\1***", re.sub(r"//\S*@", "//", uri), flags=re.I
    )


def check_uri(uri: str) -> None:
    """Refuse a tracking URI under which nothing could ever be shown.

    Raises:
        UsageError: it is neither of a server nor of a database, or of one in memory.
    """
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in ("http", "https", "sqlite", "postgresql", "mysql", "mssql"):
        raise UsageError(
            "MLFLOW_TRACKING_URI must be the address of an MLflow server (http://…) or of a database (sqlite:///…)"
        )
    file = database_file(uri)
    if scheme == "sqlite" and (file is None or file.name == ":memory:"):
        raise UsageError("MLFLOW_TRACKING_URI names no file; what is drawn must outlive the process")


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Failures of MLflow as one sentence without secrets."""
    try:
        yield
    except SweeperError:
        raise
    except ImportError as error:
        raise UsageError(
            f"MLFLOW_TRACKING_URI names {shown_uri(uri)}, a database whose driver cannot be loaded: {error}. "
            "Install it"
        ) from error
    except Exception as error:
        # A database below MLflow reports its failures by itself at times.
        origin = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError) and origin not in ("mlflow", "sqlalchemy", "sqlite3", "alembic"):
            raise
        said = shown_uri(str(error).strip().partition("\n")[0])
        advice = "MLFLOW_TRACKING_URI says where that is"
        if database_file(uri) is not None:
            advice = "If its file is damaged, move it away: all of it is drawn anew"
        raise UnreachableError(
            f"MLflow at {shown_uri(uri)} cannot be used ({said}). Nothing is lost: the store has everything, "
            f"and it is shown once MLflow answers. {advice}"
        ) from error


def database_file(uri: str) -> Path | None:
    """The file of a SQLite database, None of anything else."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return None if found is None else Path(unquote(found[1])).absolute()
