"""A number for each text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.metrics import METRICS, regression
from sweeper.tasks.columns import read_numbers, read_texts
from sweeper.tasks.kind import Names, TaskKind, Tokens, text_tokens

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sweeper.data import Split


def _encode(labels: Sequence[Any], names: Names) -> Tensor:
    import torch

    return torch.tensor(labels, dtype=torch.float32)


def _loss(outputs: Tensor, labels: Tensor, backbone: nn.Module | None) -> Tensor:
    import torch.nn.functional as functional

    return functional.mse_loss(outputs[:, 0], labels.to(outputs.dtype))


def _measure(outputs: Tensor, split: Split, names: Names) -> dict[str, float]:
    return regression(outputs, split.labels)


def _predict(outputs: Tensor, tokens: Tokens, names: Names) -> list[dict[str, Any]]:
    return [{"label": None, "score": value} for value in outputs[:, 0].double().tolist()]


KIND = TaskKind(
    name="regression",
    metrics=METRICS["regression"],
    read_text=read_texts,
    read_labels=lambda rows, task: read_numbers(rows, task.label[0]),
    names_in=lambda label: (),
    tokenise=text_tokens(_encode),
    width=lambda names: 1,
    loss=_loss,
    measure=_measure,
    predict=_predict,
    has_names=False,
)
