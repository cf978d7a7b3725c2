"""The finalists, trained anew with other seeds: their means, and how sure those are."""

from __future__ import annotations

from typing import Any

from sweeper.figures import style
from sweeper.results import Finalist, Results

NOT_RUN = (
    "sweeper confirm trains the best trials anew, with other seeds, and reads the test set; it was not run."
)


def finalists(results: Results) -> dict[str, Any]:
    """Mean and 95 % interval of each finalist and of what it is measured against, with every seed's value."""
    found = results.finalists
    if not found:
        return style.empty("The winner is not confirmed", NOT_RUN)
    goal = results.goals[0]
    order = sorted(found, key=lambda one: one.mean if goal.maximize else -one.mean)
    data = []
    for wanted, name, color in ((False, "finalists", style.BLUE), (True, "references", style.INK)):
        members = [one for one in order if one.is_reference == wanted]
        if members:
            data += [_seeds(members, color), _means(members, name, color)]
    with_interval = "" if all(one.low is None for one in found) else " with its 95 % interval"
    shape = style.layout(
        headline(results),
        f"Mean over the seeds{with_interval}; small dots are the seeds.",
        height=110 + 38 * len(order),
        xaxis=style.axis(f"test {goal.metric} ({'more' if goal.maximize else 'less'} is better)"),
        yaxis=style.axis(
            "", type="category", categoryorder="array", categoryarray=[_label(one) for one in order], ticks=""
        ),
    )
    style.legend_on_top(shape)
    return {"data": data, "layout": shape}


def headline(results: Results) -> str:
    """Who won on new seeds, and whether others can be told apart from it."""
    goal = results.goals[0]
    verdict = results.confirmed
    assert verdict is not None  # there are finalists
    winner, alike = verdict["winner"], verdict["alike"]
    seeds = style.plural(winner["seeds"], "seed")
    said = f"{winner['name']}: test {goal.metric} {style.short(winner['test']['mean'])} over {seeds}"
    left_out = {*verdict["failed"], *verdict["waiting"]}
    if all(row["name"] in {winner["name"], *left_out} for row in verdict["finalists"]):
        return said
    if len(alike) == 1:
        others = "those compared" if left_out else "all other finalists"
        return f"{said}, apart from {others}"
    return f"{said}, the smallest of {len(alike)} finalists that validation cannot tell apart"


def _label(one: Finalist) -> str:
    size = "" if one.trainable_parameters is None else f"<br>{one.trainable_parameters:,} parameters"
    return f"{style.escaped(one.name)}<span style='font-size:11px;color:#555555'>{size}</span>"


def _means(members: list[Finalist], name: str, color: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [one.mean for one in members],
        "y": [_label(one) for one in members],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [None if one.high is None else one.high - one.mean for one in members],
            "arrayminus": [None if one.low is None else one.mean - one.low for one in members],
            "color": color,
            "thickness": 2,
            "width": 7,
        },
        "marker": {"color": color, "size": 11},
        "hovertemplate": "%{y}: %{x:.4g}<extra></extra>",
    }


def _seeds(members: list[Finalist], color: str) -> dict[str, Any]:
    points = [(value, _label(one)) for one in members for value in one.values]
    return {
        "type": "scatter",
        "mode": "markers",
        "showlegend": False,
        "x": [value for value, _ in points],
        "y": [label for _, label in points],
        "marker": {"color": color, "size": 5, "opacity": 0.4},
        "hovertemplate": "one seed: %{x:.4g}<extra></extra>",
    }
