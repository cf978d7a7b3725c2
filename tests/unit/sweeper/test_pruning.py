"""Who goes on: against rungs worked out by hand, and the laws that hold for any values."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.front import dominates
from sweeper.pruning import Others, should_prune
from sweeper.study.schema import Pruner

HALVING = Pruner("successive_halving", {"minimum": 1, "reduction_factor": 3})
MEDIAN = Pruner("median", {"minimum": 1, "n_startup_trials": 5})
NONE = Pruner("none", {})
VALUES = st.integers(-5, 5).map(float)
CURVES = st.dictionaries(st.integers(1, 8), st.lists(VALUES, min_size=1, max_size=5), min_size=1)


def rung(*values: float) -> dict[int, list[float]]:
    """Trials 0, 1, … after their first evaluation."""
    return {place: [value] for place, value in enumerate(values)}


@pytest.mark.parametrize(
    ("values", "pruned"),
    [
        ([0.5], []),
        ([0.5, 0.4], [1]),
        ([0.5, 0.6], [0]),
        ([0.5, 0.5], []),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 1, 2, 3]),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [0, 1, 2, 3, 4, 5]),
        ([0.5, 0.5, 0.5, 0.9, 0.9, 0.9], [0, 1, 2]),
    ],
)
def test_halving_lets_the_best_in_three_go_on(values: list[float], pruned: list[int]) -> None:
    curves = rung(*values)
    assert [place for place in curves if should_prune(HALVING, "maximize", curves, place)] == pruned


@pytest.mark.parametrize("minimum", [1, 2])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_halving_decides_at_its_rungs_alone(minimum: int, factor: int) -> None:
    pruner = Pruner("successive_halving", {"minimum": minimum, "reduction_factor": factor})
    rungs = [
        reached
        for reached in range(1, 40)
        if should_prune(pruner, "maximize", {0: [0.0] * reached, 1: [1.0] * 40}, 0)
    ]
    assert rungs == [minimum * factor**k for k in range(10) if minimum * factor**k < 40]


def test_halving_compares_with_those_that_reached_the_rung() -> None:
    curves = {0: [0.1, 0.2, 0.3], 1: [0.9], 2: [0.9, 0.9], 3: [0.1, 0.1, 0.2]}
    assert not should_prune(HALVING, "maximize", curves, 0)
    assert should_prune(HALVING, "maximize", {**curves, 4: [0.0, 0.0, 0.4, 0.0]}, 0)


def test_median_compares_the_best_so_far_with_the_others_here() -> None:
    others = {place: [0.1, value] for place, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5), start=1)}
    assert should_prune(MEDIAN, "maximize", {0: [0.1, 0.29], **others}, 0)
    assert not should_prune(MEDIAN, "maximize", {0: [0.1, 0.3], **others}, 0)
    assert not should_prune(MEDIAN, "maximize", {0: [0.35, 0.0], **others}, 0)
    others.pop(1)
    assert not should_prune(MEDIAN, "maximize", {0: [0.0, 0.0], **others}, 0)


def test_median_begins_at_its_minimum() -> None:
    others = {place: [0.5, 0.5] for place in range(1, 7)}
    pruner = Pruner("median", {"minimum": 2, "n_startup_trials": 5})
    assert not should_prune(pruner, "maximize", {0: [0.0], **others}, 0)
    assert should_prune(pruner, "maximize", {0: [0.0, 0.0], **others}, 0)


def test_an_unknown_pruner_is_an_error() -> None:
    with pytest.raises(ValueError, match="sha"):
        should_prune(Pruner("sha", {}), "maximize", {0: [0.5]}, 0)


@given(curves=CURVES)
def test_the_best_at_every_evaluation_goes_on(curves: dict[int, Sequence[float]]) -> None:
    for place, curve in curves.items():
        others = [c for c in curves.values() if len(c) >= len(curve)]
        if all(curve[-1] >= other[len(curve) - 1] for other in others):
            assert not any(
                should_prune(pruner, "maximize", curves, place) for pruner in (HALVING, MEDIAN, NONE)
            )


@given(curves=CURVES, pruner=st.sampled_from([HALVING, MEDIAN, NONE]))
def test_to_minimize_is_to_maximize_the_opposite(curves: dict[int, list[float]], pruner: Pruner) -> None:
    opposite = {place: [-value for value in curve] for place, curve in curves.items()}
    for place in curves:
        assert should_prune(pruner, "maximize", curves, place) == should_prune(
            pruner, "minimize", opposite, place
        )


@given(curves=CURVES, pruner=st.sampled_from([HALVING, MEDIAN]), better=VALUES)
def test_a_better_last_value_never_hurts(
    curves: dict[int, list[float]], pruner: Pruner, better: float
) -> None:
    place, curve = next(iter(curves.items()))
    improved = {**curves, place: [*curve[:-1], max(curve[-1], better)]}
    if not should_prune(pruner, "maximize", curves, place):
        assert not should_prune(pruner, "maximize", improved, place)


POINTS = st.tuples(st.integers(-3, 3).map(float), st.integers(-3, 3).map(float))


def optunas_decisions(
    pruner: optuna.pruners.BasePruner, direction: str, curves: Sequence[Sequence[float]]
) -> list[list[bool]]:
    """What Optuna's pruner says after every report, each trial trained after the one before it."""
    study = optuna.create_study(pruner=pruner, direction=direction, study_name="films")
    said = []
    for curve in curves:
        trial = study.ask()
        said.append([])
        for step, value in enumerate(curve, start=1):
            trial.report(value, step)
            said[-1].append(trial.should_prune())
            if said[-1][-1]:
                break
        ended = optuna.trial.TrialState.PRUNED if said[-1][-1] else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if said[-1][-1] else curve[-1], state=ended)
    return said


