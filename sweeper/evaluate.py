"""Predictions of an adapter and its head over a split: the same code in training, export and predict.

The batches depend on the split alone, so the same weights give the same numbers wherever they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adapters.flat import Sequences
from adapters.layerwise import Pooled, rows_read
from adapters.pack import Batch, Pack
from sweeper.batches import evaluation_batches, gather, gather_labels
from sweeper.data import Split
from sweeper.task import pool
from sweeper.tasks.causal_lm import token_losses

EVALUATION_TOKENS = 2048
_READS: dict[str, Pooled] = {"cls": "cls", "last": "last", "words": "read", "next": "read"}


class Predicting:
    """A pass over a split under way, batch by batch, so that a pack can go on with its other slots meanwhile.

    Args:
        slot: of the pack; its adapter is in eval mode until the pass is over, and then as it was before.
        head: on the device of the backbone.
        split: tokenised texts, on the CPU.
    """

    def __init__(self, pack: Pack, slot: int, head: nn.Linear, split: Split) -> None:
        self.slot = slot
        self.head = head
        # Of a language model, whose outputs are many, the loss of each token is kept.
        self.logits = torch.zeros(len(split.labels), head.out_features or 1, dtype=head.weight.dtype)
        self._pack = pack
        self._split = split
        self._left = evaluation_batches(split.lengths, EVALUATION_TOKENS)[::-1]
        self._was_training = pack.train_slot(slot, False)

    @property
    def left(self) -> int:
        """How many batches are left."""
        return len(self._left)

    @property
    def done(self) -> bool:
        """Whether all texts have their logits."""
        return not self._left

    def next_batch(self) -> tuple[Tensor, Batch, Tensor]:
        """The next texts, their run and their labels; the same again until they are taken."""
        indices, device = self._left[-1], self.head.weight.device
        batch = gather(self._split, indices, device, self._pack.reads(self.slot))
        return indices, batch, gather_labels(self._split, indices, device)

    def take(self, indices: Tensor, logits: Tensor) -> None:
        """Keep the logits of some texts."""
        self.logits[self._split.label_rows(indices)] = logits.to("cpu")
        self._left.pop()
        if self.done:
            self._pack.train_slot(self.slot, self._was_training)


@torch.no_grad()
def predict_step(pack: Pack, passes: Sequence[Predicting], pooling: str) -> list[float]:
    """One batch of each pass, as one run; returns the work of each, as a training step does."""
    batches = [one.next_batch() for one in passes]
    parts = [(one.slot, one.head, batch) for one, (_, batch, _) in zip(passes, batches, strict=True)]
    found = kept_outputs(pack, parts, [labels for *_, labels in batches], pooling)
    for one, (indices, *_), outputs in zip(passes, batches, found, strict=True):
        one.take(indices, outputs)
    return [batch.sequences.tokens * pack.layers(slot) for slot, _, batch in parts]


def kept_outputs(
    pack: Pack, parts: list[tuple[int, nn.Linear, Batch]], labels: Sequence[Tensor], pooling: str
) -> list[Tensor]:
    """What is kept of each part's texts: its logits; of a language model the loss of each token, in a column.

    Args:
        labels: of each part, a row for each row of its outputs.
    """
    outputs = forward_head(pack, parts, pooling)
    if pooling != "next":
        return outputs
    return [
        token_losses(hidden, following, pack.backbone).unsqueeze(1)
        for hidden, following in zip(outputs, labels, strict=True)
    ]


def predict_logits(pack: Pack, slot: int, head: nn.Linear, split: Split, pooling: str) -> Tensor:
    """Outputs of the head for every text of a split, or every token that is read, in the split's order.

    Args:
        pack: the backbone, with the adapter (or none) in ``slot``.
        slot: the slot to look through; the others do not matter.
        head: on the device of the backbone.
        split: tokenised texts, on the CPU.
        pooling: ``cls``, ``mean``, ``last``, ``words`` or ``next``.

    Returns:
        ``[texts, outputs]`` on the CPU, in the dtype of the head; or ``[tokens, outputs]``, and zeros for
        tokens that are not read. Of a language model the loss of each token, ``[tokens, 1]``.
    """
    predicting = Predicting(pack, slot, head, split)
    while not predicting.done:
        predict_step(pack, [predicting], pooling)
    return predicting.logits


def forward_head(pack: Pack, parts: list[tuple[int, nn.Linear, Batch]], pooling: str) -> list[Tensor]:
    """Logits of each part's texts, or of its tokens that are read, by its slot's adapter and its own head.

    Of a language model the last hidden states: see :func:`sweeper.tasks.causal_lm.token_losses`.
    """
    batches = [(slot, batch) for slot, _, batch in parts]
    reads = _READS.get(pooling)
    if reads is not None:
        vectors = pack.forward(batches, reads)
    else:
        hidden = pack.forward(batches)
        vectors = [
            pooled(states, batch.sequences, pooling)
            for states, (_, batch) in zip(hidden, batches, strict=True)
        ]
    if pooling == "next":  # what follows is the backbone's own head, some tokens at a time
        return vectors
    heads = [head for _, head, _ in parts]
    return [head(own.to(head.weight.dtype)) for head, own in zip(heads, vectors, strict=True)]


def pooled(hidden: Tensor, sequences: Sequences, pooling: str) -> Tensor:
    """A vector for each text, or each token that is read, of last hidden states ``[tokens, hidden_size]``."""
    reads = _READS.get(pooling)
    if reads is not None:
        return rows_read(hidden, sequences, reads)
    return pool(hidden, sequences.offsets.to(hidden.device, non_blocking=True), pooling)
