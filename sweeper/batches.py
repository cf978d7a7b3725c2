"""Which texts a step sees, in which order, and their tokens as one flat run.

Texts of like length go together, so that attention runs on few groups; everything is drawn from the
generator that is passed in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adapters.flat import Sequences
from adapters.pack import FlatBatch
from sweeper.data import Split

BATCHES_PER_BUCKET = 16


def training_batches(lengths: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """One epoch: every text once, in random batches of texts of like length.

    The texts are shuffled, sorted by length within buckets of 16 batches, cut into batches, and the batches
    shuffled again.

    Args:
        lengths: tokens of each text, int64 ``[texts]``.
        batch_size: texts a batch; the last one may be smaller.
        generator: the trial's own.

    Returns:
        Indices of the texts of each batch, int64, shortest text first.
    """
    order = torch.randperm(len(lengths), generator=generator)
    batches: list[Tensor] = []
    for bucket in order.split(batch_size * BATCHES_PER_BUCKET):
        bucket = bucket[torch.argsort(lengths[bucket], stable=True)]
        batches.extend(bucket.split(batch_size))
    shuffled = torch.randperm(len(batches), generator=generator)
    return [batches[index] for index in shuffled.tolist()]


def evaluation_batches(lengths: Tensor, tokens: int) -> list[Tensor]:
    """All texts, sorted by length, in batches of at most ``tokens`` tokens (or of one longer text)."""
    order = torch.argsort(lengths, stable=True)
    batches: list[list[int]] = [[]]
    used = 0
    for index, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if batches[-1] and used + length > tokens:
            batches.append([])
            used = 0
        batches[-1].append(index)
        used += length
    return [torch.tensor(batch, dtype=torch.int64) for batch in batches]


def gather(split: Split, indices: Tensor, device: torch.device) -> FlatBatch:
    """The tokens of some texts as one flat run on a device.

    Args:
        split: tokenised texts, on the CPU.
        indices: which, int64 ``[texts]``.
        device: where the run goes; the copy does not block on CUDA.
    """
    starts = split.offsets[indices]
    lengths = split.offsets[indices + 1] - starts
    sequences = Sequences(tuple(lengths.tolist()))
    where = torch.repeat_interleave(starts, lengths) + sequences.positions
    types = split.token_type_ids
    return FlatBatch(
        to_device(split.input_ids[where].long(), device),
        None if types is None else to_device(types[where].long(), device),
        sequences,
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, through pinned memory and without blocking on CUDA."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
