"""The table as a CSV file: a line for each training, with every evaluation of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_VALUE, _STEP = "value_", "step_"


@dataclass(frozen=True)
class Row:
    """One training.

    Args:
        seed: which of the trainings of its configuration it is.
        params: of the search, as Optuna keeps them.
        steps, values: at each evaluation: training steps so far, and the objective. A training that diverged
            has fewer.
    """

    seed: int
    params: Mapping[str, Any]
    trainable_parameters: int
    steps: tuple[int, ...]
    values: tuple[float, ...]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the table, in the order of the parameters and the seeds."""
    names = list(rows[0].params)
    count = max(len(row.values) for row in rows)
    columns = ["seed", *names, "trainable_parameters"]
    columns += [f"{kind}{index}" for kind in (_STEP, _VALUE) for index in range(1, count + 1)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in sorted(rows, key=lambda row: ([str(row.params[name]) for name in names], row.seed)):
            line = {"seed": row.seed, **row.params, "trainable_parameters": row.trainable_parameters}
            line |= {f"{_STEP}{index}": step for index, step in enumerate(row.steps, start=1)}
            line |= {f"{_VALUE}{index}": f"{value:.6g}" for index, value in enumerate(row.values, start=1)}
            writer.writerow(line)


def read_rows(path: Path) -> list[Row]:
    """Read the table; parameters are numbers where they look like some."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_read(line) for line in csv.DictReader(file)]


def _read(line: dict[str, str]) -> Row:
    own = ("seed", "trainable_parameters")
    params = {name: _number(text) for name, text in line.items() if name not in own and not _evaluated(name)}
    steps = tuple(int(text) for name, text in line.items() if name.startswith(_STEP) and text)
    values = tuple(float(text) for name, text in line.items() if name.startswith(_VALUE) and text)
    return Row(int(line["seed"]), params, int(line["trainable_parameters"]), steps, values)


def _evaluated(name: str) -> bool:
    return name.startswith((_STEP, _VALUE))


def _number(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
