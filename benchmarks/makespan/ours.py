"""This project's side: one process that sets up and trains the trials of a file. Runs in .venv.

Several such processes may share a file: whoever first makes a trial's file in the folder of claims trains it.
Answers with a line of JSON for each trial as it ends, and one for the process.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from adapters.pack import Pack
from benchmarks.makespan.trials import Trial
from benchmarks.material import Material, prepare_material
from sweeper.device import peak_memory_bytes
from sweeper.slot import Job
from sweeper.study import load_study
from sweeper.train import Event, Failed, Finished, train

CACHES = False
"""Whether this engine has caches of the frozen part. Where not, what is asked to use them says so."""


def make_pack(material: Material, slots: int, cached: bool) -> Pack:
    """The pack that the trials are trained in.

    HERE GO THE CACHES: with ``cached``, the pack (or `train`, in `main`) is to be given the frozen states of
    `material.data`, built by this very process, in this folder, so that building them is counted.
    """
    backbone = material.load_backbone(material.study.train.dtype)
    return Pack(backbone, slots=slots)


class Supply:
    """Gives out the trials that no other process has claimed."""

    def __init__(self, trials: list[Trial], claims: Path) -> None:
        self._trials = list(reversed(trials))
        self._claims = claims

    def __call__(self) -> Job | None:
        while self._trials:
            trial = self._trials.pop()
            try:
                (self._claims / str(trial.number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            return trial.job()
        return None


def answer(event: Event) -> dict[str, Any] | None:
    """What is told of an event: how a trial ended."""
    if isinstance(event, Failed):
        raise SystemExit(f"trial {event.job.number} failed:\n{event.traceback_text}")
    if not isinstance(event, Finished):
        return None
    parameters = sum(p.numel() for p in event.adapter.parameters()) if event.adapter is not None else 0
    accuracy = event.metrics.get("accuracy") if event.outcome == "complete" else None
    return {"number": event.job.number, "accuracy": accuracy, "adapter_parameters": parameters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--trials", type=Path, required=True)
    parser.add_argument("--claims", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--cached", action="store_true")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)

    trials = [Trial.from_dict(values) for values in json.loads(settings.trials.read_text(encoding="utf-8"))]
    material = prepare_material(load_study(settings.study), settings.device, settings.study.parent)
    pack = make_pack(material, settings.slots, settings.cached)
    supply = Supply(trials, settings.claims)
    for event in train(pack, material.data, material.problem, supply, device=settings.device):
        told = answer(event)
        if told is not None:
            print(json.dumps(told), flush=True)
    print(json.dumps({"peak_memory_bytes": peak_memory_bytes(torch.device(settings.device))}), flush=True)


if __name__ == "__main__":
    main()
