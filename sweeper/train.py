"""The training loop over a pack of trials; a trial alone is a pack of one.

The loop knows no SQL and no MLflow. It asks ``supply`` for a job whenever a slot is free, and yields events;
whoever reads them may answer by setting ``stop`` on an event.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from adapters.pack import Pack
from sweeper.console import to_stderr
from sweeper.data import TaskData
from sweeper.device import is_lost, is_out_of_memory, release_memory, synchronize
from sweeper.evaluate import Predicting, forward_head, predict_step
from sweeper.events import Evaluated, Event, Exhausted, Failed, Finished, HandedBack, Progress, Stepped
from sweeper.slot import Job, Problem, Slot, start
from sweeper.slotstate import restore, snapshot
from sweeper.task import loss, measure

STEPS_BETWEEN_PROGRESS = 10
FORWARD_SHARE = 0.5
"""What a token costs in an evaluation, of what it costs in training: frozen weights have no gradients."""
LEAST_SHARE = 0.01
"""Of a step's work, what a slot is charged at least: heads and optimizers are not free either."""
HANDED_BACK = "handed_back"
"""The answer that takes a trial out of its slot with all that it needs to go on elsewhere."""
PRUNED = "pruned"
"""The answer that ends a trial at an evaluation."""


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
        Events; see their classes.
    """
    training = _Training(pack, data, problem, torch.device(device))
    try:
        while True:
            yield from training.fill(supply)
            if not training.slots:
                return
            yield from training.advance()
    finally:
        for index in training.slots:
            pack.clear(index)


def step(pack: Pack, slots: list[Slot], problem: Problem) -> list[float]:
    """One optimizer step of every slot: one forward and one backward pass over all their tokens.

    The sum, never the mean, of the slots' losses is differentiated, so that none scales another's gradient.
    Where it raises, the slots that have not made their step make the same one when they are called again.

    Returns:
        the work of each slot: its tokens, each times the layers that lie above its depth.
    """
    batches = [slot.next_batch(pack) for slot in slots]
    parts = [(slot.index, slot.head, own.batch) for slot, own in zip(slots, batches, strict=True)]
    logits = forward_head(pack, parts, problem.pooling)
    losses: list[Tensor] = [
        loss(problem.kind, mine, own.labels, pack.backbone) for mine, own in zip(logits, batches, strict=True)
    ]
    total = torch.stack(losses).sum()
    if total.requires_grad:  # the bare backbone of a language model has nothing to train
        total.backward()
    for slot, own_loss in zip(slots, losses, strict=True):
        slot.update(own_loss)
    return [
        own.batch.sequences.tokens * pack.layers(slot.index) for slot, own in zip(slots, batches, strict=True)
    ]


class _Training:
    """The slots of one call of ``train``, and what follows from each of their steps."""

    def __init__(self, pack: Pack, data: TaskData, problem: Problem, device: torch.device) -> None:
        self.slots: dict[int, Slot] = {}
        self._pack = pack
        self._data = data
        self._problem = problem
        self._device = device
        self._work: dict[int, float] = {}  # of the step under way, by slot, in steps' work

    def fill(self, supply: Callable[[], Job | None]) -> Iterator[Event]:
        """Give every free slot a job, as long as there are jobs."""
        for index in range(self._pack.slots):
            while index not in self.slots and (job := supply()) is not None:
                try:
                    self.slots[index] = self._started(index, job)
                except Exception as error:
                    if self.slots and (is_out_of_memory(error) or is_lost(error)):
                        yield from self._exhausted(error, [job])
                        return
                    yield _failed(job, error)
                    if is_lost(error):
                        yield Exhausted([], first_line(error), device_lost=True)
                        return
            if index not in self.slots:
                return

    def advance(self) -> Iterator[Event]:
        """A step of all slots that train, a batch of all that are evaluated, and what follows from them."""
        started = time.perf_counter()
        failures: dict[int, Exception] = {}
        try:
            self._attempt(failures)
        except Exception as error:  # the device's, not a trial's
            _forget_frames(error)
            if len(self.slots) > 1:
                yield from self._exhausted(error)
            else:
                yield from self._drop_failed(next(iter(self.slots.values())), error)
            return
        seconds = time.perf_counter() - started
        running = list(self.slots.values())
        training = [slot for slot in running if slot.predicting is None]
        shares = _shares(self._work)
        for slot in running:
            slot.seconds += seconds
            slot.device_seconds += seconds * shares[slot.index]
            slot.training_seconds += seconds * shares[slot.index] if slot.predicting is None else 0.0
        work = sum(self._work[slot.index] for slot in training)
        for slot in running:
            if slot.index in failures:
                yield from self._drop_failed(slot, failures[slot.index])
            elif slot.predicting is None:
                yield from self._after_step(slot)
            elif slot.predicting.done:
                yield from self._after_evaluation(slot, slot.predicting.logits)
        stepped = Stepped(len(running), len(running) - len(training), work, seconds)
        yield stepped
        if stepped.stop:
            for slot in list(self.slots.values()):
                yield self._handed_back(slot)

    def _attempt(self, failures: dict[int, Exception]) -> None:
        for slot in self.slots.values():
            if slot.due is not None and slot.predicting is None:
                slot.predicting = Predicting(self._pack, slot.index, slot.head, self._data.validation)
        self._work = dict.fromkeys(self.slots, 0.0)
        running = list(self.slots.values())
        self._together(_predicting(running), self._predict, _batches_left, failures)
        training = [slot for slot in running if slot.predicting is None]
        self._together(training, self._train, _steps_made, failures)
        synchronize(self._device)  # what went wrong is raised here, and the clock says what it took

    def _started(self, index: int, job: Job) -> Slot:
        slot = start(self._pack, index, job, self._data.train, self._problem, self._device)
        if job.state is not None:
            try:
                restore(slot, job.state)
            except (KeyError, RuntimeError, ValueError) as error:
                self._pack.clear(index)
                if is_out_of_memory(error) or is_lost(error):
                    raise
                # Of another device, say: the trial is none the worse for beginning again.
                to_stderr(f"trial {job.number} begins again: {first_line(error)}")
                return self._started(index, replace(job, state=None))
        return slot

    def _train(self, slots: list[Slot]) -> None:
        for slot, work in zip(slots, step(self._pack, slots, self._problem), strict=True):
            self._work[slot.index] += work

    def _predict(self, slots: list[Slot]) -> None:
        passes = [slot.predicting for slot in slots if slot.predicting is not None]
        for slot, work in zip(slots, predict_step(self._pack, passes, self._problem.pooling), strict=True):
            self._work[slot.index] += FORWARD_SHARE * work

    def _together(
        self,
        slots: list[Slot],
        make: Callable[[list[Slot]], None],
        made: Callable[[Slot], int],
        failures: dict[int, Exception],
    ) -> None:
        """Something of all slots at once; if that raises, of each alone, to see whose fault it is.

        Args:
            make: does it.
            made: changes once a slot's part is done.
            failures: where the errors of slots go; those of the device are raised.
        """
        if not slots:
            return
        before = {slot.index: made(slot) for slot in slots}
        try:
            make(slots)
            return
        except Exception as error:
            if is_out_of_memory(error) or is_lost(error):
                raise
            if len(slots) == 1:
                failures[slots[0].index] = error
                return
        for slot in slots:
            if made(slot) == before[slot.index]:
                self._together([slot], make, made, failures)

    def _after_step(self, slot: Slot) -> Iterator[Event]:
        """Report progress now and then, and end a trial whose loss is not finite."""
        if slot.due is None and slot.step % STEPS_BETWEEN_PROGRESS:
            return
        if not math.isfinite(slot.loss_sum.item()):
            yield self._finished(slot, "pruned", "diverged")
        elif slot.due is None:
            event = Progress(slot.job, slot.step, slot.steps)
            yield event
            yield from self._answered(slot, event.stop)

    def _after_evaluation(self, slot: Slot, logits: Tensor) -> Iterator[Event]:
        """Report an evaluation, and end the trial when it is over."""
        number = slot.due
        assert number is not None
        slot.predicting = None
        try:
            measured = measure(self._problem.kind, logits, self._data.validation, self._data.label_names)
        except Exception as error:
            yield from self._drop_failed(slot, error)
            return
        objectives = (self._problem.metric, *self._problem.further)
        if not all(math.isfinite(measured[name]) for name in objectives):
            yield self._finished(slot, "pruned", "diverged")
            return
        slot.note(number, measured, self._problem)
        event = Evaluated(
            slot.job, number, slot.step, slot.epoch, dict(slot.metrics), partial(snapshot, slot)
        )
        yield event
        if event.stop == PRUNED:
            yield self._finished(slot, "pruned", "pruner")
        elif event.stop is None and slot.step == slot.steps:
            yield self._finished(slot, "complete", None)
        else:
            yield from self._answered(slot, event.stop)

    def _answered(self, slot: Slot, stop: str | None) -> Iterator[Event]:
        if stop == HANDED_BACK:
            yield self._handed_back(slot)
        elif stop is not None:
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        self._pack.clear(slot.index)
        del self.slots[slot.index]

    def _drop_failed(self, slot: Slot, error: Exception) -> Iterator[Event]:
        failed = _failed(slot.job, error)
        self._drop(slot)
        del slot
        if failed.out_of_memory:
            release_memory()
        yield failed
        if is_lost(error):
            yield Exhausted([], first_line(error), device_lost=True)

    def _handed_back(self, slot: Slot) -> HandedBack:
        state = snapshot(slot)
        self._drop(slot)
        return HandedBack(slot.job, state)

    def _exhausted(self, error: Exception, more: list[Job] | None = None) -> Iterator[Event]:
        """Take all trials out of their slots: together they are too much for the device."""
        jobs = [slot.job for slot in self.slots.values()] + (more or [])
        while self.slots:  # nothing here holds one, so that its memory can be given back
            self._drop(next(iter(self.slots.values())))
        lost = is_lost(error)
        if not lost:
            release_memory()
        yield Exhausted(jobs, first_line(error), lost)

    def _finished(self, slot: Slot, outcome: str, reason: str | None) -> Finished:
        """Take a trial out of its slot, with the weights that its metrics belong to."""
        self._drop(slot)
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


def _shares(work: dict[int, float]) -> dict[int, float]:
    """Which part of a step's time each slot is charged, by its work; equal parts if there was none."""
    least = LEAST_SHARE * sum(work.values()) or 1.0
    charged = {index: max(own, least) for index, own in work.items()}
    return {index: own / sum(charged.values()) for index, own in charged.items()}


def _predicting(slots: list[Slot]) -> list[Slot]:
    return [slot for slot in slots if slot.predicting is not None]


def _batches_left(slot: Slot) -> int:
    return slot.predicting.left if slot.predicting is not None else 0


def _steps_made(slot: Slot) -> int:
    return slot.step


def _forget_frames(error: BaseException | None) -> None:
    """Let what raised an error hold nothing: the graph of a step that did not fit, above all."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _failed(job: Job, error: Exception) -> Failed:
    text = "".join(traceback.format_exception(error))
    return Failed(job, first_line(error), text, is_out_of_memory(error))


def first_line(error: Exception) -> str:
    """What was raised and the first line of why, which may be nothing."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
