"""How long a study will take, and how much memory and disk: forecast from a few real training steps.

What is measured is the default configuration on the study's own data. Other configurations differ, most of
all those that leave lower layers without a module; a pruner ends trials early. So it is an upper estimate.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from adapters.architectures import hidden_size
from adapters.pack import Pack
from sweeper import space, task
from sweeper.cache import Layout, budget_bytes
from sweeper.device import devices, peak_memory_bytes, set_threads
from sweeper.engine.crew import Post, WorkerOptions, posts
from sweeper.evaluate import predict_logits
from sweeper.slot import Job, Problem, Slot, start
from sweeper.train import step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sweeper.data import Split, TaskData
    from sweeper.study import Study

MEASURED_SECONDS = 6.0
MEASURED_STEPS = 32
LEAST_STEPS = 4
WARMUP_STEPS = 2
EVALUATED_TEXTS = 256
FLOAT_BYTES = 4
COPIES_OF_WEIGHTS = 2  # in the artifact folder and in MLflow


@dataclass(frozen=True)
class Forecast:
    """What a study will cost at most.

    Args:
        device: where it was measured; ``workers``: how many train at once on this machine.
        measured_steps: optimizer steps that were measured.
        examples_per_second: training throughput of the default configuration.
        seconds_per_trial: for one trial of the default configuration, trained to its end.
        seconds: for all trials of the budget and the reference, within ``budget.hours``.
        memory_bytes: of one worker: allocated on a CUDA device, resident otherwise.
        disk_bytes: weights of all trials, the largest adapter each, their copies in MLflow, and what is kept
            of the frozen layers.
        disk_free_bytes: where ``SWEEPER_HOME`` is or will be.
    """

    device: str
    workers: int
    measured_steps: int
    examples_per_second: float
    seconds_per_trial: float
    seconds: float
    memory_bytes: int
    disk_bytes: int
    disk_free_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_forecast(study: Study, backbone: PreTrainedModel, data: TaskData, device: str) -> Forecast:
    """Trains a few steps of trial 0, evaluates some texts, and forecasts from their times."""
    where = torch.device(device)
    default = space.configuration(study, space.default_params(study, hidden_size(backbone.config)))
    objective = study.objective
    problem = Problem(
        study.task.kind,
        study.task.pooling,
        task.outputs(study.task.kind, data.label_names),
        objective.metric,
        objective.direction == "maximize",
    )
    job = Job(0, 0, 0, default.adapter, default.train, space.trial_seed(study, 0))
    pack = Pack(backbone)
    crew = _crew(study, backbone, device)
    slot = start(pack, 0, job, data.train, problem, where)
    threads = torch.get_num_threads()
    try:
        set_threads(crew[0].threads or threads)
        seconds_a_token, examples_a_second, steps = _training_speed(pack, slot, problem)
        evaluation_seconds = _evaluation_seconds(pack, slot, data.validation, problem)
    finally:
        set_threads(threads)
        pack.clear(0)
    train_tokens = int(data.train.lengths.sum())
    epochs, evaluations = default.train.epochs, default.train.epochs * default.train.evaluations_per_epoch
    trial = seconds_a_token * train_tokens * epochs + evaluation_seconds * evaluations
    workers = len(crew)
    # The reference is one trial more, though a cheaper one.
    seconds = trial * (study.budget.trials + 1) / workers
    if study.budget.hours is not None:
        seconds = min(seconds, study.budget.hours * 3600 + trial)
    return Forecast(
        device=device,
        workers=workers,
        measured_steps=steps,
        examples_per_second=examples_a_second,
        seconds_per_trial=trial,
        seconds=seconds,
        memory_bytes=peak_memory_bytes(where),
        disk_bytes=_disk_bytes(study, backbone, problem.outputs) + _cache_bytes(study, backbone, data),
        disk_free_bytes=_disk_free_bytes(),
    )


def _training_speed(pack: Pack, slot: Slot, problem: Problem) -> tuple[float, float, int]:
    """Seconds a token, examples a second, and how many steps were measured (after the warm-up)."""
    warmup = WARMUP_STEPS if slot.steps > WARMUP_STEPS else 0
    batches = list(islice(slot.batches, min(MEASURED_STEPS, slot.steps)))
    slot.batches = iter(batches)
    for _ in range(warmup):
        step(pack, [slot], problem)
    _wait(slot.device)
    measured, started = 0, time.perf_counter()
    while measured < len(batches) - warmup and (
        measured < LEAST_STEPS or time.perf_counter() - started < MEASURED_SECONDS
    ):
        step(pack, [slot], problem)
        measured += 1
    _wait(slot.device)
    seconds = time.perf_counter() - started
    used = torch.cat(batches[warmup : warmup + measured])
    return seconds / int(slot.split.lengths[used].sum()), len(used) / seconds, measured


def _evaluation_seconds(pack: Pack, slot: Slot, split: Split, problem: Problem) -> float:
    """Seconds of one evaluation, from some texts of the split and the tokens that they have."""
    part = _first(split, EVALUATED_TEXTS)
    started = time.perf_counter()
    predict_logits(pack, 0, slot.head, part, problem.pooling)
    _wait(slot.device)
    seconds = time.perf_counter() - started
    return seconds * int(split.lengths.sum()) / int(part.lengths.sum())


def _first(split: Split, texts: int) -> Split:
    texts = min(texts, len(split))
    stop = int(split.offsets[texts])
    types = None if split.token_type_ids is None else split.token_type_ids[:stop]
    return replace(
        split,
        input_ids=split.input_ids[:stop],
        token_type_ids=types,
        offsets=split.offsets[: texts + 1],
        labels=split.labels[:texts],
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _disk_bytes(study: Study, backbone: PreTrainedModel, outputs: int) -> int:
    _, largest = space.extremes(study, backbone.config)
    head = outputs * (hidden_size(backbone.config) + 1)
    return FLOAT_BYTES * (largest + head) * (study.budget.trials + 1) * COPIES_OF_WEIGHTS


def _crew(study: Study, backbone: PreTrainedModel, device: str) -> list[Post]:
    """The workers that the study will have on devices of this kind."""
    kind = device.partition(":")[0]
    alike = [there for there in devices() if there.startswith(kind)] or [device]
    size = sum(weight.nbytes for weight in backbone.parameters())
    return posts(alike, WorkerOptions(), study.budget.trials + 1, size)


def _cache_bytes(study: Study, backbone: PreTrainedModel, data: TaskData) -> int:
    from sweeper.home import Home

    dtype = str(backbone.dtype).removeprefix("torch.")
    budget = budget_bytes(None, Home.from_environment().cache)
    uses = space.depths(study, backbone.config)
    return Layout.of(data, "", dtype, hidden_size(backbone.config)).within(budget, uses).bytes


def _disk_free_bytes() -> int:
    from sweeper.export.folders import nearest
    from sweeper.home import Home

    return shutil.disk_usage(nearest(Home.from_environment().root)).free
