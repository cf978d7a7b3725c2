"""Predictions of one adapter and head over a split: the same code in training, export and predict.

The batches depend on the split alone, so the same weights give the same numbers wherever they are asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters.pack import FlatBatch, Pack
from sweeper.batches import evaluation_batches, gather
from sweeper.data import Split
from sweeper.task import pool

EVALUATION_TOKENS = 2048


@torch.no_grad()
def predict_logits(pack: Pack, slot: int, head: nn.Linear, split: Split, pooling: str) -> Tensor:
    """Outputs of the head for every text of a split, in the split's order.

    Args:
        pack: the backbone, with the adapter (or none) in ``slot``.
        slot: the slot to look through; the others do not matter.
        head: on the device of the backbone.
        split: tokenised texts, on the CPU.
        pooling: ``cls``, ``mean`` or ``last``.

    Returns:
        ``[texts, outputs]`` on the CPU, in the dtype of the head.
    """
    device = head.weight.device
    logits = torch.empty(len(split.lengths), head.out_features, dtype=head.weight.dtype)
    pack.train_slot(slot, False)
    for indices in evaluation_batches(split.lengths, EVALUATION_TOKENS):
        logits[indices] = forward_head(pack, [(slot, head, gather(split, indices, device))], pooling)[0].to(
            "cpu"
        )
    pack.train_slot(slot, True)
    return logits


def forward_head(pack: Pack, parts: list[tuple[int, nn.Linear, FlatBatch]], pooling: str) -> list[Tensor]:
    """Logits of each part's texts, through its slot's adapter and its own head."""
    hidden = pack.forward([(slot, batch) for slot, _, batch in parts])
    return [
        head(
            pool(states, batch.sequences.offsets.to(states.device, non_blocking=True), pooling).to(
                head.weight.dtype
            )
        )
        for states, (_, head, batch) in zip(hidden, parts, strict=True)
    ]
