"""Where everything is kept: ``SWEEPER_HOME`` and the variables that move its parts elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import UsageError


def sqlite_url(file: Path) -> str:
    """The SQLAlchemy URL of a SQLite file; what has a meaning in a URL is written with a percent sign."""
    return f"sqlite:///{str(file).replace('%', '%25').replace('?', '%3F')}"


def _folder(environment: Mapping[str, str], variable: str) -> Path | None:
    """The folder that a variable names; None where it is unset or empty."""
    named = environment.get(variable)
    if not named:
        return None
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError:
        raise UsageError(
            f"{variable} is {named!r}, and there is no such home of a user: write an absolute path"
        ) from None


@dataclass(frozen=True)
class Home:
    """The folders and databases of one installation. Making it creates nothing.

    Args:
        root: the folder that holds all that is not moved elsewhere.
        store_url: SQLAlchemy URL of the store; it may hold a password, so it is never shown or logged.
        tracking_uri: of MLflow; may hold a password, too.
        artifacts: weights, under ``study/trial-0007/attempt-1``; a folder that all workers see.
        checkpoints: of running trials, beside the artifacts when those are moved.
    """

    root: Path
    store_url: str
    tracking_uri: str
    artifacts: Path
    checkpoints: Path

    @property
    def cache(self) -> Path:
        """What can be computed again: tokens, activations."""
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        """What the workers print."""
        return self.root / "logs"

    @property
    def mlflow_artifacts(self) -> Path:
        """Where MLflow keeps its copies of files when it works without a server."""
        return self.root / "mlartifacts"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Home:
        """The home that the environment describes (default: that of this process).

        Raises:
            UsageError: a folder begins with the home of a user that there is not.
        """
        given = os.environ if environment is None else environment
        root = _folder(given, "SWEEPER_HOME") or Path("sweeps").absolute()
        moved = _folder(given, "SWEEPER_ARTIFACTS")
        artifacts = moved or root / "artifacts"
        return cls(
            root=root,
            store_url=given.get("SWEEPER_STORE") or sqlite_url(root / "store.db"),
            tracking_uri=given.get("MLFLOW_TRACKING_URI") or sqlite_url(root / "mlflow.db"),
            artifacts=artifacts,
            checkpoints=artifacts / "checkpoints" if moved else root / "checkpoints",
        )

    def environment(self) -> dict[str, str]:
        """The variables that give a child process this home, whatever its working directory."""
        variables = {
            "SWEEPER_HOME": str(self.root),
            "SWEEPER_STORE": self.store_url,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
        }
        if self.artifacts != self.root / "artifacts":
            variables["SWEEPER_ARTIFACTS"] = str(self.artifacts)
        return variables
