"""The tables of a study: every split's texts and labels, read and checked before anything is started.

Each fault names its file and line. What is drawn (a subset, a fraction of train) is drawn with the study's
seed, and stays the same whatever else the study file asks for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.data.draw import draw_fractions, draw_subset
from sweeper.data.enough import check_evaluations, check_objective
from sweeper.data.rows import Rows, read_source
from sweeper.errors import UsageError
from sweeper.words import nearest, short

if TYPE_CHECKING:
    from sweeper.study import Source, Study

FLOAT32_MAX = 3.4028234663852886e38
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Table:
    """One split, checked.

    Args:
        texts: one column of texts, or two of equal length.
        labels: the name of the label of each row, or its number for a regression.
        rows: the source that the split is from.
        numbers: for each row, which row of that source it is, from 0.
    """

    texts: tuple[list[str], ...]
    labels: list[str] | list[float]
    rows: Rows
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    def fault(self, place: int, message: str) -> UsageError:
        """The error that says what is wrong with a row of the split, and where that row is."""
        return self.rows.fault(self.numbers[place], message)

    def take(self, chosen: Sequence[int]) -> Table:
        """The rows at some places, in the order given."""
        labels: Any = [self.labels[place] for place in chosen]
        texts = tuple([column[place] for place in chosen] for column in self.texts)
        return Table(texts, labels, self.rows, [self.numbers[place] for place in chosen])


@dataclass(frozen=True)
class Tables:
    """The splits of a study.

    Args:
        label_names: of a classification, in the order of their class numbers; None for a regression.
        duplicates: for "validation" and "test", how many of their rows have a text that train has, too.
    """

    train: Table
    validation: Table
    test: Table | None
    label_names: tuple[str, ...] | None
    duplicates: dict[str, int]

    def named(self) -> list[tuple[str, Table]]:
        """The splits that there are, by name."""
        splits = [("train", self.train), ("validation", self.validation)]
        return splits if self.test is None else [*splits, ("test", self.test)]


def read_tables(study: Study, cache_dir: Path | None = None) -> Tables:
    """Read and check the rows of every split.

    Args:
        cache_dir: where data sets of the hub are kept; None for the default of ``datasets``.

    Raises:
        UsageError: a column is missing, a text or label is missing or not usable, a label of validation or
            test does not occur in train, there is only one label, a draw leaves nothing, an epoch has fewer
            steps than evaluations, or the objective does not exist on the validation rows.
        UnreachableError: the hub cannot be reached.
    """
    train = _read(study, "train", study.data.train, cache_dir)
    splits: dict[str, Table] = {}
    fractions: dict[str, float] = {}
    for name, source in (("validation", study.data.validation), ("test", study.data.test)):
        if isinstance(source, float):
            fractions[name] = source
        elif source is not None:
            splits[name] = _read(study, name, source, cache_dir)
    if fractions:
        train, drawn = _draw(study, train, fractions)
        splits |= drawn
    label_names = _label_names(study, train) if study.task.kind == "classification" else None
    if label_names is not None:
        for name, table in splits.items():
            _check_labels(name, table, label_names)
    check_evaluations(study, len(train))
    check_objective(study, splits["validation"].labels)
    seen = set(zip(*train.texts, strict=True))
    duplicates = {
        name: sum(text in seen for text in zip(*table.texts, strict=True)) for name, table in splits.items()
    }
    return Tables(train, splits["validation"], splits.get("test"), label_names, duplicates)


def _read(study: Study, name: str, source: Source, cache_dir: Path | None) -> Table:
    """Read one source, check all of its rows and draw its subset."""
    line = study.line("data", name)
    wanted = [*study.task.text, study.task.label]
    rows = read_source(source, wanted, cache_dir, study.path, line)
    for key, columns in (("text", study.task.text), ("label", (study.task.label,))):
        for column in columns:
            if column not in rows.names:
                raise UsageError(
                    f"{rows.name} has no column '{column}'{nearest(column, rows.names)}",
                    file=study.path,
                    line=study.line("task", key),
                )
    texts = tuple(read_texts(rows, column) for column in study.task.text)
    read_labels = read_names if study.task.kind == "classification" else read_numbers
    table = Table(texts, read_labels(rows, study.task.label), rows, list(range(len(rows))))
    if source.rows is None:
        return table
    if source.rows > len(table):
        raise UsageError(
            f"rows: {source.rows} of {rows.name}, which has {len(table)}",
            file=study.path,
            line=study.line("data", name, "rows"),
        )
    return table.take(draw_subset(len(table), source.rows, study.seed, name))


def _draw(study: Study, train: Table, fractions: dict[str, float]) -> tuple[Table, dict[str, Table]]:
    """Take the fractions out of train."""
    groups = list(train.labels) if study.task.kind == "classification" else None
    chosen = draw_fractions(len(train), groups, fractions, study.seed)
    for name, places in chosen.items():
        if not places:
            raise UsageError(
                f"{name}: {fractions[name]} of the {len(train)} rows of train is not one row",
                file=study.path,
                line=study.line("data", name),
            )
    taken = {place for places in chosen.values() for place in places}
    rest = [place for place in range(len(train)) if place not in taken]
    if not rest:
        raise UsageError(
            "the fractions leave no row to train on", file=study.path, line=study.line("data", "validation")
        )
    return train.take(rest), {name: train.take(places) for name, places in chosen.items()}


def read_texts(rows: Rows, column: str) -> list[str]:
    """A column of texts.

    Raises:
        UsageError: a text is missing, blank or no text; it names the line.
    """
    values = rows.columns[column]
    for number, value in enumerate(values):
        if value is None:
            raise rows.fault(number, f"the text in column '{column}' is missing")
        if not isinstance(value, str):
            raise rows.fault(number, f"column '{column}' holds {short(value)}, which is no text")
        if not value.strip():
            raise rows.fault(number, f"the text in column '{column}' is empty")
    return values


def read_names(rows: Rows, column: str) -> list[str]:
    """A column of class labels, as names: a whole number is named by its digits."""
    names = []
    for number, value in enumerate(rows.columns[column]):
        if isinstance(value, bool):
            names.append("true" if value else "false")
        elif isinstance(value, int):
            names.append(str(value))
        elif isinstance(value, str) and value.strip():
            names.append(value)
        elif value is None or isinstance(value, str):
            raise rows.fault(number, f"the label in column '{column}' is missing")
        else:
            raise rows.fault(
                number,
                f"the label {short(value)} in column '{column}' is neither a text nor a whole number; "
                "kind: regression predicts numbers",
            )
    return names


def read_numbers(rows: Rows, column: str) -> list[float]:
    """A column of numbers to predict, each finite in fp32."""
    numbers = []
    for number, value in enumerate(rows.columns[column]):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise rows.fault(number, f"the label in column '{column}' is missing")
        try:
            if isinstance(value, bool) or "_" in str(value):
                raise ValueError
            parsed = float(value)
        except (TypeError, ValueError, OverflowError):
            raise rows.fault(
                number,
                f"the label {short(value)} in column '{column}' is not a number; "
                "kind: classification predicts names",
            ) from None
        if not math.isfinite(parsed) or abs(parsed) > FLOAT32_MAX:
            raise rows.fault(number, f"the label {short(value)} in column '{column}' is not finite in fp32")
        numbers.append(parsed)
    return numbers


def _label_names(study: Study, train: Table) -> tuple[str, ...]:
    """The labels of train, sorted: as numbers if all of them are whole numbers."""
    names = {str(label) for label in train.labels}
    if len(names) == 1:
        raise UsageError(
            f"every row of train has the same label, {short(names.pop())}: there is nothing to learn",
            file=study.path,
            line=study.line("task", "label"),
        )
    if all(_WHOLE_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _check_labels(name: str, table: Table, label_names: tuple[str, ...]) -> None:
    known = set(label_names)
    for place, label in enumerate(table.labels):
        if label not in known:
            listed = ", ".join(label_names[:20]) + (", …" if len(label_names) > 20 else "")
            raise table.fault(
                place,
                f"the label {short(label)} of {name} does not occur in train, whose labels are {listed}",
            )
