"""Full fine-tuning of a backbone, as a reference: every weight, on padded batches, one run at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapters.architectures import hidden_size
from adapters.depth import EMBEDDED
from adapters.pack import FlatBatch
from adapters.padded import padded_forward
from sweeper.batches import Order, gather, gather_labels
from sweeper.data import Split
from sweeper.evaluate import pooled
from sweeper.slot import Problem, generator_for, learning_rates
from sweeper.task import loss, make_head
from sweeper.trainconfig import TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RATES = (2e-5, 5e-5, 1e-4)
"""The learning rates that are tried, as Devlin et al. (2019) have it for BERT, and one for smaller models."""


def fine_tune(
    model: PreTrainedModel,
    split: Split,
    problem: Problem,
    config: TrainConfig,
    seed: int,
    advance: Callable[[int, int], None],
    *,
    half: bool = False,
) -> nn.Linear:
    """Train every weight of a backbone and a head; the model is changed in place and left in eval mode.

    AdamW with decay on matrices, the schedule, clipping and order of an adapter's training; the backbone's
    own dropout is on. Products may be in bfloat16, as a study's are; weights are not, since half precision
    cannot hold the steps of such rates.

    Args:
        model: on its device, in fp32 or fp64.
        split: what is trained on.
        config: epochs, batch size, learning rate and the like.
        seed: of head, order and dropout.
        advance: called after each step, with the number of steps done and that of all.
        half: products in bfloat16 (torch's autocast).

    Returns:
        the head, on the model's device.

    Raises:
        FloatingPointError: the loss stopped being finite.
    """
    device, dtype = model.device, model.dtype
    head = make_head(hidden_size(model.config), problem.outputs, generator_for(seed, "head")).to(
        device=device, dtype=dtype
    )
    model.requires_grad_(True).train()
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        fused=True,
    )
    steps = math.ceil(len(split.lengths) / config.batch_size) * config.epochs
    batches = Order(split.lengths, config.batch_size, generator_for(seed, "order"))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # the library's dropout draws from the global generator
        torch.manual_seed(seed % 2**63)
        for done, rate in enumerate(learning_rates(config, steps), start=1):
            indices = next(batches)
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                vectors = _vectors(model, split, indices, device, problem.pooling)
            outputs = head(vectors.to(dtype)) if problem.outputs else vectors.to(dtype)
            value = loss(problem.kind, outputs, gather_labels(split, indices, device), model)
            if not math.isfinite(value.item()):
                raise FloatingPointError(f"the loss of full fine-tuning is {value.item()}")
            value.backward()
            nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            advance(done, steps)
    model.requires_grad_(False).eval()
    return head


def _vectors(
    model: PreTrainedModel, split: Split, indices: Tensor, device: torch.device, pooling: str
) -> Tensor:
    """One vector a text, ``[texts, hidden_size]``, or a token that is read; padding has no part in it."""
    batch = gather(split, indices, device, (EMBEDDED,))
    assert isinstance(batch, FlatBatch)  # nothing is kept of a backbone that is about to change
    hidden = padded_forward(model, batch.input_ids, batch.token_type_ids, batch.sequences)
    return pooled(hidden, batch.sequences, pooling)
