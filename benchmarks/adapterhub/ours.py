"""This project's side: `sweeper.train` over a pack of one, one trial of one epoch a round. Runs in .venv.

Reads a way and a number of rows from stdin, a line a round, and answers each with one JSON line: the
seconds of the whole trial, by the clock and of processor time, from building its adapter to its end, an
evaluation on a row of each label included. There are two ways. With ``every_step``, the frozen part below
the adapter is computed in every step. With ``kept``, it is read from memory, as by every trial of a study;
computing it, once a study, is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

import sweeper
from adapters import AdapterConfig
from adapters.depth import depth_of
from adapters.pack import Pack
from sweeper import backbone, task
from sweeper.cache import frozen_batches
from sweeper.data import Split, TaskData, prepare, read_tables
from sweeper.events import Finished, Stepped
from sweeper.slot import Job, Problem
from sweeper.study import load_study
from sweeper.train import train
from sweeper.trainconfig import TrainConfig


def first_rows(split: Split, rows: int) -> Split:
    """The first rows of a split."""
    end = int(split.offsets[rows])
    types = split.token_type_ids[:end] if split.token_type_ids is not None else None
    return replace(
        split,
        input_ids=split.input_ids[:end],
        token_type_ids=types,
        offsets=split.offsets[: rows + 1],
        labels=split.labels[:rows],
    )


def with_states(pack: Pack, split: Split, adapter: AdapterConfig) -> Split:
    """The split with the frozen states that a trial of this adapter begins with, as a worker keeps them."""
    depth = depth_of(adapter, pack.backbone.config)
    states = [torch.empty(len(split.input_ids), pack.hidden_size) for _ in range(depth.tensors)]
    for rows, found, _ in frozen_batches(pack, split, [depth]):
        for kept, new in zip(states, found[depth], strict=True):
            kept[rows] = new
    return replace(split, frozen={depth: tuple(states)})


def one_round(pack: Pack, data: TaskData, problem: Problem, job: Job) -> dict[str, float]:
    """Train one trial; its seconds, and the parameters of its adapter."""
    jobs = [job]
    start, cpu_start = time.perf_counter(), time.process_time()
    events = list(train(pack, data, problem, lambda: jobs.pop() if jobs else None, device="cpu"))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    last = [event for event in events if not isinstance(event, Stepped)][-1]
    if not isinstance(last, Finished) or last.adapter is None:
        raise SystemExit(f"the trial did not finish: {last}")
    parameters = sum(parameter.numel() for parameter in last.adapter.parameters())
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "adapter_parameters": parameters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--bottleneck-dim", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)

    study = load_study(settings.study)
    tokenizer = backbone.load_tokenizer(study.backbone)
    data = prepare(study, read_tables(study), tokenizer, settings.study.parent / "cache")
    pack = Pack(backbone.load_backbone(study.backbone, "float32", "cpu"))
    outputs = task.outputs(study.task.kind, data.label_names)
    problem = Problem(study.task.kind, study.task.pooling, outputs, "accuracy", True)
    adapter = AdapterConfig(bottleneck_dim=settings.bottleneck_dim)
    config = TrainConfig(epochs=1, batch_size=settings.batch_size)
    versions = {"adapter-sweeper": sweeper.__version__}
    versions |= {name: version(name) for name in ("transformers", "torch")}
    print(json.dumps({"versions": versions}), flush=True)
    for number, line in enumerate(sys.stdin):
        job = Job(number, number, 1, adapter, config, seed=number)
        kept, rows = line.split()
        split = first_rows(data.train, int(rows))
        part = replace(data, train=with_states(pack, split, adapter) if kept == "kept" else split)
        print(json.dumps(one_round(pack, part, problem, job)), flush=True)


if __name__ == "__main__":
    main()
