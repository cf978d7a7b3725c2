"""Packed training steps, one by one, with what each of them saw: for benchmarks that measure a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from adapters.config import AdapterConfig
from adapters.pack import Pack
from benchmarks.material import Material
from sweeper.slot import Job, Slot, start
from sweeper.train import step
from sweeper.trainconfig import TrainConfig

ENDLESS = 1000
"""Epochs of a trial that is never trained to its end."""


def endless_jobs(config: AdapterConfig, slots: int, batch_size: int, seed: int) -> list[Job]:
    """Trials that differ in their seeds alone, ``seed`` and those behind it, and are never at their end."""
    train = TrainConfig(epochs=ENDLESS, batch_size=batch_size)
    return [Job(number, number, 1, config, train, seed=seed + number) for number in range(slots)]


class Steps:
    """A pack full of trials, a step at a time.

    Args:
        pack: all slots free.
        jobs: one a slot; their epochs must be more than are trained.

    Attributes:
        slots: the trials, under way.
        seen: for every step so far, the lengths of each slot's texts, in their order.
    """

    def __init__(self, pack: Pack, material: Material, jobs: Sequence[Job]) -> None:
        self._pack = pack
        self._problem = material.problem
        self._device = torch.device(material.device)
        self._lengths: list[list[Tensor]] = [[] for _ in jobs]
        self.slots: list[Slot] = []
        for index, job in enumerate(jobs):
            slot = start(pack, index, job, material.data.train, material.problem, self._device)
            slot.batches = _recorded(slot.batches, material.data.train.lengths, self._lengths[index])
            self.slots.append(slot)

    @property
    def seen(self) -> list[list[Tensor]]:
        return [list(parts) for parts in zip(*self._lengths, strict=True)]

    def run(self, count: int) -> None:
        """Do some steps, and wait until the device has done them."""
        for _ in range(count):
            step(self._pack, self.slots, self._problem)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def clear(self) -> None:
        """Take every trial out of the pack."""
        for slot in self.slots:
            self._pack.clear(slot.index)


def _recorded(batches: Iterator[Tensor], lengths: Tensor, seen: list[Tensor]) -> Iterator[Tensor]:
    for indices in batches:
        seen.append(lengths[indices])
        yield indices
