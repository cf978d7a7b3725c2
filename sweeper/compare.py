"""Two studies or more beside each other: their best, their fronts, what they cost, and how they differ."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sweeper.console import Output, one_line
from sweeper.errors import UsageError
from sweeper.results import Results
from sweeper.study import difference
from sweeper.terminal import configuration, duration, number, percent, trial_name

if TYPE_CHECKING:
    from sweeper.ledger import TrialView

# What any two studies differ in, and what a table shows by itself.
_OF_COURSE = ("study", "objective")
SEARCHED_ON = ("train", "validation")
DIFFERENT_DATA = "Trained or evaluated on different rows or tokens"


def compare_studies(results: Sequence[Results]) -> dict[str, Any]:
    """What ``compare --json`` prints.

    Returns:
        ``objectives``, shared by all; ``studies``: for each what it found and cost, and the winner if it was
        confirmed; ``differences``: for each
        setting that is not the same in all, by its key, its value in each study; ``same_data``: whether all
        were trained and evaluated on the same rows.

    Raises:
        UsageError: there are fewer than two studies, one is named twice, or their objectives differ.
    """
    names = [one.name for one in results]
    if len(names) < 2:
        raise UsageError("a comparison takes two studies or more: `sweeper compare STUDY STUDY`")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the study {twice!r} is named twice: a comparison takes different studies")
    for one, other in pairwise(results):
        if one.goals != other.goals:
            raise UsageError(
                f"{one.name!r} has the objective {_goals(one)}, {other.name!r} {_goals(other)}: only studies "
                "with the same objective can be compared"
            )
    return {
        "objectives": [{"metric": g.metric, "direction": g.direction} for g in results[0].goals],
        "studies": [_found(one) for one in results],
        "differences": _differences(results),
        "same_data": all(_same_data(one, other) for one, other in pairwise(results)),
    }


def _same_data(one: Results, other: Results) -> bool:
    """Whether values of the two can be compared: of the same rows and, where tokens are predicted, tokens."""
    from sweeper.tasks import task_of

    if one.data_fingerprint == other.data_fingerprint:
        return True
    if task_of(one.study.task.kind).language_head:
        return False
    # The test rows are none of what a comparison shows.
    rows = [{split: of.get(split) for split in SEARCHED_ON} for of in (one.data_digests, other.data_digests)]
    return rows[0] == rows[1] and None not in rows[0].values()


def _goals(results: Results) -> str:
    return ", ".join(f"{goal.direction} {goal.metric}" for goal in results.goals)


def _found(results: Results) -> dict[str, Any]:
    best = next(iter(results.front), None)  # by the same rows in all, whether or not one was confirmed
    return {
        "study": results.name,
        "state": results.status["state"],
        "best": None if best is None else best.to_json(),
        "confirmed": None if results.confirmed is None else results.confirmed["winner"],
        "front": [_point(results, trial) for trial in results.front],
        "references": {
            what: None if trial is None else trial.to_json()
            for what, trial in (("default configuration", results.default), ("head alone", results.head))
        },
        "trials": dict(results.status["trials"]),
        "hours": results.hours,
        "device_hours": results.device_hours,
    }


def _point(results: Results, trial: TrialView) -> dict[str, Any]:
    values = {goal.metric: goal.value(trial) for goal in results.axes}
    return {"number": trial.number, **values}


def _differences(results: Sequence[Results]) -> dict[str, dict[str, Any]]:
    first = results[0].study.to_dict()
    keys = [key for other in results[1:] for key, _, _ in difference(first, other.study.to_dict())]
    found: dict[str, dict[str, Any]] = {}
    for key in dict.fromkeys(keys):
        if key not in _OF_COURSE and not key.startswith("objective."):
            found[key] = {one.name: _setting(one.study.to_dict(), key) for one in results}
    # What no study file says: the weights behind a name, and what `dtype: auto` came to.
    for key in ("backbone_fingerprint", "dtype"):
        values = {one.name: str(getattr(one, key)) for one in results}
        if len(set(values.values())) > 1:
            found[key] = values
    return found


def _setting(spec: Mapping[str, Any], key: str) -> Any:
    section, _, inner = key.partition(".")
    value = spec.get(section)
    return value.get(inner) if inner and isinstance(value, Mapping) else value


def print_comparison(out: Output, comparison: Mapping[str, Any]) -> None:
    """The comparison for people: a row a study, their fronts, what differs."""
    columns, rows = summary_rows(comparison)
    out.table(columns, rows)
    out.data("")
    columns, rows = front_rows(comparison)
    out.table(columns, rows, title="Pareto fronts")
    names = [found["study"] for found in comparison["studies"]]
    if comparison["differences"]:
        out.data("")
        out.table(["setting", *names], difference_rows(comparison), title="What differs")
    else:
        out.note("Their spaces and settings are the same.")
    if not comparison["same_data"]:
        out.note(f"{DIFFERENT_DATA}: their values cannot be compared as such.")
    for found in comparison["studies"]:
        if found["best"] is not None:
            out.note(
                f"{found['study']}: {trial_name(found['best'])} {configuration(found['best']['params'])}"
            )


def summary_rows(comparison: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A row a study: its best, what that is measured against, what it cost."""
    metric = comparison["objectives"][0]["metric"]
    columns = ["study", "state", f"best {metric}", "trial", "trainable", "share", "default", "head alone",
               "trials", "pruned", "time", "device time"]  # fmt: skip
    confirmed = any(found["confirmed"] for found in comparison["studies"])
    columns += ["confirmed", f"test {metric}"] if confirmed else []
    rows = []
    for found in comparison["studies"]:
        best, references = found["best"] or {}, found["references"]
        ended = sum(found["trials"][state] for state in ("complete", "pruned", "failed"))
        rows.append(
            [
                found["study"],
                found["state"],
                number(best.get("objective")),
                trial_name(best) if best else "-",
                number(best.get("trainable_parameters")),
                percent(best.get("trainable_percent")),
                *(number((trial or {}).get("objective")) for trial in references.values()),
                number(ended),
                number(found["trials"]["pruned"]),
                duration(3600 * found["hours"]),
                duration(3600 * found["device_hours"]),
                *(_winner(found["confirmed"]) if confirmed else ()),
            ]
        )
    return columns, rows


