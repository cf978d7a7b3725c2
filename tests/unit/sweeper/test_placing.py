"""Placements of a study's own, and a bit a layer: as they are read, drawn, counted and set by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from transformers import BertConfig

from adapters.config import AdapterConfig
from adapters.count import adapter_parameters
from adapters.depth import FFN, Depth
from sweeper.assignments import read_assignments
from sweeper.check import _searched
from sweeper.corners import check_space, depths, extremes
from sweeper.errors import UsageError
from sweeper.limits import Limits
from sweeper.sampling import grid_points, sampler_of
from sweeper.space import configuration, default_params, distributions, layers_missing, size, suggest
from sweeper.study import Study, difference, from_dict, load_study, yamlfile
from sweeper.study.layerbits import bits_of
from sweeper.study.schema import BIT
from sweeper.study.search import keys_of
from tests.study_text import STUDY, line_of, replaced, write_study_text
from tests.unit.sweeper.test_space import with_lines

BERT = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12)
TINY = BertConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
OWN = """\
placements:
  both_beside: [{sublayer: ffn, wiring: parallel}, {sublayer: attention, wiring: parallel}]
  mixed: [[attention, after], "ffn:parallel"]
  low: attention:parallel
"""
WITH_OWN = replaced("search:\n", OWN + "search:\n").replace("[houlsby, pfeiffer]", "[houlsby, mixed, low]")
BITS = replaced("[all, upper_half, [0, 2, 4]]", "{bits: [0, 1, 3]}")


def study_of(search: dict[str, Any], **overrides: Any) -> Study:
    data, _ = yamlfile.parse(STUDY, "study.yaml")
    data |= {"train": {}, "pruner": "none", "search": search, **overrides}
    return from_dict(data, "/studies/study.yaml")


def test_a_study_has_placements_of_its_own_by_name() -> None:
    study = with_lines(WITH_OWN)
    assert dict(study.placements) == {
        "both_beside": "attention:parallel+ffn:parallel",
        "mixed": "attention:after+ffn:parallel",
        "low": "attention:parallel",
    }
    assert distributions(study)["placement"] == CategoricalDistribution(["houlsby", "mixed", "low"])
    again = from_dict(study.to_dict(), study.path)
    assert again == study and not difference(study, again)
    check_space(study, BERT)


def test_a_configuration_has_the_pairs_of_a_placement_and_needs_no_study() -> None:
    study = with_lines(WITH_OWN)
    params = default_params(study, 384) | {"placement": "mixed"}
    config = configuration(study, params).adapter
    assert config == AdapterConfig.from_dict(config.to_dict())
    assert config.placement == "attention:after+ffn:parallel"
    one = AdapterConfig(bottleneck_dim=4, placement="attention:parallel", layers=(0, 2, 4))
    assert extremes(study, BERT)[0] == adapter_parameters(one, 384, 6)
    assert read_assignments(study, ["placement=mixed"]) == {"placement": "mixed"}


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("  low: att", "  houlsby: att", "  houlsby: att", "houlsby is a built-in placement; give yours an"),
        ("  low: att", "  Low-1: att", "  Low-1", "'Low-1' cannot be a name"),
        ("  low: att", "  1: att", "  1: att", "cannot be a name"),
        ("low: attention:parallel", "low: []", "low: []", "the list is empty; write a list such as"),
        (
            "low: attention:parallel",
            "low: attention",
            "low: att",
            "'attention' is no .sublayer, wiring. pair",
        ),
        ("low: attention:parallel", "low: 3", "low: 3", "must be a list such as .* not 3"),
        ("low: attention:parallel", "low:\n  - ffn:after\n  - ffn:under", "- ffn:under", "unknown wiring"),
        (
            "low: attention:parallel",
            "low:\n  - ffn:after\n  - [fnn, after]",
            "[fnn",
            "unknown sublayer 'fnn'",
        ),
        ("low: attention:parallel", "low:\n  - {sublayer: ffn}", "- {sublayer", "'wiring' is missing"),
        ("low: attention:parallel", "low:\n  - {side: ffn}", "- {side", "no key 'side'"),
        ("low: attention:parallel", "low:\n  - 7", "- 7", "must be {sublayer: …, wiring: …}, not 7"),
        ("low: attention:parallel", "low: [ffn:after, ffn:parallel]", "low: [", "names the sublayer 'ffn' t"),
        ("low: attention:parallel", "low: ffn:after", "low: ffn", "is the placement 'pfeiffer' by another n"),
        ("low: attention:parallel", "low: ffn:parallel+attention:after", "low: ffn", "'mixed' by another n"),
        ("mixed, low]", "mixde, low]", "placement: [", "unknown placement 'mixde'; did you mean 'mixed'"),
        ("mixed, low]", "attention:parallel, low]", "placement: [", "'low' is listed twice"),
        ("placements:\n", "placement:\n", "placement:\n", "belongs under 'search'"),
    ],
)
def test_a_placement_that_is_wrong_is_refused_at_its_line(
    tmp_path: Path, old: str, new: str, at: str, words: str
) -> None:
    assert WITH_OWN.count(old) == 1
    text = WITH_OWN.replace(old, new)
    path = write_study_text(tmp_path, text)
    with pytest.raises(UsageError, match=words) as caught:
        load_study(path)
    assert (caught.value.file, caught.value.line) == (str(path), line_of(text, at.strip("\n")))


def test_a_family_that_lacks_the_sites_of_an_own_placement_is_named_at_its_line() -> None:
    from transformers import GPT2Config

    text = replaced("search:\n", "placements: {inside: [[attention, after], [ffn, norm_inside]]}\nsearch:\n")
    text = text.replace("[houlsby, pfeiffer]", "\n    - pfeiffer\n    - inside")
    with pytest.raises(UsageError, match="norm_inside") as caught:
        check_space(with_lines(text), GPT2Config(n_embd=384, n_layer=6, n_head=6))
    assert caught.value.line == line_of(text, "- inside")


def test_a_bit_a_layer_is_a_parameter_each() -> None:
    study = with_lines(BITS)
    names = list(distributions(study))
    assert names[2:6] == ["placement", "layers.0", "layers.1", "layers.3"]
    assert distributions(study)["layers.1"] == CategoricalDistribution([False, True])
    assert study.to_dict()["search"]["layers"] == {"bits": [0, 1, 3]}
    assert from_dict(study.to_dict(), study.path) == study
    assert _searched(study)["layers"] == "a bit for each of 0, 1, 3"
    params = default_params(study, 384)
    assert [params[f"layers.{layer}"] for layer in (0, 1, 3)] == [True, True, True]
    config = configuration(study, {**params, "layers.1": False}).adapter
    assert config.layers == (0, 3)
    check_space(study, BERT)


def test_the_layers_of_the_backbone_have_a_bit_each_where_none_are_named(tmp_path: Path) -> None:
    path = write_study_text(tmp_path, replaced("[all, upper_half, [0, 2, 4]]", "bits"))
    (tmp_path / "backbone" / "config.json").write_text(TINY.to_json_string())
    study = load_study(path)
    assert bits_of(study.search, "bottleneck") == {n: f"layers.{n}" for n in range(3)}
    path.write_text(replaced("[all, upper_half, [0, 2, 4]]", "{bits: upper_half}"))
    assert bits_of(load_study(path).search, "bottleneck") == {1: "layers.1", 2: "layers.2"}
    (tmp_path / "backbone" / "config.json").write_text("{}")
    with pytest.raises(UsageError):
        load_study(path)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("{bits: [2]}", r"one layer has nothing to choose from; write layers: \[\[2\]\]"),
        ("{bits: []}", "empty list"),
        ("{bits: [0, 0]}", "names a layer twice"),
        ("{bits: [0, -1]}", "indices are whole numbers"),
        ("{bits: [0, true]}", "indices are whole numbers"),
        ("{bits: upper}", "'upper' is no set of layers; did you mean"),
        ("{bits: 3}", "must be a set of layers such as all"),
        ("{bits: }", "must be a set of layers such as all"),
        ("{bits: [0, 1], of: 2}", "no key 'of'"),
        ("[bits, all]", "unknown layer set 'bits'"),
    ],
)
def test_bits_that_are_none_are_refused_at_their_line(tmp_path: Path, layers: str, words: str) -> None:
    text = replaced("[all, upper_half, [0, 2, 4]]", layers)
    with pytest.raises(UsageError, match=words) as caught:
        load_study(write_study_text(tmp_path, text))
    assert caught.value.line == line_of(text, "layers: ")


def test_a_bit_of_a_layer_that_the_backbone_lacks_is_refused_at_its_line() -> None:
    text = replaced("[all, upper_half, [0, 2, 4]]", "\n    bits:\n    - 0\n    - 6")
    with pytest.raises(UsageError, match="layer 6 is out of range") as caught:
        check_space(with_lines(text), BERT)
    assert caught.value.line == line_of(text, "- 6")


def test_a_draw_without_a_layer_is_past_a_limit_and_no_point_of_a_grid() -> None:
    study = study_of({"bottleneck_dim": [4, 8], "layers": {"bits": [0, 1, 2]}}, sampler="grid")
    off = {"bottleneck_dim": 4, "layers.0": False, "layers.1": False, "layers.2": False}
    assert [layers_missing(study, {**off, **change}) for change in ({}, {"layers.1": True})] == [1, 0]
    assert configuration(study, off).adapter == AdapterConfig(method="head")
    allow = Limits(study, BERT, outputs=2).allow
    points = grid_points(study, default_params(study, 384), 100, allow)
    assert len(points) == size(study) == 2 * 7
    assert len({str(sorted(point.items())) for point in points}) == 14
    assert all((layers_missing(study, point) or 0) <= 0 for point in points)
    assert grid_points(study, default_params(study, 384), 5, allow) == points[:5]
    assert layers_missing(study_of({"bottleneck_dim": 4}), {}) is None


def test_sizes_and_depths_of_bits() -> None:
    study = study_of(
        {"bottleneck_dim": 4, "layers": {"bits": [0, 1, 2]}}, budget={"trials": 70}, sampler="random"
    )
    one, three = (
        adapter_parameters(AdapterConfig(bottleneck_dim=4, layers=layers), 384, 6)
        for layers in ((0,), (0, 1, 2))
    )
    assert extremes(study, BERT) == (one, three)
    expected = depths(study, BERT)
    # Of 7 draws with a layer, 4 have the lowest, 2 of the others the next.
    each = [expected[(Depth(layer, FFN),)] for layer in range(3)]
    assert each == pytest.approx([40.0, 20.0, 10.0])


def test_the_bits_of_one_of_several_methods_are_its_own() -> None:
    methods = {
        "bottleneck": {"bottleneck_dim": 4, "layers": {"bits": [0, 2]}},
        "lora": {"rank": [2, 4]},
        "head": None,
    }
    study = study_of({"method": methods, "layers": ["all", [1]]})
    assert study.to_dict()["search"]["method"]["bottleneck"]["layers"] == {"bits": [0, 2]}
    assert from_dict(study.to_dict(), study.path) == study
    assert keys_of(study.search, "bottleneck") == (
        "method", "bottleneck.bottleneck_dim", "bottleneck.layers.0", "bottleneck.layers.2",
    )  # fmt: skip
    assert keys_of(study.search, "lora") == ("method", "layers", "lora.rank")
    both = {"bottleneck.layers.0": False, "bottleneck.layers.2": True, "method": "bottleneck"}
    assert configuration(study, both).adapter.layers == (2,)
    assert layers_missing(study, {"method": "lora", "layers": "all", "lora.rank": 2}) == 0
    assert size(study) == 3 + 4 + 1
    shared = study_of(
        {"method": {"bottleneck": {"bottleneck_dim": 4}, "head": None}, "layers": {"bits": [0, 1]}}
    )
    assert shared.search["layers.0"] == BIT
    assert keys_of(shared.search, "head") == ("method",)
    assert layers_missing(shared, {"method": "head"}) == 0


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "nsgaii"])
def test_every_sampler_draws_bits(sampler: str) -> None:
    study = study_of({"bottleneck_dim": [2, 4], "layers": {"bits": [0, 1, 2]}}, sampler=sampler)
    trials = optuna.create_study(direction="maximize")
    drawn = []
    for number in range(14):
        trials.sampler = sampler_of(study, study.seed, number)
        trial = trials.ask()
        params = suggest(trial, study)
        missing = layers_missing(study, params)
        assert missing is not None
        trial.set_constraint("layers", float(missing))
        drawn.append(tuple(bool(params[f"layers.{layer}"]) for layer in range(3)))
        if missing > 0:
            trials.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            trials.tell(trial, float(drawn[-1][0]))
    assert len(set(drawn)) > 3


def test_bits_are_set_by_hand(tmp_path: Path) -> None:
    study = load_study(write_study_text(tmp_path, BITS))
    assert read_assignments(study, ["layers=[1, 3]"]) == {
        "layers.0": False, "layers.1": True, "layers.3": True,
    }  # fmt: skip
    assert set(read_assignments(study, ["layers=all"]).values()) == {True}
    assert read_assignments(study, ["layers.1=0", "layers.3=true"]) == {"layers.1": False, "layers.3": True}
    for written, words in (
        (["layers=[2]"], "each layer has a bit here; write all, a list of layers among 0, 1, 3"),
        (["layers=upper_half"], "each layer has a bit here"),
        (["layers=[true]"], "each layer has a bit here"),
        (["layers=[]"], "no layer would carry a module"),
        (["layers.0=false", "layers.1=false", "layers.3=false"], "no layer would carry a module"),
        (["layers.2=true"], "'layers.2' is no parameter that varies"),
        (["layers.1=maybe"], "layers.1 cannot be 'maybe' .* known: False, True"),
        (["layers=all", "layers.1=true"], "names layers.1 twice"),
    ):
        with pytest.raises(UsageError, match=words):
            read_assignments(study, written)
