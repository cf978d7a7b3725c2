"""The law of a pack: what a trial computes depends on nothing but itself. Alone equals packed.

The packs are drawn: other sizes, activations, placements, depths, rates, schedules, batch sizes and epochs in
each slot, so that trials end and slots are refilled in the middle of their neighbours' epochs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from adapters import AdapterConfig
from adapters.config import (
    ACTIVATIONS,
    INITIALIZATIONS,
    LAYER_SETS,
    METHODS,
    PLACEMENTS,
    fields_of,
    shares_step,
)
from adapters.depth import EMBEDDED, depth_of
from adapters.pack import Pack
from adapters.pairs import default_of
from sweeper.cache import FrozenCache, Layout
from sweeper.data import TaskData
from sweeper.events import Evaluated, Event, Finished, Stepped
from sweeper.slot import Job
from sweeper.train import train
from sweeper.trainconfig import SCHEDULES, TrainConfig
from tests.tiny_models import HIDDEN_SIZE, tiny_model
from tests.unit.sweeper.test_train import DATA, PROBLEM, job, supply

RELATIVE, ABSOLUTE = 1e-9, 1e-12
STEPS = 50
MOMENTARY = {"examples_per_second", "peak_memory_bytes"}
"""What is measured of the machine, not computed by the trial."""


def every_method() -> list[AdapterConfig]:
    """Each method that shares a step, with its defaults, and with dropout if it has any."""
    found = [default_of(method, bottleneck_dim=8) for method in METHODS if method != "head"]
    return [
        replace(config, dropout=0.1) if "dropout" in fields_of(config.method) else config
        for config in found
        if shares_step(config)
    ]


def every_wiring() -> list[AdapterConfig]:
    """The bottleneck in each of its placements, with all that it can train or draw."""
    return [
        AdapterConfig(bottleneck_dim=4, placement=placement, learned_scaling="channel", stochastic_depth=0.2)
        for placement in (*PLACEMENTS, "attention:parallel")
    ]


bottlenecks = st.builds(
    AdapterConfig,
    bottleneck_dim=st.integers(1, HIDDEN_SIZE),
    activation=st.sampled_from(ACTIVATIONS),
    initialization=st.sampled_from(INITIALIZATIONS),
    placement=st.sampled_from([*PLACEMENTS, "attention:parallel", "attention:after+ffn:parallel"]),
    layers=st.sampled_from([*LAYER_SETS, (0,), (1,), (2,), (0, 2), (1, 2)]),
    scaling=st.sampled_from([0.5, 1.0, 2.0]),
    dropout=st.sampled_from([0.0, 0.1, 0.4]),
)


adapters = bottlenecks | st.sampled_from(every_method())


@st.composite
def train_configs(draw: st.DrawFn) -> TrainConfig:
    """About 50 steps at most: more epochs have larger batches."""
    batch_size = draw(st.integers(2, 20))
    steps_an_epoch = math.ceil(len(DATA.train) / batch_size)
    return TrainConfig(
        batch_size=batch_size,
        epochs=draw(st.integers(1, max(1, STEPS // steps_an_epoch))),
        learning_rate=draw(st.floats(1e-4, 5e-3)),
        warmup=draw(st.sampled_from([0.0, 0.1, 0.5])),
        weight_decay=draw(st.sampled_from([0.0, 0.01, 0.1])),
        schedule=draw(st.sampled_from(SCHEDULES)),
        evaluations_per_epoch=draw(st.integers(1, 2)),
        keep=draw(st.sampled_from(["last", "best"])),
    )


@st.composite
def jobs(draw: st.DrawFn) -> list[Job]:
    """Two to six trials; now and then a head alone is among them."""
    return [
        job(
            number,
            adapter=None if draw(st.integers(0, 9)) == 9 else draw(adapters),
            train=draw(train_configs()),
            seed=draw(st.integers(0, 2**31)),
        )
        for number in range(draw(st.integers(2, 6)))
    ]


@dataclass(frozen=True)
class Course:
    """All that a trial computed: its evaluations in their order, and its weights."""

    evaluations: list[tuple[int, int, float, dict[str, float]]]
    finished: Finished

    @property
    def weights(self) -> list[torch.Tensor]:
        modules = [self.finished.head, *([self.finished.adapter] if self.finished.adapter else [])]
        return [parameter for module in modules for parameter in module.parameters()]


def courses(
    data: TaskData, waiting: list[Job], slots: int, family: str = "bert"
) -> tuple[dict[int | None, Course], int]:
    """What became of each trial, by its number; and how many were in the pack at most."""
    pack = Pack(tiny_model(family).double(), slots)
    events: list[Event] = list(train(pack, data, PROBLEM, supply(*waiting), device="cpu"))
    found: dict[int | None, Course] = {}
    for one in waiting:
        evaluations = [
            (event.evaluation, event.step, event.epoch, computed(event.metrics))
            for event in events
            if isinstance(event, Evaluated) and event.job.number == one.number
        ]
        [finished] = [e for e in events if isinstance(e, Finished) and e.job.number == one.number]
        found[one.number] = Course(evaluations, finished)
    return found, max(event.slots for event in events if isinstance(event, Stepped))


def computed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in MOMENTARY}


def assert_equal(one: Course, other: Course) -> None:
    first, second = one.finished, other.finished
    assert (first.outcome, first.evaluation, first.step) == (second.outcome, second.evaluation, second.step)
    assert len(one.evaluations) == len(other.evaluations) == first.job.train.evaluations
    for mine, its in zip(one.evaluations, other.evaluations, strict=True):
        assert mine[:3] == its[:3] and list(mine[3]) == list(its[3])
        for name, value in mine[3].items():
            assert math.isclose(value, its[3][name], rel_tol=RELATIVE, abs_tol=ABSOLUTE), name
    for a, b in zip(one.weights, other.weights, strict=True):
        torch.testing.assert_close(a, b, rtol=RELATIVE, atol=ABSOLUTE)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> TaskData:
    """The data with its frozen states at every depth that an adapter may have."""
    return with_states(tmp_path_factory.mktemp("frozen"))


def with_states(folder: Path) -> TaskData:
    model = tiny_model("bert").double()
    every = [AdapterConfig(bottleneck_dim=1, placement=p, layers=(n,)) for p in PLACEMENTS for n in range(3)]
    depths = {depth_of(adapter, model.config) for adapter in (*every, None)}
    tokens = len(DATA.train.input_ids) + len(DATA.validation.input_ids)
    deep = tuple(sorted((depth for depth in depths if depth != EMBEDDED), reverse=True))
    layout = Layout("backbone", "data", "float64", HIDDEN_SIZE, tokens, deep)
    return FrozenCache(folder, layout).attach(DATA, Pack(model), lambda _: None)


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(waiting=jobs(), slots=st.sampled_from([3, 4, 2, 5, 1]), use_cache=st.booleans())
def test_a_trial_computes_the_same_alone_and_in_any_pack(
    cached: TaskData, waiting: list[Job], slots: int, use_cache: bool
) -> None:
    packed, most = courses(cached if use_cache else DATA, waiting, slots)
    assert most == min(slots, len(waiting))
    for one in waiting:
        alone, _ = courses(DATA, [one], 1)
        assert_equal(packed[one.number], alone[one.number])


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_pack_of_every_method_that_shares_a_step(family: str) -> None:
    # A decoder that normalises first has no norm behind its FFN, and nothing else in its wirings is new.
    configs = every_method() + (every_wiring() if family == "bert" else [])
    four_steps = TrainConfig(batch_size=16, epochs=1, learning_rate=5e-3)
    waiting = [
        job(number, adapter=config, train=four_steps, seed=number)
        for number, config in enumerate([*configs, None])
    ]
    packed, most = courses(DATA, waiting, len(waiting), family)
    assert most == len(waiting)
    for one in waiting:
        alone, _ = courses(DATA, [one], 1, family)
        assert_equal(packed[one.number], alone[one.number])
