"""Which texts a step sees, in which order, and their tokens as one flat run.

Texts of like length go together, so that attention runs on few groups; everything is drawn from the
generator that is passed in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adapters.depth import Depth, States, deepest
from adapters.flat import Sequences
from adapters.layerwise import Entry
from adapters.pack import Batch, FlatBatch
from adapters.run import Readings
from sweeper.data import Split
from sweeper.tasks.kind import IGNORED

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


class Order:
    """The batches of a trial, one epoch after the other, in an order of its own that can be taken up again.

    Args:
        lengths: tokens of each text, int64 ``[texts]``.
        batch_size: texts a batch.
        generator: the trial's own; drawn from once an epoch.
    """

    def __init__(self, lengths: Tensor, batch_size: int, generator: torch.Generator) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._generator = generator
        self._epoch_began = generator.get_state()
        self._batches: list[Tensor] = []
        self._taken = 0

    def __iter__(self) -> Order:
        return self

    def __next__(self) -> Tensor:
        if self._taken == len(self._batches):
            self._begin_epoch()
        self._taken += 1
        return self._batches[self._taken - 1]

    def state(self) -> tuple[Tensor, int]:
        """The generator as it was when the epoch began, uint8, and the batches that were taken since."""
        return self._epoch_began.clone(), self._taken

    def restore(self, epoch_began: Tensor, taken: int) -> None:
        """Go on from a state."""
        self._generator.set_state(epoch_began)
        self._begin_epoch()
        self._taken = taken

    def _begin_epoch(self) -> None:
        self._epoch_began = self._generator.get_state()
        self._batches = training_batches(self._lengths, self._batch_size, self._generator)
        self._taken = 0


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


def gather(split: Split, indices: Tensor, device: torch.device, reads: tuple[Depth, ...]) -> Batch:
    """Some texts as one flat run on a device: as frozen hidden states where there are any, else as tokens.

    Args:
        split: tokenised texts, on the CPU.
        indices: which, int64 ``[texts]``.
        device: where the run goes; the copy does not block on CUDA.
        reads: at which depths they are taken over, see :func:`adapters.depth.reads`. For one depth the
            deepest states up to there are taken; several are taken if all of them are there.
    """
    lengths = split.offsets[indices + 1] - split.offsets[indices]
    where = split.tokens_of(indices)
    read = (split.labels[where] != IGNORED).nonzero()[:, 0] if split.by_token else None
    sequences = Sequences(tuple(lengths.tolist()), read)
    if len(reads) == 1 and (known := deepest(split.frozen, reads[0])) is not None:
        return Entry(known, _rows(split.frozen[known], where, device), sequences)
    if len(reads) > 1 and all(depth in split.frozen for depth in reads):
        states = {depth: _rows(split.frozen[depth], where, device)[0] for depth in reads}
        return Readings(states, sequences)
    types = split.token_type_ids
    return FlatBatch(
        to_device(split.input_ids[where].long(), device),
        None if types is None else to_device(types[where].long(), device),
        sequences,
    )


def gather_labels(split: Split, indices: Tensor, device: torch.device) -> Tensor:
    """The labels of some texts on a device: a row for each, or for each of their tokens that is read."""
    return to_device(split.labels[split.label_rows(indices)], device)


def _rows(states: States, where: Tensor, device: torch.device) -> States:
    return tuple(to_device(state.index_select(0, where.to(state.device)), device) for state in states)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device, through pinned memory and without blocking on CUDA."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
