"""Where in the space the good configurations lie: parallel coordinates, importance, slices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.figures import style
from sweeper.importance import FEWEST, importances, top_share
from sweeper.results import Results
from sweeper.study.schema import Choice, Range
from sweeper.study.search import encode

if TYPE_CHECKING:
    from sweeper.ledger import TrialView

_FEWEST, _BEST_FEW = 3, 5
_COLUMNS = 3
_LONGEST = 16


def parallel(results: Results) -> dict[str, Any]:
    """Every complete trial as a line through its parameters to its objective."""
    goal, trials = results.goals[0], results.complete
    if len(trials) < 2:
        return style.empty("No trials to compare yet", "They appear with the second complete trial.")
    names = [name for name in results.study.searched if all(name in t.params for t in trials)]
    missing = [name for name in results.study.searched if name not in names]
    values = [goal.value(trial) for trial in trials]
    shape = style.layout(_shared(results), _how_to_read(missing), height=400)
    shape["margin"] |= {"l": 90, "r": 70, "t": shape["margin"]["t"] + 36, "b": 40}
    line = {"color": values, "colorscale": style.SCALE, "reversescale": not goal.maximize}
    axes = [_dimension(results, name) for name in names]
    axes.append({"label": style.escaped(goal.metric), "values": values})
    trace = {
        "type": "parcoords",
        "line": line,
        "dimensions": axes,
        "labelfont": {"size": 13},
        "tickfont": {"size": 12},
    }
    return {"data": [trace], "layout": shape}  # fmt: skip


def _how_to_read(missing: Sequence[str]) -> str:
    note = "A line is a complete trial, darker is better. Drag along an axis to select, its name to move it."
    return note if not missing else f"{note} Not in all trials, so not shown: {', '.join(missing)}."


def _shared(results: Results) -> str:
    """What the best few trials have in common."""
    top = results.top(min(_BEST_FEW, max(_FEWEST, len(results.complete) // 4)))
    same = [
        f"{name}={_word(top[0].params[name])}"
        for name in results.study.searched
        if name in top[0].params and len({trial.params.get(name) for trial in top}) == 1
    ]
    if not same:
        return f"The best {len(top)} trials have no value of a parameter in common"
    return f"The best {len(top)} trials have in common: {', '.join(same)}"


def _dimension(results: Results, name: str) -> dict[str, Any]:
    spec = results.study.search[name]
    values = [trial.params[name] for trial in results.complete]
    label = style.escaped(name)
    if isinstance(spec, Choice):
        words = [encode(value) for value in spec.values]
        return {
            "label": label,
            "values": [words.index(value) for value in values],
            "tickvals": list(range(len(words))),
            "ticktext": [_cut(_word(word)) for word in words],
            "range": [-0.25, len(words) - 0.75],
        }
    assert isinstance(spec, Range)
    if not spec.log:
        return {"label": label, "values": values, "range": [spec.low, spec.high]}
    marks = style.log_axis([float(spec.low), float(spec.high)])["tickvals"]
    return {
        "label": label,
        "values": [math.log10(value) for value in values],
        "tickvals": [math.log10(mark) for mark in marks],
        "ticktext": [style.short(mark) for mark in marks],
        "range": [math.log10(spec.low), math.log10(spec.high)],
    }


def importance(results: Results) -> dict[str, Any]:
    """The part that each parameter has in a trial being among the best."""
    found = importances(results)
    if not found:
        return style.empty(
            "It cannot be said yet which parameter matters",
            f"That takes {FEWEST} complete trials or more that differ; there are {len(results.complete)}.",
        )
    names = list(found)
    complete = len(results.complete)
    count = math.ceil(top_share(complete) * complete)
    title = f"{names[0]} matters most for being among the best: {found[names[0]]:.0%} of the differences"
    note = f"PED-ANOVA over {complete} complete trials, the best {count} against all."
    if complete < 10 * FEWEST:
        note += f" With fewer than {10 * FEWEST}, take it as a hint."
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [found[name] for name in reversed(names)],
        "y": [style.escaped(name) for name in reversed(names)],
        "text": [f" {found[name]:.0%}" for name in reversed(names)],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": style.BLUE},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }
    shape = style.layout(
        title,
        note,
        height=80 + 34 * len(names),
        xaxis=style.axis("share of the importance", tickformat=".0%", rangemode="tozero"),
        yaxis=style.axis("", ticks=""),
        bargap=0.35,
    )
    return {"data": [trace], "layout": shape}


def slices(results: Results) -> dict[str, Any]:
    """The objective against each parameter alone."""
    names, goal = results.study.searched, results.goals[0]
    trials = [t for t in results.searched if goal.value(t) is not None]
    if not trials:
        return style.empty("No trial has a value yet", "Slices appear with the first evaluation.")
    if not names:
        return style.empty("Nothing is searched", "Every parameter of this study is fixed.")
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    shape = style.layout(
        _slices_title(results),
        "Each point is a trial; the others' parameters differ, too.",
        height=80 + 290 * rows,
    )
    style.legend_on_top(shape)
    shape["margin"] |= {"b": 90}
    data: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        suffix = "" if index == 0 else str(index + 1)
        row, column = divmod(index, columns)
        shape[f"xaxis{suffix}"] = _slice_axis(results, name) | {
            "domain": _part(column, columns, 0.08),
            "anchor": f"y{suffix}",
        }
        shape[f"yaxis{suffix}"] = style.axis(goal.metric if column == 0 else "") | {
            "domain": _part(rows - 1 - row, rows, 0.5 / rows if rows > 1 else 0.0),
            "anchor": f"x{suffix}",
            **({} if index == 0 else {"matches": "y"}),
            **({"showticklabels": False} if column else {}),
        }
        data += _slice_traces(results, trials, name, suffix)
    return {"data": data, "layout": shape}


def _slices_title(results: Results) -> str:
    if results.best is None:
        return "No trial has succeeded yet"
    search = results.study.search
    numbers = [name for name in results.study.searched if isinstance(search[name], Range)]
    top = results.top(max(3, len(results.complete) // 4))
    parts = []
    for name in numbers:
        values = [trial.params[name] for trial in top if name in trial.params]
        if len(values) == len(top) > 1:  # what a method has alone says nothing of the others
            parts.append(f"{name} {style.short(min(values))} to {style.short(max(values))}")
    if not parts:
        return f"{results.goals[0].metric} against each parameter"
    return f"The best {len(top)} trials lie at {', '.join(parts)}"


def _slice_axis(results: Results, name: str) -> dict[str, Any]:
    spec = results.study.search[name]
    if isinstance(spec, Choice):
        words = [_word(encode(value)) for value in spec.values]
        return style.axis(
            name,
            tickvals=list(range(len(words))),
            ticktext=[style.escaped(_cut(word)) for word in words],
            range=[-0.5, len(words) - 0.5],
            tickangle=0 if sum(map(len, words)) < 24 else -35,
        )
    assert isinstance(spec, Range)
    if spec.log:
        return style.axis(name, **style.log_axis([float(spec.low), float(spec.high)]))
    around = 0.05 * (spec.high - spec.low)
    return style.axis(name, range=[spec.low - around, spec.high + around])


def _slice_traces(
    results: Results, trials: Sequence[TrialView], name: str, suffix: str
) -> list[dict[str, Any]]:
    best = results.best
    groups = (
        ("pruned: stopped early", style.ORANGE, "x-thin-open", 8, [t for t in trials if t.state == "pruned"]),
        ("complete", style.BLUE, "circle", 8, [t for t in trials if t.state == "complete" and t != best]),
        ("best", style.RED, "star", 14, [t for t in trials if t == best]),
    )
    traces = []
    for group, color, symbol, size, members in groups:
        inside = [trial for trial in members if name in trial.params]
        if not inside:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": group,
                "legendgroup": group,
                "showlegend": not suffix,
                "x": [_place(results, name, trial) for trial in inside],
                "y": [results.goals[0].value(trial) for trial in inside],
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "text": [style.hover(trial, results.goals) for trial in inside],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": color,
                    "size": size,
                    "symbol": symbol,
                    "line": {"width": 1.5, "color": color},
                },
                "opacity": 0.8,
            }
        )
    return traces


def _place(results: Results, name: str, trial: TrialView) -> float:
    """Where a trial is on the axis of a parameter; the points of a choice lie a little apart."""
    spec, value = results.study.search[name], trial.params[name]
    if not isinstance(spec, Choice):
        return float(value)
    # Spread by the trial's number, so that the same trial is at the same place each time.
    spread = ((trial.number or 0) * 0.618034) % 1.0 - 0.5
    return [encode(choice) for choice in spec.values].index(value) + 0.3 * spread


def _part(index: int, count: int, gap: float) -> list[float]:
    """The room of one of ``count`` plots beside each other."""
    width = (1.0 - gap * (count - 1)) / count
    low = index * (width + gap)
    return [low, min(1.0, low + width)]


def _word(value: object) -> str:
    return style.short(value) if isinstance(value, float) else str(value)


def _cut(word: str) -> str:
    return word if len(word) <= _LONGEST else word[: _LONGEST - 1] + "…"
