"""Tables and summaries for the terminal. Everything here only formats: the numbers come from the ledger."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.console import Output, one_line

_EXACT = 2.0**53  # up to which a float holds every whole number
COUNTED = ("complete", "running", "waiting", "pruned", "failed", "cancelled")


class Shown(str):
    """A number as people read it, that a table still sorts by its value."""

    value: float

    def __new__(cls, text: str, value: float) -> Shown:
        made = super().__new__(cls, text)
        made.value = value
        return made


def trial_name(trial: Mapping[str, Any]) -> str:
    """``trial-0007``, or the label of a reference run, or ``-`` for a place that has neither."""
    if trial["number"] is not None:
        return f"trial-{trial['number']:04d}"
    return str(trial.get("label") or "-")


def number(value: Any) -> str:
    """A measured number for people: six significant digits; counts whole, with separators, floats or not."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return one_line(value)
    if isinstance(value, float) and not (1000 <= abs(value) < _EXACT and value.is_integer()):
        return Shown(f"{value:.6g}", value)
    return Shown(f"{int(value):,}", value)


def brief(value: float | None) -> str:
    """A result to four digits: ``0.8733``, ``3.142e-05``."""
    if value is None:
        return "-"
    plain = value == 0 or 0.001 <= abs(value) < 1000
    return Shown(f"{value:.4f}" if plain else f"{value:.4g}", value)


def percent(value: float | None) -> str:
    return "-" if value is None else Shown(f"{value:.3g} %", value)


def duration(seconds: float | None) -> str:
    """Seconds as people say them: ``41 s``, ``3 min 12 s``, ``2 h 05 min``."""
    return "-" if seconds is None else Shown(_duration(seconds), seconds)