def _winner(winner: Mapping[str, Any] | None) -> tuple[str, str]:
    """The name of what ``confirm`` found, and what it reached on the test rows."""
    return ("-", "-") if winner is None else (winner["name"], number(winner["test"]["mean"]))


def front_rows(comparison: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A row for each trial on a front."""
    points = [point for found in comparison["studies"] for point in found["front"]]
    keys = [key for key in dict.fromkeys(key for point in points for key in point) if key != "number"]
    rows = [
        [found["study"], trial_name(point), *(number(point[key]) for key in keys)]
        for found in comparison["studies"]
        for point in found["front"]
    ]
    return ["study", "trial", *keys], rows


def difference_rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """A row for each setting that is not the same in all."""

    def shown(value: Any) -> str:
        return one_line("-" if value is None else value if isinstance(value, str) else json.dumps(value))

    return [[key, *map(shown, values.values())] for key, values in comparison["differences"].items()]


def comparison_page(results: Sequence[Results], comparison: Mapping[str, Any]) -> str:
    """The same as a page, with the fronts in one figure and the best so far against the cost in another."""
    from sweeper.figures.compared import FIGURES
    from sweeper.page import cell, figure_section, page, table, text_section

    def shown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return table(columns, [f"<tr>{''.join(map(cell, row))}</tr>" for row in rows])

    names = [found["study"] for found in comparison["studies"]]
    different = shown(["setting", *names], difference_rows(comparison))
    warning = "" if comparison["same_data"] else f"{DIFFERENT_DATA}: not comparable as such. "
    parts = [
        f'<p class="about">{html.escape(warning + _goals(results[0]))}</p>',
        text_section("Studies", shown(*summary_rows(comparison))),
        *(figure_section(name, build(results)) for name, build in FIGURES.items()),
        text_section("What differs", different if comparison["differences"] else "Nothing but their names."),
        text_section("Pareto fronts", shown(*front_rows(comparison))),
    ]
    return page(" against ".join(names), parts)
