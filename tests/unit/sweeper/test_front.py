"""Fronts and their order, against what their definitions say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sweeper.front
from sweeper.front import Point, dominates, front_of, fronts, ranked

POINTS = st.integers(1, 3).flatmap(
    lambda size: st.lists(st.tuples(*[st.integers(0, 4).map(float)] * size), max_size=14)
)


def peeled(points: list[Point]) -> list[list[int]]:
    """The definition: what none of those left dominates, again and again."""
    left, found = list(range(len(points))), []
    while left:
        front = [one for one in left if not any(dominates(points[other], points[one]) for other in left)]
        found.append(front)
        left = [one for one in left if one not in front]
    return found


@given(POINTS)
def test_fronts_are_those_of_the_definition(points: list[Point]) -> None:
    assert fronts(points) == peeled(points)


@given(POINTS)
def test_the_first_front_has_each_point_once_and_of_equals_the_first(points: list[Point]) -> None:
    first = peeled(points)[0] if points else []
    assert front_of(points) == [one for one in first if points.index(points[one]) == one]


@given(POINTS)
def test_the_order_goes_front_by_front_and_then_to_the_farthest(points: list[Point]) -> None:
    order = ranked(points)
    for front in peeled(points):
        mine, order = order[: len(front)], order[len(front) :]
        assert sorted(mine) == front and points[mine[0]] == max(points[one] for one in front)
        spans = [max(values) - min(values) or 1.0 for values in zip(*points, strict=True)]

        def gap(one: int, taken: list[int], spans: list[float] = spans) -> float:
            return min(
                sum(((a - b) / s) ** 2 for a, b, s in zip(points[one], points[other], spans, strict=True))
                for other in taken
            )

        for position in range(1, len(mine)):
            taken, rest = mine[:position], mine[position:]
            assert gap(mine[position], taken) == max(gap(one, taken) for one in rest)
    assert order == []


def test_thousands_are_sorted_without_comparing_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = [0]

    def counted(one: Any, other: Any) -> bool:
        compared[0] += 1
        return dominates(one, other)

    monkeypatch.setattr(sweeper.front, "dominates", counted)
    assert fronts([(float(value),) for value in range(5000)]) == [[value] for value in reversed(range(5000))]
    assert 0 < compared[0] < 20 * 5000
    assert ranked([(float(value % 7), float(-value)) for value in range(400)])[0] == 6