def our_decisions(pruner: Pruner, direction: str, curves: Sequence[Sequence[float]]) -> list[list[bool]]:
    seen: dict[int, list[float]] = {}
    complete: set[int] = set()
    said: list[list[bool]] = []
    for place, curve in enumerate(curves):
        said.append([])
        for value in curve:
            seen.setdefault(place, []).append(value)
            others = Others("films", {}, complete)
            said[-1].append(should_prune(pruner, direction, seen, place, others))
            if said[-1][-1]:
                break
        if not said[-1][-1]:
            complete.add(place)
    return said


PAIRS = {
    "successive_halving": (
        lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        HALVING,
    ),
    "late halving": (
        lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
        Pruner("successive_halving", {"minimum": 2, "reduction_factor": 2}),
    ),
    "hyperband": (
        lambda: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3),
        Pruner("hyperband", {"minimum": 1, "maximum": 9, "reduction_factor": 3}),
    ),
    "median": (
        lambda: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
        Pruner("median", {"minimum": 2, "n_startup_trials": 3}),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=25, deadline=None)
@given(
    curves=st.lists(st.lists(st.integers(0, 9).map(float), min_size=9, max_size=9), min_size=1, max_size=10),
    direction=st.sampled_from(["maximize", "minimize"]),
)
def test_the_decisions_are_those_of_optuna(name: str, curves: list[list[float]], direction: str) -> None:
    theirs, ours = PAIRS[name]
    assert our_decisions(ours, direction, curves) == optunas_decisions(theirs(), direction, curves)


def test_with_two_objectives_the_non_dominated_go_on() -> None:
    """Two fronts of three: (3, 1), (2, 2), (1, 3) and what each of them beats."""
    values = [(3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (2.0, 0.0), (1.0, 1.0), (0.0, 2.0)]
    pruner = Pruner("successive_halving", {"minimum": 1, "reduction_factor": 2})
    both = ("maximize", "maximize")
    curves = {place: [value] for place, value in enumerate(values)}
    assert [place for place in curves if should_prune(pruner, both, curves, place)] == [3, 4, 5]
    # Of one front alone, the ends and not the middle go on: they cover it.
    front = {place: [value] for place, value in enumerate(values[:3])} | {9: [(2.1, 1.9)]}
    assert [place for place in front if should_prune(pruner, both, front, place)] == [1, 9]
    smaller = {place: [(a, -b)] for place, [(a, b)] in curves.items()}
    assert [place for place in smaller if should_prune(pruner, ("maximize", "minimize"), smaller, place)] == [
        3,
        4,
        5,
    ]


@given(points=st.lists(POINTS, min_size=1, max_size=9), factor=st.integers(2, 4))
def test_who_goes_on_is_dominated_by_nobody_who_does_not(
    points: list[tuple[float, float]], factor: int
) -> None:
    pruner = Pruner("successive_halving", {"minimum": 1, "reduction_factor": factor})
    curves = {place: [point] for place, point in enumerate(points)}
    both = ("maximize", "maximize")
    pruned = {place for place in curves if should_prune(pruner, both, curves, place)}
    going_on = [point for place, point in enumerate(points) if place not in pruned]
    assert going_on
    assert not any(dominates(points[place], point) for place in pruned for point in going_on)


@pytest.mark.parametrize("name", ["successive_halving", "hyperband"])
@given(curves=CURVES, factor=st.integers(2, 4))
def test_several_objectives_that_agree_decide_as_one(
    name: str, curves: dict[int, list[float]], factor: int
) -> None:
    pruner = Pruner(name, {"minimum": 1, "maximum": 5, "reduction_factor": factor})
    twice = {place: [(value, value) for value in curve] for place, curve in curves.items()}
    for place in curves:
        assert should_prune(pruner, "maximize", curves, place) == should_prune(
            pruner, ["maximize", "maximize"], twice, place
        )


def test_several_objectives_have_no_median() -> None:
    with pytest.raises(ValueError, match="no median"):
        should_prune(MEDIAN, ["maximize", "minimize"], {0: [(0.5, 1.0)]}, 0)
