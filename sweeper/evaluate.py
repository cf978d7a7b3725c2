"""Predictions of an adapter and its head over a split: the same code in training, export and predict.

The batches depend on the split alone, so the same weights give the same numbers wherever they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adapters.pack import Batch, Pack
from adapters.run import Pooled
from sweeper.batches import evaluation_batches, gather
from sweeper.data import Split
from sweeper.task import pool

EVALUATION_TOKENS = 2048
_ONE_TOKEN: dict[str, Pooled] = {"cls": "cls", "last": "last"}


class Predicting:
    """A pass over a split under way, batch by batch, so that a pack can go on with its other slots meanwhile.

    Args:
        slot: of the pack; its adapter is in eval mode until the pass is over.
        head: on the device of the backbone.
        split: tokenised texts, on the CPU.
    """

    def __init__(self, pack: Pack, slot: int, head: nn.Linear, split: Split) -> None:
        self.slot = slot
        self.head = head
        self.logits = torch.empty(len(split.lengths), head.out_features, dtype=head.weight.dtype)
        self._pack = pack
        self._split = split
        self._left = evaluation_batches(split.lengths, EVALUATION_TOKENS)[::-1]
        pack.train_slot(slot, False)

    @property
    def left(self) -> int:
        """How many batches are left."""
        return len(self._left)

    @property
    def done(self) -> bool:
        """Whether all texts have their logits."""
        return not self._left

    def next_batch(self) -> tuple[Tensor, Batch]:
        """The next texts, and their run; the same again until they are taken."""
        indices = self._left[-1]
        return indices, gather(self._split, indices, self.head.weight.device, self._pack.reads(self.slot))

    def take(self, indices: Tensor, logits: Tensor) -> None:
        """Keep the logits of some texts."""
        self.logits[indices] = logits.to("cpu")
        self._left.pop()
        if self.done:
            self._pack.train_slot(self.slot, True)


@torch.no_grad()
def predict_step(pack: Pack, passes: Sequence[Predicting], pooling: str) -> list[float]:
    """One batch of each pass, as one run; returns the work of each, as a training step does."""
    batches = [one.next_batch() for one in passes]
    parts = [(one.slot, one.head, batch) for one, (_, batch) in zip(passes, batches, strict=True)]
    for one, (indices, _), logits in zip(passes, batches, forward_head(pack, parts, pooling), strict=True):
        one.take(indices, logits)
    return [
        batch.sequences.tokens * pack.layers(one.slot)
        for one, (_, batch) in zip(passes, batches, strict=True)
    ]


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
    predicting = Predicting(pack, slot, head, split)
    while not predicting.done:
        predict_step(pack, [predicting], pooling)
    return predicting.logits


def forward_head(pack: Pack, parts: list[tuple[int, nn.Linear, Batch]], pooling: str) -> list[Tensor]:
    """Logits of each part's texts, through its slot's adapter and its own head."""
    batches = [(slot, batch) for slot, _, batch in parts]
    one_token = _ONE_TOKEN.get(pooling)
    if one_token is not None:
        vectors = pack.forward(batches, one_token)
    else:
        hidden = pack.forward(batches)
        vectors = [
            pool(states, batch.sequences.offsets.to(states.device, non_blocking=True), pooling)
            for states, (_, batch) in zip(hidden, batches, strict=True)
        ]
    heads = [head for _, head, _ in parts]
    return [head(own.to(head.weight.dtype)) for head, own in zip(heads, vectors, strict=True)]
