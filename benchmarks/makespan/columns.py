"""The columns of the ladder: each takes the trials from nothing to the last accuracy."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapters.architectures import hidden_size, layer_count
from adapters.count import parameters_in
from benchmarks.makespan.trials import Trial, hub_config
from benchmarks.material import write_study
from benchmarks.processes import Answer, Process

THEIRS = Path(__file__).resolve().parent / "theirs.py"
HUB = THEIRS.parent.parent / "adapterhub"


@dataclass
class Results:
    """What one column gave in one round.

    Args:
        seconds: from nothing to the end of the last process, by the clock.
        cpu_seconds: of processor time, of all processes and their threads.
        accuracies: by the number of the trial; None where it diverged.
        peak_memory_bytes: of all processes that ran at the same time, added up.
        versions: of AdapterHub's side.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    accuracies: dict[int, float | None] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    versions: dict[str, str] = field(default_factory=dict)


Column = Callable[[Sequence[Trial]], Results]


class Columns:
    """Every column by its name, over the same rows and backbone.

    Args:
        settings: the command line.
        rows: folder with train.tsv and validation.tsv.
        model: directory of the backbone.
        config: the backbone's configuration.
    """

    def __init__(self, settings: argparse.Namespace, rows: Path, model: Path, config: object) -> None:
        self._settings = settings
        self._rows = rows
        self._model = model
        self._config = config
        self._width, self._layers = hidden_size(config), layer_count(config)
        self.columns: dict[str, tuple[str, Column]] = {
            "a": ("AdapterHub, a fresh process a trial, rows padded to 80 tokens", self._fresh),
            "b": ("AdapterHub, one warm process, group_by_length", self._warm),
            "c": ("this project, a pack of one, caches off", lambda t: self._ours(t, slots=1)),
            "d": (f"this project, packs of {settings.pack}", lambda t: self._ours(t, slots=settings.pack)),
            "e": (
                f"this project, packs of {settings.pack}, cached",
                lambda t: self._ours(t, slots=settings.pack, cached=True),
            ),
            "e2": (
                f"this project, {settings.workers} processes of one thread and a pack of one, cached",
                lambda t: self._ours(t, 1, True, settings.workers),
            ),
        }

    def run(self, name: str, trials: Sequence[Trial]) -> Results:
        """Time one column over the trials, and check that it trained each of them once, at its size."""
        started, cpu_started = time.perf_counter(), _children_cpu_seconds()
        results = self.columns[name][1](trials)
        results.seconds = time.perf_counter() - started
        results.cpu_seconds = _children_cpu_seconds() - cpu_started
        if sorted(results.accuracies) != [trial.number for trial in trials]:
            raise SystemExit(f"error: column {name} trained {sorted(results.accuracies)}")
        return results

    def their_versions(self) -> dict[str, str]:
        """The versions of AdapterHub's side, asked of its Python."""
        code = f"import sys; sys.path.insert(0, {str(HUB)!r}); import json, hubside; "
        code += "print(json.dumps({'versions': hubside.versions()}))"
        command = [str(self._settings.theirs.absolute()), "-c", code]
        process = Process("versions", command, self._rows, threads=1, ours=False)
        try:
            return dict(process.answer()["versions"])
        finally:
            process.close()

    def _fresh(self, trials: Sequence[Trial]) -> Results:
        results = Results()
        for trial in trials:
            one = self._theirs([trial], "max_length")
            results.accuracies |= one.accuracies
            results.versions = one.versions
            results.peak_memory_bytes = max(results.peak_memory_bytes, one.peak_memory_bytes)
        return results

    def _warm(self, trials: Sequence[Trial]) -> Results:
        return self._theirs(trials, "grouped")

    def _theirs(self, trials: Sequence[Trial], padding: str) -> Results:
        settings = self._settings
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            hub = [hub_config(trial.adapter, self._width, self._layers) for trial in trials]
            listed = [trial.to_dict() | {"hub": config} for trial, config in zip(trials, hub, strict=True)]
            (folder / "trials.json").write_text(json.dumps(listed), encoding="utf-8")
            command = [str(settings.theirs.absolute()), str(THEIRS), "--model", str(self._model)]
            command += ["--rows", str(self._rows), "--trials", str(folder / "trials.json")]
            command += ["--padding", padding, "--max-length", str(settings.max_length)]
            command += ["--device", settings.device, "--dtype", settings.dtype]
            command += ["--threads", str(settings.threads)]
            process = Process("theirs", command, folder, threads=settings.threads, ours=False)
            return self._collect([process], trials)

    def _ours(self, trials: Sequence[Trial], slots: int, cached: bool = False, workers: int = 1) -> Results:
        settings = self._settings
        threads = settings.threads if workers == 1 else 1
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part in ("train", "validation"):
                shutil.copy(self._rows / f"{part}.tsv", folder)
            write_study(
                folder, settings, search=settings.search, pooling=settings.pooling, dtype=settings.dtype,
                model=self._model,
            )  # fmt: skip
            (folder / "claims").mkdir()
            listed = [trial.to_dict() for trial in trials]
            (folder / "trials.json").write_text(json.dumps(listed), encoding="utf-8")
            command = [
                sys.executable,
                "-m",
                "benchmarks.makespan.ours",
                "--study",
                str(folder / "study.yaml"),
            ]
            command += ["--trials", str(folder / "trials.json"), "--claims", str(folder / "claims")]
            command += ["--device", settings.device, "--threads", str(threads), "--slots", str(slots)]
            command += ["--cached"] if cached else []
            processes = [
                Process(f"ours_{index}", command, folder, threads=threads, ours=True)
                for index in range(workers)
            ]
            return self._collect(processes, trials)

    def _collect(self, processes: Sequence[Process], trials: Sequence[Trial]) -> Results:
        results = Results()
        sizes = {trial.number: parameters_in(trial.adapter, self._config) for trial in trials}
        try:
            for answer in _answers(processes):
                results.versions = answer.get("versions", results.versions)
                results.peak_memory_bytes += answer.get("peak_memory_bytes", 0)
                if "number" not in answer:
                    continue
                number = answer["number"]
                if answer["adapter_parameters"] != sizes[number]:
                    raise SystemExit(
                        f"error: the adapter of trial {number} has {answer['adapter_parameters']:,} "
                        f"parameters, not {sizes[number]:,}"
                    )
                results.accuracies[number] = answer["accuracy"]
        finally:
            for process in processes:
                process.close()
        return results


def _children_cpu_seconds() -> float:
    """Processor time of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _answers(processes: Sequence[Process]) -> Iterator[Answer]:
    # One after the other: their lines are short, and wait in the pipe until they are read.
    for process in processes:
        yield from process.answers()
