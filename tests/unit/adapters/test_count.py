"""Counts in closed form against the parameters of real modules."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adapters.adapter import build
from adapters.bottleneck import Bottleneck
from adapters.config import LAYER_SETS, PLACEMENTS, AdapterConfig
from adapters.count import adapter_parameters, module_parameters
from adapters.errors import AdapterError
from tests.tiny_models import HIDDEN_SIZE, tiny_config


def parameters_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


@given(st.integers(1, 300), st.integers(1, 300))
@settings(deadline=None)
def test_a_module(hidden_size, bottleneck_dim):
    assert module_parameters(hidden_size, bottleneck_dim) == parameters_of(
        Bottleneck(hidden_size, bottleneck_dim)
    )


@given(
    family=st.sampled_from(["bert", "roberta", "distilbert", "gpt2"]),
    layers=st.integers(1, 9),
    bottleneck_dim=st.integers(1, HIDDEN_SIZE),
    placement=st.sampled_from(PLACEMENTS),
    chosen=st.one_of(st.sampled_from(LAYER_SETS), st.sets(st.integers(0, 8), min_size=1).map(tuple)),
)
@settings(deadline=None)
def test_an_adapter(family, layers, bottleneck_dim, placement, chosen):
    config = AdapterConfig(bottleneck_dim=bottleneck_dim, placement=placement, layers=chosen)
    assume(family != "gpt2" or placement != "pfeiffer_original")
    assume(isinstance(chosen, str) or max(chosen) < layers)
    adapter = build(config, tiny_config(family, layers), torch.Generator())
    assert adapter_parameters(config, HIDDEN_SIZE, layers) == parameters_of(adapter)


@given(
    family=st.sampled_from(["bert", "roberta", "distilbert", "gpt2"]),
    layers=st.integers(1, 9),
    bottleneck_dim=st.integers(1, HIDDEN_SIZE),
    chosen=st.one_of(st.sampled_from(LAYER_SETS), st.sets(st.integers(0, 8), min_size=1).map(tuple)),
)
@settings(deadline=None)
def test_a_ladder(family, layers, bottleneck_dim, chosen):
    config = AdapterConfig(method="ladder", bottleneck_dim=bottleneck_dim, layers=chosen)
    assume(isinstance(chosen, str) or max(chosen) < layers)
    adapter = build(config, tiny_config(family, layers), torch.Generator())
    assert adapter_parameters(config, HIDDEN_SIZE, layers) == parameters_of(adapter)


def test_known_numbers():
    config = AdapterConfig(bottleneck_dim=24)
    assert module_parameters(384, 24) == 2 * 384 * 24 + 384 + 24 == 18_840
    assert adapter_parameters(config, 384, 6) == 113_040


def test_a_layer_out_of_range_is_refused():
    with pytest.raises(AdapterError, match="out of range"):
        adapter_parameters(AdapterConfig(bottleneck_dim=2, layers=(6,)), 384, 6)
