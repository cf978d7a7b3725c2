from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from transformers import BertConfig, BloomConfig, GPT2Config, LlamaConfig

from adapters.config import AdapterConfig
from adapters.count import adapter_parameters
from sweeper.corners import check_head, check_space, extremes
from sweeper.errors import SweeperError, UsageError
from sweeper.limits import Limits
from sweeper.sampling import sampler_of
from sweeper.space import configuration, default_params, distributions, size, suggest, trial_seed
from sweeper.study import Study, from_dict, yamlfile
from sweeper.trainconfig import TrainConfig
from sweeper.worker.begin import digest_of
from tests.study_text import STUDY, line_of, replaced

BERT = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12)
FIRST_DIGEST = "5ff52ffdb7d02a9ba36fe94360cbbc3271715d7924a2e761ea93a5f5e139811b"
PREFIX_DIGEST = "8866e1f4205bc9b51937a2c555a283152f2a705e1ddd348d000fbdb7c3d16882"
optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_of(text: str = STUDY, search: dict[str, Any] | None = None) -> Study:
    data, _ = yamlfile.parse(text, "study.yaml")
    if search is not None:
        data["search"] = search
        data["train"] = {}
    return from_dict(data, "/studies/study.yaml")


def with_lines(text: str) -> Study:
    """As load_study gives it, but without looking for the files."""
    return replace(study_of(text), lines=yamlfile.parse(text, "study.yaml")[1])


def test_distributions_are_those_of_the_file() -> None:
    assert distributions(study_of()) == {
        "bottleneck_dim": IntDistribution(4, 256, log=True),
        "activation": CategoricalDistribution(["relu", "gelu"]),
        "placement": CategoricalDistribution(["houlsby", "pfeiffer"]),
        "layers": CategoricalDistribution(["all", "upper_half", "[0, 2, 4]"]),
        "dropout": FloatDistribution(0.0, 0.3, step=0.1),
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
    }


def test_what_is_suggested_is_what_the_distributions_say() -> None:
    study = study_of()
    trials = optuna.create_study()
    trial = trials.ask()
    params = suggest(trial, study)
    frozen = trials.trials[0]
    assert params == frozen.params
    assert frozen.distributions == distributions(study)
    asked = trials.ask(distributions(study))  # the other way to ask: the same names and values
    assert list(asked.params) == list(params)


def test_configuration_merges_what_is_fixed() -> None:
    params = {
        "bottleneck_dim": 24,
        "activation": "gelu",
        "placement": "houlsby",
        "layers": "[0, 2, 4]",
        "dropout": 0.1,
        "learning_rate": 2e-3,
    }
    both = configuration(study_of(), params)
    assert both.adapter == AdapterConfig(
        bottleneck_dim=24, activation="gelu", placement="houlsby", layers=(0, 2, 4), dropout=0.1
    )
    assert both.train == TrainConfig(learning_rate=2e-3, epochs=3, batch_size=32)
    assert both.to_dict()["layers"] == [0, 2, 4]
    assert both.to_dict()["warmup"] == 0.06


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "tanh"}, "activation is 'tanh', which is outside"),
        ({"bottleneck_dim": 3}, "bottleneck_dim is 3, which is outside"),
        ({"bottleneck_dim": 8.0}, "outside"),
        ({"bottleneck_dim": True}, "outside"),
        ({"dropout": 0.15}, "outside"),
        ({"learning_rate": float("nan")}, "outside"),
        ({"layers": [0, 2, 4]}, "outside"),
        ({"scaling": 1.0}, "'scaling' is not a parameter of this study"),
        ({"dropout": None}, "outside"),
    ],
)
def test_a_configuration_outside_of_the_space_is_refused(change: dict[str, Any], words: str) -> None:
    study = study_of()
    with pytest.raises(SweeperError, match=words):
        configuration(study, {**default_params(study, 384), **change})


def test_a_configuration_of_the_first_stores_is_still_known_as_trained() -> None:
    """Its digest as commit d1773fc wrote it; a field that it lacked counts only where it changes anything."""
    study = study_of(search={"bottleneck_dim": 4, "learning_rate": 0.003})
    plain = configuration(study, {})
    assert digest_of(plain, None) == FIRST_DIGEST
    for change in ({"learned_scaling": "channel"}, {"stochastic_depth": 0.1}, {"activation": "gelu"}):
        changed = replace(plain, adapter=replace(plain.adapter, **change))
        assert digest_of(changed, None) != FIRST_DIGEST
    prefix = {"method": "prefix", "prefix_length": 4, "learning_rate": 0.003}
    assert digest_of(configuration(study_of(search=prefix), {}), None) == PREFIX_DIGEST
    behind = configuration(study_of(search={**prefix, "positions": "after_prefix"}), {})
    assert digest_of(behind, None) != PREFIX_DIGEST


