"""Measurements kept in a folder, a JSON file each, so that a run goes on from where another was stopped."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common import PARTS, ROOT, cores, processor
from benchmarks.makespan.columns import Results
from benchmarks.makespan.trials import Trial
from sweeper.backbone import fingerprint
from sweeper.device import describe
from sweeper.disk import sha256
from sweeper.study import Study

About = Mapping[str, Any]

_OPTIONS = (
    "space", "trials", "pack", "workers", "full", "pooling", "dtype", "rows", "validation_rows", "max_length",
    "threads", "seed",
)  # fmt: skip
_MEASURED = ("adapters", "sweeper", "benchmarks")


class KeptError(Exception):
    """What a folder keeps cannot be gone on with."""


def measured_for(settings: argparse.Namespace, study: Study, trials: Sequence[Trial], rows: Path) -> About:
    """What two measurements must have in common to stand in one table, by its name in messages.

    Args:
        settings: the command line.
        study: whose backbone the trials are trained over.
        rows: folder with train.tsv and validation.tsv.
    """
    listed = json.dumps([trial.to_dict() for trial in trials], sort_keys=True)
    return {
        **{f"--{name.replace('_', '-')}": getattr(settings, name) for name in _OPTIONS},
        "the processor": processor(),
        "the number of cores": cores(),
        "the device": f"{settings.device} ({describe(settings.device)})",
        "Python": platform.python_version(),
        **{name: version(name) for name in ("adapter-sweeper", "torch", "transformers")},
        **{f"the digest of {part}.tsv": sha256(rows / f"{part}.tsv") for part in PARTS},
        "the digest of the trials": hashlib.sha256(listed.encode()).hexdigest(),
        "the digest of the backbone": fingerprint(study.backbone),
    }


@dataclasses.dataclass(frozen=True)
class _Measurement:
    """What one column gave in one round: in which run, counted from 1, and with which code."""

    run: int
    code: str
    results: Results


class Kept:
    """The measurements in a folder; what is added is on the disk at once, whole or not at all.

    Args:
        folder: an existing one; other files in it are left alone.
        about: what this run measures for, see ``measured_for``.
        theirs: versions of AdapterHub's side; none where no column of it is asked for.

    Raises:
        KeptError: the folder holds what was measured for something else, or cannot be read.
    """

    def __init__(self, folder: Path, about: About, theirs: Mapping[str, str]) -> None:
        self._folder = folder
        self._about = json.loads(json.dumps(about))
        self._found: dict[tuple[int, str], _Measurement] = {}
        for path in sorted(folder.glob("round-*.json")):
            place, there, measurement = _read(path)
            differing = _differences(there, self._about)
            if theirs and measurement.results.versions:
                hub = _differences(measurement.results.versions, theirs)
                differing += [f"AdapterHub's {line}" for line in hub]
            if differing:
                told = "; ".join(differing)
                raise KeptError(f"{folder} keeps what was measured otherwise, name another folder: {told}")
            self._found[place] = measurement
        self._run = 1 + max((one.run for one in self._found.values()), default=0)

    def get(self, number: int, column: str) -> Results | None:
        """What a column gave in a round; None where that is still to be measured."""
        found = self._found.get((number, column))
        return found.results if found else None

    @property
    def count(self) -> int:
        """How many measurements there are."""
        return len(self._found)

    def add(self, number: int, column: str, results: Results) -> None:
        """Keep what was just measured.

        Raises:
            KeptError: it cannot be written.
        """
        measurement = _Measurement(self._run, _code(), results)
        self._found[number, column] = measurement
        content = {"round": number, "column": column, **dataclasses.asdict(measurement), "about": self._about}
        path = self._folder / f"round-{number}-{column}.json"
        beside = path.with_name(f".{path.name}")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise KeptError(f"{path} cannot be written: {error.strerror}") from error

    def runs(self, rounds: int, columns: Sequence[str]) -> str:
        """In how many runs a table's measurements were taken, and which of its rounds in several."""
        asked = {number: [self._found[number, name] for name in columns] for number in range(1, rounds + 1)}
        runs = {one.run for measurements in asked.values() for one in measurements}
        lines = [f"measured in {len(runs)} {'run' if len(runs) == 1 else 'runs'}"]
        for number, measurements in asked.items():
            parts = len({one.run for one in measurements})
            if parts > 1:
                lines.append(f"round {number} in {parts} of them: its ratios are not of the same minutes")
        states = len({one.code for measurements in asked.values() for one in measurements})
        if states > 1:
            lines.append(f"this project's code changed in between: {states} states of it were measured")
        return "\n".join(lines)


def _read(path: Path) -> tuple[tuple[int, str], About, _Measurement]:
    """Round and column, what they were measured for, and what was measured."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values = content["results"]
        accuracies = {int(number): value for number, value in values["accuracies"].items()}
        results = Results(**(values | {"accuracies": accuracies}))
        measurement = _Measurement(content["run"], content["code"], results)
        return (content["round"], content["column"]), dict(content["about"]), measurement
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeptError(
            f"{path} is no measurement that can be read; remove it or name another folder"
        ) from error


def _differences(there: About, here: About) -> list[str]:
    names = [*here, *(name for name in there if name not in here)]
    return [
        f"{name} is {_shown(there.get(name))} there and {_shown(here.get(name))} here"
        for name in names
        if there.get(name) != here.get(name)
    ]


def _shown(value: Any) -> str:
    text = str(value).removeprefix("sha256:")
    return text[:12] if len(text) == 64 else text


def _code() -> str:
    """The digest of this project's code, as it is now."""
    files = sorted(path for package in _MEASURED for path in (ROOT / package).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
