"""What is printed of the rounds: makespans, their ratios pair by pair, accuracies with their intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.common import megabytes, spread, table
from benchmarks.makespan.columns import Results

Rounds = Mapping[str, Sequence[Results]]


def report(rounds: Rounds, meanings: Mapping[str, str]) -> str:
    """The whole table, with the meanings of its rows and the differences of the accuracies under it."""
    against = [name for name in ("a", "b") if name in rounds]
    header = ["", "makespan, s", *(f"times faster than ({name})" for name in against)]
    header += ["processor, s", *(f"times less than ({name})" for name in against)]
    header += ["mean accuracy", "peak memory"]
    rows = []
    for name, done in rounds.items():
        cells = [f"({name})"]
        for what in ("seconds", "cpu_seconds"):
            cells.append(spread([getattr(one, what) for one in done], 1))
            for other in against:
                cells.append("" if other == name else spread(ratios(rounds[other], done, what)))
        accuracies = list(by_trial(done).values())
        cells.append(f"{interval(accuracies, 100)} %")
        cells.append(megabytes(max(one.peak_memory_bytes for one in done)))
        rows.append(cells)
    lines = [table(header, rows), ""]
    lines += [f"({name}) {meanings[name]}" for name in rounds]
    lines.append("makespan, processor time and ratios: median (range) over the rounds")
    lines.append("accuracy: mean of the trials, with its 95 % interval over the trials")
    lines += differences(rounds)
    return "\n".join(lines)


def ratios(slower: Sequence[Results], faster: Sequence[Results], what: str = "seconds") -> list[float]:
    """How many times faster, in each round: by the clock, or by processor time (``cpu_seconds``)."""
    return [getattr(one, what) / getattr(other, what) for one, other in zip(slower, faster, strict=True)]


def by_trial(done: Sequence[Results]) -> dict[int, float]:
    """The accuracy of each trial, its mean over the rounds; a trial that diverged is left out."""
    found: dict[int, float] = {}
    for number in done[0].accuracies:
        values = [value for one in done if (value := one.accuracies[number]) is not None]
        if values:
            found[number] = statistics.fmean(values)
    return found


def interval(values: Sequence[float], scale: float = 1.0) -> str:
    """The mean and half of its 95 % interval, by Student's t: ``81.20 ± 1.10``."""
    mean = statistics.fmean(values) * scale
    if len(values) < 2:
        return f"{mean:.2f} ± ?"
    return f"{mean:.2f} ± {half_width(values) * scale:.2f}"


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean."""
    from scipy.stats import t

    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(t.ppf(0.975, len(values) - 1)) * error


def differences(rounds: Rounds) -> list[str]:
    """The accuracies of the same trials against those of (b), trial by trial, and how many diverged."""
    lines = []
    for name, done in rounds.items():
        own = by_trial(done)
        lost = len(done[0].accuracies) - len(own)
        if lost:
            lines.append(f"({name}) {lost} of the trials diverged, and are in no mean")
        if name == "b" or "b" not in rounds:
            continue
        other = by_trial(rounds["b"])
        pairs = [own[number] - other[number] for number in own if number in other]
        lines.append(f"({name}) minus (b), trial by trial: {interval(pairs, 100)} points of accuracy")
    return lines
