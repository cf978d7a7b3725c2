"""What ``sweeper doctor`` looks at: everything outside the study file that a run depends on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http.client import HTTPException
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from sweeper import __version__, foreign_adapters
from sweeper.disk import free_bytes, why_not_writable
from sweeper.errors import UsageError

LIBRARIES = ("torch", "transformers", "datasets", "optuna", "mlflow", "sqlalchemy", "safetensors")
LOW_DISK_BYTES = 1 << 30
TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what was looked at.
        state: ``good``, ``note`` (worth knowing) or ``broken`` (a run cannot work).
        found: what was found and, if it is broken, what to do.
    """

    name: str
    state: str
    found: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Finding]:
    """Looks at everything once. Writes nothing; whatever an examination raises becomes its finding."""
    parts: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", _python),
        ("libraries", _libraries),
        ("adapters", _adapters),
        ("devices", _devices),
        ("home", _home),
        ("store", _store),
        ("tracking", _tracking),
    ]
    findings: list[Finding] = []
    for name, look in parts:
        try:
            findings += look()
        except Exception as error:  # a broken machine is what this command is for
            findings.append(Finding(name, "broken", f"{type(error).__name__}: {error}"))
    return findings


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} ({sys.executable})"
    yield Finding(
        "python", "good" if good else "broken", found if good else f"{found}: 3.11 or newer is needed"
    )
    yield Finding("adapter-sweeper", "good", __version__)


def _libraries() -> Iterator[Finding]:
    for name in LIBRARIES:
        try:
            yield Finding(name, "good", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "broken", "not installed: install adapter-sweeper again")


def _adapters() -> Iterator[Finding]:
    refusal = foreign_adapters()
    if refusal is not None:
        yield Finding("adapters", "broken", refusal)
        return
    hub = [found.version for found in metadata.distributions(name="adapters")]
    if hub:
        text = (
            f"AdapterHub's `adapters` {hub[0]} is installed here too, with the same import name: uninstall it"
        )
        yield Finding("adapters", "broken", text)
    else:
        yield Finding("adapters", "good", "ours")


def _devices() -> Iterator[Finding]:
    import torch

    from sweeper.device import describe, devices, measure_dtype

    yield Finding(
        "threads", "good", f"torch computes with {torch.get_num_threads()}, of {os.cpu_count()} cores"
    )
    for device in devices():
        yield Finding(device, "good", f"{describe(device)}; faster in {measure_dtype(device)}")


def _home() -> Iterator[Finding]:
    from sweeper.home import Home

    home = Home.from_environment()
    for name, folder in (("home", home.root), ("artifacts", home.artifacts)):
        why = why_not_writable(folder)
        if why is not None:
            yield Finding(
                name, "broken", f"{folder}: {why}; set SWEEPER_{name.upper()} to a folder that can be"
            )
        else:
            yield Finding(
                name, "good", str(folder) if folder.exists() else f"{folder} (made by the first run)"
            )
    free = free_bytes(home.root)
    state = "good" if free > LOW_DISK_BYTES else "note"
    yield Finding("disk", state, f"{free / (1 << 30):.1f} GiB free")


def _store() -> Iterator[Finding]:
    from sweeper.home import Home
    from sweeper.ledger import shown_url, store_file
    from sweeper.lookup import open_ledger

    url = Home.from_environment().store_url
    shown, file = shown_url(url), store_file(url)
    if file is not None and not file.is_file():
        yield Finding("store", "good", f"{shown} (made by the first run)")
        return
    try:
        ledger = open_ledger()
        if not ledger.database.is_made():
            yield Finding("store", "good", f"{shown} (its tables are made by the first run)")
            return
        names = list(ledger.studies())
    except Exception as error:
        yield Finding("store", "broken", f"{shown}: {error}")
        return
    yield Finding("store", "good", f"{shown}: {len(names)} {'study' if len(names) == 1 else 'studies'}")


def _tracking() -> Iterator[Finding]:
    from sweeper.home import Home
    from sweeper.ledger.database import missing_driver
    from sweeper.tracking.address import check_uri, shown_uri

    uri = Home.from_environment().tracking_uri
    where = shown_uri(uri)
    try:
        check_uri(uri)
    except UsageError as error:
        yield Finding("tracking", "broken", str(error))
        return
    if urlsplit(uri).scheme not in {"http", "https"}:
        lacks = missing_driver(uri)
        if lacks is not None:
            yield Finding("tracking", "broken", f"{where}: its driver cannot be loaded: {lacks}")
            return
        yield Finding("tracking", "good", f"{where} (written directly; `sweeper ui` shows it)")
        return
    try:
        # Without user and password, which this answer needs none of, and which an error would repeat.
        with urlopen(f"{where.rstrip('/')}/health", timeout=TIMEOUT_SECONDS) as answer:  # nosec B310 # http or https
            yield Finding("tracking", "good", f"{where} answers ({answer.status})")
    except (OSError, HTTPException) as error:
        # The ledger keeps everything: tracking can be drawn again, so a run works without it.
        yield Finding(
            "tracking", "note", f"{where} does not answer ({error}): runs work, and are shown when it does"
        )