def test_a_missing_parameter_is_refused() -> None:
    study = study_of()
    params = default_params(study, 384)
    del params["layers"]
    with pytest.raises(SweeperError, match="layers is missing"):
        configuration(study, params)


@pytest.mark.parametrize(
    ("search", "width", "expected"),
    [
        ({"bottleneck_dim": {"from": 4, "to": 256}}, 384, {"bottleneck_dim": 24}),
        ({"bottleneck_dim": {"from": 4, "to": 256}}, 32, {"bottleneck_dim": 4}),
        ({"bottleneck_dim": {"from": 4, "to": 16}}, 768, {"bottleneck_dim": 16}),
        ({"bottleneck_dim": {"from": 4, "to": 244, "step": 16}}, 384, {"bottleneck_dim": 20}),
        ({"bottleneck_dim": [64, 8, 32]}, 384, {"bottleneck_dim": 32}),
        ({"bottleneck_dim": 8, "placement": ["attention", "pfeiffer"]}, 384, {"placement": "pfeiffer"}),
        ({"bottleneck_dim": 8, "placement": ["attention", "houlsby"]}, 384, {"placement": "attention"}),
        ({"bottleneck_dim": 8, "layers": [[0, 1], "all"]}, 384, {"layers": "all"}),
        ({"bottleneck_dim": 8, "layers": [[0, 1], [1]]}, 384, {"layers": "[0, 1]"}),
        ({"bottleneck_dim": 8, "learning_rate": {"from": 1e-4, "to": 1e-2}}, 384, {"learning_rate": 1e-3}),
        ({"bottleneck_dim": 8, "learning_rate": {"from": 2e-3, "to": 1e-2}}, 384, {"learning_rate": 2e-3}),
        ({"bottleneck_dim": 8, "dropout": {"from": 0.1, "to": 0.3, "step": 0.1}}, 384, {"dropout": 0.1}),
        ({"bottleneck_dim": 8, "epochs": [1, 5]}, 384, {"epochs": 1}),
        ({"bottleneck_dim": 8}, 384, {}),
    ],
)
def test_trial_0_is_the_default_or_the_nearest(search: dict[str, Any], width: int, expected: Any) -> None:
    text = replaced("pruner: successive_halving", "pruner: none")
    assert default_params(study_of(text, search), width) == expected


def test_the_size_is_what_can_be_counted() -> None:
    assert size(study_of()) is None
    search = {
        "bottleneck_dim": {"from": 4, "to": 10, "step": 2},
        "activation": ["relu", "gelu", "tanh"],
        "dropout": {"from": 0.0, "to": 0.3, "step": 0.1},
    }
    assert size(study_of(search=search)) == 4 * 3 * 4
    assert size(study_of(search={"bottleneck_dim": 8})) == 1
    assert size(study_of(search={"bottleneck_dim": {"from": 1, "to": 10}})) == 10
    assert size(study_of(search={"bottleneck_dim": {"from": 1, "to": 10, "log": True}})) == 10


def test_extremes_are_those_of_all_adapters() -> None:
    search = {
        "bottleneck_dim": {"from": 2, "to": 12, "step": 5},
        "placement": ["houlsby", "pfeiffer"],
        "layers": ["all", "upper_third", [0]],
    }
    counts = [
        adapter_parameters(AdapterConfig(bottleneck_dim=m, placement=placement, layers=layers), 384, 6)
        for m, placement, layers in itertools.product(
            (2, 7, 12), ("houlsby", "pfeiffer"), ("all", "upper_third", (0,))
        )
    ]
    assert extremes(study_of(search=search), BERT) == (min(counts), max(counts))
    assert extremes(study_of(), BERT) == (3 * 3460, 12 * (2 * 384 * 256 + 384 + 256))


def test_a_space_that_fits() -> None:
    check_space(with_lines(STUDY), BERT)


@pytest.mark.parametrize(
    ("old", "new", "at", "words"),
    [
        ("from: 4, to: 256", "from: 4, to: 385", "to: 385", "wider than the backbone's hidden size 384"),
        ("{from: 4, to: 256, log: true}", "[24, 500]", "[24, 500]", "bottleneck_dim 500 is wider"),
        ("{from: 4, to: 256, log: true}", "\n    - 24\n    - 500", "- 500", "bottleneck_dim 500 is wider"),
        ("{from: 4, to: 256, log: true}", "500", "bottleneck_dim: 500", "bottleneck_dim 500 is wider"),
        ("[all, upper_half, [0, 2, 4]]", "\n  - all\n  - [0, 6]", "[0, 6]", "layer 6 is out of range"),
        ("[all, upper_half, [0, 2, 4]]", "[[0, 6]]", "[[0, 6]]", "layers 0 to 5"),
        ("trainable_parameters: 500000", "trainable_parameters: 10379", "10379", "has 10380"),
    ],
)
def test_a_space_that_does_not_fit(old: str, new: str, at: str, words: str) -> None:
    text = replaced(old, new)
    with pytest.raises(UsageError, match=words) as caught:
        check_space(with_lines(text), BERT)
    assert caught.value.line == line_of(text, at)
    assert caught.value.file == "/studies/study.yaml"