def _duration(seconds: float) -> str:
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def memory(count: float | None) -> str:
    """Bytes as people say them, in binary units."""
    if count is None:
        return "-"
    for unit in ("bytes", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def configuration(params: Mapping[str, Any]) -> str:
    """Parameters on one line: ``bottleneck_dim=24 activation=gelu``."""
    return " ".join(f"{key}={_value(value)}" for key, value in params.items())


def print_status(out: Output, status: Mapping[str, Any]) -> None:
    """One study: its counts, its budget, its best."""
    budget = {key: value for key, value in status["budget"].items() if value is not None}
    because = f" ({one_line(status['ended_because'])})" if status["ended_because"] else ""
    out.data(f"study {status['study']}: {status['state']}{because}")
    out.data(f"trials: {_counts(status)}")
    out.data("budget: " + ", ".join(f"{key} {number(value)}" for key, value in budget.items()))
    best = status["best"]
    if best is None:
        out.data("best: no trial has succeeded so far")
    else:
        size = f"{number(best['trainable_parameters'])} trainable parameters"
        out.data(f"best: {trial_name(best)}, objective {number(best['objective'])}, {size}")
        out.data(f"      {configuration(best['params'])}")
    for trial in status.get("front", ()):
        out.data(f"front: {trial_name(trial)}, {objectives_line(trial)}")
    confirming = status.get("confirming")
    if confirming and confirming["ended"] < confirming["of"]:
        out.data(f"confirming: {confirming['ended']} of {confirming['of']} trainings done")


def objectives_line(trial: Mapping[str, Any]) -> str:
    """Every objective of a trial of a study that has several."""
    return ", ".join(f"{name} {number(value)}" for name, value in trial["objectives"].items())


def _further(trial: Mapping[str, Any], name: str) -> str:
    return number((trial.get("objectives") or {}).get(name))


def print_studies(out: Output, studies: Sequence[Mapping[str, Any]]) -> None:
    """All studies, one a row."""
    if not studies:
        out.note("There is no study yet: start one with `sweeper run FILE`.")
        return
    bests = [
        [
            number(status["best"]["objective"] if status["best"] else None),
            trial_name(status["best"]) if status["best"] else "-",
        ]
        for status in studies
    ]
    counts: list[list[Any]] = [[status["trials"][key] for key in COUNTED] for status in studies]
    names: Sequence[str] = COUNTED
    if not out.fits(["study", "state", *names, "objective", "best"], _beside(studies, counts, bests)):
        names, counts = ["trials"], [[_counts(status)] for status in studies]
    out.table(["study", "state", *names, "objective", "best"], _beside(studies, counts, bests))


def _beside(
    studies: Sequence[Mapping[str, Any]], counts: Sequence[Sequence[Any]], bests: Sequence[Sequence[str]]
) -> list[list[Any]]:
    return [
        [status["study"], status["state"], *count, *best]
        for status, count, best in zip(studies, counts, bests, strict=True)
    ]


def _counts(status: Mapping[str, Any]) -> str:
    return ", ".join(f"{status['trials'][key]} {key}" for key in COUNTED if status["trials"][key])


def print_trials(out: Output, trials: Sequence[Mapping[str, Any]]) -> None:
    """Trials, one a row, with a column for every parameter that any of them has.

    On a terminal that is too narrow for it, the configuration of a trial stands on lines below its row.
    Places of which nothing is known yet are counted.
    """
    listed = [trial for trial in trials if trial_name(trial) != "-" or trial["params"]]
    _print_rows(out, listed)
    if left := len(trials) - len(listed):
        out.note(f"{left} more {'trial waits' if left == 1 else 'trials wait'} for a worker", waiting=left)


def _print_rows(out: Output, trials: Sequence[Mapping[str, Any]]) -> None:
    # A reference has some of the parameters only: the order is that of the trials of the search.
    by_kind = sorted(trials, key=lambda trial: trial["number"] is None)
    keys = list(dict.fromkeys(key for trial in by_kind for key in trial["params"]))
    # The first objective, and the one that is a size, have their columns in any study.
    named = dict.fromkeys(name for trial in trials for name in trial.get("objectives") or ())
    further = [name for name in list(named)[1:] if name != "trainable_parameters"]
    rows = [
        [
            trial_name(trial),
            trial["state"],
            number(trial["objective"]),
            number(trial["trainable_parameters"]),
            percent(trial["trainable_percent"]),
            *(_further(trial, name) for name in further),
            *(_value(trial["params"].get(key, "-")) for key in keys),
            duration(trial["seconds"]),
            trial["reason"] or "",
        ]
        for trial in trials
    ]
    columns = ["trial", "state", "objective", "trainable", "share", *further, *keys, "time", "reason"]
    if out.fits(columns, rows):
        out.table(columns, rows)
        return
    first = 5 + len(further)
    last = first + len(keys)
    lines = aligned([[one_line(cell) for cell in row[:first] + row[last:]] for row in [columns, *rows]])
    wrap = textwrap.TextWrapper(out.width(), subsequent_indent="    ", break_on_hyphens=False)
    shown = [lines[0]]
    for line, trial in zip(lines[1:], trials, strict=True):
        shown += wrap.wrap(line) + wrap.wrap("    " + configuration(trial["params"]))
    out.data("\n".join(shown))


def print_trial(out: Output, trial: Mapping[str, Any], curve: Sequence[float] = ()) -> None:
    """One trial, a fact a line."""
    facts: list[tuple[str, str]] = [("trial", trial_name(trial)), ("state", trial["state"])]
    if trial.get("retry_of") is not None:
        facts.append(("retry of", f"trial-{trial['retry_of']:04d}"))
    if trial["reason"]:
        facts.append(("reason", one_line(trial["reason"])))
    facts.append(("objective", _exact(trial["objective"])))
    if trial.get("objectives"):
        facts.append(("objectives", objectives_line(trial)))
    facts += [(key, _exact(value)) for key, value in trial["metrics"].items()]
    facts += [(key, _value(value)) for key, value in trial["params"].items()]
    for key in ("adapter_parameters", "head_parameters", "trainable_parameters"):
        facts.append((key, number(trial[key])))
    facts.append(("trainable_percent", number(trial["trainable_percent"])))
    facts += [("attempts", number(trial["attempts"])), ("seconds", number(trial["seconds"]))]
    facts += [
        ("device_seconds", number(trial["device_seconds"])),
        ("mlflow_run_id", trial["mlflow_run_id"] or "-"),
    ]
    if curve:
        facts.append(("objective by evaluation", " ".join(number(value) for value in curve)))
    _facts(out, facts)


def print_exports(out: Output, exported: Sequence[Any]) -> None:
    """What ``export`` wrote, and how to use the first of it."""
    from sweeper.summary import this_command

    for entry in exported:
        out.data(f"{entry.folder}: trial-{entry.trial:04d}, {entry.metric} {_exact(entry.value)}")
    first = exported[0].folder
    predict = f"Predict with it: {this_command()} predict {shlex.quote(str(first))} FILE. "
    is_ours = "adapter.yaml" in exported[0].files  # `predict` reads no files of other libraries
    out.note(f"{predict if is_ours else ''}How to load it in Python: {first}/README.md")


def print_predictions(
    out: Output,
    predictions: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    texts: Sequence[Sequence[str]],
) -> None:
    """A prediction a row, beside its texts; what is None in all rows is left out."""
    shown = [name for name in (predictions[0] if predictions else ()) if predictions[0][name] is not None]
    rows = [
        [*(_predicted(row[name]) for name in shown), *(_predicted(part) for part in text)]
        for row, text in zip(predictions, texts, strict=True)
    ]
    out.table([*shown, *columns], rows)


def _predicted(value: Any) -> str:
    """A part of a prediction, or of a text: a label, a number, some of each, or numbers by name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_predicted(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join("-" if item is None else _predicted(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_findings(out: Output, findings: Sequence[Any]) -> None:
    """What ``doctor`` found."""
    signs = {"good": "ok", "note": "note", "broken": "BROKEN"}
    out.table(["state", "what", "found"], [[signs[f.state], f.name, f.found] for f in findings])


def print_leftovers(out: Output, collected: Any) -> None:
    """What ``gc`` removed, or would remove, and what had to stay."""
    gone = collected.removed
    if gone:
        rows = [[entry.kind, memory(entry.bytes), entry.path, entry.why] for entry in gone]
        out.table(["what", "size", "folder", "why"], rows)
    for entry in collected.leftovers:
        if entry.kept_because is not None:
            out.note(f"{entry.kind}: {entry.path} stays: it {entry.kept_because}")
    if not gone:
        out.note("There is nothing to remove.")
        return
    folders = "1 folder" if len(gone) == 1 else f"{len(gone)} folders"
    verb = "would be" if collected.dry_run else "were"
    out.note(f"{memory(collected.bytes)} in {folders} {verb} removed.")


def print_summary(out: Output, summary: Mapping[str, Any]) -> None:
    """What ``run`` ends with: the best adapter, what it is compared with, and how to go on."""
    because = f"; {one_line(summary['ended_because'])}" if summary["ended_because"] else ""
    lines = [f"study {summary['study']}: {summary['state']}, {_counts(summary)}{because}"]
    metric, best = summary["metric"], summary["best"]
    rows = [("best adapter", best), *summary["references"].items()]
    shown = [
        (
            what,
            trial_name(trial) if trial["number"] is not None else "",
            number(trial["metrics"].get(metric, trial["objective"])),
            number(trial["trainable_parameters"]),
            percent(trial["trainable_percent"]),
        )
        for what, trial in rows
        if trial is not None
    ]
    if shown:
        header = ("", "trial", f"validation {metric}", "trainable parameters", "of the backbone")
        lines += ["", *aligned([header, *shown])]
    if len(summary.get("front", ())) > 1:
        lines += ["", "no trial beats these in all objectives:"]
        lines += aligned([(f"  {trial_name(t)}", objectives_line(t)) for t in summary["front"]])
    if best is not None:
        lines += ["", f"best adapter: {configuration(best['params'])}"]
    if summary["next"]:
        lines += ["", "Go on with:", *aligned([(f"  {key}", why) for key, why in summary["next"].items()])]
    out.data("\n".join(lines))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns begin below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _facts(out: Output, facts: Sequence[tuple[str, str]]) -> None:
    if not out.stdout_is_terminal:
        out.data("\n".join(f"{name}\t{value}" for name, value in facts))
        return
    width = max(len(name) for name, _ in facts)
    out.data("\n".join(f"{name:<{width}}  {value}" for name, value in facts))


def _exact(value: Any) -> str:
    """A result to the digit, as MLflow shows it."""
    return "-" if value is None else repr(value) if isinstance(value, float) else number(value)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return one_line(value if isinstance(value, str) else json.dumps(value))
