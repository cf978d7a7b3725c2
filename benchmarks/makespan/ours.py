"""This project's side: one process that sets up and trains the trials of a file. Runs in .venv.

Several such processes may share a file: whoever first makes a trial's file in the folder of claims trains it.
Answers with a line of JSON for each trial as it ends, and one for the process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adapters.depth import enters
from adapters.pack import Pack
from benchmarks.common import cores
from benchmarks.makespan.trials import Trial
from benchmarks.material import Material, prepare_material
from sweeper.backbone import fingerprint
from sweeper.cache import FrozenCache, Layout, budget_bytes
from sweeper.data import TaskData
from sweeper.device import keep_freed_memory, peak_memory_bytes
from sweeper.events import Event, Exhausted, Failed, Finished
from sweeper.slot import Job
from sweeper.study import load_study
from sweeper.train import train


def with_caches(material: Material, pack: Pack, folder: Path, trials: Sequence[Trial]) -> TaskData:
    """The data with the frozen states that the trials need.

    They are kept beside the study file, which is new in every round: building them, by whichever process
    comes first and with all cores, as workers do, is counted.
    """
    study, data = material.study, material.data
    bare = Layout.of(data, fingerprint(study.backbone), study.train.dtype, pack.hidden_size)
    reads = Counter(enters(trial.adapter, pack.backbone.config) for trial in trials)
    layout = bare.within(budget_bytes(None, folder, bare), reads)

    def say(progress: str) -> None:
        print(f"frozen states: {progress}", file=sys.stderr)

    with threads(cores()):
        return FrozenCache(folder / "frozen", layout).attach(data, pack, say)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    if isinstance(event, Exhausted):
        raise SystemExit(f"the pack needs more memory than there is, ask for fewer slots: {event.reason}")
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
    keep_freed_memory()

    trials = [Trial.from_dict(values) for values in json.loads(settings.trials.read_text(encoding="utf-8"))]
    material = prepare_material(load_study(settings.study), settings.device, settings.study.parent)
    pack = Pack(material.load_backbone(material.study.train.dtype), slots=settings.slots)
    data = with_caches(material, pack, settings.study.parent, trials) if settings.cached else material.data
    supply = Supply(trials, settings.claims)
    for event in train(pack, data, material.problem, supply, device=settings.device):
        told = answer(event)
        if told is not None:
            print(json.dumps(told), flush=True)
    print(json.dumps({"peak_memory_bytes": peak_memory_bytes(torch.device(settings.device))}), flush=True)


if __name__ == "__main__":
    main()
