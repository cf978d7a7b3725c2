"""How a study went: the curve of every trial, and which worker trained what when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.figures import style
from sweeper.finalists import default_of
from sweeper.results import Results
from sweeper.session import REFERENCE_HEAD
from sweeper.study.schema import Fixed

if TYPE_CHECKING:
    from sweeper.ledger import AttemptRow, TrialView

_OUTCOMES = {
    "complete": "complete",
    "pruned": "pruned",
    "failed": "failed",
    "raised": "failed: it raised",
    "out_of_memory": "failed: it did not fit",
    "lost": "lost: its worker died or hung",
    "handed_back": "handed back: interrupted or paused",
    "running": "running",
}
_DARK = ("complete", "failed", "raised", "out_of_memory", "lost")
_UNITS = (("hours", 3600.0, 7200.0), ("minutes", 60.0, 180.0), ("seconds", 1.0, 0.0))


def curves(results: Results) -> dict[str, Any]:
    """The objective over epochs; pruned trials end in a cross."""
    goal, best = results.goals[0], results.best
    drawn = [t for t in results.trials if results.curves.get(t.place_id)]
    if not drawn:
        return style.empty("No trial was evaluated yet", "Curves appear with the first evaluation.")
    default = default_of(results.searched)
    others = [t for t in drawn if t.kind == "search" and t not in (best, default)]
    head = [t for t in drawn if t.label == REFERENCE_HEAD]
    groups = (
        ("other trials", {"color": style.SKY, "width": 1.5}, [t for t in others if t.state != "pruned"]),
        ("pruned", {"color": style.ORANGE, "width": 1.5}, [t for t in others if t.state == "pruned"]),
        ("head alone, no adapter", {"color": style.INK, "width": 2, "dash": "dot"}, head),
        (
            style.default_name(default),
            {"color": style.RED, "width": 3},
            [t for t in (default,) if t in drawn],
        ),
        ("best", {"color": style.BLUE, "width": 3}, [t for t in (best,) if t in drawn]),
    )
    data = [_curve(results, name, line, members) for name, line, members in groups if members]
    ends = [t for t in drawn if t.state == "pruned"]
    if ends:
        data.append(_crosses(results, ends))
    shape = style.layout(
        _curves_title(results),
        xaxis=style.axis("epoch", rangemode="tozero"),
        yaxis=style.axis(f"validation {goal.metric}"),
        hovermode="closest",
    )
    return {"data": data, "layout": shape}


def _curves_title(results: Results) -> str:
    # What was past a limit was pruned, but never trained.
    done = [t for t in results.searched if t.state in ("pruned", "complete") and not t.was_refused]
    pruned = [trial for trial in done if trial.state == "pruned"]
    if not pruned:
        return f"{style.plural(len(results.complete), 'trial')} trained to the end, none stopped early"
    whole = sum(_planned(results, trial) for trial in done)
    saved = sum(_planned(results, trial) - len(results.curves.get(trial.place_id, ())) for trial in pruned)
    share = f", which left out {saved / whole:.0%} of all evaluations" if saved else ""
    return f"{len(pruned)} of {style.plural(len(results.searched), 'trial')} were stopped early{share}"


def _planned(results: Results, trial: TrialView) -> int:
    """How many evaluations a trial has that is not stopped early."""
    spec, train = results.study.search.get("epochs"), results.study.train
    fixed = spec.value if isinstance(spec, Fixed) else train.epochs
    return int(trial.params.get("epochs", fixed)) * train.evaluations_per_epoch


def _curve(results: Results, name: str, line: dict[str, Any], members: Sequence[TrialView]) -> dict[str, Any]:
    """The curves of several trials as one trace, with gaps between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    said: list[str] = []
    for trial in members:
        points = results.curves[trial.place_id]
        x += [*(epoch for epoch, _ in points), None]
        y += [*(value for _, value in points), None]
        said += [style.hover(trial, results.goals)] * (len(points) + 1)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": x,
        "y": y,
        "line": line,
        "marker": {"size": 5, "color": line["color"]},
        "text": said,
        "hovertemplate": "epoch %{x}: %{y:.4g}<br>%{text}<extra></extra>",
        "connectgaps": False,
    }


