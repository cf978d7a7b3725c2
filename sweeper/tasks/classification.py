"""One of several labels for each text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweeper.metrics import METRICS, classification
from sweeper.tasks.columns import read_names, read_texts
from sweeper.tasks.kind import Names, TaskKind, Tokens, class_numbers, text_tokens, width_of_names

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sweeper.data import Split


def _loss(outputs: Tensor, labels: Tensor, backbone: nn.Module | None) -> Tensor:
    import torch.nn.functional as functional

    return functional.cross_entropy(outputs, labels)


def _measure(outputs: Tensor, split: Split, names: Names) -> dict[str, float]:
    return classification(outputs, split.labels)


def _predict(outputs: Tensor, tokens: Tokens, names: Names) -> list[dict[str, Any]]:
    """The most probable label and its probability."""
    assert names is not None
    scores, classes = outputs.double().softmax(dim=-1).max(dim=-1)
    return [
        {"label": names[number], "score": score}
        for number, score in zip(classes.tolist(), scores.tolist(), strict=True)
    ]


KIND = TaskKind(
    name="classification",
    metrics=METRICS["classification"],
    read_text=read_texts,
    read_labels=lambda rows, task: read_names(rows, task.label[0]),
    names_in=lambda label: (label,),
    tokenise=text_tokens(class_numbers),
    width=width_of_names,
    loss=_loss,
    measure=_measure,
    predict=_predict,
    stratified=True,
)
