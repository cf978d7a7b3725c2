"""The training loop over a pack of trials; a trial alone is a pack of one.

The loop knows no SQL and no MLflow. It asks ``supply`` for a job whenever a slot is free, and yields events;
whoever reads them may answer by setting ``stop`` on an event.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import adapters
from adapters.pack import Pack
from sweeper.data import TaskData
from sweeper.device import peak_memory_bytes
from sweeper.evaluate import forward_head, predict_logits
from sweeper.slot import Job, Kept, Problem, Slot, start
from sweeper.task import loss, metrics

__all__ = ["Evaluated", "Event", "Failed", "Finished", "Job", "Problem", "Progress", "step", "train"]

STEPS_BETWEEN_PROGRESS = 10


@dataclass
class Progress:
    """Some steps are done. Set ``stop`` to take the trial out of its slot at once."""

    job: Job
    step: int
    steps: int
    stop: str | None = None


@dataclass
class Evaluated:
    """The trial was evaluated on the validation split.

    Set ``stop`` to ``"pruned"`` to end the trial here, or to anything else to take it out of its slot.

    Args:
        evaluation: counted from 1.
        step: steps done; ``epoch``: epochs done.
        metrics: ``train/loss`` (mean since the last evaluation), ``validation/loss``, every metric of the
            task that is finite, ``learning_rate``, ``examples_per_second``, ``peak_memory_bytes``.
    """

    job: Job
    evaluation: int
    step: int
    epoch: float
    metrics: dict[str, float]
    stop: str | None = None


@dataclass
class Finished:
    """The trial is over: ``complete`` after its last epoch, or ``pruned`` (by the answer, or ``diverged``).

    ``metrics`` are those of ``evaluation``, and ``adapter`` (None for a head alone) and ``head`` hold the
    weights that gave them. ``device_seconds`` is the trial's share of the pack's time.
    """

    job: Job
    outcome: str
    reason: str | None
    evaluation: int
    metrics: dict[str, float]
    adapter: adapters.Adapter | None
    head: nn.Linear
    step: int
    seconds: float
    device_seconds: float


@dataclass
class Failed:
    """The trial raised; its neighbours go on."""

    job: Job
    reason: str
    traceback_text: str


Event = Progress | Evaluated | Finished | Failed


def train(
    pack: Pack,
    data: TaskData,
    problem: Problem,
    supply: Callable[[], Job | None],
    *,
    device: torch.device | str,
) -> Iterator[Event]:
    """Train jobs until ``supply`` has no more and every slot is empty.

    Args:
        pack: the backbone, all slots free.
        data: the tokenised splits, on the CPU.
        problem: what is trained for.
        supply: asked for a job whenever a slot is free; None means that there is none now.
        device: where the backbone is.

    Yields:
        Events; see their classes. A job whose ``stop`` was answered with something other than ``"pruned"``
        ends without a further event.
    """
    device = torch.device(device)
    slots: dict[int, Slot] = {}
    try:
        while True:
            yield from _fill(pack, slots, data, problem, supply, device)
            if not slots:
                return
            yield from _advance(pack, slots, data, problem)
    finally:
        for index in slots:
            pack.clear(index)


def step(pack: Pack, slots: list[Slot], problem: Problem) -> None:
    """One optimizer step of every slot: one forward and one backward pass over all their tokens.

    The sum, never the mean, of the slots' losses is differentiated, so that none scales another's gradient.
    """
    batches = [slot.next_batch() for slot in slots]
    parts = [(slot.index, slot.head, batch) for slot, (batch, _) in zip(slots, batches, strict=True)]
    logits = forward_head(pack, parts, problem.pooling)
    losses: list[Tensor] = [
        loss(problem.kind, own, labels) for own, (_, labels) in zip(logits, batches, strict=True)
    ]
    torch.stack(losses).sum().backward()
    for slot, own in zip(slots, losses, strict=True):
        slot.update()
        slot.loss_sum += own.detach()
        slot.losses += 1


def _fill(
    pack: Pack,
    slots: dict[int, Slot],
    data: TaskData,
    problem: Problem,
    supply: Callable[[], Job | None],
    device: torch.device,
) -> Iterator[Event]:
    """Give every free slot a job, as long as there are jobs."""
    for index in range(pack.slots):
        while index not in slots and (job := supply()) is not None:
            try:
                slots[index] = start(pack, index, job, data.train, problem, device)
            except Exception as error:
                yield _failed(job, error)
        if index not in slots:
            return


def _advance(pack: Pack, slots: dict[int, Slot], data: TaskData, problem: Problem) -> Iterator[Event]:
    """One step of all slots, and what follows from it for each."""
    started = time.perf_counter()
    running = list(slots.values())
    try:
        step(pack, running, problem)
    except Exception as error:
        for slot in running:
            pack.clear(slot.index)
            del slots[slot.index]
            yield _failed(slot.job, error)
        return
    seconds = time.perf_counter() - started
    for slot in running:
        slot.seconds += seconds
        slot.training_seconds += seconds / len(running)
        slot.device_seconds += seconds / len(running)
        yield from _after_step(pack, slots, slot, data, problem)


def _after_step(
    pack: Pack, slots: dict[int, Slot], slot: Slot, data: TaskData, problem: Problem
) -> Iterator[Event]:
    """Report progress, evaluate when it is time, and end the trial when it is over."""
    number = slot.evaluate_after.get(slot.step)
    if number is None and slot.step % STEPS_BETWEEN_PROGRESS:
        return
    if not math.isfinite(slot.loss_sum.item()):
        yield _finished(pack, slots, slot, "pruned", "diverged")
        return
    event: Progress | Evaluated = Progress(slot.job, slot.step, slot.steps)
    if number is not None:
        try:
            evaluated = _evaluate(pack, slot, number, data, problem)
        except Exception as error:
            pack.clear(slot.index)
            del slots[slot.index]
            yield _failed(slot.job, error)
            return
        if evaluated is None:
            yield _finished(pack, slots, slot, "pruned", "diverged")
            return
        event = evaluated
    yield event
    if event.stop == "pruned":
        yield _finished(pack, slots, slot, "pruned", "pruner")
    elif event.stop is not None:
        pack.clear(slot.index)
        del slots[slot.index]
    elif slot.step == slot.steps:
        yield _finished(pack, slots, slot, "complete", None)


def _evaluate(pack: Pack, slot: Slot, number: int, data: TaskData, problem: Problem) -> Evaluated | None:
    """Metrics of a slot on the validation split; None, and nothing kept, if the objective is not finite."""
    started = time.perf_counter()
    logits = predict_logits(pack, slot.index, slot.head, data.validation, problem.pooling)
    measured = metrics(problem.kind, logits, data.validation.labels)
    elapsed = time.perf_counter() - started
    slot.seconds += elapsed
    slot.device_seconds += elapsed
    if not math.isfinite(measured[problem.metric]):
        return None
    slot.evaluation = number
    slot.metrics = {
        "train/loss": slot.loss_sum.item() / slot.losses,
        "validation/loss": measured["loss"],
        **{name: value for name, value in measured.items() if math.isfinite(value)},
        "learning_rate": slot.rates[slot.step - 1],
        "examples_per_second": slot.examples / slot.training_seconds,
        "peak_memory_bytes": float(peak_memory_bytes(slot.device)),
    }
    slot.loss_sum.zero_()
    slot.losses = 0
    if slot.job.train.keep == "best":
        _keep_best(slot, problem)
    return Evaluated(slot.job, number, slot.step, slot.epoch, dict(slot.metrics))


def _keep_best(slot: Slot, problem: Problem) -> None:
    """Remember the weights of this evaluation if it is the first or better than the best so far."""
    value = slot.metrics[problem.metric]
    if slot.best is not None:
        best = slot.best.metrics[problem.metric]
        if not (value > best if problem.maximize else value < best):
            return
    slot.best = Kept(slot.evaluation, dict(slot.metrics), _copy(slot.adapter), _copy(slot.head) or {})


def _copy(module: nn.Module | None) -> dict[str, Tensor] | None:
    if module is None:
        return None
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _finished(pack: Pack, slots: dict[int, Slot], slot: Slot, outcome: str, reason: str | None) -> Finished:
    """Take a trial out of its slot, with the weights that its metrics belong to."""
    pack.clear(slot.index)
    del slots[slot.index]
    evaluation, values = slot.evaluation, slot.metrics
    if slot.best is not None:
        evaluation, values = slot.best.evaluation, slot.best.metrics
        if slot.adapter is not None and slot.best.adapter is not None:
            slot.adapter.load_state_dict(slot.best.adapter)
        slot.head.load_state_dict(slot.best.head)
    if slot.adapter is not None:
        slot.adapter.eval()
    return Finished(
        slot.job, outcome, reason, evaluation, dict(values), slot.adapter, slot.head,
        slot.step, slot.seconds, slot.device_seconds,
    )  # fmt: skip


def _failed(job: Job, error: Exception) -> Failed:
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return Failed(job, reason, "".join(traceback.format_exception(error)))