def test_the_head_counts_for_the_limit_of_parameters() -> None:
    text = replaced("trainable_parameters: 500000", "trainable_parameters: 11150")
    study = with_lines(text)  # 10380 of the smallest adapter and 385 an output
    check_space(study, BERT)
    check_head(Limits(study, BERT, 2))
    with pytest.raises(UsageError, match="has 10380 and the head 1155") as caught:
        check_head(Limits(study, BERT, 3))
    assert caught.value.line == line_of(text, "11150")
    unlimited = replaced("trainable_parameters: 500000", "flops_per_token: 10000000000")
    check_head(Limits(with_lines(unlimited), BERT, 10**6))


def test_a_placement_that_a_family_lacks() -> None:
    text = replaced("[houlsby, pfeiffer]", "\n    - pfeiffer\n    - pfeiffer_original")
    check_space(with_lines(text), BERT)
    with pytest.raises(UsageError, match="pfeiffer_original") as caught:
        check_space(with_lines(text), GPT2Config(n_embd=384, n_layer=6, n_head=6))
    assert caught.value.line == line_of(text, "- pfeiffer_original")


def test_positions_behind_a_prefix_have_to_be_there() -> None:
    search = {"method": "prefix", "prefix_length": [4, 385], "positions": ["from_start", "after_prefix"]}
    study = study_of(search=search)
    assert set(distributions(study)) == {"prefix_length", "positions"} and size(study) == 4
    assert configuration(study, {"prefix_length": 4, "positions": "after_prefix"}).adapter.positions == (
        "after_prefix"
    )
    with pytest.raises(UsageError, match=r"a prefix of 385 and texts of 128 tokens .* lower prefix_length"):
        check_space(study, BERT)
    check_space(study_of(search={**search, "positions": "from_start"}), BERT)
    with pytest.raises(UsageError, match="the row of 'llama' names none"):
        check_space(study_of(search={**search, "prefix_length": 4}), LlamaConfig(num_hidden_layers=1))


def test_a_family_without_a_row() -> None:
    with pytest.raises(UsageError, match="bloom") as caught:
        check_space(with_lines(STUDY), BloomConfig())
    assert caught.value.line == line_of(STUDY, "model:")


def test_seeds_are_stable_and_apart() -> None:
    study = study_of()
    assert trial_seed(study, 0) == trial_seed(study, 0)
    seeds = [trial_seed(study, number) for number in range(200)]
    other = study_of(replaced("seed: 7", "seed: 8"))
    seeds += [trial_seed(other, number) for number in range(200)]
    seeds += [trial_seed(study, "reference-head")]
    assert len(set(seeds)) == 401
    assert all(0 <= seed < 2**63 for seed in seeds)
    # What a stored study was trained with must never change.
    assert trial_seed(study, 3) == 6792320127586088325


@pytest.mark.parametrize("sampler", ["tpe", "random", "{name: tpe, n_startup_trials: 2}"])
def test_a_restarted_worker_draws_the_same(sampler: str) -> None:
    study = study_of(replaced("{name: tpe, n_startup_trials: 5}", sampler))

    def draws(restart: bool) -> list[dict[str, Any]]:
        trials = optuna.create_study(direction="maximize")
        drawn = []
        for number in range(8):
            trials.sampler = sampler_of(study, study.seed, number)
            if restart:  # a second worker asks for the same trial again, from what is stored
                trials = optuna.create_study(direction="maximize")
                trials.add_trials(finished)
                trials.sampler = sampler_of(study, study.seed, number)
            trial = trials.ask()
            params = suggest(trial, study)
            drawn.append(params)
            finished.append(
                trials.tell(trial, params["learning_rate"])  # type: ignore[arg-type]
            )
        return drawn

    finished: list[optuna.trial.FrozenTrial] = []
    first = draws(restart=False)
    finished.clear()
    assert draws(restart=True) == first
    assert len({str(params) for params in first}) == 8


def test_the_study_seed_changes_the_draws() -> None:
    drawn = []
    for seed in (7, 8):
        study = study_of(replaced("seed: 7", f"seed: {seed}"))
        trials = optuna.create_study(sampler=sampler_of(study, study.seed, 0))
        drawn.append(suggest(trials.ask(), study))
    assert drawn[0] != drawn[1]


