"""A study in a notebook, and what the commands ``report`` and ``compare`` are made of.

import sweeper

study = sweeper.load("sst2")
study.trials.plot.scatter("trainable_parameters", "objective")
study.figure("front")
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import UsageError
from sweeper.results import Results, headline, read_results

if TYPE_CHECKING:
    import pandas

    from sweeper.figures import Figure
    from sweeper.ledger import Ledger, TrialView

_FIELDS = (
    "kind", "state", "objective", "trainable_parameters", "trainable_percent", "adapter_parameters",
    "head_parameters", "attempts", "seconds", "device_seconds", "reason", "mlflow_run_id",
)  # fmt: skip


class Study:
    """A study as it was when it was loaded: what came of it, and its figures.

    Args:
        results: what ``results.read_results`` returns.
    """

    def __init__(self, results: Results) -> None:
        self.results = results

    @property
    def name(self) -> str:
        return self.results.name

    @property
    def status(self) -> dict[str, Any]:
        """What ``sweeper status STUDY --json`` prints."""
        return dict(self.results.status)

    @property
    def trials(self) -> pandas.DataFrame:
        """Every trial and reference that has begun, by its name: results, sizes, metrics and parameters.

        A metric or parameter that has the name of another column is ``metrics.NAME`` or ``params.NAME``.
        """
        return _frame(self.results.begun)

    @property
    def best(self) -> dict[str, Any] | None:
        """What ``sweeper best STUDY --json`` prints; None if no trial has succeeded."""
        from sweeper.finalists import best_document

        best = self.results.best
        return None if best is None else best_document(best, self.results.confirmed)

    @property
    def front(self) -> pandas.DataFrame:
        """The trials on the Pareto front, best first, with the columns of ``trials``."""
        return _frame(self.results.front)

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures that there are."""
        from sweeper.figures import FIGURES

        return tuple(FIGURES)

    def figure(self, name: str) -> Figure:
        """A figure as a Plotly object, by its name: ``front``, ``parallel``, ``importance``, …

        Raises:
            UsageError: there is none of that name; the message has those that there are.
        """
        from sweeper.figures import figure

        return figure(self.results, name)

    def report(self, file: str | Path) -> Path:
        """Write the report, a page in one file that needs no network; returns where.

        Raises:
            UsageError: the file is a folder, or its folder is missing.
        """
        from sweeper.page import report_page, write_page

        path = Path(file)
        write_page(path, report_page(self.results))
        return path

    def __repr__(self) -> str:
        return f"<Study {self.name}: {headline(self.results)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: who won, how far it is, and the front."""
        counts = ", ".join(f"{n} {state}" for state, n in self.results.status["trials"].items() if n)
        said = f"<b>{html.escape(self.name)}</b>: {html.escape(headline(self.results))}"
        about = f"{self.results.status['state']}: {counts or 'no trial'}"
        front = self.front
        shown = [name for name in ("objective", "trainable_parameters") if name in front]
        shown += [name for name in self.results.study.searched if name in front]
        table = "" if front.empty else front[shown].to_html(escape=True, border=0)
        return f"<div><p>{said}<br>{html.escape(about)}</p>{table}</div>"


def load(name: str, home: str | Path | None = None) -> Study:
    """A study of the store, by its name.

    Args:
        home: the folder that ``SWEEPER_HOME`` would name; default: that of this process's environment.

    Raises:
        UsageError: there is no such study, or no store.
        UnreachableError: the store cannot be opened.
    """
    from sweeper.lookup import open_ledger, study_name

    if not isinstance(name, str):
        raise UsageError(f"a study is loaded by its name, such as 'sst2', not by {name!r}")
    ledger = open_ledger(home)
    try:
        return read(ledger, study_name(ledger, name))
    finally:
        ledger.close()


def read(ledger: Ledger, name: str) -> Study:
    """The same from a ledger that is open."""
    return Study(read_results(ledger, name))


def _frame(trials: Sequence[TrialView]) -> pandas.DataFrame:
    import pandas

    rows = []
    for trial in trials:
        row: dict[str, Any] = {"trial": trial.name, "number": trial.number}
        row |= {field: getattr(trial, field) for field in _FIELDS}
        for kind, values in (("metrics", trial.metrics), ("params", trial.params)):
            row |= {f"{kind}.{key}" if key in row else key: value for key, value in values.items()}
        rows.append(row)
    frame = pandas.DataFrame(rows, columns=None if rows else ["trial", "number", *_FIELDS])
    # A reference has no number: whole numbers that may be missing, not floats.
    whole = ["number", "trainable_parameters", "adapter_parameters", "head_parameters", "attempts"]
    whole += [
        name for name in frame if name not in whole and {type(row.get(name, 0)) for row in rows} == {int}
    ]
    return frame.astype(dict.fromkeys(whole, "Int64")).set_index("trial")
