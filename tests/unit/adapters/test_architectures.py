"""The table of sites: which a configuration uses, and that every path of every row exists."""

from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BloomConfig, T5Config

from adapters.architectures import (
    ARCHITECTURES,
    Architecture,
    Site,
    architecture_of,
    check_fits,
    hidden_size,
    is_flat,
    layer_count,
    register,
    sites,
)
from adapters.config import PLACEMENTS, AdapterConfig
from adapters.errors import AdapterError
from adapters.insert import insert, remove
from tests.tiny_models import HIDDEN_SIZE, MAIN_FAMILIES, tiny_config, tiny_model


def generator():
    return torch.Generator().manual_seed(0)


POST_NORM = ("bert", "roberta", "xlm-roberta", "distilbert")


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_sizes_are_read_whatever_the_family_calls_them(family):
    config = tiny_config(family, layers=5)
    expected = {"albert": 1, "t5": 10, "bart": 10}.get(family, 5)
    assert (hidden_size(config), layer_count(config)) == (HIDDEN_SIZE, expected)


@pytest.mark.parametrize("family", MAIN_FAMILIES)
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
    with pytest.raises(AdapterError, match="model family 'bloom'") as caught:
        architecture_of(BloomConfig())
    shown = str(caught.value)
    start = shown.index("backbone:")
    example = yaml.safe_load(shown[start : shown.index("In Python:")])
    row = Architecture.from_dict("made", example["backbone"]["sites"])
    assert row.linears["ffn_up"] == "intermediate.dense"
    assert len(shown.splitlines()) <= 12


SITES = {
    "layers": "h",
    "attention": "self_attention.dense",
    "ffn": "mlp.dense_4h_to_h",
    "linears": {"query_key_value": "self_attention.query_key_value", "ffn_up": "mlp.dense_h_to_4h"},
    "last_norm": "ln_f",
    "causal": True,
}


@pytest.fixture
def bloom():
    row = Architecture.from_dict("bloom", SITES)
    register(row)
    yield row
    del ARCHITECTURES["bloom"]


def test_a_family_that_is_registered_from_data_takes_every_placement_it_has(bloom, tokens, fill):
    config = BloomConfig(vocab_size=100, hidden_size=HIDDEN_SIZE, n_layer=2, n_head=4)
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval().requires_grad_(False)
    alone = model(tokens).last_hidden_state
    for placement in ("houlsby", "parallel", "attention"):
        adapter = insert(model, AdapterConfig(bottleneck_dim=2, placement=placement), generator=generator())
        assert torch.equal(model(tokens).last_hidden_state, alone)
        fill(adapter)
        assert not torch.allclose(model(tokens).last_hidden_state, alone)
        remove(model)
    assert not is_flat(model)
    register(Architecture.from_dict("bloom", SITES))
    with pytest.raises(AdapterError, match="row already"):
        register(Architecture.from_dict("bloom", {**SITES, "layers": "other"}))


def test_a_path_that_is_not_there_is_named(bloom):
    ARCHITECTURES["bloom"] = Architecture.from_dict("bloom", {**SITES, "ffn": "mlp.wrong"})
    model = AutoModel.from_config(BloomConfig(vocab_size=100, hidden_size=HIDDEN_SIZE, n_layer=2, n_head=4))
    with pytest.raises(AdapterError, match=r"no module 'h.0.mlp.wrong'"):
        insert(model, AdapterConfig(bottleneck_dim=2), generator=generator())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"lairs": "h"}, "nearest|layers"),
        ({"layers": 3}, "layers of a backbone's sites is 3"),
        ({"layers": ""}, "must be a path"),
        ({"causal": "yes"}, "true or false"),
        ({"linears": ["query"]}, "mapping of linears"),
        ({"linears": {"querry": "q"}}, "query"),
        ({"linears": {"query": 1}}, "linear query"),
        ({"ffn": None}, "ffn of a backbone's sites is None"),
    ],
)
def test_wrong_sites_are_refused(change, match):
    with pytest.raises(AdapterError, match=match):
        Architecture.from_dict("made", {**SITES, **change})


def test_sites_that_lack_a_key_or_are_no_mapping_are_refused():
    with pytest.raises(AdapterError, match="lack layers, ffn, linears"):
        Architecture.from_dict("made", {"attention": "a"})
    with pytest.raises(AdapterError, match="not list"):
        Architecture.from_dict("made", [])


def test_layers_of_an_encoder_decoder_are_counted_on():
    config = T5Config(num_layers=3, num_decoder_layers=2, d_model=8)
    row = architecture_of(config)
    assert layer_count(config) == 5
    assert [row.part(layer, config).path for layer in (0, 2, 3, 4)] == [
        "encoder.block.0",
        "encoder.block.2",
        "decoder.block.0",
        "decoder.block.1",
    ]


def test_a_gated_t5_has_its_own_linears():
    row = architecture_of(T5Config(feed_forward_proj="gated-gelu"))
    assert row.linears["ffn_gate"] == "layer.1.DenseReluDense.wi_0"
    assert row.decoder.linears["ffn_up"] == "layer.2.DenseReluDense.wi_1"
    assert "ffn_gate" not in architecture_of(T5Config()).linears


@pytest.mark.parametrize(
    ("family", "fields"),
    [("opt", {"do_layer_norm_before": False}), ("albert", {"inner_group_num": 2})],
)
def test_a_member_of_a_family_that_the_row_does_not_fit_is_refused(family, fields):
    config = tiny_config(family)
    config.update(fields)
    with pytest.raises(AdapterError, match="has no row"):
        architecture_of(config)


def test_rotary_embeddings_that_depend_on_the_longest_text_are_not_run_flat():
    config = tiny_config("llama")
    assert is_flat(config)
    config.rope_parameters = {**config.rope_parameters, "rope_type": "dynamic", "factor": 2.0}
    assert not is_flat(config)
    both_ways = tiny_config("gemma3_text")
    both_ways.use_bidirectional_attention = True
    assert not is_flat(both_ways)


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


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("electra", "prompt"),
        ("albert", "prompt"),
        ("deberta-v2", "prefix"),
        ("gemma2", "mam"),
        ("t5", "prefix"),
        ("bart", "prompt"),
        ("vit", "prompt"),
    ],
)
def test_a_method_that_a_family_cannot_take_is_refused(family, method):
    fields = {"mam": {"bottleneck_dim": 2}}.get(method, {})
    with pytest.raises(AdapterError, match=f"takes no adapter of the method {method}") as caught:
        check_fits(AdapterConfig.from_dict({"method": method, **fields}), tiny_config(family))
    assert caught.value.field == "method"
