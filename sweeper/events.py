"""What training says. Whoever reads an event may answer by setting ``stop`` on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    import adapters
    from sweeper.slot import Job, SlotState


@dataclass
class Stepped:
    """One step of the pack is done. Set ``stop`` to hand all its trials back.

    Args:
        slots: trials that took part.
        evaluating: how many of them had a batch of an evaluation in place of a step.
        work: of the steps: their tokens, each times the layers that were computed for it.
        seconds: the step took.
    """

    slots: int
    evaluating: int
    work: float
    seconds: float
    stop: bool = False


@dataclass
class Progress:
    """Some steps of a trial are done. Set ``stop`` to take it out of its slot, or to hand it back.

    ``stop = "handed_back"`` is answered by :class:`HandedBack`; anything else ends it without another event.
    """

    job: Job
    step: int
    steps: int
    stop: str | None = None


@dataclass
class Evaluated:
    """The trial was evaluated on the validation split.

    Set ``stop`` to ``"pruned"`` to end the trial here, or answer as to :class:`Progress`.

    Args:
        evaluation: counted from 1.
        step: steps done; ``epoch``: epochs done.
        metrics: ``train/loss`` (mean since the last evaluation), ``validation/loss``, every metric of the
            task that is finite, ``learning_rate``, ``examples_per_second``, ``peak_memory_bytes``.
        state: copies all that the trial needs to go on elsewhere.
    """

    job: Job
    evaluation: int
    step: int
    epoch: float
    metrics: dict[str, float]
    state: Callable[[], SlotState] = field(repr=False)
    stop: str | None = None


@dataclass
class HandedBack:
    """The trial was taken out of its slot as it was told, with all that it needs to go on elsewhere."""

    job: Job
    state: SlotState


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
    out_of_memory: bool = False


@dataclass
class Exhausted:
    """The memory of the device did not do for the trials of the pack together: all are out of their slots.

    None of them is at fault; with fewer at a time they may do. A trial that was alone has ``Failed`` instead.

    Args:
        device_lost: the device failed in a way that only a new process mends.
    """

    jobs: list[Job]
    reason: str
    device_lost: bool


Event = Stepped | Progress | Evaluated | HandedBack | Finished | Failed | Exhausted
