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

    The non-dominated sort of NSGA-II (Deb et al. 2002), as Zhang et al. (2015) do it: points come in an order
    in which none is dominated by a later one, and the front of each is found by bisection.
    """
    found: list[list[int]] = []
    for one in sorted(range(len(points)), key=lambda one: tuple(-value for value in points[one])):
        low, high = 0, len(found)
        while low < high:
            middle = (low + high) // 2
            if any(dominates(points[other], points[one]) for other in reversed(found[middle])):
                low = middle + 1
            else:
                high = middle
        if low == len(found):
            found.append([])
        found[low].append(one)
    return [sorted(front) for front in found]


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
        last = left.pop(0)
        order.append(last)
        gaps = [float("inf")] * len(left)
        while left:
            gaps = [
                min(gap, _distance(points[one], points[last], spans))
                for gap, one in zip(gaps, left, strict=True)
            ]
            farthest = gaps.index(max(gaps))
            gaps.pop(farthest)
            last = left.pop(farthest)
            order.append(last)
    return order


def _distance(one: Point, other: Point, spans: Sequence[float]) -> float:
    return sum(((a - b) / span) ** 2 for a, b, span in zip(one, other, spans, strict=True))


def front_of(points: Sequence[Point]) -> list[int]:
    """Positions of the points that none dominates, in the order in which they came; of equals the first.

    Takes as many comparisons as there are points times members of the front: each is compared with those that
    are at least as good in the first coordinate and in the front.
    """
    found: list[int] = []
    # In this order no point is beaten by one that comes later.
    for one in sorted(range(len(points)), key=lambda one: (tuple(-value for value in points[one]), one)):
        if not any(
            all(theirs >= mine for theirs, mine in zip(points[other], points[one], strict=True))
            for other in found
        ):
            found.append(one)
    return sorted(found)
