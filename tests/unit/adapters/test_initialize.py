"""Named initializations: their distributions, and that they depend on their generator alone."""

import math

import pytest
import torch
from torch import nn

from adapters.adapter import build
from adapters.config import INITIALIZATIONS, AdapterConfig
from adapters.errors import AdapterError
from adapters.initialize import initialize
from tests.tiny_models import tiny_config

D, M = 512, 128


def drawn(name, seed=0, dtype=torch.float32):
    down, up = nn.Linear(D, M, dtype=dtype), nn.Linear(M, D, dtype=dtype)
    initialize(name, down, up, torch.Generator().manual_seed(seed))
    return down, up


def assert_uniform(weight, bound):
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_biases_start_at_zero(name):
    down, up = drawn(name)
    assert not down.bias.any()
    assert not up.bias.any()


def test_zero_up():
    down, up = drawn("zero_up")
    assert not up.weight.any()
    assert torch.equal(down.weight, drawn("kaiming")[0].weight)


def test_normal():
    for linear in drawn("normal"):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert linear.weight.abs().max() > 0.06


def test_truncated_normal():
    for linear in drawn("truncated_normal"):
        assert linear.weight.abs().max() <= 0.02
        # A normal cut at two standard deviations has 0.8796 of its spread.
        assert linear.weight.std().item() == pytest.approx(0.008796, rel=0.02)


def test_kaiming_and_xavier():
    down, up = drawn("kaiming")
    assert_uniform(down.weight, 1 / math.sqrt(D))
    assert_uniform(up.weight, 1 / math.sqrt(M))
    for linear in drawn("xavier"):
        assert_uniform(linear.weight, math.sqrt(6 / (D + M)))


def test_orthogonal():
    down, up = drawn("orthogonal", dtype=torch.float64)
    identity = torch.eye(M, dtype=torch.float64)
    torch.testing.assert_close(down.weight @ down.weight.T, identity, rtol=0, atol=1e-12)
    torch.testing.assert_close(up.weight.T @ up.weight, identity, rtol=0, atol=1e-12)


def test_an_unknown_name_is_refused():
    with pytest.raises(AdapterError, match="did you mean 'normal'") as caught:
        drawn("norml")
    assert caught.value.field == "initialization"


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_an_adapter_depends_on_its_generator_alone(name):
    config = AdapterConfig(bottleneck_dim=4, initialization=name, placement="houlsby")

    def state(seed):
        return build(config, tiny_config("bert"), torch.Generator().manual_seed(seed)).state_dict()

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = state(7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    with torch.device("meta"):
        second = state(7)
    other = state(8)
    assert all(value.dtype == torch.float32 and value.device.type == "cpu" for value in first.values())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    weights = [value for key, value in first.items() if key.endswith("down.weight")]
    assert not torch.equal(weights[0], weights[1])


def test_an_adapter_is_fp32_whatever_the_default_is():
    torch.set_default_dtype(torch.float64)
    try:
        adapter = build(AdapterConfig(bottleneck_dim=4), tiny_config("bert"), torch.Generator())
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}
