"""What a token costs: against a counter of the products of a real step, and in ALBERT, whose few layers are
passed many times."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AlbertConfig, AlbertModel, BertConfig

from adapters import AdapterConfig, AdapterError
from adapters.architectures import layers_passed
from adapters.count import parameters_in
from adapters.flops import flops_per_token
from adapters.insert import insert
from tests.tiny_models import HIDDEN_SIZE, tiny_config, tiny_model

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


def products_of_a_step(family: str, config: AdapterConfig) -> int:
    """What a counter sees of a step of a text of one token, without the products of attention."""
    with torch.random.fork_rng(devices=[]):
        model = tiny_model(family, LAYERS).eval()
    model.pooler = None  # of BERT: nothing reads it
    insert(model, config, generator=torch.Generator())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.tensor([[7]])).last_hidden_state.sum().backward()
    counted = counter.get_flop_counts()["Global"]
    return sum(count for name, count in counted.items() if "bmm" not in str(name))


LAYERS, TOP = 3, 2


@pytest.mark.parametrize("target", ["query", "value", "attention_output", "ffn_up", "ffn_down"])
def test_the_gradient_passes_what_lies_behind_a_linear_in_its_layer(target: str) -> None:
    config = AdapterConfig(method="lora", rank=2, targets=target, layers=(TOP,))
    backbone = tiny_config("bert", LAYERS)
    inputs = backbone.intermediate_size if target == "ffn_down" else HIDDEN_SIZE
    # What the lowest module reads has no gradient.
    assert products_of_a_step("bert", config) == flops_per_token(config, backbone) - 2 * 2 * inputs


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("bert", {"method": "ia3", "targets": "ffn_down"}),
        ("bert", {"method": "ia3", "targets": "key+ffn_down"}),
        ("bert", {"method": "bitfit"}),
        ("gpt2", {"method": "bitfit"}),
        ("bert", {"method": "prefix", "prefix_length": 2}),
    ],
)
def test_what_multiplies_nothing_costs_what_lies_behind_it(family: str, fields: dict[str, Any]) -> None:
    """The 6 of each of its weights is more than it costs: products alone are counted."""
    config = AdapterConfig(layers=(TOP,), **fields)
    backbone = tiny_config(family, LAYERS)
    own = 6 * parameters_in(config, backbone)
    assert products_of_a_step(family, config) == flops_per_token(config, backbone) - own


@pytest.mark.parametrize("layer", [LAYERS - 1, 2 * LAYERS - 1], ids=["encoder", "decoder"])
def test_a_linear_of_either_half_has_behind_it_what_follows_in_its_own_layer(layer: int) -> None:
    backbone = tiny_config("t5", LAYERS)

    def cost(target: str) -> int:
        config = AdapterConfig(method="lora", rank=2, targets=target, layers=(layer,))
        return flops_per_token(config, backbone) - 6 * parameters_in(config, backbone)

    a_product = 2 * HIDDEN_SIZE * backbone.d_ff
    assert cost("ffn_up") - cost("ffn_down") == a_product
    above = 2 * LAYERS - 1 - layer
    a_layer = flops_per_token(None, backbone) // (2 * LAYERS)
    assert cost("ffn_down") == flops_per_token(None, backbone) + above * a_layer


def test_a_compacter_costs_what_a_bottleneck_of_its_size_does() -> None:
    """Its matrices are made from few parameters, and multiply as any."""
    backbone = tiny_config("bert", LAYERS)
    compacter = AdapterConfig(method="compacter", bottleneck_dim=UNITS, phm_dim=2, layers=(TOP,))
    bottleneck = AdapterConfig(bottleneck_dim=UNITS, layers=(TOP,))
    assert parameters_in(compacter, backbone) < parameters_in(bottleneck, backbone)
    assert flops_per_token(compacter, backbone) == flops_per_token(bottleneck, backbone)


def test_layers_are_passed_in_the_order_of_the_family() -> None:
    assert layers_passed(albert(5, 2)) == (0, 0, 0, 1, 1)
    assert layers_passed(tiny_config("bert", 3)) == (0, 1, 2)
    assert layers_passed(tiny_config("bart", 2)) == (0, 1, 2, 3)
    with pytest.raises(AdapterError, match="num_hidden_layers"):
        layers_passed(albert(0))
