"""Any number of labels for each text: none, one or several, each for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.metrics import METRICS, multi_label
from sweeper.tasks.columns import read_flags, read_label_lists, read_texts
from sweeper.tasks.kind import Names, TaskKind, Tokens, text_tokens, width_of_names

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sweeper.data import Split
    from sweeper.data.rows import Rows
    from sweeper.study.schema import Task

THRESHOLD = 0.5
"""A label is given from this probability on."""


def _read_labels(rows: Rows, task: Task) -> list[Any]:
    if len(task.label) > 1:
        return read_flags(rows, task.label)
    assert task.separator is not None
    return read_label_lists(rows, task.label[0], task.separator)


def _encode(labels: Sequence[Any], names: Names) -> Tensor:
    """``[texts, labels]``, 1 where a text has a label."""
    import torch

    numbers = {name: number for number, name in enumerate(names or ())}
    encoded = torch.zeros(len(labels), len(numbers))
    for row, own in enumerate(labels):
        for name in own:
            encoded[row, numbers[name]] = 1.0
    return encoded


def _loss(outputs: Tensor, labels: Tensor, backbone: nn.Module | None) -> Tensor:
    import torch.nn.functional as functional

    return functional.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype))


def _measure(outputs: Tensor, split: Split, names: Names) -> dict[str, float]:
    return multi_label(outputs, split.labels)


def _predict(outputs: Tensor, tokens: Tokens, names: Names) -> list[dict[str, Any]]:
    """The labels of each text, and the probability of every label by its name."""
    assert names is not None
    return [
        {
            "labels": [name for name, score in zip(names, row, strict=True) if score >= THRESHOLD],
            "scores": dict(zip(names, row, strict=True)),
        }
        for row in outputs.double().sigmoid().tolist()
    ]


KIND = TaskKind(
    name="multi_label",
    metrics=METRICS["multi_label"],
    read_text=read_texts,
    read_labels=_read_labels,
    names_in=lambda labels: labels,
    tokenise=text_tokens(_encode),
    width=width_of_names,
    loss=_loss,
    measure=_measure,
    predict=_predict,
    label_columns=1000,
    separator=",",
    least_names=1,
)
