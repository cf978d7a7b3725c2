"""The table of sites: which a configuration uses, and that every path of every row exists."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, T5Config

from adapters.architectures import (
    ARCHITECTURES,
    Site,
    architecture_of,
    check_fits,
    hidden_size,
    layer_count,
    sites,
)
from adapters.config import PLACEMENTS, AdapterConfig
from adapters.errors import AdapterError
from tests.tiny_models import HIDDEN_SIZE, tiny_config, tiny_model

POST_NORM = ("bert", "roberta", "xlm-roberta", "distilbert")


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_sizes_are_read_whatever_the_family_calls_them(family):
    config = tiny_config(family, layers=5)
    assert (hidden_size(config), layer_count(config)) == (HIDDEN_SIZE, 5)


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("auto_class", [None, AutoModelForSequenceClassification])
def test_every_path_of_every_row_exists(family, auto_class):
    model = tiny_model(family) if auto_class is None else tiny_model(family, auto_class=auto_class)
    row = architecture_of(model)
    layers = model.base_model.get_submodule(row.layers)
    assert len(layers) == layer_count(model.config)
    for layer in layers:
        for path in (row.attention, row.ffn):
            projection = layer.get_submodule(path)
            weight = projection.weight if isinstance(projection, nn.Linear) else projection.weight.T  # Conv1D
            assert weight.shape[0] == HIDDEN_SIZE
        layer.get_submodule(row.parallel.path)
        if row.ffn_norm is not None:
            assert isinstance(layer.get_submodule(row.ffn_norm), nn.LayerNorm)


@pytest.mark.parametrize(
    ("layers", "count", "expected"),
    [
        ("all", 1, [0]),
        ("all", 3, [0, 1, 2]),
        ("upper_half", 6, [3, 4, 5]),
        ("upper_half", 3, [1, 2]),
        ("upper_half", 1, [0]),
        ("upper_third", 6, [4, 5]),
        ("upper_third", 7, [4, 5, 6]),
        ("upper_third", 3, [2]),
        ("upper_third", 2, [1]),
        ((0, 4), 6, [0, 4]),
    ],
)
def test_layer_sets(layers, count, expected):
    config = AdapterConfig(bottleneck_dim=2, layers=layers)
    assert [site.layer for site in sites(config, count)] == expected


def test_sites_of_each_placement():
    wirings = {
        "houlsby": [("attention", "after"), ("ffn", "after")],
        "pfeiffer": [("ffn", "after")],
        "attention": [("attention", "after")],
        "parallel": [("ffn", "parallel")],
        "pfeiffer_original": [("ffn", "norm_inside")],
    }
    assert set(wirings) == set(PLACEMENTS)
    for placement, expected in wirings.items():
        found = sites(AdapterConfig(bottleneck_dim=2, placement=placement), 2)
        assert found == tuple(Site(layer, *wiring) for layer in (0, 1) for wiring in expected)


def test_site_keys_are_readable():
    assert Site(11, "attention", "after").key == "layer_11_attention"


def test_a_layer_out_of_range_is_refused():
    with pytest.raises(AdapterError, match="layers 0 to 2") as caught:
        sites(AdapterConfig(bottleneck_dim=2, layers=(0, 3)), 3)
    assert caught.value.field == "layers"


def test_a_bottleneck_wider_than_the_backbone_is_refused():
    check_fits(AdapterConfig(bottleneck_dim=HIDDEN_SIZE), tiny_config("bert"))
    with pytest.raises(AdapterError, match="wider") as caught:
        check_fits(AdapterConfig(bottleneck_dim=HIDDEN_SIZE + 1), tiny_config("bert"))
    assert caught.value.field == "bottleneck_dim"


def test_the_norm_inside_needs_a_family_that_normalises_after():
    config = AdapterConfig(bottleneck_dim=2, placement="pfeiffer_original")
    for family in POST_NORM:
        assert len(check_fits(config, tiny_config(family))) == 3
    with pytest.raises(AdapterError, match="gpt2") as caught:
        check_fits(config, tiny_config("gpt2"))
    assert caught.value.field == "placement"


def test_an_unknown_family_is_told_how_to_add_a_row():
    with pytest.raises(AdapterError, match=r"Architecture\(model_type='t5'"):
        architecture_of(T5Config())


@pytest.mark.parametrize("wrong", [None, "bert", torch.nn.Linear(1, 1)])
def test_only_models_and_their_configs_are_looked_up(wrong):
    with pytest.raises(AdapterError, match="Hugging Face"):
        architecture_of(wrong)


def test_a_config_without_a_size_is_refused():
    config = SimpleNamespace(model_type="bert", hidden_size=None, num_hidden_layers=0)
    with pytest.raises(AdapterError, match="hidden_size"):
        hidden_size(config)
    with pytest.raises(AdapterError, match="num_hidden_layers"):
        layer_count(config)


LINEARS = {"query", "key", "value", "attention_output", "ffn_up", "ffn_down"}
FUSED = {"query_key_value": {"query", "key", "value"}, "ffn_gate_up": {"ffn_gate", "ffn_up"}}


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_the_linears_of_a_layer_are_all_named(family):
    model = tiny_model(family)
    row = architecture_of(model)
    covered = {part for name in row.linears for part in FUSED.get(name, {name})}
    assert covered - {"ffn_gate"} == LINEARS
    for layer in model.base_model.get_submodule(row.layers):
        named = {
            path for path, module in layer.named_modules() if getattr(module, "weight", None) is not None
        }
        wide = {path for path in named if layer.get_submodule(path).weight.ndim == 2}
        assert wide == set(row.linears.values())
