"""What is counted of a step's tokens: real steps have no padding, and padding would be seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from adapters.config import AdapterConfig
from adapters.pack import Pack
from benchmarks.material import Material
from benchmarks.padding import LAYERS, Watch, backbone, measure, shares
from benchmarks.steps import Steps
from sweeper.slot import Job
from sweeper.trainconfig import TrainConfig


def test_frozen_linears_and_attention_are_counted_and_nothing_else() -> None:
    frozen, trained = nn.Linear(4, 8).requires_grad_(False), nn.Linear(4, 8)
    states = torch.zeros(3, 5, 4)
    with Watch() as watch:
        frozen(states)
        trained(states)
        functional.scaled_dot_product_attention(*[torch.zeros(2, 7, 5, 4)] * 3)
    assert (watch.linears, watch.rows) == (1, 15)
    assert (watch.attention_calls, watch.pairs) == (1, 2 * 25)


def test_a_packed_step_computes_real_tokens_alone(make_material: Callable[[str], Material]) -> None:
    material = make_material("bert")
    model = backbone(int(material.data.train.input_ids.max()) + 1, 32)
    found = measure(material, model, slots=3, steps=2, batch_size=24, seed=0)
    assert found.linears == found.attention == 100.0
    assert found.padded_steps <= found.padded_slots < 100.0
    assert found.groups >= 1


def test_padding_would_be_seen(make_material: Callable[[str], Material]) -> None:
    material = make_material("bert")
    model = backbone(int(material.data.train.input_ids.max()) + 1, 32)
    job = Job(0, 0, 1, AdapterConfig(bottleneck_dim=2), TrainConfig(batch_size=8), seed=0)
    steps = Steps(Pack(model), material, [job])
    steps.run(1)
    [[lengths]] = seen = steps.seen
    longest = int(lengths.max())
    assert int(lengths.min()) < longest
    padded = Watch()
    padded.rows = 6 * LAYERS * longest * len(lengths)
    padded.pairs = LAYERS * longest**2 * len(lengths)
    padded.attention_calls = LAYERS
    found = shares(seen, padded)
    assert found.linears == found.padded_slots < 100.0
    assert found.attention < found.linears
