"""What a token costs in ALBERT, whose few layers are passed many times."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AlbertConfig, AlbertModel, BertConfig

from adapters import AdapterConfig, AdapterError
from adapters.architectures import layers_passed
from adapters.flops import flops_per_token
from adapters.insert import insert
from tests.tiny_models import HIDDEN_SIZE, tiny_config

UNITS = 4


def albert(passes: int, groups: int = 1) -> AlbertConfig:
    config = tiny_config("albert", passes)
    assert isinstance(config, AlbertConfig)
    config.num_hidden_groups = groups
    return config


def test_an_albert_of_real_size_costs_what_a_bert_of_its_shape_does() -> None:
    sizes = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = AlbertConfig(**sizes, intermediate_size=3072)
    assert flops_per_token(None, config) == flops_per_token(None, BertConfig(**sizes)) == 169_869_312


@pytest.mark.parametrize("passes", [1, 2, 12])
@pytest.mark.parametrize(
    "fields",
    [
        {"bottleneck_dim": UNITS},
        {"bottleneck_dim": UNITS, "placement": "houlsby"},
        {"method": "lora"},
        {"method": "bitfit"},
        {"method": "prefix"},
        {"method": "head"},
    ],
)
def test_weights_that_all_passes_share_cost_what_a_set_for_each_does(
    fields: dict[str, Any], passes: int
) -> None:
    config = AdapterConfig(**fields)
    assert flops_per_token(config, albert(passes)) == flops_per_token(config, tiny_config("bert", passes))


@pytest.mark.parametrize(("passes", "groups"), [(3, 1), (4, 2)])
@pytest.mark.parametrize(("placement", "chosen"), [("pfeiffer", 0), ("houlsby", 0), ("houlsby", -1)])
def test_a_step_costs_what_the_closed_form_says(
    passes: int, groups: int, placement: str, chosen: int
) -> None:
    """Against a counter that watches every product of a real step, of a text of one token."""
    backbone = albert(passes, groups)
    backbone.embedding_size = HIDDEN_SIZE
    layers = tuple(range(groups))[chosen:]
    config = AdapterConfig(bottleneck_dim=UNITS, placement=placement, layers=layers)
    with torch.random.fork_rng(devices=[]):
        model = AlbertModel(backbone, add_pooling_layer=False)
    adapter = insert(model, config, generator=torch.Generator())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.tensor([[7]])).last_hidden_state.sum().backward()
    first = layers_passed(backbone).index(layers[0])
    attention = 4 * HIDDEN_SIZE * passes + 8 * HIDDEN_SIZE * (passes - 1 - first)
    mapping = 2 * HIDDEN_SIZE * HIDDEN_SIZE
    used = passes // groups
    biases = sum(own.numel() for own in adapter.parameters() if own.ndim == 1)
    # No input of the lowest module needs a gradient where it acts first, and a bias is no product.
    own = -6 * used * biases - 2 * HIDDEN_SIZE * UNITS
    assert counter.get_total_flops() == flops_per_token(config, backbone) + own + attention + mapping


def test_layers_are_passed_in_the_order_of_the_family() -> None:
    assert layers_passed(albert(5, 2)) == (0, 0, 0, 1, 1)
    assert layers_passed(tiny_config("bert", 3)) == (0, 1, 2)
    assert layers_passed(tiny_config("bart", 2)) == (0, 1, 2, 3)
    with pytest.raises(AdapterError, match="num_hidden_layers"):
        layers_passed(albert(0))
