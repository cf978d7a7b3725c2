"""What ``confirm`` found, in words and tables; and in a line, beside the best trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweeper.console import Output
from sweeper.report import number, percent


def print_confirmation(out: Output, said: Mapping[str, Any]) -> None:
    """Every configuration under fresh seeds, and which finalists cannot be told apart."""
    rows = [*said["finalists"], *_compared(said)]
    table = [
        [
            row["name"],
            str(row["seeds"]),
            _spread(row["test"]),
            _interval(row["test"]),
            _spread(row["validation"]),
            number(row["trainable_parameters"]),
            percent(row["trainable_percent"]),
            "-" if row["latency_ms"] is None else f"{row['latency_ms']:.2f} ms",
        ]
        for row in rows
    ]
    metric = said["metric"]
    out.table(
        [
            "",
            "seeds",
            f"test {metric}",
            "95 % interval",
            f"validation {metric}",
            "trainable",
            "share",
            "a text",
        ],
        table,
    )
    for line in conclusions(said):
        out.data(line)


def _compared(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    numbers = [row["number"] for row in said["finalists"]]
    default = said["default"]
    references = [said["head"], said["full"]]
    if default is not None and default["number"] not in [n for n in numbers if n is not None]:
        references.insert(0, default)
    return [row for row in references if row is not None]


def conclusions(said: Mapping[str, Any]) -> list[str]:
    """What follows, a sentence a line."""
    alike, winner = said["alike"], said["winner"]
    lines = []
    if len(said["finalists"]) > 1:
        apart = len(alike) > 1
        lines.append(
            f"Cannot be told apart: {', '.join(alike)} ({said['test_used']})."
            if apart
            else f"{alike[0]} is better than the other finalists ({said['test_used']})."
        )
    smallest = " the smallest of them," if len(alike) > 1 else ""
    less = " (less is better)" if said["direction"] == "minimize" else ""
    reached = f"test {said['metric']} {_spread(winner['test'])}{less}"
    lines.append(f"Confirmed:{smallest} {winner['name']}, {reached}.")
    return lines


def said_beside(said: Mapping[str, Any] | None, study: str, spec: Mapping[str, Any]) -> str:
    """One line for ``best`` and ``export``: what is confirmed, or that nothing is, or can be.

    Args:
        spec: the study as the ledger keeps it.
    """
    if said is None and spec["data"].get("test") is None:
        return "not confirmed on new seeds: the study has no test rows (data.test), which that would need"
    if said is None:
        return f"not confirmed on new seeds and test rows yet: `sweeper confirm {study}` does so"
    test = said["winner"]["test"]
    return (
        f"confirmed: {said['winner']['name']}, test {said['metric']} {_spread(test)} "
        f"over {said['winner']['seeds']} seeds"
    )


def _spread(found: Mapping[str, Any]) -> str:
    sd = "" if found["sd"] is None else f" ± {found['sd']:.4f}"
    return f"{found['mean']:.4f}{sd}"


def _interval(found: Mapping[str, Any]) -> str:
    low_high = found["interval"]
    return "-" if low_high is None else f"{low_high[0]:.4f} to {low_high[1]:.4f}"