def _crosses(results: Results, trials: Sequence[TrialView]) -> dict[str, Any]:
    ends = [results.curves[trial.place_id][-1] for trial in trials]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "stopped here",
        "x": [epoch for epoch, _ in ends],
        "y": [value for _, value in ends],
        "marker": {"symbol": "x", "size": 9, "color": style.ORANGE, "line": {"width": 1, "color": "#FFFFFF"}},
        "text": [style.hover(trial, results.goals) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
    }


def timeline(results: Results) -> dict[str, Any]:
    """Which worker trained what, from when to when; a row is a worker's slot."""
    attempts = [a for a in results.attempts if a.trial is not None and a.was_trained]
    if not attempts:
        return style.empty("Nothing was trained yet", "The timeline appears with the first trial.")
    start = min(a.started_at for a in attempts)
    whole = max(a.ended_at for a in attempts) - start
    unit, seconds = next((name, size) for name, size, least in _UNITS if whole >= least)
    rows = lanes(attempts)
    data = []
    for outcome, name in _OUTCOMES.items():
        members = [(a, lane) for a, lane in rows if a.outcome == outcome]
        if members:
            data.append(_bars(members, outcome, name, start, seconds))
    names = list(dict.fromkeys(sorted((lane for _, lane in rows), reverse=True)))
    shape = style.layout(
        _timeline_title(attempts, whole),
        height=110 + 34 * len(names),
        xaxis=style.axis(f"{unit} since the first trial began", rangemode="tozero"),
        yaxis=style.axis(
            "", type="category", categoryorder="array", categoryarray=[_lane(n) for n in names], ticks=""
        ),
        barmode="overlay",
        bargap=0.25,
        hovermode="closest",
    )
    style.legend_on_top(shape)
    return {"data": data, "layout": shape}


def _timeline_title(attempts: Sequence[AttemptRow], whole: float) -> str:
    from sweeper.terminal import duration

    workers = style.plural(len({a.worker for a in attempts}), "worker")
    trained = style.plural(len({a.trial for a in attempts}), "run")
    again = len(attempts) - len({a.trial for a in attempts})
    more = "" if not again else f"; {style.plural(again, 'attempt')} more after interruptions or failures"
    return f"{workers} trained {trained} in {duration(whole)}{more}"


def lanes(attempts: Sequence[AttemptRow]) -> list[tuple[AttemptRow, tuple[str, int]]]:
    """Each attempt with its row: its worker, and the first slot of it that is free, counted from 1.

    The ledger keeps no slots: what a worker trained at the same time is put into rows of its own.
    """
    free: dict[str, list[float]] = {}
    placed = []
    for attempt in sorted(attempts, key=lambda a: (a.started_at, a.place_id)):
        ends = free.setdefault(_worker(attempt), [])
        slot = next((i for i, end in enumerate(ends) if end <= attempt.started_at), len(ends))
        ends[slot : slot + 1] = [attempt.ended_at]
        placed.append((attempt, (_worker(attempt), slot + 1)))
    return placed


def _short_name(name: str) -> str:
    """``7`` of ``trial-0007``, ``head`` of ``reference-head``."""
    digits = name.removeprefix("trial-")
    return str(int(digits)) if digits.isdigit() else name.removeprefix("reference-")


def _worker(attempt: AttemptRow) -> str:
    return f"{attempt.worker} ({attempt.device})"


def _lane(lane: tuple[str, int]) -> str:
    return style.escaped(lane[0] if lane[1] == 1 else f"{lane[0]}, slot {lane[1]}")


def _bars(
    members: Sequence[tuple[AttemptRow, tuple[str, int]]], outcome: str, name: str, start: float, unit: float
) -> dict[str, Any]:
    from sweeper.terminal import duration

    color = style.STATE_COLORS[outcome]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [_lane(lane) for _, lane in members],
        "base": [(a.started_at - start) / unit for a, _ in members],
        "x": [max(0.0, a.ended_at - a.started_at) / unit for a, _ in members],
        "text": [_short_name(a.trial or "") for a, _ in members],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "textfont": {"size": 11, "color": "#FFFFFF" if outcome in _DARK else style.INK},
        "constraintext": "none",
        "customdata": [
            f"{style.escaped(a.trial)}, attempt {a.attempt}: {style.escaped(a.outcome.replace('_', ' '))}<br>"
            f"{duration(a.ended_at - a.started_at)} by {style.escaped(a.worker)} on {style.escaped(a.host)}"
            for a, _ in members
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "marker": {"color": color, "line": {"color": "#FFFFFF", "width": 1}},
    }  # fmt: skip
