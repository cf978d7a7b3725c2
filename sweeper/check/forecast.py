"""How long a study will take, and how much memory and disk: forecast from a few real training steps.

What is measured is the default configuration on some of the study's own texts, with their frozen states kept
where a worker would keep them. Other configurations differ, most of all those that leave lower layers without
a module; a pruner ends trials early. So it is an upper estimate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapters.architectures import hidden_size
from adapters.count import frozen_parameters_in, parameters_in
from adapters.depth import Depth
from adapters.pack import Pack
from sweeper import corners, space
from sweeper.backbone import fingerprint
from sweeper.cache import Layout, budget_bytes, frozen_batches
from sweeper.device import devices, peak_memory_bytes, set_threads
from sweeper.disk import free_bytes
from sweeper.engine.crew import Post, WorkerOptions, posts
from sweeper.evaluate import predict_logits
from sweeper.frozen import named_frozen
from sweeper.home import Home
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
COPIES_OF_WEIGHTS = 2  # in the artifact folder and in MLflow


@dataclass(frozen=True)
class Forecast:
    """What a study will cost at most.

    Args:
        device: where it was measured; ``workers``: how many train at once on this machine.
        measured_steps: optimizer steps that were measured.
        examples_per_second: training throughput of the default configuration.
        seconds_per_trial: for one trial of the default configuration, trained to its end.
        seconds: for the frozen states, all trials of the budget and the reference, within ``budget.hours``.
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
    problem = Problem.of(study, data.label_names)
    seed, frozen = space.trial_seed(study, 0), named_frozen(study)
    job = Job(0, 0, 0, default.adapter, default.train, seed, frozen=frozen)
    pack = Pack(backbone)
    crew = _crew(study, backbone, data, device)
    layout = _layout(study, backbone, data)
    slot = start(pack, 0, job, data.train, problem, where)
    threads = torch.get_num_threads()
    try:
        set_threads(crew[0].threads or threads)
        kept = _keep_frozen(pack, slot, layout.depths)
        seconds_a_token, examples_a_second, steps = _training_speed(pack, slot, problem)
        evaluation_seconds = _evaluation_seconds(pack, slot, data.validation, layout.depths, problem)
    finally:
        set_threads(threads)
        pack.clear(0)
    train_tokens = int(data.train.lengths.sum())
    epochs, evaluations = default.train.epochs, default.train.epochs * default.train.evaluations_per_epoch
    trial = seconds_a_token * train_tokens * epochs + evaluation_seconds * evaluations
    workers = len(crew)
    # The reference is one trial more, though a cheaper one.
    seconds = kept * layout.tokens + trial * math.ceil((study.budget.trials + 1) / workers)
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
        disk_bytes=_disk_bytes(study, backbone, problem.outputs) + layout.bytes,
        disk_free_bytes=free_bytes(Home.from_environment().root),
    )


def _keep_frozen(pack: Pack, slot: Slot, depths: Sequence[Depth]) -> float:
    """Let a slot train on some of its batches, with their frozen states; the seconds that a token took."""
    batches = list(islice(slot.batches, min(MEASURED_STEPS, slot.steps)))
    part = _part(slot.split, torch.cat(batches))
    slot.split, seconds = _with_states(pack, part, depths)
    sizes = [len(batch) for batch in batches]
    slot.batches = iter(torch.arange(len(part)).split(sizes))
    return seconds / int(part.lengths.sum())


def _training_speed(pack: Pack, slot: Slot, problem: Problem) -> tuple[float, float, int]:
    """Seconds a token, examples a second, and how many steps were measured (after the warm-up)."""
    batches = list(slot.batches)
    slot.batches = iter(batches)
    warmup = WARMUP_STEPS if len(batches) > WARMUP_STEPS else 0
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


def _evaluation_seconds(
    pack: Pack, slot: Slot, split: Split, depths: Sequence[Depth], problem: Problem
) -> float:
    """Seconds of one evaluation, from some texts of the split and the tokens that they have."""
    part, _ = _with_states(pack, _part(split, torch.arange(min(EVALUATED_TEXTS, len(split)))), depths)
    started = time.perf_counter()
    predict_logits(pack, 0, slot.head, part, problem.pooling)
    _wait(slot.device)
    seconds = time.perf_counter() - started
    return seconds * int(split.lengths.sum()) / int(part.lengths.sum())


def _part(split: Split, indices: Tensor) -> Split:
    """Some texts of a split, as a split of their own."""
    offsets = torch.zeros(len(indices) + 1, dtype=torch.int64)
    torch.cumsum(split.lengths[indices], 0, out=offsets[1:])
    rows = split.tokens_of(indices)
    types = None if split.token_type_ids is None else split.token_type_ids[rows]
    return replace(
        split,
        input_ids=split.input_ids[rows],
        token_type_ids=types,
        offsets=offsets,
        labels=split.labels[rows if split.by_token else indices],
    )


def _with_states(pack: Pack, split: Split, depths: Sequence[Depth]) -> tuple[Split, float]:
    """A split with its frozen states, in memory, and the seconds that they took."""
    if not depths:
        return split, 0.0
    started = time.perf_counter()
    frozen: dict[Depth, list[Tensor]] = {}
    for rows, states, _ in frozen_batches(pack, split, depths):
        for depth, tensors in states.items():
            kept = frozen.setdefault(
                depth, [tensor.new_empty(len(split.input_ids), tensor.shape[1]) for tensor in tensors]
            )
            for all_rows, tensor in zip(kept, tensors, strict=True):
                all_rows[rows.to(tensor.device)] = tensor
    seconds = time.perf_counter() - started
    return replace(split, frozen={depth: tuple(kept) for depth, kept in frozen.items()}), seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _disk_bytes(study: Study, backbone: PreTrainedModel, outputs: int) -> int:
    largest = max(
        parameters_in(config, backbone.config) + frozen_parameters_in(config, backbone.config)
        for config in corners.every(study)
    )
    head = outputs * (hidden_size(backbone.config) + 1)
    width = torch.float64.itemsize if backbone.dtype == torch.float64 else torch.float32.itemsize
    return width * (largest + head) * (study.budget.trials + 1) * COPIES_OF_WEIGHTS


def _crew(study: Study, backbone: PreTrainedModel, data: TaskData, device: str) -> list[Post]:
    """The workers that the study will have on devices of this kind."""
    kind = device.partition(":")[0]
    alike = [there for there in devices() if there.startswith(kind)] or [device]
    size = sum(weight.nbytes for weight in backbone.parameters())
    rows = sum(data.report["rows"].values())
    return posts(alike, WorkerOptions(), study.budget.trials + 1, size, rows)


def _layout(study: Study, backbone: PreTrainedModel, data: TaskData) -> Layout:
    """What the workers would keep of the frozen states."""
    dtype = str(backbone.dtype).removeprefix("torch.")
    bare = Layout.of(data, fingerprint(study.backbone), dtype, hidden_size(backbone.config))
    budget = budget_bytes(None, Home.from_environment().cache / "frozen", bare)
    return bare.within(budget, corners.depths(study, backbone.config))
