"""What is asked of the backbone: heads, pooling, and by the kind of task losses and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sweeper.backbone import is_causal, position_limit
from sweeper.errors import UsageError
from sweeper.metrics import METRICS
from sweeper.tasks import task_of
from sweeper.tasks.kind import Names

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sweeper.data import Split
    from sweeper.study import Study

__all__ = ["METRICS", "check_task", "linear", "loss", "make_head", "measure", "outputs", "pool"]


def outputs(kind: str, label_names: Names) -> int:
    """How many numbers the head puts out: one a label, or one for a regression."""
    return task_of(kind).width(label_names)


def make_head(hidden_size: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear head in fp32 on the CPU, drawn as BERT draws its own: N(0, .02), bias zero.

    Args:
        hidden_size: of the backbone.
        outputs: see ``outputs``.
        generator: the only source of randomness; the global one is not touched.
    """
    weight = torch.empty(outputs, hidden_size, dtype=torch.float32).normal_(0.0, 0.02, generator=generator)
    return linear(weight, torch.zeros(outputs))


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer of these weights, ``[outputs, inputs]`` and ``[outputs]``; there may be no output."""
    # Made without storage: the usual constructor would draw from the global generator.
    head = nn.Linear(weight.shape[1], 1, device="meta")
    head.out_features = len(weight)
    head.weight, head.bias = nn.Parameter(weight), nn.Parameter(bias)
    return head


def pool(hidden_states: Tensor, offsets: Tensor, how: str) -> Tensor:
    """One vector a text, out of a flat run of tokens.

    What a text gets does not depend, not even in rounding, on the texts beside it.

    Args:
        hidden_states: ``[tokens, hidden_size]``.
        offsets: int64 ``[texts + 1]``, same device: text i is ``offsets[i]:offsets[i + 1]``, never empty.
        how: "cls" (its first token), "last" (its last token) or "mean" (of all its tokens).

    Returns:
        ``[texts, hidden_size]``. Half precision is raised to fp32, in which the mean is taken.
    """
    if how == "mean":
        wide = _at_least_float32(hidden_states)
        # Not differences of one running sum: those would let a text's neighbours into its rounding.
        return torch.segment_reduce(wide, "mean", offsets=offsets, axis=0)
    if how == "cls":
        return _at_least_float32(hidden_states.index_select(0, offsets[:-1]))
    if how == "last":
        return _at_least_float32(hidden_states.index_select(0, offsets[1:] - 1))
    raise ValueError(f"pooling is cls, mean or last, not {how!r}")


def loss(kind: str, outputs: Tensor, labels: Tensor, backbone: nn.Module | None = None) -> Tensor:
    """The mean loss over what was read of a batch, a scalar.

    Args:
        kind: of the task.
        outputs: what :func:`sweeper.evaluate.forward_head` gives, ``[texts or tokens read, outputs]``.
        labels: with as many rows.
        backbone: with its own head, where the task needs that.
    """
    return task_of(kind).loss(outputs, labels, backbone)


def measure(kind: str, outputs: Tensor, split: Split, label_names: Names) -> dict[str, float]:
    """Every metric of a kind of task over a split.

    Args:
        outputs: what :func:`sweeper.evaluate.predict_logits` gives of it.
    """
    return task_of(kind).measure(outputs, split, label_names)


def check_task(study: Study, config: PretrainedConfig) -> None:
    """Refuse what the study file asks for and the backbone cannot do.

    Raises:
        UsageError: texts longer than the backbone has positions for, the first token of a causal model, or
            what the kind of task refuses.
    """
    task_of(study.task.kind).check(study, config)
    limit = position_limit(config)
    max_length = study.train.max_length
    if limit is not None and max_length > limit:
        raise UsageError(
            f"train.max_length is {max_length}, but the backbone has positions for {limit} tokens: "
            f"set train.max_length to {limit} or less",
            file=study.path,
            line=study.line("train", "max_length") or study.line("train"),
        )
    if study.task.pooling == "cls" and is_causal(config):
        raise UsageError(
            f"pooling: cls takes the first token, and in a {config.model_type} model that token sees nothing "
            "of the text behind it: use pooling: last or pooling: mean",
            file=study.path,
            line=study.line("task", "pooling") or study.line("task"),
        )


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
