"""What ``confirm`` found, in words and tables; and in a line, beside the best trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.console import Output
from sweeper.finalists import p_value
from sweeper.terminal import Shown, brief, number, percent

_NARROW = (0, 1, 2, 3, 5)
"""The columns that a terminal of 80 letters has room for."""
_IN_A_SENTENCE = {
    "default": "the default configuration",
    "head": "the head alone",
    "full": "full fine-tuning",
}


def print_confirmation(out: Output, said: Mapping[str, Any]) -> None:
    """Every configuration under fresh seeds, how to read that, and what follows."""
    columns, rows = table_of(said)
    if not out.fits(columns, rows):
        columns, *rows = [[row[at] for at in _NARROW] for row in (columns, *rows)]
    out.table(columns, rows)
    for line in [explanation(said), *conclusions(said)]:
        out.data(line)


def table_of(said: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and a row for each finalist and each reference."""
    metric = said["metric"]
    rows = [
        [
            row["name"],
            number(row["seeds"]),
            _spread(row["test"]),
            _interval(row["test"]),
            _spread(row["validation"]),
            number(row["trainable_parameters"]),
            percent(row["trainable_percent"]),
            _milliseconds(row["latency_ms"]),
        ]
        for row in [*said["finalists"], *_references(said)]
    ]
    names = ["", "seeds", f"test {metric}", "95 % interval", f"validation {metric}", "trainable"]
    return [*names, "of the backbone", "latency"], rows


def _references(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the finalists are compared with, but a default configuration that is one of them."""
    numbers = [row["number"] for row in said["finalists"]]
    found = [said[name] for name in ("default", "head", "full") if said[name] is not None]
    return [row for row in found if row["number"] is None or row["number"] not in numbers]


def explanation(said: Mapping[str, Any]) -> str:
    """How the table is to be read, in a paragraph."""
    if said["winner"]["seeds"] == 1:
        return "One seed has neither a standard deviation nor an interval."
    return (
        "± is the standard deviation over the seeds. The 95 % interval is that of their mean: of 100 such "
        "intervals about 95 hold the mean of all seeds there are. Both tell of chance in training, not of "
        "the choice of test rows."
    )


def conclusions(said: Mapping[str, Any]) -> list[str]:
    """What follows, a line each: who is alike, who is confirmed, and how it compares with the references."""
    lines = [_who_is_alike(said), _who_is_confirmed(said), _against_references(said)]
    return [line for line in lines if line]


def _who_is_alike(said: Mapping[str, Any]) -> str:
    alike, failed, waiting, seeds = said["alike"], said["failed"], said["waiting"], said["compared_seeds"]
    names = [row["name"] for row in said["finalists"]]
    worse = [name for name in names if name not in (*alike, *failed, *waiting)]
    rest = f" {_listed(failed)} failed under a seed, and cannot win." if failed else ""
    if waiting:
        rest += f" {_listed(waiting)} {'is' if len(waiting) == 1 else 'are'} not trained and read to the end."
    if len(names) > 1 and any(row["seeds"] > seeds for row in said["finalists"]):
        shared = "the one seed" if seeds == 1 else f"the {seeds} seeds"
        rest += f" They are compared under {shared} that all have."
    if len(alike) + len(worse) == 1:
        return rest.strip()
    if seeds == 1:
        return f"One seed tells no finalists apart, and the smallest comes first: see --seeds.{rest}"
    if len(alike) == 1:
        return f"{alike[0]} is better than {_listed(worse)} ({said['test_used']}).{rest}"
    apart = f"; {_listed(worse)} {'is' if len(worse) == 1 else 'are'} worse" if worse else ""
    return f"{_listed(alike)} cannot be told apart{apart} ({said['test_used']}).{rest}"


def _who_is_confirmed(said: Mapping[str, Any]) -> str:
    winner = said["winner"]
    smallest = ", the smallest of them" if len(said["alike"]) > 1 else ""
    less = " (less is better)" if said["direction"] == "minimize" else ""
    size = f"{number(winner['trainable_parameters'])} trainable parameters"
    share = f"{percent(winner['trainable_percent'])} of the backbone's"
    reached = f"Test {said['metric']} {_spread(winner['test'])}{less}"
    return f"Confirmed: {winner['name']}{smallest}. {reached}, with {size}, {share}."


def _against_references(said: Mapping[str, Any]) -> str:
    winner = said["winner"]
    parts = [
        _difference(winner["test"], said[what]["test"], name)
        for what, name in _IN_A_SENTENCE.items()
        if said[what] is not None and said[what]["name"] != winner["name"]
    ]
    if not parts:
        return ""
    chance = " Above p = 0.05 (Welch's t-test) chance may make such a difference."
    return f"On the test rows it is {_listed(parts)}.{chance if any('(p' in part for part in parts) else ''}"


def _difference(test: Mapping[str, Any], other: Mapping[str, Any], name: str) -> str:
    by, p = test["mean"] - other["mean"], p_value(test["values"], other["values"])
    said = f"{brief(abs(by))} {'above' if by > 0 else 'below'} {name}" if by else f"level with {name}"
    if test["sd"] is None or other["sd"] is None:
        return said
    return f"{said} (p < 0.001)" if p < 0.001 else f"{said} (p = {p:.2g})"


def _listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def said_beside(said: Mapping[str, Any] | None, study: str, spec: Mapping[str, Any]) -> str:
    """One line for ``best`` and ``export``: what is confirmed, or that nothing is, or can be.

    Args:
        spec: the study as the ledger keeps it.
    """
    if said is None and spec["data"].get("test") is None:
        return "not confirmed on new seeds: the study has no test rows (data.test), which that would need"
    if said is None:
        return f"not confirmed on new seeds and test rows yet: `sweeper confirm {study}` does so"
    test, seeds = said["winner"]["test"], said["winner"]["seeds"]
    return (
        f"confirmed: {said['winner']['name']}, test {said['metric']} {_spread(test)} "
        f"({'one seed' if test['sd'] is None else f'mean ± standard deviation of {seeds} seeds'})"
    )


def _spread(found: Mapping[str, Any]) -> str:
    sd = "" if found["sd"] is None else f" ± {brief(found['sd'])}"
    return Shown(f"{brief(found['mean'])}{sd}", found["mean"])


def _milliseconds(latency: float | None) -> str:
    return "-" if latency is None else Shown(f"{latency:.2f} ms", latency)


def _interval(found: Mapping[str, Any]) -> str:
    low_high = found["interval"]
    return "-" if low_high is None else Shown(" to ".join(map(brief, low_high)), low_high[0])
