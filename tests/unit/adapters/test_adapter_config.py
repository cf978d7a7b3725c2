"""AdapterConfig: what is accepted, what is refused with which field, and JSON in and out."""

import dataclasses
import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.config import ACTIVATIONS, INITIALIZATIONS, LAYER_SETS, PLACEMENTS, AdapterConfig
from adapters.errors import AdapterError

LAYERS = st.one_of(
    st.sampled_from(LAYER_SETS),
    st.lists(st.integers(0, 40), min_size=1, unique=True).map(tuple),
)
CONFIGS = st.builds(
    AdapterConfig,
    bottleneck_dim=st.integers(1, 4096),
    activation=st.sampled_from(ACTIVATIONS),
    initialization=st.sampled_from(INITIALIZATIONS),
    placement=st.sampled_from(PLACEMENTS),
    layers=LAYERS,
    scaling=st.floats(1e-6, 1e6),
    dropout=st.floats(0, 0.99),
)
LADDERS = st.builds(
    AdapterConfig,
    method=st.just("ladder"),
    bottleneck_dim=st.integers(1, 4096),
    activation=st.sampled_from(ACTIVATIONS),
    layers=LAYERS,
)

DEEP: list[object] = functools.reduce(lambda inner, _: [inner], range(5000), [])
"""As deep as no text of Python gets."""


@given(st.one_of(CONFIGS, LADDERS))
def test_json_gives_back_an_equal_configuration(config):
    again = AdapterConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_defaults_are_those_the_literature_starts_from():
    assert AdapterConfig(bottleneck_dim=24).to_dict() == {
        "method": "bottleneck",
        "bottleneck_dim": 24,
        "activation": "relu",
        "initialization": "zero_up",
        "placement": "pfeiffer",
        "layers": "all",
        "scaling": 1.0,
        "learned_scaling": "none",
        "dropout": 0.0,
        "stochastic_depth": 0.0,
    }


def test_a_ladder_has_no_placement():
    config = AdapterConfig(method="ladder", bottleneck_dim=24)
    assert config.placement is None
    assert "placement" not in config.to_dict()
    assert AdapterConfig(bottleneck_dim=24) == AdapterConfig(bottleneck_dim=24, placement="pfeiffer")
    for placement in ("pfeiffer", "everywhere", 3):
        with pytest.raises(AdapterError, match="a ladder has no placement") as caught:
            AdapterConfig(method="ladder", bottleneck_dim=24, placement=placement)
        assert caught.value.field == "placement"


@pytest.mark.parametrize("layers", [[4, 0, 2], (0, 2, 4), "[0, 2, 4]", " [2,4,0]"])
def test_layers_are_read_from_a_list_or_a_json_text_and_kept_in_order(layers):
    config = AdapterConfig.from_dict({"bottleneck_dim": 8, "layers": layers})
    assert config.layers == (0, 2, 4)
    assert config == AdapterConfig(bottleneck_dim=8, layers=(0, 2, 4))


def test_whole_numbers_become_floats_where_floats_are_meant():
    config = AdapterConfig(bottleneck_dim=8, scaling=4, dropout=0)
    assert isinstance(config.scaling, float)
    assert isinstance(config.dropout, float)
    assert config == AdapterConfig(bottleneck_dim=8, scaling=4.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "lroa"),
        ("method", None),
        ("bottleneck_dim", 0),
        ("bottleneck_dim", -3),
        ("bottleneck_dim", True),
        ("bottleneck_dim", 8.0),
        ("bottleneck_dim", "8"),
        ("bottleneck_dim", None),
        ("activation", "Relu"),
        ("activation", ["relu"]),
        ("initialization", "bert"),
        ("initialization", 1),
        ("placement", "everywhere"),
        ("placement", {}),
        ("placement", None),
        ("layers", "upper"),
        ("layers", "[0, 1"),
        pytest.param("layers", "[" * 100_000, id="deep JSON"),
        pytest.param("layers", DEEP, id="lists in lists"),
        pytest.param("placement", DEEP, id="lists for a placement"),
        pytest.param("placement", [DEEP], id="lists for a pair"),
        pytest.param("activation", DEEP, id="lists for a name"),
        ("layers", "[true]"),
        ("layers", ()),
        ("layers", []),
        ("layers", (0, -1)),
        ("layers", (0, 0)),
        ("layers", (0, True)),
        ("layers", (0.0,)),
        ("layers", 3),
        ("layers", None),
        ("layers", {0, 1}),
        ("scaling", 0),
        ("scaling", -1.0),
        ("scaling", float("nan")),
        ("scaling", float("inf")),
        pytest.param("scaling", 10**400, id="beyond floats"),
        pytest.param("scaling", 10**5000, id="beyond text"),
        ("scaling", True),
        ("scaling", "1.0"),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("dropout", False),
        ("dropout", None),
    ],
)
def test_what_is_not_allowed_is_refused_and_named(field, value):
    with pytest.raises(AdapterError) as caught:
        AdapterConfig.from_dict({"bottleneck_dim": 8, field: value})
    assert caught.value.field == field
    assert len(str(caught.value)) < 400


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(AdapterError, match="did you mean 'bottleneck_dim'"):
        AdapterConfig.from_dict({"bottleneck_dims": 8})


def test_an_unknown_value_names_the_nearest():
    with pytest.raises(AdapterError, match="did you mean 'gelu'"):
        AdapterConfig(bottleneck_dim=8, activation="gleu")


def test_a_missing_dimension_is_said():
    with pytest.raises(AdapterError, match="missing") as caught:
        AdapterConfig.from_dict({})
    assert caught.value.field == "bottleneck_dim"


@pytest.mark.parametrize("values", [None, [], "relu", 3])
def test_only_a_mapping_is_read(values):
    with pytest.raises(AdapterError, match="mapping"):
        AdapterConfig.from_dict(values)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        AdapterConfig(bottleneck_dim=8).bottleneck_dim = 9
