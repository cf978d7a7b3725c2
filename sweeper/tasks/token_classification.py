"""A tag for each word: named entities in IOB2 or IOBES, or any tags, such as parts of speech.

The head reads each word's first token; the other tokens of a word are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.metrics import METRICS, tagging
from sweeper.tasks.columns import read_tags, read_words
from sweeper.tasks.kind import IGNORED, Fault, Names, TaskKind, Tokens, width_of_names

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from sweeper.data import Split


def _tokenise(
    columns: Sequence[Sequence[Any]],
    labels: Sequence[Any] | None,
    names: Names,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    fault: Fault,
) -> Tokens:
    from sweeper.data.wordtokens import tokenise_words

    numbers = {name: number for number, name in enumerate(names or ())}
    if labels is not None:
        for row, (words, tags) in enumerate(zip(columns[0], labels, strict=True)):
            if len(words) != len(tags):
                raise fault(row, f"{len(words)} words, but {len(tags)} tags: each word has one")
        labels = [[numbers[tag] for tag in tags] for tags in labels]
    return tokenise_words(columns[0], labels, tokenizer, max_length, fault)


def _loss(outputs: Tensor, labels: Tensor, backbone: nn.Module | None) -> Tensor:
    import torch.nn.functional as functional

    return functional.cross_entropy(outputs, labels.long())


def _measure(outputs: Tensor, split: Split, names: Names) -> dict[str, float]:
    assert names is not None
    read = split.labels != IGNORED
    words = [int(own.sum()) for own in read.split(split.lengths.tolist())]
    return tagging(outputs[read], split.labels[read].long(), words, names)


def _predict(outputs: Tensor, tokens: Tokens, names: Names) -> list[dict[str, Any]]:
    """A tag and its probability for each word; None for the words beyond ``max_length``."""
    assert names is not None
    read = tokens.split.labels != IGNORED
    scores, classes = outputs[read].double().softmax(dim=-1).max(dim=-1)
    found = iter(zip(classes.tolist(), scores.tolist(), strict=True))
    rows: list[dict[str, Any]] = []
    for kept, words in zip(tokens.kept, tokens.words, strict=True):
        tags: list[str | None] = [None] * words
        probabilities: list[float | None] = [None] * words
        for word in kept:
            number, probabilities[word] = next(found)
            tags[word] = names[number]
        rows.append({"labels": tags, "scores": probabilities})
    return rows


KIND = TaskKind(
    name="token_classification",
    metrics=METRICS["token_classification"],
    read_text=read_words,
    read_labels=lambda rows, task: read_tags(rows, task.label[0]),
    names_in=lambda tags: tags,
    tokenise=_tokenise,
    width=width_of_names,
    loss=_loss,
    measure=_measure,
    predict=_predict,
    read_line=lambda line: tuple(line.split()),
    reads="each word's first token",
    reading="words",
    pairs=False,
)
