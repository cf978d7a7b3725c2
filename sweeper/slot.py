"""One trial in training: its modules, optimizer, data order, schedule and counters.

Nothing here knows of the other trials of the pack. All randomness comes from generators seeded by the job.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import adapters
from adapters import AdapterConfig
from adapters.pack import Batch, Pack
from sweeper.batches import Order, gather, gather_labels
from sweeper.data import Split
from sweeper.device import peak_memory_bytes
from sweeper.evaluate import Predicting
from sweeper.metrics import KNOWN_BEFORE
from sweeper.task import make_head, outputs
from sweeper.trainconfig import TrainConfig

if TYPE_CHECKING:
    from sweeper.study import Study
    from sweeper.tasks.kind import Names


@dataclass(frozen=True)
class Problem:
    """What the trials of a study are trained for.

    Args:
        kind: of the task; see ``sweeper.tasks``.
        pooling: ``cls``, ``mean`` or ``last``; or what the kind reads in place of a pooling.
        outputs: width of the head.
        metric: the objective, which ``train.keep: best`` compares, and in which direction.
        further: metrics that are objectives, too: a trial of which one is not finite has diverged.
    """

    kind: str
    pooling: str
    outputs: int
    metric: str
    maximize: bool
    further: tuple[str, ...] = ()

    @classmethod
    def of(cls, study: Study, label_names: Names) -> Problem:
        """Of a study, whose data have these labels."""
        objective, *others = study.objectives
        return cls(
            study.task.kind,
            study.task.pooling,
            outputs(study.task.kind, label_names),
            objective.metric,
            objective.direction == "maximize",
            tuple(each.metric for each in others if each.metric not in KNOWN_BEFORE),
        )


@dataclass(frozen=True)
class Job:
    """One trial to train.

    Args:
        place_id, attempt: the ledger's names for it.
        number: the trial's number, None for a reference.
        adapter: its adapter; None trains the head alone.
        train: how it is trained.
        seed: all its randomness follows from this.
        state: where an earlier attempt stopped; None to begin at the beginning.
        frozen: the adapters that a composition is made of, by the digest of their weights.
        study: digest of the data, the backbone and all else that the trials of a study share.
    """

    place_id: int
    number: int | None
    attempt: int
    adapter: AdapterConfig | None
    train: TrainConfig
    seed: int
    state: SlotState | None = field(default=None, compare=False, repr=False)
    frozen: Mapping[str, adapters.Adapter] = field(default_factory=dict, compare=False, repr=False)
    study: str = ""

    def identity(self) -> dict[str, Any]:
        """All that decides what the trial computes, as plain JSON values."""
        adapter = None if self.adapter is None else self.adapter.to_dict()
        return {"adapter": adapter, "train": self.train.to_dict(), "seed": self.seed, "study": self.study}


@dataclass(frozen=True)
class SlotState:
    """All that a trial needs to go on in another slot: copies, on the CPU.

    Args:
        tensors: weights, moments, generators, by name.
        numbers: counters and metrics, plain JSON values.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


@dataclass(eq=False)
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
    predicting: Predicting | None = None
    pending: Pending | None = None

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

    @property
    def due(self) -> int | None:
        """The evaluation that is to be made now, counted from 1, or None."""
        number = self.evaluate_after.get(self.step)
        return number if number is not None and number > self.evaluation else None

    def next_batch(self, pack: Pack) -> Pending:
        """The texts of the next step; the same again, dropout included, until ``update`` has made it."""
        generator = self.adapter.generator if self.adapter is not None else None
        if self.pending is not None:
            self.optimizer.zero_grad(set_to_none=True)
            if generator is not None and self.pending.dropout is not None:
                generator.set_state(self.pending.dropout)
            return self.pending
        indices = next(self.batches)
        batch = gather(self.split, indices, self.device, pack.reads(self.index))
        labels = gather_labels(self.split, indices, self.device)
        self.pending = Pending(batch, labels, dropout_state(self))
        return self.pending

    def update(self, loss: Tensor) -> None:
        """Clip the gradients, step the optimizer at this step's rate, and forget gradients and batch.

        Args:
            loss: of the step, a scalar.
        """
        assert self.pending is not None
        nn.utils.clip_grad_norm_(self.parameters, self.job.train.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[self.step]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += loss.detach()
        self.losses += 1
        self.examples += len(self.pending.batch.sequences.lengths)
        self.pending = None
        self.step += 1

    def note(self, number: int, measured: dict[str, float], problem: Problem) -> None:
        """Keep the metrics of an evaluation, and its weights if they are to be.

        Args:
            number: of the evaluation, counted from 1.
            measured: every metric of the task; those that are not finite are left out.
        """
        self.evaluation = number
        self.metrics = {
            "train/loss": self.loss_sum.item() / self.losses,
            "validation/loss": measured["loss"],
            **{name: value for name, value in measured.items() if math.isfinite(value)},
            "learning_rate": self.rates[self.step - 1],
            "examples_per_second": self.examples / self.training_seconds,
            "peak_memory_bytes": float(peak_memory_bytes(self.device)),
        }
        self.loss_sum.zero_()
        self.losses = 0
        if self.job.train.keep == "best" and self._is_best(problem):
            head = weights_of(self.head)
            adapter = weights_of(self.adapter) if self.adapter is not None else None
            self.best = Kept(number, dict(self.metrics), adapter, head)

    def _is_best(self, problem: Problem) -> bool:
        """Whether the last evaluation is the first or better than the best so far."""
        if self.best is None:
            return True
        value, best = self.metrics[problem.metric], self.best.metrics[problem.metric]
        return value > best if problem.maximize else value < best


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's weights, by name."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def dropout_state(slot: Slot) -> Tensor | None:
    """Where the generator of a slot's dropout stands; None if nothing is dropped."""
    if slot.adapter is None or slot.adapter.generator is None or not slot.adapter.config.draws:
        return None
    return slot.adapter.generator.get_state()


@dataclass(frozen=True)
class Pending:
    """The batch of a step that is not made yet.

    Args:
        labels: a row for each text, or for each token that is read; on the device.
        dropout: where the generator of the dropout stood before the step, if there is any.
    """

    batch: Batch
    labels: Tensor
    dropout: Tensor | None


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
        generator = generator_for(job.seed, "adapter")
        adapter = adapters.build(job.adapter, pack.backbone.config, generator, job.frozen)
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
        batches=Order(split.lengths, job.train.batch_size, generator_for(job.seed, "order")),
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
