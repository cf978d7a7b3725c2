"""Studies beside each other: their fronts in one picture, and what each had found at which cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweeper.figures import style
from sweeper.figures.front import axis_label
from sweeper.results import Results

_COLORS = (style.BLUE, style.RED, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.INK)
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "x")


def fronts(studies: Sequence[Results]) -> dict[str, Any]:
    """The Pareto front of each study."""
    with_any = [one for one in studies if one.front]
    if not with_any:
        return style.empty("No trial of these studies has succeeded yet", "Fronts appear with the first.")
    across, up = studies[0].axes[1], studies[0].axes[0]
    data = []
    for index, one in enumerate(studies):
        trials = sorted(one.front, key=across.loss)
        trace = _trace(one, index) | {
            "x": [across.value(trial) for trial in trials],
            "y": [up.value(trial) for trial in trials],
            "text": [style.hover(trial, one.goals) for trial in trials],
            "hovertemplate": f"{style.escaped(one.name)}<br>%{{text}}<extra></extra>",
        }
        trace["line"]["shape"] = "hv" if len(one.axes) == 2 else "linear"
        data.append(trace)
    sizes = [float(value) for trace in data for value in trace["x"] if value is not None]
    scale = style.log_axis(sizes) if style.wants_log(sizes) else {}
    shape = style.layout(
        _fronts_title(with_any),
        "The Pareto front of each study.",
        xaxis=style.axis(axis_label(across), **scale),
        yaxis=style.axis(axis_label(up)),
    )
    return {"data": data, "layout": shape}


def _fronts_title(studies: Sequence[Results]) -> str:
    goal = studies[0].goals[0]
    order = sorted(studies, key=lambda one: goal.loss(one.front[0]))
    values = [style.short(goal.value(one.front[0])) for one in order]
    if len(order) > 1 and values[0] == values[1]:
        return f"{order[0].name} and {order[1].name} reach the same {goal.metric}: {values[0]}"
    others = ", ".join(f"{one.name} {value}" for one, value in zip(order[1:], values[1:], strict=True))
    return f"{order[0].name} reaches the best {goal.metric}: {values[0]}" + (f"; {others}" if others else "")


def cost(studies: Sequence[Results]) -> dict[str, Any]:
    """The best so far of each study against the device time that it had taken."""
    goal = studies[0].goals[0]
    paths = [_best_so_far(one) for one in studies]
    if not any(path for path in paths):
        return style.empty("No trial of these studies has succeeded yet", "Curves appear with the first.")
    most = max(hours for path in paths for hours, _ in path)
    unit, factor = ("hours", 1.0) if most >= 2.0 else ("minutes", 60.0)
    data = []
    for index, (one, path) in enumerate(zip(studies, paths, strict=True)):
        trace = _trace(one, index) | {
            "x": [hours * factor for hours, _ in path],
            "y": [value for _, value in path],
            "hovertemplate": f"{style.escaped(one.name)}: %{{y:.4g}} after %{{x:.3g}} {unit}<extra></extra>",
        }
        trace["line"]["shape"] = "hv"
        data.append(trace)
    shape = style.layout(
        f"Best {goal.metric} so far, by what it had cost",
        "Device time of all trials that had ended, pruned ones included; references are not counted.",
        xaxis=style.axis(f"device {unit}", rangemode="tozero"),
        yaxis=style.axis(f"best validation {goal.metric} so far"),
    )
    return {"data": data, "layout": shape}


def _best_so_far(results: Results) -> list[tuple[float, float]]:
    """(device hours, best objective of a complete trial) as the trials ended."""
    goal, spent, best = results.goals[0], 0.0, None
    path: list[tuple[float, float]] = []
    ended = [trial for trial in results.searched if trial.ended_at is not None]
    for trial in sorted(ended, key=lambda t: (t.ended_at or 0.0, t.place_id)):
        spent += (trial.device_seconds or 0.0) / 3600.0
        value = goal.value(trial)
        if trial.state == "complete" and value is not None:
            better = max if goal.maximize else min
            best = value if best is None else better(best, value)
        if best is not None:
            path.append((spent, best))
    return path


def _trace(results: Results, index: int) -> dict[str, Any]:
    color = _COLORS[index % len(_COLORS)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": style.escaped(results.name),
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 8, "symbol": _SYMBOLS[index % len(_SYMBOLS)]},
        "cliponaxis": False,
    }


FIGURES: Mapping[str, Callable[[Sequence[Results]], dict[str, Any]]] = {"fronts": fronts, "cost": cost}
