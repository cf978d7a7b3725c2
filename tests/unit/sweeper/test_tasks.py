"""What each kind of task makes of rows, hidden states and outputs; and the law of a pack for each."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import normalizers
from torch import Tensor
from transformers import AutoModelForCausalLM

import sweeper.tasks.causal_lm as causal
from adapters import AdapterConfig
from adapters.architectures import is_flat
from adapters.pack import Pack
from sweeper.batches import gather, gather_labels
from sweeper.data import Split, TaskData, read_tables
from sweeper.data.tokens import row_fault
from sweeper.errors import UsageError
from sweeper.evaluate import forward_head, predict_logits
from sweeper.events import Event, Failed, Finished
from sweeper.finetune import fine_tune
from sweeper.metrics import METRICS, entities, multi_label, tagging
from sweeper.slot import Job, Problem, generator_for
from sweeper.study import load_study
from sweeper.task import loss, make_head, measure
from sweeper.tasks import KINDS, Tokens, task_of
from sweeper.tasks.kind import IGNORED
from sweeper.train import train
from sweeper.trainconfig import TrainConfig
from tests.tiny_folder import _tokenizer, write_study
from tests.tiny_models import HIDDEN_SIZE, VOCABULARY, tiny_model

DECODERS = (
    "gpt2", "opt", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3",
)  # fmt: skip
TAGS = ("B-A", "I-A", "O")


def test_every_kind_has_its_metrics() -> None:
    assert {name: dict(kind.metrics) for name, kind in KINDS.items()} == METRICS


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (["B-PER I-PER O B-LOC"], ["B-PER I-PER O B-LOC"], (1.0, 1.0, 1.0)),
        (["B-PER I-PER O B-LOC"], ["B-PER O O B-LOC"], (0.5, 0.5, 0.5)),
        (["O I-PER I-PER B-PER I-LOC"], ["O B-PER I-PER B-PER B-LOC"], (1.0, 1.0, 1.0)),
        (["B-A I-A E-A S-B O"], ["B-A E-A I-A S-B S-B"], (1 / 3, 0.25, 0.5)),
        (["O B-A", "B-B I-B"], ["B-A I-A", "B-B I-A"], (0.0, 0.0, 0.0)),
        (["O O"], ["O O"], (0.0, 0.0, 0.0)),
    ],
)
def test_entities_are_counted_as_seqeval_does(
    truth: list[str], predicted: list[str], expected: tuple[float, float, float]
) -> None:
    """The numbers are those of seqeval 1.2.2: F1, precision, recall."""
    found = entities([tags.split() for tags in truth], [tags.split() for tags in predicted])
    assert list(found.values()) == pytest.approx([expected[0], expected[1], expected[2]])
    assert list(found) == ["entity_f1", "entity_precision", "entity_recall"]


def test_an_entity_does_not_run_from_one_text_into_the_next() -> None:
    outputs = torch.eye(3)[[0, 1, 1, 2]] * 9  # B-A I-A | I-A O
    labels = torch.tensor([0, 1, 0, 2])
    assert tagging(outputs, labels, [2, 2], TAGS)["entity_f1"] == 1.0
    assert tagging(outputs, labels, [4], TAGS)["entity_f1"] < 1.0
    assert tagging(outputs, labels, [2, 2], TAGS)["accuracy"] == 0.75


def test_without_tags_of_entities_there_is_accuracy_alone() -> None:
    found = tagging(torch.eye(2), torch.tensor([0, 1]), [2], ("NOUN", "VERB"))
    assert math.isnan(found["entity_f1"]) and found["accuracy"] == 1.0


def test_metrics_of_several_labels() -> None:
    logits = torch.tensor([[3.0, -1.0, -1.0], [2.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    found = multi_label(logits, labels)
    assert found["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1) / 2)  # the third label occurs nowhere
    assert found["subset_accuracy"] == pytest.approx(2 / 3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), labels.double())
    assert found["loss"] == pytest.approx(expected.item())
    assert multi_label(-torch.ones(2, 1), torch.zeros(2, 1))["f1_macro"] == 0.0
    assert all(map(math.isnan, multi_label(logits * math.inf, labels).values()))


def words_tokens(
    rows: list[list[str]], labels: list[list[str]] | None, max_length: int, family: str
) -> Tokens:
    kind = task_of("token_classification")
    return kind.tokenise([rows], labels, TAGS, _tokenizer(family), max_length, row_fault)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_the_label_of_a_word_is_on_its_first_token(family: str) -> None:
    made = words_tokens([["good-bad", "film", "!"], ["a"]], [["B-A", "I-A", "O"], ["O"]], 64, family)
    tokenizer = _tokenizer(family)
    read = made.split.labels != IGNORED
    ids = made.split.input_ids[read].tolist()
    assert tokenizer.convert_ids_to_tokens(ids) == ["good", "film", "!", "a"]
    assert made.split.labels[read].tolist() == [0, 1, 2, 2]
    assert made.split.by_token and made.facts == {"words": 4, "words_cut": 0}
    assert made.split.label_rows(torch.tensor([1])).tolist() == [int(read.nonzero()[-1])]


def test_words_past_the_maximal_length_are_counted_and_predicted_as_nothing() -> None:
    rows = [["good", "bad", "film", "plot"], ["a"]]
    made = words_tokens(rows, None, 4, "bert")  # with [CLS] and [SEP], two words are left
    assert (made.truncated, made.facts) == (1, {"words": 3, "words_cut": 2})
    outputs = torch.zeros(len(made.split.labels), 3)
    outputs[:, 1] = 5.0
    first, second = task_of("token_classification").predict(outputs, made, TAGS)
    assert first["labels"] == ["I-A", "I-A", None, None] and first["scores"][2:] == [None, None]
    assert second["labels"] == ["I-A"] and second["scores"][0] > 0.9


def test_a_word_whose_beginning_is_cut_off_has_no_first_token() -> None:
    tokenizer = _tokenizer("bert")
    tokenizer.truncation_side = "left"
    rows, labels = [[["good-bad", "film"]]], [["B-A", "O"]]
    made = task_of("token_classification").tokenise(rows, labels, TAGS, tokenizer, 4, row_fault)
    assert tokenizer.convert_ids_to_tokens(made.split.input_ids.tolist())[1:3] == ["bad", "film"]
    assert made.split.labels.tolist() == [IGNORED, IGNORED, 2, IGNORED]
    assert made.facts == {"words": 1, "words_cut": 1}


def test_a_word_without_a_token_is_an_error() -> None:
    tokenizer = _tokenizer("bert")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("film", "")
    rows = [[["a"], ["the", "film"]]]
    with pytest.raises(UsageError, match=r"row 2: .*no token of word 2, 'film'"):
        task_of("token_classification").tokenise(rows, None, TAGS, tokenizer, 64, row_fault)


def language(texts: list[str], max_length: int) -> Tokens:
    return task_of("causal_lm").tokenise([texts], None, None, _tokenizer("gpt2"), max_length, row_fault)


@pytest.mark.parametrize("max_length", [2, 3, 4, 7, 64])
def test_every_token_of_a_text_is_predicted_once(max_length: int) -> None:
    texts = ["good film .", "a", "the plot is very good and so is the story of it"]
    made, tokenizer = language(texts, max_length), _tokenizer("gpt2")
    split, at, predicted = made.split, 0, []
    assert int(split.lengths.max()) <= max_length and int(split.lengths.min()) >= 2
    for text, pieces in zip(texts, made.parts, strict=True):
        indices = torch.arange(at, at + pieces)
        following = split.labels[split.label_rows(indices)].tolist()
        assert following == tokenizer(text)["input_ids"]
        predicted += following
        at += pieces
    assert made.facts == {"pieces": at, "predicted": len(predicted)}
    losses = torch.rand(len(split.labels), 1)
    rows = task_of("causal_lm").predict(losses, made, None)
    total = sum(row["loss"] * row["tokens"] for row in rows)
    found = task_of("causal_lm").measure(losses, split, None)
    assert found["loss"] == pytest.approx(total / len(predicted))
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))


def lm_split(texts: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (texts,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    ids = torch.randint(10, VOCABULARY, (int(offsets[-1]),), generator=generator, dtype=torch.int32)
    labels = torch.cat([ids[1:], ids[:1]])
    labels[offsets[1:] - 1] = IGNORED
    return Split(ids, None, offsets, labels)


@pytest.mark.parametrize("family", DECODERS)
def test_the_loss_of_a_language_model_is_that_of_transformers(family: str) -> None:
    model = tiny_model(family, auto_class=AutoModelForCausalLM).double()
    split, indices = lm_split(4, 3), torch.tensor([2, 0, 1, 3])
    expected, exact = 0.0, 1e-7 if family == "gemma2" else 1e-9  # whose attention takes its softmax in fp32
    for index in range(4):
        ids = split.input_ids[split.tokens_of(torch.tensor([index]))].long()[None]
        logits = model(input_ids=ids).logits[0, :-1]  # the library's own loss is in fp32
        expected += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    expected /= int((split.labels != IGNORED).sum())
    pack = Pack(model)
    pack.put(0, None)
    head = make_head(HIDDEN_SIZE, 0, torch.Generator()).double()
    batch = gather(split, indices, torch.device("cpu"), pack.reads(0))
    (hidden,) = forward_head(pack, [(0, head, batch)], "next")
    labels = gather_labels(split, indices, torch.device("cpu"))
    assert loss("causal_lm", hidden, labels, model).item() == pytest.approx(expected, rel=exact)
    kept = predict_logits(pack, 0, head, split, "next")
    assert measure("causal_lm", kept, split, None)["loss"] == pytest.approx(expected, rel=exact)


def test_logits_some_rows_at_a_time_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2", auto_class=AutoModelForCausalLM).double()
    found = []
    for at_once in (10**9, 3 * VOCABULARY):
        monkeypatch.setattr(causal, "LOGITS_AT_ONCE", at_once)
        hidden = torch.randn(10, HIDDEN_SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        hidden.requires_grad_()
        value = loss("causal_lm", hidden, torch.arange(10, 20, dtype=torch.int32), model)
        value.backward()
        found.append((value.detach(), hidden.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


def tag_split(texts: int, seed: int) -> Split:
    """Some tokens of each text are read; whether one is below 40 is its label."""
    split = lm_split(texts, seed)
    labels = (split.input_ids < 40).int()
    read = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) < 0.6
    read[split.offsets[:-1]] = True
    return replace(split, labels=torch.where(read, labels, torch.tensor(IGNORED, dtype=torch.int32)))


def multi_split(texts: int, seed: int) -> Split:
    split = lm_split(texts, seed)
    rows = [split.input_ids[split.tokens_of(torch.tensor([text]))] for text in range(texts)]
    labels = torch.tensor([[float((row < 25).any()), float((row > 80).any())] for row in rows])
    return replace(split, labels=labels)


CASES = {
    "token_classification": ("words", 2, tag_split, ("bert", "deberta-v2"), ("O", "B-A")),
    "multi_label": ("mean", 2, multi_split, ("bert",), ("a", "b")),
    "causal_lm": ("next", 0, lm_split, ("gpt2", "gpt_neox"), None),
}
FAMILY_CASES = [(kind, family) for kind, case in CASES.items() for family in case[3]]


def backbone(kind: str, family: str) -> Pack:
    model = tiny_model(family, auto_class=AutoModelForCausalLM) if kind == "causal_lm" else tiny_model(family)
    return Pack(model.double(), 4)


def trained(kind: str, family: str, jobs: list[Job]) -> dict[int | None, Finished]:
    pooling, width, make, _, names = CASES[kind]
    data = TaskData(make(40, 0), make(20, 1), None, names, "x", {})
    problem = Problem(kind, pooling, width, "loss", False)
    waiting = list(jobs)
    events: list[Event] = list(
        train(
            backbone(kind, family), data, problem, lambda: waiting.pop(0) if waiting else None, device="cpu"
        )
    )
    assert not [event for event in events if isinstance(event, Failed)]
    return {event.job.number: event for event in events if isinstance(event, Finished)}


@pytest.mark.parametrize(("kind", "family"), FAMILY_CASES)
def test_a_trial_computes_alone_what_it_computes_in_a_pack(kind: str, family: str) -> None:
    configs = [
        AdapterConfig(bottleneck_dim=4, initialization="normal", dropout=0.2),
        AdapterConfig(bottleneck_dim=6, placement="houlsby", initialization="kaiming", layers=(2,)),
        AdapterConfig(method="lora", rank=2) if family != "deberta-v2" else AdapterConfig(bottleneck_dim=2),
        None,
    ]
    settings = TrainConfig(learning_rate=5e-3, epochs=2, batch_size=8)
    jobs = [
        Job(number, number, 1, config, replace(settings, batch_size=6 + number), seed=number)
        for number, config in enumerate(configs)
    ]
    packed = trained(kind, family, jobs)
    for job in jobs:
        alone = trained(kind, family, [job])[job.number]
        one = packed[job.number]
        assert one.outcome == alone.outcome == "complete"
        for name in (*METRICS[kind], "train/loss"):
            assert one.metrics.get(name) == pytest.approx(alone.metrics.get(name), rel=1e-9, abs=1e-12), name
        modules = [(one.head, alone.head)] + ([(one.adapter, alone.adapter)] if one.adapter else [])
        for mine, its in modules:
            for a, b in zip(mine.parameters(), its.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", CASES)
def test_an_adapter_learns_more_than_the_bare_backbone(kind: str) -> None:
    settings = TrainConfig(learning_rate=1e-2, epochs=6, batch_size=8)
    jobs = [Job(0, 0, 1, None, settings, 0), Job(1, 1, 1, AdapterConfig(bottleneck_dim=16), settings, 0)]
    bare, adapted = trained(kind, CASES[kind][3][0], jobs).values()
    assert adapted.metrics["train/loss"] < bare.metrics["train/loss"]


@pytest.mark.parametrize(("kind", "family"), [*FAMILY_CASES, ("multi_label", "t5"), ("multi_label", "bart")])
def test_the_whole_backbone_is_fine_tuned(kind: str, family: str) -> None:
    pooling, width, make, _, names = CASES[kind]
    pack, split = backbone(kind, family), make(24, 0)
    problem = Problem(kind, pooling, width, "loss", False)
    pack.put(0, None)
    head = make_head(HIDDEN_SIZE, width, generator_for(1, "head")).double()
    before = measure(kind, predict_logits(pack, 0, head, split, pooling), split, names)["loss"]
    if is_flat(pack.backbone.config):  # as it comes from `load_backbone`, before a pack has it
        pack.backbone.set_attn_implementation("sdpa")
    settings = TrainConfig(learning_rate=5e-3, epochs=4, batch_size=8)
    told: list[tuple[int, int]] = []
    head = fine_tune(pack.backbone, split, problem, settings, 1, lambda *step: told.append(step))
    assert told == [(done, 12) for done in range(1, 13)]  # three batches in each of four epochs
    pack = Pack(pack.backbone)
    pack.put(0, None)
    assert measure(kind, predict_logits(pack, 0, head, split, pooling), split, names)["loss"] < before


def lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


GOOD_WORDS = {"words": ["a", "good", "film"], "tags": ["O", "B-A", "I-A"]}


def word_study(
    folder: Path, train_rows: list[dict[str, object]], validation: list[dict[str, object]], **more: object
):
    (folder / "backbone").mkdir(exist_ok=True)
    (folder / "backbone" / "config.json").write_text("{}")
    lines(folder / "data" / "train.jsonl", train_rows)
    lines(folder / "data" / "validation.jsonl", validation)
    return write_study(
        folder,
        task={"kind": "token_classification", "text": "words", "label": "tags", "pooling": None},
        data={"train": "data/train.jsonl", "validation": "data/validation.jsonl", "test": None},
        **{"objective": {"metric": "entity_f1"}, **more},
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": [], "tags": []}, "holds no word"),
        ({"words": ["a", " "], "tags": ["O", "O"]}, "word 2 in column 'words' is ' '"),
        ({"words": 3, "tags": ["O"]}, "is no list of words"),
        ({"words": ["a"], "tags": None}, "the tags in column 'tags' are missing"),
        ({"words": ["a"], "tags": [None]}, "tag 1"),
        ({"words": ["a"], "tags": ["B-Z"]}, "the label 'B-Z' of validation does not occur in train"),
    ],
)
def test_a_wrong_row_of_words_is_named_with_its_line(
    tmp_path: Path, row: dict[str, object], message: str
) -> None:
    study = load_study(word_study(tmp_path, [GOOD_WORDS, GOOD_WORDS], [GOOD_WORDS, row]))
    with pytest.raises(UsageError) as caught:
        read_tables(study)
    assert message in str(caught.value)
    assert caught.value.line == 2 and caught.value.file == str(tmp_path / "data" / "validation.jsonl")


def test_as_many_tags_as_words() -> None:
    with pytest.raises(UsageError, match="row 1: 2 words, but 1 tags"):
        words_tokens([["a", "good"]], [["O"]], 64, "bert")


def test_entities_need_their_tags(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"words": "a film", "tags": "DET NOUN"}] * 2
    with pytest.raises(UsageError, match=r"entity_f1 needs tags of IOB2 or IOBES.*'DET' is none"):
        read_tables(load_study(word_study(tmp_path, rows, rows)))
    path = word_study(tmp_path, rows, rows, objective={"metric": "accuracy"})
    assert read_tables(load_study(path)).train.texts == ([("a", "film")] * 2,)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "token_classification", "pooling": "cls"}, r"task\.pooling: .*each word's first token"),
        ({"kind": "token_classification", "text": ["a", "b"], "pooling": None}, "must be one column"),
        ({"kind": "causal_lm", "pooling": None}, r"task\.label: causal_lm learns from the texts alone"),
        ({"kind": "causal_lm", "label": None}, r"task\.pooling: .*nothing to pool"),
        ({"kind": "classification", "separator": ","}, r"task\.separator: is of no use to classification"),
        ({"kind": "multi_label", "separator": ""}, r"task\.separator: must be a text"),
        ({"kind": "multi_label", "label": ["a", "a"]}, "names the column 'a' twice"),
        ({"kind": "span"}, r"task\.kind: 'span' is not known"),
    ],
)
def test_keys_that_a_kind_does_not_have(tmp_path: Path, task: dict[str, object], message: str) -> None:
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=message) as caught:
        load_study(write_study(tmp_path, task=task, objective={"metric": "loss", "direction": "minimize"}))
    assert caught.value.line is not None


def flag_rows(folder: Path, text: str, **task: object):
    (folder / "backbone").mkdir(exist_ok=True)
    (folder / "backbone" / "config.json").write_text("{}")
    (folder / "data").mkdir(exist_ok=True)
    for name in ("train", "validation", "test"):
        (folder / "data" / f"{name}.tsv").write_text(text)
    path = write_study(folder, task={"kind": "multi_label", **task}, objective={"metric": "f1_micro"})
    return read_tables(load_study(path))


def test_labels_by_list_by_separator_and_by_column(tmp_path: Path) -> None:
    by_text = flag_rows(tmp_path, "sentence\tlabel\nx\tred, blue\ny\t\nz\tblue\n")
    assert by_text.train.labels == [("blue", "red"), (), ("blue",)] and by_text.label_names == ("blue", "red")
    by_bar = flag_rows(tmp_path, "sentence\tlabel\nx\ta,b|c\n", separator="|")
    assert by_bar.train.labels == [("a,b", "c")]
    flags = "sentence\tred\tblue\nx\t1\t1\ny\t0\tfalse\nz\t0\t1\n"
    assert flag_rows(tmp_path, flags, label=["red", "blue"]).train.labels == by_text.train.labels
    with pytest.raises(UsageError, match="one column holds lists of labels: write it without brackets"):
        flag_rows(tmp_path, flags, label=["red"])
    with pytest.raises(UsageError, match="column 'red' holds '2'") as caught:
        flag_rows(tmp_path, flags.replace("y\t0", "y\t2"), label=["red", "blue"])
    assert caught.value.line == 3
    with pytest.raises(UsageError, match="every row of train has no label"):
        flag_rows(tmp_path, "sentence\tlabel\nx\t\n")


@pytest.mark.parametrize(
    ("family", "search", "message"),
    [
        ("bert", {"bottleneck_dim": 4}, "a bert sees those after it as well"),
        ("gpt2", {"method": "head"}, "method: head trains nothing here"),
        (
            "gpt2",
            {"method": {"bottleneck": {"bottleneck_dim": 4}, "head": None}},
            "method: head trains nothing",
        ),
    ],
)
def test_what_a_language_model_refuses(
    tmp_path: Path, family: str, search: dict[str, object], message: str
) -> None:
    from sweeper.task import check_task
    from tests.tiny_models import tiny_config

    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "config.json").write_text("{}")
    path = write_study(
        tmp_path,
        task={"kind": "causal_lm", "label": None, "pooling": None},
        search={**search, "learning_rate": {"from": 1e-3, "to": 1e-2}},
        objective={"metric": "perplexity", "direction": "minimize"},
    )
    with pytest.raises(UsageError, match=message) as caught:
        check_task(load_study(path), tiny_config(family))
    assert caught.value.line is not None


def test_a_head_without_outputs_is_saved_and_read_again() -> None:
    from safetensors.torch import load, save

    from sweeper.task import linear

    head = make_head(HIDDEN_SIZE, 0, torch.Generator())
    tensors: dict[str, Tensor] = load(save(head.state_dict()))
    assert linear(tensors["weight"], tensors["bias"]).out_features == 0