def test_parameters_that_a_trial_has_fixed_are_taken() -> None:
    study = study_of()
    trials = optuna.create_study(sampler=sampler_of(study, study.seed, 0))
    wanted = default_params(study, 384)
    trials.enqueue_trial(wanted)
    assert suggest(trials.ask(), study) == wanted


@st.composite
def float_ranges(draw: st.DrawFn) -> dict[str, Any]:
    digits = draw(st.integers(1, 4))
    each, count, first = (draw(st.integers(low, 300)) for low in (1, 1, 0))
    scale = 10**digits
    spec: dict[str, Any] = {"from": first / scale, "to": (first + each * count) / scale}
    kind = draw(st.sampled_from(["plain", "log", "step"]))
    if kind == "step":
        spec["step"] = each / scale
    if kind == "log" and first > 0:
        spec["log"] = True
    return spec


@st.composite
def whole_ranges(draw: st.DrawFn) -> dict[str, Any]:
    each, count, first = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 300))
    spec: dict[str, Any] = {"from": first, "to": first + each * count}
    kind = draw(st.sampled_from(["plain", "log", "step"]))
    return spec | {"plain": {}, "log": {"log": True}, "step": {"step": each}}[kind]


@given(whole_ranges(), float_ranges(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_range_is_drawn_from_as_it_is_written(
    whole: dict[str, Any], number: dict[str, Any], trial_number: int
) -> None:
    study = study_of(search={"bottleneck_dim": whole, "weight_decay": number})
    spaces = distributions(study)
    # Optuna lowers an upper end that no step reaches, with a warning only.
    assert (spaces["bottleneck_dim"].low, spaces["bottleneck_dim"].high) == (whole["from"], whole["to"])
    assert (spaces["weight_decay"].low, spaces["weight_decay"].high) == (number["from"], number["to"])
    trials = optuna.create_study(sampler=sampler_of(study, study.seed, trial_number))
    for _ in range(3):
        params = suggest(trials.ask(), study)
        both = configuration(study, params)
        assert (both.adapter.bottleneck_dim, both.train.weight_decay) == tuple(params.values())
    ends = {"bottleneck_dim": whole["to"], "weight_decay": number["to"]}
    configuration(study, ends)
    for width in (1, 384, 8192):
        configuration(study, default_params(study, width))
    count = size(study)
    if "step" in number and "step" in whole:
        steps = round((number["to"] - number["from"]) / number["step"]) + 1
        assert count == steps * len(range(whole["from"], whole["to"] + 1, whole["step"]))


def test_a_compacter_that_its_factors_do_not_divide_is_refused_at_its_size() -> None:
    text = replaced(
        "bottleneck_dim: {from: 4, to: 256, log: true}", "method: compacter\n  bottleneck_dim: [8, 6]"
    )
    with pytest.raises(UsageError, match="phm_dim 4 does not divide bottleneck_dim 6") as refused:
        check_space(with_lines(text), BERT)
    assert refused.value.line == line_of(text, "bottleneck_dim")


def test_a_width_between_the_ends_that_a_factor_between_its_ends_does_not_divide_is_refused() -> None:
    """4 divides 12 and 24, and not 18; 2 and 6 divide all."""
    text = replaced(
        "bottleneck_dim: {from: 4, to: 256, log: true}",
        "method: compacter\n  bottleneck_dim: {from: 12, to: 24, step: 6}\n"
        "  phm_dim: {from: 2, to: 6, step: 2}",
    )
    with pytest.raises(UsageError, match="phm_dim 4 must divide every bottleneck_dim") as refused:
        check_space(with_lines(text), BERT)
    assert refused.value.line == line_of(text, "bottleneck_dim")


@pytest.mark.parametrize(
    ("sizes", "factors", "wrong"),
    [
        ("{from: 24, to: 96, step: 24}", "{from: 2, to: 8}", "phm_dim 5 does not divide the backbone's"),
        ("[16, 32]", "{from: 2, to: 4}", "phm_dim 3 does not divide bottleneck_dim 16"),
        ("[16, 32]", "{from: 2, to: 8, step: 2}", "phm_dim 6 does not divide bottleneck_dim 16"),
    ],
)
def test_a_factor_between_the_ends_that_divides_nothing_is_refused_at_its_range(
    sizes: str, factors: str, wrong: str
) -> None:
    text = replaced(
        "bottleneck_dim: {from: 4, to: 256, log: true}",
        f"method: compacter\n  bottleneck_dim: {sizes}\n  phm_dim: {factors}",
    )
    with pytest.raises(UsageError, match=wrong) as refused:
        check_space(with_lines(text), BERT)
    assert refused.value.line == line_of(text, "phm_dim")
    check_space(with_lines(text.replace(factors, "{from: 4, to: 8, step: 4}")), BERT)
