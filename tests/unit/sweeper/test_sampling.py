"""Samplers by their names, seeded per trial, and grids that visit each point once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.architectures import sites
from adapters.config import AdapterConfig
from adapters.count import adapter_parameters
from adapters.flops import flops_per_token
from benchmarks.flops import shape_of, step_flops
from sweeper import space
from sweeper.budget import standing_still, why_over
from sweeper.ledger import TrialView
from sweeper.sampling import build, grid_points, sampler_of
from sweeper.study import Study, from_dict
from tests.tiny_folder import study_data

optuna.logging.set_verbosity(optuna.logging.ERROR)
GRID = {
    "bottleneck_dim": {"from": 2, "to": 8, "step": 3},
    "activation": ["relu", "gelu"],
    "dropout": {"from": 0.0, "to": 0.3, "step": 0.1},
    "layers": ["all", [0, 2]],
}


def study_of(**overrides: Any) -> Study:
    return from_dict({**study_data(), **overrides}, Path("/nowhere/study.yaml"))


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        ("tpe", optuna.samplers.TPESampler),
        ({"name": "tpe", "multivariate": True, "n_ei_candidates": 8}, optuna.samplers.TPESampler),
        ("random", optuna.samplers.RandomSampler),
        ({"name": "gp", "n_startup_trials": 2}, optuna.samplers.GPSampler),
        ({"name": "nsgaii", "population_size": 4, "mutation_prob": 0.2}, optuna.samplers.NSGAIISampler),
    ],
)
def test_a_sampler_draws_the_same_for_the_same_trial(sampler: Any, kind: type) -> None:
    study = study_of(sampler=sampler)
    drawn = []
    for _ in range(2):
        trials = optuna.create_study(direction="maximize")
        drawn.append([])
        for number in range(6):
            trials.sampler = sampler_of(study, study.seed, number)
            assert isinstance(trials.sampler, kind)
            trial = trials.ask()
            drawn[-1].append(space.suggest(trial, study))
            trials.tell(trial, float(number))
    assert drawn[0] == drawn[1]
    assert len({str(params) for params in drawn[0]}) > 3


@pytest.mark.parametrize(
    ("options", "conditional", "grouped"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"multivariate": True}, True, True),
        ({"multivariate": False}, True, False),
        ({"group": False}, True, False),
        ({"group": True}, False, True),
    ],
)
def test_tpe_groups_what_occurs_together_unless_the_study_says_no(
    options: dict[str, bool], conditional: bool, grouped: bool
) -> None:
    sampler = study_of(sampler={"name": "tpe", **options}).sampler
    made = build(sampler, 0, 0, conditional=conditional)
    assert isinstance(made, optuna.samplers.TPESampler)
    assert made._group is grouped
    assert made._multivariate is (True if grouped else options.get("multivariate"))


def test_a_grid_of_a_billion_points_is_made_of_those_that_are_trained() -> None:
    axis = {"from": 0, "to": 1_000_000_000, "step": 1}
    study = study_of(search={"method": "lora", "rank": 4, "weight_decay": axis}, sampler="grid")
    points = grid_points(study, space.default_params(study, 32), 3, lambda point: True)
    assert len({point["weight_decay"] for point in points}) == 3


@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), more=st.integers(0, 30))
def test_a_grid_visits_each_point_once_and_grows(seed: int, count: int, more: int) -> None:
    study = study_of(search=GRID, sampler="grid", seed=seed)
    assert space.size(study) == 48
    first = space.default_params(study, 32)
    points = grid_points(study, first, count, lambda point: True)
    assert points[0] == first and len(points) == min(count, 48)
    assert len({str(sorted(point.items())) for point in points}) == len(points)
    for point in points:
        space.check_params(study, point)
    assert grid_points(study, first, count + more, lambda point: True)[: len(points)] == points
    # What is not allowed is left out, the first point too; the others come in the same order.
    allowed = [point for point in grid_points(study, first, 48, lambda point: True) if point["dropout"] > 0]
    assert grid_points(study, first, count, lambda point: point["dropout"] > 0) == allowed[:count]


def test_what_a_token_costs_is_what_a_step_of_one_token_costs_without_attention() -> None:
    """The figures of the benchmarks are of texts: of one token each they lack only the adapter's own part."""
    from transformers import BertConfig

    config = BertConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64)
    for layers in ("all", "upper_half"):
        for placement in ("pfeiffer", "houlsby"):
            adapter = AdapterConfig(bottleneck_dim=4, placement=placement, layers=layers)
            frozen = flops_per_token(adapter, config) - 6 * adapter_parameters(adapter, 32, 4)
            # Of attention: forward in four layers, backward in those wholly above the lowest site.
            above = 4 - 1 - sites(adapter, 4)[0].layer
            assert frozen == step_flops(shape_of(config), [1], adapter) - 4 * 4 * 32 - above * 8 * 32
    ladder = AdapterConfig(method="ladder", bottleneck_dim=4)
    assert flops_per_token(ladder, config) < flops_per_token(AdapterConfig(bottleneck_dim=4), config)
    assert flops_per_token(None, config) < flops_per_token(ladder, config)


@pytest.mark.parametrize(
    ("points", "count"),
    [
        ([], 0),
        ([None, None], 0),
        ([(1.0,), (0.5,), None, (1.0,)], 3),
        ([(1.0,), (0.5,), (2.0,)], 0),
        ([(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.4, 0.4), None], 2),
        ([(1.0, 0.0), (2.0, 2.0), (1.5, 1.5)], 1),
    ],
)
def test_how_long_a_study_stands_still(points: list[tuple[float, ...] | None], count: int) -> None:
    assert standing_still(points) == count


def trial(state: str, objective: float | None, reason: str | None = None) -> TrialView:
    known = {"kind": "search", "state": state, "objective": objective, "reason": reason, "place_id": 0}
    return TrialView(**{**dict.fromkeys(TrialView.__dataclass_fields__), **known})


@pytest.mark.parametrize(("patience", "said"), [(1, "1 trial"), (2, "2 trials in a row")])
def test_patience_says_how_many_trials_were_no_better(patience: int, said: str) -> None:
    study = study_of(budget={"trials": 9, "patience": patience})
    past = trial("pruned", None, "7 trainable parameters past the limit")
    trials = [trial("complete", 0.9), past, *[trial("complete", 0.5)] * patience]
    assert why_over(study, trials[:-1]) is None
    assert why_over(study, trials) == f"{said} brought no better one, and budget.patience is {patience}"
