"""One trial in training: its modules, optimizer, data order, schedule and counters.

Nothing here knows of the other trials of the pack. All randomness comes from generators seeded by the job.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import adapters
from adapters import AdapterConfig
from adapters.pack import FlatBatch, Pack
from sweeper.batches import gather, to_device, training_batches
from sweeper.data import Split
from sweeper.task import make_head
from sweeper.trainconfig import TrainConfig


@dataclass(frozen=True)
class Problem:
    """What the trials of a study are trained for.

    Args:
        kind: ``classification`` or ``regression``.
        pooling: ``cls``, ``mean`` or ``last``.
        outputs: width of the head.
        metric: what ``train.keep: best`` compares, and in which direction.
    """

    kind: str
    pooling: str
    outputs: int
    metric: str
    maximize: bool


@dataclass(frozen=True)
class Job:
    """One trial to train.

    Args:
        place_id, attempt: the ledger's names for it.
        number: the trial's number, None for a reference.
        adapter: its adapter; None trains the head alone.
        train: how it is trained.
        seed: all its randomness follows from this.
    """

    place_id: int
    number: int | None
    attempt: int
    adapter: AdapterConfig | None
    train: TrainConfig
    seed: int


@dataclass
class Slot:
    """A job under way in a slot of a pack."""

    index: int
    job: Job
    adapter: adapters.Adapter | None
    head: nn.Linear
    optimizer: torch.optim.AdamW
    rates: list[float]
    evaluate_after: dict[int, int]
    batches: Iterator[Tensor]
    split: Split
    device: torch.device
    step: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    device_seconds: float = 0.0
    examples: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    losses: int = 0
    evaluation: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: Kept | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole trial."""
        return len(self.rates)

    @property
    def epoch(self) -> float:
        """Epochs behind it."""
        return self.step / (self.steps / self.job.train.epochs)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def next_batch(self) -> tuple[FlatBatch, Tensor]:
        """The tokens and labels of the next step, on the device."""
        indices = next(self.batches)
        self.examples += len(indices)
        return gather(self.split, indices, self.device), to_device(self.split.labels[indices], self.device)

    def update(self) -> None:
        """Clip the gradients, step the optimizer at this step's rate, and forget the gradients."""
        nn.utils.clip_grad_norm_(self.parameters, self.job.train.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[self.step]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1


@dataclass(frozen=True)
class Kept:
    """The weights and metrics of the best evaluation so far, under ``train.keep: best``."""

    evaluation: int
    metrics: dict[str, float]
    adapter: dict[str, Tensor] | None
    head: dict[str, Tensor]


def start(pack: Pack, index: int, job: Job, split: Split, problem: Problem, device: torch.device) -> Slot:
    """Build a job's modules from its seed and put them into a free slot."""
    dtype = torch.float64 if pack.backbone.dtype == torch.float64 else torch.float32
    adapter = None
    if job.adapter is not None:
        adapter = adapters.build(job.adapter, pack.backbone.config, generator_for(job.seed, "adapter"))
        adapter.to(device=device, dtype=dtype).train()
        adapter.generator = generator_for(job.seed, "dropout", device)
    head = make_head(pack.hidden_size, problem.outputs, generator_for(job.seed, "head"))
    head.to(device=device, dtype=dtype)
    steps_an_epoch = math.ceil(len(split.lengths) / job.train.batch_size)
    slot = Slot(
        index=index,
        job=job,
        adapter=adapter,
        head=head,
        optimizer=optimizer(adapter, head, job.train, device),
        rates=learning_rates(job.train, steps_an_epoch * job.train.epochs),
        evaluate_after=evaluation_steps(job.train, steps_an_epoch),
        batches=endless(split.lengths, job.train, generator_for(job.seed, "order")),
        split=split,
        device=device,
        loss_sum=torch.zeros((), dtype=torch.float64, device=device),
    )
    pack.put(index, adapter)
    return slot


def generator_for(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for each purpose of a seed, so that one draw more here changes nothing there."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    where = "cpu" if torch.device(device).type == "meta" else device
    return torch.Generator(device=where).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def optimizer(
    adapter: nn.Module | None, head: nn.Linear, config: TrainConfig, device: torch.device
) -> torch.optim.AdamW:
    """AdamW over adapter and head; weight decay acts on matrices, not on biases and scales."""
    parameters = [*(adapter.parameters() if adapter is not None else ()), *head.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=device.type in ("cpu", "cuda"))


def learning_rates(config: TrainConfig, steps: int) -> list[float]:
    """The rate of every step: a linear warm-up over ``warmup`` of them, then the schedule's way down."""
    warmup = math.ceil(config.warmup * steps)
    rates = []
    for step in range(steps):
        left = (steps - step) / max(1, steps - warmup)
        if step < warmup:
            factor = (step + 1) / warmup
        elif config.schedule == "linear":
            factor = left
        elif config.schedule == "cosine":
            factor = 0.5 * (1.0 - math.cos(math.pi * left))
        else:
            factor = 1.0
        rates.append(config.learning_rate * factor)
    return rates


def evaluation_steps(config: TrainConfig, steps_an_epoch: int) -> dict[int, int]:
    """After which steps to evaluate, evenly in each epoch: steps done -> evaluation, both counted from 1."""
    each = config.evaluations_per_epoch
    done = [
        epoch * steps_an_epoch + math.ceil(steps_an_epoch * part / each)
        for epoch in range(config.epochs)
        for part in range(1, each + 1)
    ]
    return {step: number for number, step in enumerate(done, start=1)}


def endless(lengths: Tensor, config: TrainConfig, generator: torch.Generator) -> Iterator[Tensor]:
    """The batches of one epoch after the other."""
    while True:
        yield from training_batches(lengths, config.batch_size, generator)
