"""The result of a study as Markdown: on the page of its experiment in MLflow, and on that of its parent run.

The page shows the first line above the table of runs, in one line that is cut at the edge of the window; the
rest unfolds. So the first line says which adapter won, at what size, and what it is compared with: once it is
confirmed, under fresh seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.confirmed import conclusions, explanation, table_of
from sweeper.ledger import StudyRow
from sweeper.study import Study
from sweeper.study.layerbits import columns
from sweeper.tasks import task_of
from sweeper.terminal import COUNTED, brief, configuration, number, percent, trial_name

MOST_OF_FRONT = 30
"""Rows of a table for people; MLflow takes 20,000 characters in all."""
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>()#+!|~"})


def note(
    row: StudyRow,
    study: Study,
    summary: Mapping[str, Any],
    links: Mapping[str, str] | None = None,
    confirmed: Mapping[str, Any] | None = None,
) -> str:
    """The Markdown of a study.

    Args:
        summary: what ``summary.summarize`` returns.
        links: addresses within MLflow's pages, by what they show.
        confirmed: what ``finalists.verdict`` says, once all that was to be confirmed has ended.
    """
    chosen = summary["best"] if confirmed is None else confirmed["winner"]
    first = headline(summary) if confirmed is None else confirmed_headline(confirmed)
    first = first.replace("_", "\\_")  # of a metric's name
    ways = " · ".join(f"[{what}]({address})" for what, address in (links or {}).items())
    parts = [
        f"### {first}",
        ways,
        f"`{study.name}`: {_progress(summary)}",
        _comparison(summary),
        _confirmed(confirmed),
        _front(summary),
    ]
    if chosen is not None:
        parts.append(f"The best configuration: {_code(configuration(chosen['params']))}")
        commands = [
            f"sweeper show {study.name} {chosen['number']}",
            f"sweeper export {study.name} --out best",
        ]
        parts.append("\n".join(["```sh", *commands, "```"]))
    parts += [_about(row, study)]
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(summary: Mapping[str, Any]) -> str:
    """Who won, by how much, at what size, in one line of plain text."""
    best, ended = summary["best"], summary["state"] == "ended"
    if best is None:
        return "No trial succeeded" if ended else "No trial has ended yet"
    parts = [
        f"{'Best' if ended else 'Best so far'}: {trial_name(best)}",
        f"{summary['metric']} {brief(best['objective'])}",
        f"{number(best['trainable_parameters'])} parameters ({percent(best['trainable_percent'])})",
    ]
    for what, reference in summary["references"].items():
        word = what.split()[0]
        if (
            reference is not None
            and reference["number"] is not None
            and reference["number"] == best["number"]
        ):
            parts.append(f"is the {word}")
        elif reference is not None:
            parts.append(f"{word} {brief(reference['objective'])}")
    return " · ".join(parts)


def confirmed_headline(said: Mapping[str, Any]) -> str:
    """Which finalist won, what it is worth under fresh seeds, at what size, in one line of plain text."""
    winner = said["winner"]
    test, seeds = winner["test"], winner["seeds"]
    spread = "one seed" if test["sd"] is None else f"± {brief(test['sd'])}, {seeds} seeds"
    parts = [
        f"Confirmed: {winner['name']}",
        f"test {said['metric']} {brief(test['mean'])} ({spread})",
        f"{number(winner['trainable_parameters'])} parameters ({percent(winner['trainable_percent'])})",
    ]
    for word in ("default", "head", "full"):
        if said[word] is not None and said[word]["what"] == winner["what"]:
            parts.append(f"is the {word}")
        elif said[word] is not None:
            parts.append(f"{word} {brief(said[word]['test']['mean'])}")
    return " · ".join(parts)


def _progress(summary: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{summary['trials'][state]} {state}" for state in COUNTED if summary["trials"][state])
    because = f". Ended: {plain(summary['ended_because'])}" if summary["ended_because"] else ""
    return f"{counts or 'no trial'} of {summary['budget']['trials']} trials{because}."


def _comparison(summary: Mapping[str, Any]) -> str:
    best = summary["best"]
    rows = [
        ("**best adapter**", best),
        *((plain(what), trial) for what, trial in summary["references"].items()),
    ]
    header = ["", "run", f"validation {plain(summary['metric'])}", "against best"]
    lines = [
        [
            what,
            trial_name(trial) if trial["number"] is not None else trial["label"],
            brief(trial["objective"]),
            _difference(trial, best),
            number(trial["adapter_parameters"]),
            number(trial["trainable_parameters"]),
            percent(trial["trainable_percent"]),
        ]
        for what, trial in rows
        if trial is not None
    ]
    if not lines:
        return ""
    return _table([*header, "adapter parameters", "trainable", "of the backbone"], lines)


def _confirmed(said: Mapping[str, Any] | None) -> str:
    """The finalists under fresh seeds, how to read that, and what follows."""
    if said is None:
        return ""
    columns, rows = table_of(said)
    table = _table([plain(column) for column in columns], rows)
    words = [plain(line) for line in [explanation(said), *conclusions(said)]]
    return "\n\n".join(["The finalists, trained anew under fresh seeds:", table, *words])


def _front(summary: Mapping[str, Any]) -> str:
    """The trials that no other beats in all objectives, where there are several."""
    front = summary.get("front", ())
    if not front:
        return ""
    names = list(front[0]["objectives"])
    shown = front[:MOST_OF_FRONT]
    rows = [[trial_name(t), *(number(t["objectives"][name]) for name in names)] for t in shown]
    title = "The front:" if len(shown) == len(front) else f"The front, {len(shown)} of {len(front)} trials:"
    return f"{title}\n\n" + _table(["trial", *map(plain, names)], rows)


def _difference(trial: Mapping[str, Any], best: Mapping[str, Any] | None) -> str:
    if best is None or (trial["number"] is not None and trial["number"] == best["number"]):
        return ""
    return f"{trial['objective'] - best['objective']:+.4g}"


def _about(row: StudyRow, study: Study) -> str:
    rows = row.data_report["rows"]
    truncated = sum(row.data_report.get("truncated", {}).values())
    facts = [
        ("backbone", f"{_code(study.backbone.model)}, {number(row.backbone_parameters)} parameters, frozen"),
        ("task", f"{study.task.kind}, {task_of(study.task.kind).read_by(study.task.pooling)}, {row.dtype}"),
        (
            "objective",
            ", ".join(f"{each.direction} {plain(each.metric)}" for each in study.objectives)
            + " of the validation rows",
        ),
        ("rows", ", ".join(f"{count:,} {split}" for split, count in rows.items())),
        ("cut to length", f"{truncated:,} texts of more than {study.train.max_length} tokens"),
        ("search", ", ".join(_code(name) for name in columns(study.searched))),
        ("sampler, pruner, seed", f"{study.sampler.name}, {study.pruner.name}, {study.seed}"),
    ]
    return _table(["study", ""], facts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # MLflow's page sets the columns of a table side by side without any space.
    spaced = [[f"{cell}&emsp;" for cell in row] for row in (header, *rows)]
    lines = [spaced[0], ["---"] * len(header), *spaced[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """Text from the study file as code: no character of it means anything to Markdown."""
    return "`" + text.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"


def plain(text: str) -> str:
    """Text from outside as text."""
    return " ".join(text.split()).translate(_SPECIAL)
