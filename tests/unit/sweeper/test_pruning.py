"""Pruning from values alone, against hand-made cases and against Optuna's own pruners."""

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from sweeper.pruning import should_prune
from sweeper.study import Pruner

HALVING = Pruner("successive_halving", {"minimum": 1, "reduction_factor": 3})
MEDIAN = Pruner("median", {"minimum": 1, "n_startup_trials": 2})
VALUES = st.floats(-10, 10, allow_nan=False).map(lambda value: round(value, 3))
CURVES = st.lists(st.lists(VALUES, min_size=1, max_size=9), min_size=1, max_size=9)


def test_none_never_prunes() -> None:
    assert not should_prune(Pruner("none", {}), "maximize", {1: [0.0], 2: [9.0]}, 1)


def test_successive_halving_keeps_the_best_third_at_a_rung() -> None:
    curves = {place: [float(place)] for place in range(6)}
    assert [should_prune(HALVING, "maximize", curves, place) for place in range(6)] == [True] * 4 + [
        False
    ] * 2
    assert [should_prune(HALVING, "minimize", curves, place) for place in range(6)] == [False] * 2 + [
        True
    ] * 4


def test_successive_halving_decides_at_rungs_only() -> None:
    curves = {1: [1.0, 1.0], 2: [2.0, 2.0], 3: [3.0, 3.0]}
    assert not should_prune(HALVING, "maximize", curves, 1)
    third = {place: [*curve, curve[0]] for place, curve in curves.items()}
    assert should_prune(HALVING, "maximize", third, 1)


def test_the_first_trial_of_a_study_is_never_pruned() -> None:
    assert not should_prune(HALVING, "maximize", {1: [-5.0]}, 1)
    assert not should_prune(MEDIAN, "maximize", {1: [-5.0]}, 1)


def test_median_waits_for_its_startup_trials() -> None:
    assert not should_prune(MEDIAN, "maximize", {1: [0.0], 2: [5.0]}, 1)
    assert should_prune(MEDIAN, "maximize", {1: [0.0], 2: [5.0], 3: [7.0]}, 1)
    assert not should_prune(MEDIAN, "minimize", {1: [0.0], 2: [5.0], 3: [7.0]}, 1)


def test_an_unknown_pruner_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="hyperspace"):
        should_prune(Pruner("hyperspace", {}), "maximize", {1: [0.0]}, 1)


def optuna_says(
    pruner: optuna.pruners.BasePruner, direction: str, curves: dict[int, list[float]], place: int
) -> bool:
    """What Optuna's pruner answers after it was asked at each evaluation, as it expects to be."""
    study = optuna.create_study(direction=direction, pruner=pruner, storage=optuna.storages.InMemoryStorage())
    trials = {other: study.ask() for other in curves if other != place}
    for other, trial in trials.items():
        for evaluation, value in enumerate(curves[other], start=1):
            trial.report(value, evaluation)
            trial.should_prune()
        study.tell(trial, curves[other][-1], state=TrialState.COMPLETE)
    own = study.ask()
    answer = False
    for evaluation, value in enumerate(curves[place], start=1):
        own.report(value, evaluation)
        answer = own.should_prune()
    return answer


@given(CURVES, st.sampled_from(["maximize", "minimize"]))
def test_successive_halving_is_optunas_where_all_trials_pass_the_earlier_rungs(
    curves: list[list[float]], direction: str
) -> None:
    by_place = dict(enumerate(curve[:1] for curve in curves))
    theirs = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    assert should_prune(HALVING, direction, by_place, 0) == optuna_says(theirs, direction, by_place, 0)


@given(CURVES, st.sampled_from(["maximize", "minimize"]), st.integers(0, 3))
def test_median_is_optunas(curves: list[list[float]], direction: str, startup: int) -> None:
    by_place = dict(enumerate(curves))
    length = len(curves[0])
    reached = sum(len(curve) >= length for curve in curves[1:])
    pruner = Pruner("median", {"minimum": 1, "n_startup_trials": startup})
    theirs = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=0)
    ours = should_prune(pruner, direction, by_place, 0)
    if reached >= startup:  # Optuna counts finished trials, we count those that got this far
        assert ours == optuna_says(theirs, direction, by_place, 0)
    else:
        assert not ours


def test_values_are_compared_not_their_order_of_arrival() -> None:
    curves = {1: [0.9], 2: [0.1], 3: [0.5]}
    shuffled = {3: [0.5], 2: [0.1], 1: [0.9]}
    assert all(
        should_prune(HALVING, "maximize", curves, place) == should_prune(HALVING, "maximize", shuffled, place)
        for place in curves
    )
    assert not math.isnan(curves[1][0])
