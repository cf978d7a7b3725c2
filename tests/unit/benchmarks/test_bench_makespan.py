"""The trials that both sides of the makespan train, and what is said of their rounds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig

from adapters.config import AdapterConfig
from adapters.depth import EMBEDDED, enters
from adapters.pack import Pack
from benchmarks.makespan.columns import Results
from benchmarks.makespan.ours import Supply, with_caches
from benchmarks.makespan.report import by_trial, interval, ratios, report
from benchmarks.makespan.trials import EXACT_INITIALIZATIONS, SPACES, Trial, draw, hub_config, inexact
from benchmarks.material import Material, write_study

MINILM = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)


def drawn(folder: Path, settings: argparse.Namespace, space: str, count: int = 24) -> list[Trial]:
    return draw(write_study(folder, settings, search=SPACES[space]), count, MINILM)


@pytest.mark.parametrize("space", SPACES)
def test_a_seed_draws_the_same_trials_each_time(
    tmp_path: Path, settings: argparse.Namespace, space: str
) -> None:
    trials = drawn(tmp_path, settings, space)
    assert trials == drawn(tmp_path, settings, space)
    assert trials[:5] == drawn(tmp_path, settings, space, count=5)
    settings.seed = 1
    assert trials != drawn(tmp_path, settings, space)
    assert len({trial.seed for trial in trials}) == len({trial.adapter for trial in trials}) == 24


@pytest.mark.parametrize(
    ("space", "layers"),
    [
        ("quickstart", {"all", "upper_half", "upper_third"}),
        ("all", {"all"}),
        ("upper", {"upper_half", "upper_third"}),
    ],
)
def test_a_space_has_its_layers(
    tmp_path: Path, settings: argparse.Namespace, space: str, layers: set[str]
) -> None:
    trials = drawn(tmp_path, settings, space)
    assert {trial.adapter.layers for trial in trials} == layers
    assert {trial.train.epochs for trial in trials} == {1}
    assert len({trial.train.learning_rate for trial in trials}) == 24


def test_trials_go_through_a_file_unchanged(tmp_path: Path, settings: argparse.Namespace) -> None:
    trials = drawn(tmp_path, settings, "quickstart")
    again = json.loads(json.dumps([trial.to_dict() for trial in trials]))
    assert [Trial.from_dict(values) for values in again] == trials


@pytest.mark.parametrize("width", [384, 768])
def test_adapterhub_gets_every_size_exactly(width: int) -> None:
    for dim in range(1, width + 1):
        factor = hub_config(AdapterConfig(bottleneck_dim=dim), width, 6)["reduction_factor"]
        assert int(width // factor) == dim


def test_adapterhub_gets_the_same_sites() -> None:
    upper = hub_config(AdapterConfig(bottleneck_dim=4, placement="attention", layers="upper_third"), 384, 6)
    assert upper["leave_out"] == [0, 1, 2, 3] and upper["mh_adapter"] and not upper["output_adapter"]
    everywhere = hub_config(AdapterConfig(bottleneck_dim=4, placement="houlsby"), 384, 6)
    assert everywhere["leave_out"] == [] and everywhere["mh_adapter"] and everywhere["output_adapter"]
    parallel = hub_config(AdapterConfig(bottleneck_dim=4, placement="parallel", scaling=2.0), 384, 6)
    assert parallel["is_parallel"] and parallel["scaling"] == 2.0
    with pytest.raises(KeyError):
        hub_config(AdapterConfig(bottleneck_dim=4, activation="mish"), 384, 6)


def test_every_trial_has_its_counterpart_or_is_listed(tmp_path: Path, settings: argparse.Namespace) -> None:
    trials = drawn(tmp_path, settings, "quickstart")
    configs = [hub_config(trial.adapter, 384, 6) for trial in trials]
    assert {config["init_weights"] for config in configs} <= {"bert", "houlsby", "mam_adapter"}
    listed = " ".join(inexact(trials))
    others = {t.adapter.initialization for t in trials} - set(EXACT_INITIALIZATIONS)
    assert others and all(f"initialization {name} " in listed for name in others)
    assert "zero_up" not in listed


def test_processes_share_the_trials(tmp_path: Path, settings: argparse.Namespace) -> None:
    trials = drawn(tmp_path, settings, "quickstart", count=5)
    claims = tmp_path / "claims"
    claims.mkdir()
    one, other = Supply(trials, claims), Supply(trials, claims)
    taken = [one(), other(), other(), one(), one()]
    assert [job.number for job in taken if job] == [0, 1, 2, 3, 4]
    assert one() is None and other() is None


def test_what_lies_below_the_adapters_is_kept(
    tmp_path: Path, settings: argparse.Namespace, make_material: Callable[[str], Material]
) -> None:
    material = make_material("bert")
    pack = Pack(material.load_backbone("float32"))
    narrow = {**SPACES["quickstart"], "bottleneck_dim": [4, 8]}
    trials = draw(write_study(tmp_path, settings, search=narrow), 5, pack.backbone.config)
    data = with_caches(material, pack, tmp_path, trials)
    read = {depth for trial in trials for depth in enters(trial.adapter, pack.backbone.config)}
    assert data.train.frozen.keys() == data.validation.frozen.keys() == read - {EMBEDDED}


def test_rounds_are_compared_pair_by_pair() -> None:
    slow = [Results(seconds=30.0, cpu_seconds=40.0), Results(seconds=60.0, cpu_seconds=40.0)]
    fast = [Results(seconds=10.0, cpu_seconds=20.0), Results(seconds=12.0, cpu_seconds=8.0)]
    assert ratios(slow, fast) == [3.0, 5.0]
    assert ratios(slow, fast, "cpu_seconds") == [2.0, 5.0]


def test_an_interval_is_student_s() -> None:
    # Mean 2, deviation 1, and 4.303 = t(0.975, 2): half of the interval is 4.303 / sqrt(3).
    assert interval([1.0, 2.0, 3.0]) == "2.00 ± 2.48"
    assert interval([0.5], 100) == "50.00 ± ?"


def test_a_trial_that_diverged_is_in_no_mean_and_named() -> None:
    base = {"seconds": 1.0, "cpu_seconds": 1.0}
    hub = [Results(accuracies={0: 0.5, 1: 0.7, 2: 0.6}, **base)]
    own = [Results(accuracies={0: 0.6, 1: None, 2: 0.8}, **base)]
    assert by_trial(own) == {0: 0.6, 2: 0.8}
    text = report({"b": hub, "c": own}, {"b": "theirs", "c": "ours"})
    assert "(c) 1 of the trials diverged" in text
    assert "(c) minus (b), trial by trial: 15.00 ± 63.53 points" in text
