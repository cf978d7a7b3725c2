"""Placements as data: named ones, and pairs of a sublayer and a wiring."""

from __future__ import annotations

import json

import pytest

from adapters import AdapterConfig, AdapterError
from adapters.architectures import Site, sites
from adapters.depth import Depth, depth_of
from adapters.placements import SUBLAYERS, TABLE, checked_placement, wirings_of
from tests.tiny_models import tiny_config


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("houlsby", "houlsby"),
        ([["ffn", "after"]], "pfeiffer"),
        ((("ffn", "after"), ("attention", "after")), "houlsby"),
        ("ffn:parallel", "parallel"),
        (" ffn : parallel + attention : after ", "attention:after+ffn:parallel"),
        ([["ffn", "norm_inside"], ["attention", "parallel"]], "attention:parallel+ffn:norm_inside"),
    ],
)
def test_a_placement_is_kept_in_one_form(value: object, kept: str) -> None:
    config = AdapterConfig.from_dict({"bottleneck_dim": 2, "placement": value})
    assert config.placement == kept == checked_placement(kept)
    assert AdapterConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(AdapterConfig(bottleneck_dim=2, placement=kept)) == hash(config)


def test_every_pair_has_a_form_that_reads_back() -> None:
    for sublayer, wirings in SUBLAYERS.items():
        for wiring in wirings:
            kept = checked_placement([(sublayer, wiring)])
            assert wirings_of(kept) == ((sublayer, wiring),)
    for name, pairs in TABLE.items():
        assert checked_placement(list(pairs)) == name


def test_the_sites_are_those_of_the_pairs() -> None:
    config = AdapterConfig(bottleneck_dim=2, placement="attention:parallel+ffn:after", layers=(1, 2))
    assert sites(config, 3) == tuple(
        Site(layer, *pair) for layer in (1, 2) for pair in (("attention", "parallel"), ("ffn", "after"))
    )
    assert depth_of(config, tiny_config("bert")) == Depth(1, 0)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("housby", "houlsby"),
        ("ffn:befor", "unknown wiring 'befor' of ffn"),
        ("fnn:after", "unknown sublayer 'fnn'"),
        ("attention:norm_inside", "unknown wiring 'norm_inside' of attention"),
        ("ffn:after+ffn:parallel", "'ffn' twice"),
        ("ffn:after+", "no pair"),
        ("ffn:after:x", "no pair"),
        ([], "empty list"),
        ([["ffn"]], "no pair"),
        ([["ffn", 1]], "no pair"),
        (["ffn", "after"], "no pair"),
        ({"ffn": "after"}, "dict"),
        (3, "int"),
        (True, "bool"),
    ],
)
def test_what_is_no_placement_is_refused(value: object, match: str) -> None:
    with pytest.raises(AdapterError, match=match) as caught:
        AdapterConfig.from_dict({"bottleneck_dim": 2, "placement": value})
    assert caught.value.field == "placement"
