from __future__ import annotations

import copy
import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from sweeper.data.sources import read_source
from sweeper.errors import UsageError
from sweeper.study import (
    Choice,
    Fixed,
    Range,
    Source,
    Study,
    difference,
    from_dict,
    load_study,
    only_budget_grew,
    yamlfile,
)
from tests.study_text import STUDY, line_of, replaced, write_study_text

TEMPLATES = Path(__file__).parents[3] / "studies"
MINIMAL = """\
study: small
backbone: {model: backbone}
task: {kind: classification, text: sentence, label: label}
data: {train: data/train.tsv, validation: 0.2}
search: {bottleneck_dim: 8}
objective: {metric: accuracy}
budget: {trials: 1}
"""


def load(folder: Path, text: str = STUDY) -> Study:
    return load_study(write_study_text(folder, text))


def test_everything_is_read(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert study.name == "films"
    assert study.backbone.is_directory
    assert study.backbone.path == tmp_path / "backbone"
    assert (study.task.kind, study.task.text, study.task.label) == (
        "classification",
        ("sentence",),
        ("label",),
    )
    assert study.data.train == Source(written="data/train.tsv", path=tmp_path / "data" / "train.tsv")
    assert study.data.test == 0.1
    assert study.search["bottleneck_dim"] == Range(4, 256, log=True)
    assert study.search["activation"] == Choice(("relu", "gelu"))
    assert study.search["initialization"] == Fixed("zero_up")
    assert study.search["layers"] == Choice(("all", "upper_half", (0, 2, 4)))
    assert study.search["dropout"] == Range(0.0, 0.3, step=0.1)
    assert study.searched == (
        "bottleneck_dim",
        "activation",
        "placement",
        "layers",
        "dropout",
        "learning_rate",
    )
    assert (study.train.epochs, study.train.batch_size, study.train.max_length) == (3, 32, 128)
    assert (study.objective.metric, study.objective.direction) == ("accuracy", "maximize")
    assert study.limits.trainable_parameters == 500_000
    assert (study.budget.trials, study.budget.hours, study.budget.failures) == (60, 2.0, None)
    assert (study.sampler.name, study.sampler.options["n_startup_trials"]) == ("tpe", 5)
    assert study.pruner.options == {"minimum": 1, "reduction_factor": 2}
    assert (study.seed, study.dtype, study.text) == (7, "auto", STUDY)


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    study = load(tmp_path, MINIMAL)
    assert study.searched == ()
    assert study.search["placement"] == Fixed("pfeiffer")
    assert study.search["scaling"] == Fixed(1.0)
    assert study.train.to_dict() == {
        "learning_rate": 1e-3,
        "epochs": 3,
        "batch_size": 32,
        "warmup": 0.06,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "schedule": "linear",
        "evaluations_per_epoch": 1,
        "keep": "last",
        "max_length": 128,
        "dtype": "auto",
    }
    assert (study.task.pooling, study.objective.direction, study.seed) == ("cls", "maximize", 0)
    assert (study.sampler.name, study.pruner.name) == ("tpe", "successive_halving")
    once = load(tmp_path, MINIMAL + "train: {epochs: 1}\n")
    assert once.pruner.name == "none"  # a trial of one evaluation ends with it
    assert study.limits.trainable_parameters is None


def test_a_study_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        load(tmp_path).seed = 1  # type: ignore[misc]


def test_lines(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert study.line("search", "activation") == line_of(STUDY, "activation:")
    assert study.line("search", "weight_decay") == line_of(STUDY, "search:")  # not in the file: its section
    assert study.line("nothing") is None
    assert from_dict(study.to_dict(), study.path).line("search") is None


@pytest.mark.parametrize(
    "text",
    [
        STUDY,
        MINIMAL,
        replaced("text: sentence", "text: [first, second]"),
        replaced("train: data/train.tsv", "train: {path: data/train.tsv, rows: 100}"),
        replaced("train: data/train.tsv", f"train: {{hub: a/b, split: train, revision: {'ab' * 20}}}"),
        replaced("model: backbone", f"model: org/name\n  revision: {'0a' * 20}"),
        replaced("kind: classification", "kind: regression")
        .replace("metric: accuracy", "metric: mean_squared_error")
        .replace("maximize", "minimize"),
        replaced("  epochs: 3\n", "").replace("scaling: 1.0", "epochs: [1, 2, 5]"),
        replaced("layers: [all, upper_half, [0, 2, 4]]", "layers: [[4, 0, 2]]"),
        replaced("layers: [all, upper_half, [0, 2, 4]]", "layers: '[4, 0, 2]'"),
        replaced("dropout: {from: 0.0, to: 0.3, step: 0.1}", "schedule: [linear, cosine]"),
        replaced("pruner: successive_halving", "pruner: {name: median, minimum: 2}"),
        replaced("  hours: 2\n", "  hours: 2\n  failures: 3\n  repeats: true\n"),
        *(path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.yaml"))),
    ],
)
def test_a_study_survives_json(tmp_path: Path, text: str) -> None:
    data, _ = yamlfile.parse(text, "study.yaml")
    study = from_dict(data, tmp_path / "study.yaml")
    stored = json.loads(json.dumps(study.to_dict(), allow_nan=False))
    again = from_dict(stored, tmp_path / "study.yaml")
    assert again == study
    assert again.to_dict() == stored == study.to_dict()
    assert difference(again, stored) == []


def test_templates_are_there_and_searched() -> None:
    names = {path.stem for path in TEMPLATES.glob("*.yaml")}
    assert {"quickstart", "sst2", "token_classification", "multi_label", "causal_lm"} <= names
    for path in TEMPLATES.glob("*.yaml"):
        study = from_dict(yamlfile.read(path)[0], path)
        assert study.name == path.stem
        assert "learning_rate" in study.searched
    for name in ("quickstart", "sst2"):
        study = from_dict(yamlfile.read(TEMPLATES / f"{name}.yaml")[0], TEMPLATES / f"{name}.yaml")
        wanted = {"bottleneck_dim", "activation", "initialization", "placement", "layers", "learning_rate"}
        assert wanted <= set(study.searched)
        assert study.budget.trials >= 10


def test_the_quickstart_reads_only_its_own_folder() -> None:
    path = TEMPLATES / "quickstart.yaml"
    study = from_dict(yamlfile.read(path)[0], path)
    assert study.backbone.path == TEMPLATES / "quickstart" / "backbone"
    assert study.data.train.path == TEMPLATES / "quickstart" / "films.tsv"
    assert study.data.train.rows is not None


def test_a_choice_of_one_is_fixed_and_spellings_are_one(tmp_path: Path) -> None:
    one = load(tmp_path, replaced("activation: [relu, gelu]", "activation: [relu]"))
    other = load(tmp_path, replaced("activation: [relu, gelu]", "activation: relu"))
    assert one == other
    assert load(tmp_path, replaced("scaling: 1.0", "scaling: 1")) == load(tmp_path)
    steps = [
        replaced("{from: 4, to: 256, log: true}", f"{{from: 4, to: 256{step}}}") for step in ("", ", step: 1")
    ]
    assert load(tmp_path, steps[0]) == load(tmp_path, steps[1])


def test_a_fixed_training_value_in_search_is_taken_over(tmp_path: Path) -> None:
    study = load(
        tmp_path, replaced("learning_rate: {from: 1.0e-4, to: 1.0e-2, log: true}", "learning_rate: 3e-3")
    )
    assert study.train.learning_rate == 3e-3
    assert "learning_rate" not in study.to_dict()["train"]


def test_absolute_paths_may_name_any_place(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    outside = write_study_text(tmp_path / "elsewhere").parent / "data" / "train.tsv"
    study = load(tmp_path / "here", replaced("train: data/train.tsv", f"train: {outside}"))
    assert study.data.train.path == outside


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    write_study_text(tmp_path)
    (tmp_path / "link.tsv").symlink_to("data/train.tsv")
    study = load(tmp_path, replaced("data/train.tsv", "link.tsv"))
    assert study.data.train.path == tmp_path / "data" / "train.tsv"


def test_a_link_to_a_name_without_a_suffix_is_what_it_is_called(tmp_path: Path) -> None:
    write_study_text(tmp_path)
    (tmp_path / "data" / "train.tsv").rename(tmp_path / "data" / "0a1b2c")
    (tmp_path / "link.tsv").symlink_to("data/0a1b2c")
    source = load(tmp_path, replaced("data/train.tsv", "link.tsv")).data.train
    assert source.path == tmp_path / "data" / "0a1b2c"
    (tmp_path / "data" / "0a1b2c").write_text("text\tlabel\na good film\tpositive\n")
    assert read_source(source).columns["text"] == ["a good film"]


def test_a_study_file_may_be_named_relatively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    study = load_study("study.yaml")
    assert study.path == tmp_path / "study.yaml"
    assert study == load_study(tmp_path / "study.yaml")


def test_difference_names_keys_and_values(tmp_path: Path) -> None:
    old = load(tmp_path)
    new = load(
        tmp_path,
        replaced("activation: [relu, gelu]", "activation: [relu, tanh]")
        .replace("seed: 7", "seed: 8")
        .replace("  hours: 2\n", "")
        .replace("  batch_size: 32\n", "")
        .replace("scaling: 1.0", "batch_size: 16"),
    )
    assert difference(old, new) == [
        ("search.activation", ["relu", "gelu"], ["relu", "tanh"]),
        ("train.batch_size", 32, None),
        ("budget.hours", 2.0, None),
        ("seed", 7, 8),
        ("search.batch_size", None, 16),
    ]
    assert difference(old.to_dict(), new) == difference(old, new)


def test_comments_and_order_are_no_difference(tmp_path: Path) -> None:
    lines = STUDY.splitlines(keepends=True)
    moved = "# a comment\n" + lines[-1] + "".join(lines[:-1])
    assert difference(load(tmp_path), load(tmp_path, moved)) == []


@pytest.mark.parametrize(
    ("old", "new", "grew"),
    [
        ("trials: 60", "trials: 61", True),
        ("trials: 60", "trials: 59", False),
        ("hours: 2", "hours: 2.5", True),
        ("hours: 2", "hours: 1", False),
        ("  hours: 2\n", "", True),  # the limit is taken away
        ("trials: 60\n", "trials: 60\n  failures: 9\n", False),  # one is put there
        ("trials: 60\n", "trials: 60\n  repeats: true\n", False),
        ("seed: 7", "seed: 8", False),
        ("trials: 60", "trials: 60 # a comment", True),
    ],
)
def test_only_budget_grew(tmp_path: Path, old: str, new: str, grew: bool) -> None:
    before, after = load(tmp_path), load(tmp_path, replaced(old, new))
    assert only_budget_grew(before, after) is grew
    assert only_budget_grew(before.to_dict(), after.to_dict()) is grew


@pytest.mark.parametrize(
    ("metric", "before", "after", "grew"),
    [
        ("accuracy", 0.8, 0.9, True),
        ("accuracy", 0.9, 0.8, False),
        ("mean_squared_error", 0.5, 0.4, True),
        ("mean_squared_error", 0.4, 0.5, False),
    ],
)
def test_a_target_may_become_harder_to_reach(
    tmp_path: Path, metric: str, before: float, after: float, grew: bool
) -> None:
    kind = "classification" if metric == "accuracy" else "regression"
    text = MINIMAL.replace("accuracy", metric).replace("classification", kind)
    old, new = (
        load(tmp_path, text.replace("{trials: 1}", f"{{trials: 1, target: {target}}}"))
        for target in (before, after)
    )
    assert only_budget_grew(old, new) is grew
    assert only_budget_grew(old.to_dict(), new.to_dict()) is grew
    assert not only_budget_grew(load(tmp_path, text), new)  # one is put there


def test_a_search_that_grew_with_the_budget_is_no_budget_that_grew(tmp_path: Path) -> None:
    both = copy.deepcopy(load(tmp_path).to_dict())
    both["budget"]["trials"] = 100
    both["search"]["scaling"] = 2.0
    assert not only_budget_grew(load(tmp_path), both)


def test_sites_and_pairs_are_read_and_go_through_a_dict(tmp_path: Path) -> None:
    sites = "{layers: h, attention: a, ffn: f, linears: {query: q}}"
    text = replaced("[houlsby, pfeiffer]", "[houlsby, [[attention, parallel], [ffn, after]]]")
    text = text.replace("  model: backbone\n", f"  model: backbone\n  sites: {sites}\n")
    study = load(tmp_path, text)
    assert study.backbone.sites == {"layers": "h", "attention": "a", "ffn": "f", "linears": {"query": "q"}}
    assert study.search["placement"] == Choice(("houlsby", "attention:parallel+ffn:after"))
    assert from_dict(json.loads(json.dumps(study.to_dict())), study.path) == study
    with pytest.raises(UsageError, match="unknown key 'fnn'"):
        load(tmp_path, text.replace("ffn: f", "fnn: f"))


def test_a_study_that_is_in_a_store_may_have_a_budget_that_is_refused_today(tmp_path: Path) -> None:
    study = load(tmp_path)
    budget = {"trials": 5, "target": 87.5, "terminator": {"name": "emmr"}}
    stored = from_dict({**study.to_dict(), "budget": budget}, study.path)
    assert stored.budget.target == 87.5 and stored.budget.terminator is not None
