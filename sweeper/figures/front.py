"""The Pareto front: how good an adapter can be at which size, with what it has to be measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.figures import style
from sweeper.metrics import KNOWN_BEFORE, in_words
from sweeper.results import Goal, Results

if TYPE_CHECKING:
    from sweeper.ledger import TrialView


def front(results: Results) -> dict[str, Any]:
    """The first objective against the size, or against the second objective where there are several."""
    across, up = results.axes[1], results.axes[0]
    if not results.complete:
        return style.empty("No trial has succeeded yet", "The front appears with the first complete trial.")
    best_ones = results.front
    inside = [trial for trial in results.complete if trial not in best_ones]
    pruned = [t for t in results.searched if t.state == "pruned" and _has(t, (across, up))]
    traces = [
        _points(
            results, inside, (across, up), "other complete trials", color=style.SKY, size=8, opacity=0.75
        ),
        _points(
            results, pruned, (across, up), "pruned: stopped early, so not comparable",
            color=style.GREY, size=8, symbol="x-thin-open", visible="legendonly",
        ),
        _line(results, sorted(best_ones, key=across.loss), (across, up)),
        *_references(results, (across, up)),
    ]  # fmt: skip
    shown = [across.value(t) for t in (*results.complete, results.default, results.head) if t is not None]
    sizes = [float(value) for value in shown if value is not None]
    scale = style.log_axis(sizes) if style.wants_log(sizes) else {}
    shape = style.layout(
        headline(results),
        _beside(results),
        xaxis=style.axis(axis_label(across), **scale),
        yaxis=style.axis(axis_label(up)),
        hovermode="closest",
    )
    head = results.head
    if head is not None and up.value(head) is not None:
        # The line says what any adapter has to beat; it is no trial of the search.
        shape["shapes"] = [
            {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": up.value(head), "y1": up.value(head),
                "line": {"color": style.INK, "width": 1, "dash": "dot"}, "layer": "below",
            }
        ]  # fmt: skip
    return {"data": [trace for trace in traces if trace["x"]], "layout": shape}


def headline(results: Results) -> str:
    """What the front says, in a sentence."""
    up = results.axes[0]
    top, smallest = results.front[0], min(results.front, key=lambda t: t.trainable_parameters or 0)
    said = f"{top.name} is best: {up.metric} {style.short(up.value(top))}{_size(top)}"
    if smallest is not top:
        said += f"; {smallest.name} has {style.short(up.value(smallest))}{_size(smallest)}"
    return said


def _beside(results: Results) -> str:
    up, parts = results.axes[0], []
    if results.default is not None:
        parts.append(f"default configuration {style.short(up.value(results.default))}")
    if results.head is not None:
        parts.append(f"head alone {style.short(up.value(results.head))}")
    count = style.plural(len(results.front), "trial")
    where = f"{count} of {len(results.complete)} complete ones on the front"
    return "; ".join([where, *parts])


def _size(trial: TrialView) -> str:
    count = trial.trainable_parameters
    return "" if count is None else f" with {count:,} trainable parameters"


def axis_label(goal: Goal) -> str:
    name = in_words(goal.metric) if goal.metric in KNOWN_BEFORE else f"validation {goal.metric}"
    return f"{name} ({'more' if goal.maximize else 'less'} is better)"


def _has(trial: TrialView, goals: Sequence[Goal]) -> bool:
    return all(goal.value(trial) is not None for goal in goals)


def _points(
    results: Results, trials: Sequence[TrialView], axes: Sequence[Goal], name: str, color: str, size: int,
    symbol: str = "circle", **more: Any,
) -> dict[str, Any]:  # fmt: skip
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [axes[0].value(trial) for trial in trials],
        "y": [axes[1].value(trial) for trial in trials],
        "text": [style.hover(trial, results.goals) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": color, "size": size, "symbol": symbol, "line": {"width": 1, "color": color}},
        "cliponaxis": False,
    } | more


def _line(results: Results, trials: Sequence[TrialView], axes: Sequence[Goal]) -> dict[str, Any]:
    """The front; its best trial and its smallest have their names beside them."""
    trace = _points(results, trials, axes, "Pareto front", color=style.BLUE, size=10)
    named = {results.front[0].place_id, trials[0].place_id}
    labels = [f"{trial.number}" if trial.place_id in named else "" for trial in trials]
    trace["customdata"] = trace["text"]
    return trace | {
        # What is better lies up and to the left, or as the directions say: a staircase of what is reached.
        "mode": "lines+markers+text",
        "line": {"color": style.BLUE, "width": 2, "shape": "hv" if len(results.axes) == 2 else "linear"},
        "text": [f"trial {label}" if label else "" for label in labels],
        "textposition": "top center",
        "textfont": {"color": style.BLUE},
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _references(results: Results, axes: Sequence[Goal]) -> list[dict[str, Any]]:
    found = (
        (results.default, style.default_name(results.default), style.RED, "diamond"),
        (results.head, "head alone, no adapter", style.INK, "square"),
    )
    return [
        _points(results, [trial], axes, name, color=color, size=12, symbol=symbol)
        for trial, name, color, symbol in found
        if trial is not None and _has(trial, axes)
    ]
