"""Which of several points are better, where better has several directions: fronts, their order, their volume.

Everything here takes points of which more is better in every coordinate (see :func:`upward`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Point = tuple[float, ...]


def objectives_of(spec: Mapping[str, Any]) -> list[dict[str, str]]:
    """The objectives of a study as the store has it: ``{"metric": …, "direction": …}`` each, one or more."""
    found = spec["objective"]
    return list(found) if isinstance(found, list) else [found]


def values_of(
    names: Sequence[str], metrics: Mapping[str, float], trainable_parameters: int | None
) -> Point | None:
    """The values of objectives, by their metrics' names, of one trial; None if it lacks one of them."""
    known = {**metrics}
    if trainable_parameters is not None:
        known["trainable_parameters"] = float(trainable_parameters)
    return tuple(known[name] for name in names) if all(name in known for name in names) else None


def upward(point: Iterable[float], directions: Sequence[str]) -> Point:
    """A point turned so that more is better in every coordinate."""
    return tuple(
        value if direction == "maximize" else -value
        for value, direction in zip(point, directions, strict=True)
    )


def dominates(one: Point, other: Point) -> bool:
    """Whether one is nowhere worse than the other, and somewhere better."""
    return one != other and all(mine >= theirs for mine, theirs in zip(one, other, strict=True))


def fronts(points: Sequence[Point]) -> list[list[int]]:
    """Positions of the points by front: those that none dominates, those that only the former do, and so on.

    The non-dominated sort of NSGA-II (Deb et al. 2002).
    """
    left = list(range(len(points)))
    found = []
    while left:
        front = [one for one in left if not any(dominates(points[other], points[one]) for other in left)]
        found.append(front)
        members = set(front)
        left = [one for one in left if one not in members]
    return found


def ranked(points: Sequence[Point]) -> list[int]:
    """All positions, best first: by front, and within a front so that those taken so far cover it.

    The order within a front is that of an epsilon net, as MO-ASHA has it (Schmucker et al. 2021): the best of
    the first coordinate, and then always the one farthest from those before it, each coordinate scaled to
    the range of all points.
    """
    spans = [max(values) - min(values) or 1.0 for values in zip(*points, strict=True)]
    order: list[int] = []
    for front in fronts(points):
        left = sorted(front, key=lambda one: (tuple(-value for value in points[one]), one))
        taken = [left.pop(0)]
        while left:
            gaps = [min(_distance(points[one], points[other], spans) for other in taken) for one in left]
            taken.append(left.pop(gaps.index(max(gaps))))
        order += taken
    return order


def _distance(one: Point, other: Point, spans: Sequence[float]) -> float:
    return sum(((a - b) / span) ** 2 for a, b, span in zip(one, other, spans, strict=True))


def front_of(points: Sequence[Point]) -> list[int]:
    """Positions of the points that none dominates, in the order in which they came; of equals the first."""
    seen: set[Point] = set()
    found = []
    for position in fronts(points)[0] if points else []:
        if points[position] not in seen:
            seen.add(points[position])
            found.append(position)
    return found
