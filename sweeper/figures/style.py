"""How the figures look: colours that colour-blind people tell apart (Okabe and Ito 2008), axes, labels."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.ledger import TrialView
    from sweeper.results import Goal

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#8A8A8A", "#E6E6E6"
SCALE = ((0.0, "#D5D5D5"), (0.5, SKY), (1.0, "#003A5C"))
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
STATE_COLORS = {
    "complete": BLUE,
    "pruned": ORANGE,
    "failed": RED,
    "raised": RED,
    "out_of_memory": RED,
    "lost": INK,
    "handed_back": SKY,
    "running": GREEN,
}
_WIDEST = 96


def escaped(value: object) -> str:
    """Text for a label: Plotly takes tags in it for markup."""
    return html.escape(str(value), quote=False)


def layout(title: str, subtitle: str = "", height: int = 440, **more: Any) -> dict[str, Any]:
    """What all figures share. Titles are broken after a number of letters; ``untitled`` takes them off."""
    lines = _lines(title, _WIDEST)
    shown = "<br>".join(f"<b>{escaped(line)}</b>" for line in lines)
    notes = _lines(subtitle, _WIDEST + 24) if subtitle else []
    shown += "".join(
        f"<br><span style='font-size:12px;color:#555555'>{escaped(line)}</span>" for line in notes
    )
    top = 24 + 21 * len(lines) + 17 * len(notes)
    base: dict[str, Any] = {
        "title": {
            "text": shown, "x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 12, "t": 12},
            "y": 1, "yref": "container", "yanchor": "top", "font": {"size": 16, "color": INK},
        },
        "font": {"family": FONT, "size": 13, "color": INK},
        "height": height + top,
        "margin": {"l": 72, "r": 28, "t": top + 18, "b": 60},
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 12}},
        "legend": {"orientation": "h", "x": 0, "y": -0.16, "xanchor": "left", "yanchor": "top"},
        "template": {"layout": {}},
        "meta": {"title": title, "subtitle": subtitle, "pixels": top},
    }  # fmt: skip
    return base | more


def legend_on_top(shape: dict[str, Any]) -> None:
    """Move the legend between title and plot: below, it would meet the axis where the height varies."""
    shape["margin"] |= {"t": shape["margin"]["t"] + 30}
    shape["legend"] |= {"y": 1.0, "yanchor": "bottom"}


def untitled(description: Mapping[str, Any]) -> tuple[dict[str, Any], str, str]:
    """A figure without its title, and the title and what stands below it: for a page, which breaks lines."""
    shape = dict(description["layout"])
    meta, margin = shape.pop("meta"), shape["margin"]
    shape |= {
        "title": {"text": ""},
        "height": shape["height"] - meta["pixels"],
        "margin": margin | {"t": margin["t"] - meta["pixels"]},
    }
    return {**description, "layout": shape}, meta["title"], meta["subtitle"]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title, unit included."""
    return {
        "title": {"text": escaped(title), "standoff": 10},
        "gridcolor": PALE,
        "linecolor": GREY,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": GREY,
        "automargin": True,
    } | more


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """What makes an axis logarithmic, with plain numbers on it at 1, 2 and 5 of each decade in sight.

    Where there is hardly one, the ends are named.
    """
    low, high = min(values), max(values)
    marks = [
        mantissa * 10.0**power
        for power in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for mantissa in (1, 2, 5)
    ]
    around = 0.06 * max(math.log10(high / low), 0.3)
    ends = (math.log10(low) - around, math.log10(high) + around)
    seen = [mark for mark in marks if ends[0] <= math.log10(mark) <= ends[1]]
    if len(seen) < 2:
        seen = list(dict.fromkeys((low, high)))
    if len(seen) > 8:
        seen = [mark for mark in seen if f"{mark:e}".startswith("1.0")]
    return {"type": "log", "range": list(ends), "tickvals": seen, "ticktext": [short(mark) for mark in seen]}


def wants_log(values: Sequence[float]) -> bool:
    """Whether numbers spread so far that a straight axis would press most of them together."""
    return len(values) > 1 and min(values) > 0.0 and max(values) / min(values) >= 8.0


def short(value: float | None) -> str:
    """A number on an axis or in a title: ``0.8733``, ``113,810``, ``0.0005``."""
    if value is None:
        return "-"
    if value == int(value) and abs(value) >= 1.0 and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) >= 1e-4 or value == 0.0 else f"{value:.1e}"


def hover(trial: TrialView, goals: Sequence[Goal]) -> str:
    """What is said of a trial when it is pointed at."""
    size = "-" if trial.trainable_parameters is None else f"{trial.trainable_parameters:,}"
    lines = [
        f"<b>{escaped(trial.name)}</b> {escaped(trial.state)}",
        *(f"{escaped(goal.metric)} {short(goal.value(trial))}" for goal in goals),
        f"{size} trainable parameters",
        *(f"{escaped(key)}={escaped(_value(value))}" for key, value in trial.params.items()),
    ]
    return "<br>".join(lines)


def default_name(default: TrialView | None) -> str:
    """What the default configuration is called, with its trial: 0, unless that failed."""
    return f"default configuration (trial {0 if default is None else default.number})"


def empty(title: str, why: str, height: int = 90) -> dict[str, Any]:
    """A figure that says why there is nothing in it."""
    hidden = {"visible": False}
    note = {
        "text": escaped(why), "showarrow": False, "x": 0, "y": 0.5, "xref": "paper", "yref": "paper",
        "xanchor": "left", "font": {"size": 14, "color": "#555555"},
    }  # fmt: skip
    shape = layout(title, height=height, xaxis=hidden, yaxis=hidden, annotations=[note])
    shape["margin"] |= {"l": 14, "b": 10}
    return {"data": [], "layout": shape}


def plural(count: int, word: str) -> str:
    """``1 trial``, ``12 trials``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(words: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False) or [""]
