"""Every error of a study file: which line it names, and which words it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.errors import UsageError
from sweeper.study import load_study
from tests.study_text import STUDY, line_of, replaced, write_study_text

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def error_of(folder: Path, text: str) -> UsageError:
    path = write_study_text(folder, text)
    with pytest.raises(UsageError) as caught:
        load_study(path)
    error = caught.value
    assert error.file == str(path)
    assert error.exit_code == 2
    assert "\n" not in error.message
    return error


# What is exchanged in the valid file, for what, words of the message, and a piece of the line that it names:
# the first line of the new text unless given.
CASES = [
    # keys
    ("activation: [relu", "activaton: [relu", "no key 'activaton' in 'search'; did you mean 'activation'?"),
    ("seed: 7", "sed: 7", "no key 'sed' at the top of a study file; did you mean 'seed'?"),
    ("seed: 7", "wibble: 7", "no key 'wibble'"),
    ("epochs: 3", "num_train_epochs: 3", "did you mean 'epochs'?"),
    ("epochs: 3", "lr: 3", "did you mean 'learning_rate'?"),
    ("seed: 7", "learning_rate: 1e-3", "belongs under 'train'"),
    ("seed: 7", "placement: pfeiffer", "belongs under 'search'"),
    ("seed: 7", "trials: 7", "belongs under 'budget'"),
    ("epochs: 3", "activation: relu", "belongs under 'search'"),
    ("scaling: 1.0", "max_length: 64", "belongs under 'train'"),
    ("scaling: 1.0", "batch_size: 16", "is in 'search' as well", "  batch_size: 32"),
    ("seed: 7", "seed: 7\nseed: 8", "a second time", "seed: 8"),
    # types
    ("study: films", "study: [films]", "must be the name of the study, not a list"),
    ("study: films", "study: 12", "must be a text, not 12; quote it"),
    ("study: films", "study: Films", "'Films' cannot be a name"),
    ("study: films", "study: -films", "cannot be a name"),
    ("study: films", f"study: {'a' * 65}", "cannot be a name"),
    ("study: films", "study: ../films", "cannot be a name"),
    ("study: films", "study: ''", "is empty"),
    ("study: films", "study:", "'study' has no value"),
    ("study: films\n", "", "'study' is missing", "backbone:"),
    ("label: label", "label: [label]", "must be a text, not a list"),
    ("label: label", "label: true", "must be a text, not true; quote it"),
    ("  label: label\n", "", "'label' is missing", "task:"),
    ("trials: 60", "trials: 60.0", "must be a whole number, not 60.0"),
    ("trials: 60", "trials: '60'", "must be a whole number, not '60'"),
    ("trials: 60", "trials: true", "must be a whole number, not true"),
    ("trials: 60", "trials: 0", "must be 1 or more, not 0"),
    ("trials: 60", "trials: 1000000000", "must be 1,000,000 or less, not 1000000000"),
    ("  trials: 60\n", "", "'trials' is missing", "budget:"),
    ("hours: 2", "hours: 0", "must be above 0"),
    ("hours: 2", "hours: soon", "must be a number, not 'soon'"),
    ("hours: 2", "failures: 0", "must be 1 or more"),
    ("hours: 2", "repeats: yes", "must be true or false, not 'yes'"),
    ("seed: 7", "seed: -1", "must be 0 or more"),
    ("seed: 7", f"seed: {10**400}", "too large"),
    ("seed: 7", "seed: .nan", "not a finite number"),
    # ray
    ("seed: 7", "ray: 2", "ray: must be a mapping with keys among num_gpus"),
    ("seed: 7", "ray: {num_gpu: 1}", "no key 'num_gpu' in 'ray'; did you mean 'num_gpus'?"),
    ("seed: 7", "ray: {num_gpus: 2}", "ray.num_gpus: must be from 0 to 1, not 2"),
    ("seed: 7", "ray: {num_gpus: a}", "must be a number, not 'a'"),
    ("seed: 7", "ray: {num_gpus: true}", "must be a number"),
    ("seed: 7", "ray: {num_cpus: -1}", "must be 0 or more, not -1"),
    ("seed: 7", "ray: {num_cpus: 1.5}", "must be a whole number above 1"),
    ("seed: 7", "ray: {num_gpus: 0.00001}", "too small; Ray counts parts of 0.0001"),
    ("seed: 7", "ray: {num_gpus: 0, num_cpus: 0, resources: {a: 0}}", "asks for nothing"),
    ("seed: 7", "ray:\n  resources: [a100]", "must be a mapping from names to numbers", "resources:"),
    ("seed: 7", "ray:\n  resources:\n    a100: yes", "ray.resources.a100: must be a number", "a100:"),
    ("seed: 7", "ray: {resources: {GPU: 1}}", "is no custom resource"),
    ("seed: 7", "ray: {resources: {'': 1}}", "cannot be the name of a resource"),
    ("seed: 7", "ray: {resources: {1: 1}}", "1"),
    ("seed: 7", "ray: {max_workers: 0}", "ray.max_workers: must be 1 or more"),
    ("seed: 7", "max_workers: 4", "this key belongs under 'ray'; move it there"),
    # task
    ("kind: classification", "kind: clasification", "did you mean 'classification'?"),
    ("kind: classification", "kind: causal_lm", "learns from the texts alone", "label: label"),
    ("text: sentence", "text: [a, b, c]", "one column or two, not 3"),
    ("text: sentence", "text: []", "one column or two, not 0"),
    ("text: sentence", "text: [a, a]", "names the column 'a' twice"),
    ("text: sentence", "text: label", "also a column of task.text", "  label: label"),
    ("pooling: mean", "pooling: max", "'max' is not known"),
    # backbone
    ("model: backbone", "model: bakbone", "there is no directory 'bakbone'"),
    ("model: backbone", "model: sentence-transformers/all-MiniLM-L6-v2", "give 'revision'"),
    ("model: backbone", "model: org/name\n  revision: main", "must be the 40 hex digits", "revision:"),
    ("model: backbone", f"model: org/name\n  revision: {'1' * 40}", "too large", "revision:"),
    ("model: backbone", "model: org/name\n  revision: 12", "quote the revision", "revision:"),
    ("model: backbone", f"model: backbone\n  revision: {COMMIT}", "is a directory here and has a revision"),
    ("model: backbone", f"model: ./a/b/c\n  revision: {COMMIT}", "is not a hub name"),
    ("model: backbone", "model: data", "has no config.json"),
    ("model: backbone", "model: data/train.tsv", "is not a directory"),
    ("model: backbone", "model: ../backbone", "leaves its folder"),
    ("model: backbone", "model: ~/backbone", "'~' is not expanded"),
    ("model: backbone", f"model: {'x' * 5000}", "there is no directory"),
    ('model: backbone', 'model: "a\\0b"', "U+0000"),
    # data
    ("train: data/train.tsv", "train: data/tran.tsv", "did you mean 'train.tsv'?"),
    ("train: data/train.tsv", "train: dat/train.tsv", "its folder does not exist"),
    ("train: data/train.tsv", "train: data/train.txt", "'.txt' is no kind of data file; known: .csv"),
    ("train: data/train.tsv", "train: data/../../train.tsv", "leaves its folder"),
    ("train: data/train.tsv", "train: 0.5", "must be a file"),
    ("train: data/train.tsv", "train: [data/train.tsv]", "must be a file, or a mapping"),
    ("train: data/train.tsv", "train: {file: data/train.tsv}", "no key 'file' in 'data.train'"),
    ("train: data/train.tsv", "train: {rows: 5}", "'path' is missing"),
    ("train: data/train.tsv", "train: {path: data/train.tsv, rows: 0}", "data.train.rows: must be 1 or more"),
    ("train: data/train.tsv", "train: {path: data/train.tsv, split: x}", "no key 'split'"),
    ("train: data/train.tsv", "train: {path: data/train.tsv, hub: a}", "not from both"),
    ("train: data/train.tsv", "train: {hub: a, split: b}", "'revision' is missing"),
    ("train: data/train.tsv", f"train: {{hub: a, revision: {COMMIT}}}", "'split' is missing"),
    ("train: data/train.tsv", f"train: {{hub: a b, split: b, revision: {COMMIT}}}", "is not a hub name"),
    ("validation: data/validation.tsv", "validation: data/train.tsv", "these are the rows of train"),
    ("validation: data/validation.tsv", "validation: data/../data/train.tsv", "these are the rows of train"),
    ("test: 0.1", "test: {path: data/../data/validation.tsv, rows: 1}", "these are the rows of validation;"),
    ("validation: data/validation.tsv", "validation: 1.0", "above 0 and below 1"),
    ("validation: data/validation.tsv", "validation: 500", "name a file: {path: FILE, rows: N}"),
    ("validation: data/validation.tsv", "validation: 0.9", "leave nothing to train on", "  test: 0.1"),
    ("  validation: data/validation.tsv\n", "", "'validation' is missing", "data:"),
    # search
    ("bottleneck_dim: {from: 4, to: 256, log: true}", "placement: pfeiffer", "second", "placement: [houl"),
    ("  bottleneck_dim: {from: 4, to: 256, log: true}\n", "", "'bottleneck_dim' is missing", "search:"),
    ("from: 4, to: 256", "from: 256, to: 4", "turned round; write {from: 4, to: 256}"),
    ("from: 4, to: 256", "from: 4, to: 4", "holds only 4; write bottleneck_dim: 4"),
    ("from: 4, to: 256", "from: 0, to: 256", "must be 1 or more, not 0"),
    ("from: 4, to: 256", "from: 4.0, to: 256", "must be a whole number, not 4.0"),
    ("from: 4, to: 256", "from: 4", "'to' is missing"),
    ("from: 4, to: 256", "from: 4, too: 256", "did you mean 'to'?"),
    ("from: 4, to: 256, log: true", "from: 4, to: 256, log: 1", "must be true or false, not 1"),
    ("from: 4, to: 256, log: true", "from: 4, to: 256, log: true, step: 2", "not both; remove one"),
    ("from: 4, to: 256, log: true", "from: 4, to: 256, step: 5", "never reach 256"),
    ("from: 4, to: 256, log: true", "from: 4, to: 256, step: 0", "must be 1 or more"),
    ("from: 0.0, to: 0.3, step: 0.1", "from: 0.0, to: 0.35, step: 0.1", "write 'to: 0.4'"),
    ("from: 0.0, to: 0.3, step: 0.1", "from: 0.0, to: 0.3, step: -0.1", "must be above 0"),
    ("from: 0.0, to: 0.3, step: 0.1", "from: 0.0, to: 0.3, step: 1e-300", "too small"),
    ("from: 0.0, to: 0.3, step: 0.1", "from: 0.0, to: 0.3, log: true", "above 0 on a logarithmic scale"),
    ("from: 0.0, to: 0.3, step: 0.1", "from: 0.0, to: 1.0", "below 1"),
    ("from: 0.0, to: 0.3, step: 0.1", "", "'from' is missing", "dropout:"),
    ("activation: [relu, gelu]", "activation: [rellu, gelu]", "did you mean 'relu'?"),
    ("activation: [relu, gelu]", "activation: [relu, 3]", "activation is 3"),
    ("activation: [relu, gelu]", "activation: [relu, relu]", "'relu' is listed twice"),
    ("activation: [relu, gelu]", "activation: []", "the list is empty"),
    ("activation: [relu, gelu]", "activation:", "has no value"),
    ("activation: [relu, gelu]", "activation: [relu, [gelu]]", "a list in the list"),
    ("activation: [relu, gelu]", "activation: [relu, {a: 1}]", "must be a value, not a mapping"),
    ("activation: [relu, gelu]", "activation: {from: 1, to: 2}", "only numbers have a range"),
    ("activation: [relu, gelu]", f"activation: {'x' * 100_000}", "is not known"),
    ("activation: [relu, gelu]", "activation:\n    - relu\n    - rellu", "did you mean 'relu'?", "- rellu"),
    ("[houlsby, pfeiffer]", "[houlsby, [[ffn, befor]]]", "unknown wiring 'befor' of ffn"),
    ("[houlsby, pfeiffer]", "[pfeiffer, [[ffn, after]]]", "is listed twice"),
    ("layers: [all, upper_half, [0, 2, 4]]", "layers: [0, 2, 4]", "write a list in the list: [[0, 2, 4]]"),
    ("layers: [all, upper_half, [0, 2, 4]]", "layers: [all, []]", "the set of layers is empty"),
    ("layers: [all, upper_half, [0, 2, 4]]", "layers: [all, [0, 0]]", "twice"),
    ("layers: [all, upper_half, [0, 2, 4]]", "layers: [[0, 2], [2, 0]]", "listed twice"),
    ("layers: [all, upper_half, [0, 2, 4]]", "layers: [all, [-1]]", "layers"),
    ("layers: [all, upper_half, [0, 2, 4]]", "layers: [all, '[0, x']", "layers"),
    ("layers: [all, upper_half, [0, 2, 4]]", f"layers: [all, '{'[' * 90}']", "layers"),
    ("scaling: 1.0", "scaling: 0.0", "scaling"),
    ("scaling: 1.0", "scaling: big", "must be a number, not 'big'"),
    ("scaling: 1.0", "scaling: true", "must be a number, not true"),
    ("scaling: 1.0", "method: lora", "means nothing to the method lora", "bottleneck_dim"),
    ("scaling: 1.0", "method: [bottleneck, lroa]", "did you mean 'lora'"),
    ("scaling: 1.0", "method: [bottleneck, bottleneck]", "'bottleneck' is listed twice"),
    ("scaling: 1.0", "method: {}", "names no method"),
    ("scaling: 1.0", "method: 3", "must be the name of a method, a list of names, or a mapping"),
    ("scaling: 1.0", "method: {bottleneck: {rank: 3}}", "there is no key 'rank' in 'search.method"),
    ("scaling: 1.0", "method: {bottleneck: 3}", "search.method.bottleneck: must be a mapping"),
    ("scaling: 1.0", "method: {bottleneck: {bottleneck_dim: 8}}", "written under each", "bottleneck_dim"),
    ("scaling: 1.0", "epochs: [0, 3]", "must be 1 or more, not 0"),
    ("scaling: 1.0", "schedule: [linear, cosin]", "did you mean 'cosine'?"),
    ("learning_rate: {from: 1.0e-4,", "learning_rate: {from: 0,", "must be above 0"),
    ("learning_rate: {from: 1.0e-4,", "learning_rate: {from: -1e-4,", "must be above 0"),
    # train
    ("epochs: 3", "epochs: 0", "train.epochs: must be 1 or more, not 0"),
    ("epochs: 3", "epochs: 1000000000", "train.epochs: must be 100,000 or less"),
    ("epochs: 3", "epochs: 2.5", "must be a whole number"),
    ("epochs: 3", "epochs: [1, 2]", "a choice or a range belongs under 'search'"),
    ("epochs: 3", "keep: [last, best]", "the same for all trials"),
    ("epochs: 3", "keep: first", "known: last, best"),
    ("epochs: 3", "warmup: 1", "must be below 1"),
    ("epochs: 3", "warmup: -0.1", "must be 0 or more"),
    ("epochs: 3", "max_grad_norm: 0", "must be above 0"),
    ("epochs: 3", "dtype: float16", "did you mean 'bfloat16'?"),
    ("epochs: 3", "max_length: 0", "must be 1 or more"),
    # objective, sampler, pruner
    ("metric: accuracy", "metric: acuracy", "did you mean 'accuracy'?"),
    ("metric: accuracy", "metric: pearson", "pearson is for regression"),
    ("direction: maximize", "direction: minimize", "accuracy is better the higher; write maximize"),
    ("direction: maximize", "direction: up", "'up' is not known"),
    ("metric: accuracy\n", "metric: loss\n", "loss is better the lower; write minimize", "direction:"),
    ("trainable_parameters: 500000", "trainable_parameters: 0", "must be 1 or more"),
    ("trainable_parameters: 500000", "parameters: 5", "did you mean 'trainable_parameters'?"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: tp", "did you mean 'tpe'?"),
    ("n_startup_trials: 5", "n_startup: 5", "did you mean 'n_startup_trials'?"),
    ("n_startup_trials: 5", "n_startup_trials: 0", "must be 1 or more"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: {n_startup_trials: 5}", "'name' is missing"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: {name: random, n_startup_trials: 5}", "no key"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: 3", "must be a name"),
    ("pruner: successive_halving", "pruner: sucessive_halving", "did you mean 'successive_halving'?"),
    ("pruner: successive_halving", "pruner: {name: median, reduction_factor: 3}", "no key"),
    ("pruner: successive_halving", "pruner: {name: successive_halving, reduction_factor: 1}", "2 or more"),
    ("pruner: successive_halving", "pruner: {name: median, minimum: 3}", "a trial has 3 evaluations"),
    ("epochs: 3", "epochs: 1", "raise train.evaluations_per_epoch", "pruner:"),
    ("pruner: successive_halving", "pruner: {name: hyperband, maximum: 0}", "1 or more"),
    ("pruner: successive_halving", "pruner: {name: hyperband, minimum: 2, maximum: 1}", "at least"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: {name: tpe, n_startup_trails: 5}", "mean"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: {name: tpe, group: 1}", "true or false"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: {name: nsgaii, population_size: 1}", "2 or more"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: {name: nsgaii, crossover_prob: 2}", "0 to 1"),
    ("sampler: {name: tpe, n_startup_trials: 5}", "sampler: grid", "no points in search.bottleneck_dim"),
    ("scaling: 1.0", "method: {bottleneck: null, head: {rank: 4}}", "'search.method.head'; it has none"),
    ("seed: 7", "warm_start: films-small", "must be a list of names"),
    ("seed: 7", "warm_start: [a, a]", "a second time"),
    ("hours: 2", "target: high", "must be a number"),
    ("hours: 2", "target: 87.5", "is 87.5, which no accuracy reaches: it is from 0 to 1"),
    ("hours: 2", "target: -0.5", "is -0.5, which no accuracy reaches"),
    ("hours: 2", "patience: 0", "1 or more"),
    ("hours: 2", "terminator: {name: emmr, n_initial_trials: 500}", "once 510 trials are complete"),
    ("activation: [relu, gelu]", "activation: [ReLU, gelu]", "[0]: unknown activation 'ReLU'; did you mean"),
    ("activation: [relu, gelu]", "activation: [relu, LeakyReLU]", "did you mean 'leaky_relu'?"),
    ("hours: 2", "terminator: emr", "did you mean 'emmr'?"),
    ("hours: 2", "terminator: {name: emmr, threshold_ratio: 0}", "must be 1e-09 to 1"),
    ("trainable_parameters: 500000", "flops_per_token: none", "whole number"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[1][:40].split("\n")[0] or f"no {case[0][:30]}")
def test_error(tmp_path: Path, case: tuple[str, ...]) -> None:
    old, new, words, *at = case
    text = replaced(old, new)
    error = error_of(tmp_path, text)
    assert words in error.message
    assert error.line == line_of(text, at[0] if at else new.split("\n")[0])
    assert len(error.message) < 400


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file(tmp_path: Path, text: str) -> None:
    error = error_of(tmp_path, text)
    assert ("the file is empty" in error.message, error.line) == (True, 1)


@pytest.mark.parametrize("text", ["- a\n- b\n", "words\n", "12\n", "[]\n", "''\n"])
def test_no_mapping(tmp_path: Path, text: str) -> None:
    assert "must be a mapping with keys among study, backbone" in error_of(tmp_path, text).message


def test_every_section_must_be_what_it_is(tmp_path: Path) -> None:
    for section in ("backbone", "task", "data", "search", "train", "objective", "limits", "budget"):
        head, _, rest = STUDY.partition(f"\n{section}:\n")
        head += "\n"
        tail = rest.splitlines(keepends=True)
        while tail and tail[0].startswith(" "):
            tail.pop(0)
        for value, words in [("[1]", "mapping"), ("word", "mapping"), ("3", "mapping"), ("{}", "")]:
            text = f"{head}{section}: {value}\n{''.join(tail)}"
            if value == "{}" and section in ("train", "limits"):
                load_study(write_study_text(tmp_path, text))
                continue
            error = error_of(tmp_path, text)
            assert words in error.message
            assert error.line == head.count("\n") + 1


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.tsv").write_text("sentence\tlabel\n")
    (inner / "link.tsv").symlink_to(tmp_path / "secret.tsv")
    (inner / "up").symlink_to(tmp_path)
    for path in ("link.tsv", "up/secret.tsv"):
        assert "leaves its folder" in error_of(inner, replaced("data/train.tsv", path)).message


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    error = error_of(tmp_path, replaced("model: backbone", "model: loop"))
    assert "loop" in error.message


def test_a_data_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.tsv").mkdir()
    assert "is not a file" in error_of(tmp_path, replaced("data/train.tsv", "folder.tsv")).message


OBJECTIVE = "objective:\n  metric: accuracy\n  direction: maximize\n"
TWO = "objective: [{metric: accuracy}, {metric: trainable_parameters}]\n"


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("objective: []\n", "empty list"),
        ("objective: [{metric: accuracy}, {metric: accuracy}]\n", "a second time"),
        ("objective: [{metric: flops_per_token}, {metric: accuracy}]\n", "measures first"),
        ("objective: {metric: trainable_parameters}\n", "nothing to search for alone"),
        ("objective: [{metric: accuracy}, {metric: flops}]\n", "flops_per_token"),
        ("objective: [{metric: accuracy}, {metric: loss, direction: maximize}]\n", "write minimize"),
    ],
)
def test_errors_of_several_objectives(tmp_path: Path, objective: str, words: str) -> None:
    text = replaced(OBJECTIVE, objective)
    error = error_of(tmp_path, text)
    assert words in error.message and error.line == line_of(text, "objective:")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("pruner: successive_halving", "pruner: median", "have no median"),
        ("hours: 2", "target: 0.9", "is for one objective"),
        ("hours: 2", "terminator: emmr", "is for one objective"),
    ],
)
def test_what_several_objectives_cannot_have(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = replaced(OBJECTIVE, TWO).replace(old, new)
    error = error_of(tmp_path, text)
    assert words in error.message and error.line == line_of(text, new)
