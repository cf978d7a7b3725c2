"""The tables of a study: every split's texts and labels, read and checked before anything is started.

Each fault names its file and line. What is drawn (a subset, a fraction of train) is drawn with the study's
seed, and stays the same whatever else the study file asks for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.data.draw import draw_fractions, draw_subset
from sweeper.data.enough import check_evaluations, check_objective
from sweeper.data.rows import Rows
from sweeper.data.sources import read_source
from sweeper.errors import UsageError
from sweeper.tasks import task_of
from sweeper.words import nearest, short

if TYPE_CHECKING:
    from sweeper.study import Source, Study

_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,4299})")
"""Of no more digits than Python makes a number of."""


@dataclass(frozen=True)
class Table:
    """One split, checked.

    Args:
        texts: one column of texts, or two of equal length; of words in tuples where words are labelled.
        labels: what the task's kind reads of each row: a name, a number, several names in a tuple, or None.
        rows: the source that the split is from.
        numbers: for each row, which row of that source it is, from 0.
    """

    texts: tuple[list[Any], ...]
    labels: list[Any]
    rows: Rows
    numbers: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    def fault(self, place: int, message: str) -> UsageError:
        """The error that says what is wrong with a row of the split, and where that row is."""
        return self.rows.fault(self.numbers[place], message)

    def take(self, chosen: Sequence[int]) -> Table:
        """The rows at some places, in the order given."""
        labels = [self.labels[place] for place in chosen]
        texts = tuple([column[place] for place in chosen] for column in self.texts)
        return Table(texts, labels, self.rows, [self.numbers[place] for place in chosen])


@dataclass(frozen=True)
class Tables:
    """The splits of a study.

    Args:
        label_names: in the order of their numbers; None where labels have no names.
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
            steps than evaluations, or an objective does not exist on the rows of validation or test.
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
    label_names = _label_names(study, train) if task_of(study.task.kind).has_names else None
    if label_names is not None:
        for name, table in splits.items():
            _check_labels(study, name, table, label_names, name in fractions)
        _check_columns(study, label_names)
    if study.task.pooling != "next":  # there, texts become several
        check_evaluations(study, len(train))
    check_objective(study, {name: table.labels for name, table in splits.items()}, label_names)
    seen = set(zip(*train.texts, strict=True))
    duplicates = {
        name: sum(text in seen for text in zip(*table.texts, strict=True)) for name, table in splits.items()
    }
    return Tables(train, splits["validation"], splits.get("test"), label_names, duplicates)


def _read(study: Study, name: str, source: Source, cache_dir: Path | None) -> Table:
    """Read one source, check all of its rows and draw its subset."""
    line = study.line("data", name)
    kind = task_of(study.task.kind)
    wanted = [*study.task.text, *study.task.label]
    rows = read_source(source, wanted, cache_dir, study.path, line)
    for key, columns in (("text", study.task.text), ("label", study.task.label)):
        for column in columns:
            if column not in rows.names:
                raise UsageError(
                    f"{rows.name} has no column '{column}'{nearest(column, rows.names)}",
                    file=study.path,
                    line=study.line("task", key),
                )
    texts = tuple(kind.read_text(rows, column) for column in study.task.text)
    table = Table(texts, kind.read_labels(rows, study.task), rows, list(range(len(rows))))
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
    groups = list(train.labels) if task_of(study.task.kind).stratified else None
    chosen = draw_fractions(len(train), groups, fractions, study.seed)
    for name, places in chosen.items():
        if not places:
            share = fractions[name] * len(train)
            raise UsageError(
                f"{name}: {fractions[name]} of the {len(train)} rows of train {_why_none(share, groups)}",
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


def _why_none(share: float, groups: list[Any] | None) -> str:
    """Why a share of so many rows came to nothing."""
    if share < 0.5:
        return "is not one row"
    return f"takes no row, as the last one{'' if groups is None else ' of each label'} has to stay there"


def _label_names(study: Study, train: Table) -> tuple[str, ...]:
    """The labels of train, sorted: as numbers if all of them are whole numbers."""
    names_in = task_of(study.task.kind).names_in
    names = {name for label in train.labels for name in names_in(label)}
    least = task_of(study.task.kind).least_names
    if len(names) < least:
        has = f"the same label, {short(names.pop())}" if names else "no label"
        raise UsageError(
            f"every row of train has {has}: there is nothing to learn",
            file=study.path,
            line=study.line("task", "label"),
        )
    if all(_WHOLE_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))  # -0 and 0 are two labels
    return tuple(sorted(names))


def _check_labels(
    study: Study, name: str, table: Table, label_names: tuple[str, ...], is_drawn: bool
) -> None:
    known, kind = set(label_names), task_of(study.task.kind)
    for place, label in (
        (place, one) for place, own in enumerate(table.labels) for one in kind.names_in(own)
    ):
        if label not in known:
            listed = ", ".join(label_names[:20]) + (", …" if len(label_names) > 20 else "")
            why = f"does not occur in train, whose labels are {listed}"
            if is_drawn:
                why = "occurs in no row that is left in train: give its rows in a file, or another seed"
            raise table.fault(place, f"the label {short(label)} of {name} {why}")


def _check_columns(study: Study, label_names: tuple[str, ...]) -> None:
    """Refuse a label of a column of its own that no row of train has."""
    columns = study.task.label
    never = [column for column in columns if column not in label_names] if len(columns) > 1 else []
    if never:
        raise UsageError(
            f"column {short(never[0])} is 1 in no row of train: there is nothing to learn of that label. "
            "Leave it out, or name rows that have it",
            file=study.path,
            line=study.line("task", "label"),
        )
