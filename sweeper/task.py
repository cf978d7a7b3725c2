"""What is asked of the backbone: heads, pooling, losses and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from sweeper.backbone import is_causal, position_limit
from sweeper.errors import UsageError
from sweeper.metrics import METRICS, metrics

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sweeper.study import Study

__all__ = ["METRICS", "check_task", "loss", "make_head", "metrics", "outputs", "pool", "predictions"]


def outputs(kind: str, label_names: Sequence[str] | None) -> int:
    """How many numbers the head puts out: one a label, or one for a regression."""
    if kind == "regression":
        return 1
    if not label_names:
        raise ValueError("a classification needs the names of its labels")
    return len(label_names)


def make_head(hidden_size: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear head in fp32 on the CPU, drawn as BERT draws its own: N(0, .02), bias zero.

    Args:
        hidden_size: of the backbone.
        outputs: see ``outputs``.
        generator: the only source of randomness; the global one is not touched.
    """
    # Made without storage: the usual constructor would draw from the global generator.
    head = nn.Linear(hidden_size, outputs, device="meta", dtype=torch.float32).to_empty(device="cpu")
    with torch.no_grad():
        head.weight.normal_(0.0, 0.02, generator=generator)
        head.bias.zero_()
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


def loss(kind: str, logits: Tensor, labels: Tensor) -> Tensor:
    """The mean loss over texts, a scalar: cross-entropy, or the squared error of a regression.

    Args:
        kind: "classification" or "regression".
        logits: ``[texts, outputs]``.
        labels: ``[texts]``, int64 class numbers or floats.
    """
    if kind == "classification":
        return functional.cross_entropy(logits, labels)
    return functional.mse_loss(logits[:, 0], labels.to(logits.dtype))


def predictions(kind: str, logits: Tensor) -> Tensor:
    """The class number (int64 ``[texts]``) or the value (``[texts]``) that each text gets."""
    return logits.argmax(-1) if kind == "classification" else logits[:, 0]


def check_task(study: Study, config: PretrainedConfig) -> None:
    """Refuse what the study file asks for and the backbone cannot do.

    Raises:
        UsageError: texts longer than the backbone has positions for, or the first token of a causal model.
    """
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
