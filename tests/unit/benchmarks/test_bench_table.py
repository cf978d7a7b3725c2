"""The table is read back whole; searches on it are the product's, and cost what they say."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.table.front import SEARCHES as FRONTS
from benchmarks.table.front import shares, two_objectives, volume
from benchmarks.table.make import grid
from benchmarks.table.replay import HERE, SEARCHES, read_grid, regret
from benchmarks.table.rows import Row, read_rows, write_rows
from benchmarks.table.simulate import Table, run, search
from sweeper import space
from sweeper.study import Study
from sweeper.study.schema import Fixed

STUDY = read_grid(HERE / "trec.yaml")
FIRST = space.default_params(STUDY, 384)


def made_up(study: Study = STUDY, noise: float = 0.0) -> Table:
    """A table where curves rise to what the configuration is worth, 10 steps an evaluation."""
    source, rows = random.Random(0), []
    for number, params in enumerate(grid(study)):
        for seed in range(3):
            end = 0.5 + 0.4 * number / 216 + source.gauss(0, noise)
            values = tuple(end - 0.05 * left for left in (5, 4, 3, 2, 1, 0))
            rows.append(Row(seed, params, 1000 + number, (10, 20, 30, 40, 50, 60), values))
    return Table(rows)


def test_the_grid_has_every_configuration_once_and_the_default_is_one() -> None:
    points = [json.dumps(params, sort_keys=True) for params in grid(STUDY)]
    assert len(points) == len(set(points)) == 216
    assert json.dumps(FIRST, sort_keys=True) in points


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    params = {"bottleneck_dim": 4, "activation": "relu", "layers": "[5]", "learning_rate": 0.001}
    rows = [Row(seed, params, 99, (3, 6), (0.25, 0.5)) for seed in (0, 1)]
    rows.append(Row(2, params, 99, (3,), (0.125,)))  # it diverged
    write_rows(tmp_path / "table.csv", rows)
    assert read_rows(tmp_path / "table.csv") == rows


def test_without_a_pruner_each_trial_costs_a_training() -> None:
    found = run(made_up(), STUDY, FIRST, 1, seed=1, steps=600)
    assert all(one.steps % 60 == 0 for one in found) and found[0].steps == 60
    assert found[0].mean == made_up().mean(FIRST)
    assert [one.mean for one in found] == sorted(one.mean for one in found)


@pytest.mark.parametrize("parallel", [1, 4, 16])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_repeats_itself_and_spends_no_more_than_it_may(name: str, parallel: int) -> None:
    study = read_grid(HERE / "trec.yaml", *SEARCHES[name])
    first, again = (run(made_up(noise=0.02), study, FIRST, parallel, seed=3, steps=1200) for _ in range(2))
    assert first == again and first
    assert all(one.steps <= 1200 for one in first)


def test_halving_tries_more_configurations_at_the_same_cost() -> None:
    table = made_up()
    study = read_grid(HERE / "trec.yaml", "random", "successive_halving")
    halved = [run(table, study, FIRST, 1, seed, 1500) for seed in range(10)]
    whole = [run(table, STUDY, FIRST, 1, seed, 1500) for seed in range(10)]
    assert sum(found[-1].mean for found in halved) > sum(found[-1].mean for found in whole)


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_search_that_goes_on_for_long_trains_nothing_twice(parallel: int) -> None:
    fixed = {"learning_rate": Fixed(1e-3), "initialization": Fixed("zero_up")}
    small = replace(STUDY, search={**STUDY.search, **fixed})
    table = made_up(small)
    first = space.default_params(small, 384)
    ended = search(table, small, first, parallel, seed=0, steps=10**6, trials=400)
    worths = [one.mean for one in ended]  # without noise each configuration has its own
    assert sorted(worths) == sorted(mean for mean, _ in table.worths())
    assert ended[-1].steps == 60 * len(table)


def test_regret_is_the_worst_before_any_result_and_then_that_of_the_winner() -> None:
    table = made_up()
    found = run(table, STUDY, FIRST, 1, seed=1, steps=600)
    curve = regret(table, found, 10)
    assert curve[0] == pytest.approx(table.best - table.mean(FIRST))
    assert regret(table, [], 2) == [table.best - table.worst] * 2
    assert len(curve) == 10 and curve == sorted(curve, reverse=True)


@pytest.mark.parametrize("name", FRONTS)
def test_a_front_fills_with_cost_and_never_past_the_whole(name: str) -> None:
    table, study = made_up(), two_objectives(HERE / "trec.yaml", *FRONTS[name])
    ended = search(table, study, FIRST, 4, seed=2, steps=1200)
    curve = shares(table, study, ended, 20)
    # Without noise the chosen front is a true one: it can only grow.
    assert curve == pytest.approx(sorted(curve)) and 0 < curve[-1] <= 1
    for one in ended:
        assert one.values == pytest.approx((one.mean, one.trainable_parameters))


def test_volume_counts_overlapping_areas_once() -> None:
    table = made_up()
    low, high = table.worst + 0.1, table.worst + 0.2
    small, large = 1000, 2 * table.largest
    one = volume(table, [(high, small)])
    assert one == pytest.approx(0.2 * math.log(large / small))
    assert volume(table, [(low, small), (high, small)]) == volume(table, [(high, small), (low, 1100)]) == one
    assert volume(table, [(table.worst, small)]) == volume(table, []) == 0.0
    both = volume(table, [(low, small), (high, 1100)])
    assert both == pytest.approx(0.1 * math.log(large / small) + 0.1 * math.log(large / 1100))
