"""Peak memory of packs of K trials: the backbone is there once, whatever K.

Every K is measured in a process of its own, in turns: what is resident on the CPU, what is allocated on CUDA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.common import machine, megabytes, parse, parser, table
from benchmarks.material import backbone_folder, draw_rows, write_study
from benchmarks.processes import Answer, Process


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    made = parser(__doc__, rounds=3, rows=512, validation_rows=64)
    made.add_argument("--slots", type=int, nargs="+", default=[1, 8], metavar="K")
    made.add_argument("--steps", type=int, default=6, help="steps of a pack (default: 6)")
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    made.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parse(made)


def measure(settings: argparse.Namespace) -> Answer:
    """Train a pack of the first K in this process; its memory at several moments, in bytes."""
    import torch

    from adapters.architectures import hidden_size
    from adapters.config import AdapterConfig
    from adapters.pack import Pack
    from benchmarks.material import prepare_material
    from benchmarks.steps import Steps, endless_jobs
    from sweeper.device import peak_memory_bytes
    from sweeper.study import load_study

    [slots] = settings.slots
    device = torch.device(settings.device)
    material = prepare_material(load_study(settings.measure), settings.device, settings.measure.parent)
    model = material.load_backbone(settings.dtype)
    config = AdapterConfig(bottleneck_dim=max(1, hidden_size(model.config) // 16))
    jobs = endless_jobs(config, slots, settings.batch_size, settings.seed)
    steps = Steps(Pack(model, slots=slots), material, jobs)
    before = peak_memory_bytes(device)
    steps.run(settings.steps)
    parameters = {p.untyped_storage().data_ptr(): p for p in model.parameters()}
    frozen = sum(p.untyped_storage().nbytes() for p in parameters.values() if not p.requires_grad)
    trained = sum(p.untyped_storage().nbytes() for p in parameters.values() if p.requires_grad)
    return {
        "before": before,
        "peak": peak_memory_bytes(device),
        "frozen": frozen,
        "trained": trained,
        "tokens": max(sum(int(part.sum()) for part in step) for step in steps.seen),
    }


def measure_apart(slots: int, settings: argparse.Namespace, study: Path) -> Answer:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", str(study), "--slots", str(slots)]
    for name in ("device", "model", "max_length", "threads", "seed", "steps", "batch_size", "dtype"):
        command += [f"--{name.replace('_', '-')}", str(getattr(settings, name))]
    command += ["--data", str(settings.data)] if settings.data else []
    process = Process(f"pack_{slots}", command, study.parent, threads=settings.threads, ours=True)
    try:
        [answer] = process.answers()
    finally:
        process.close()
    return answer


def report(rounds: dict[int, list[Answer]]) -> str:
    """A line for each K."""
    header = ["K", "weights of the backbone", "of adapters", "before the first step", "peak"]
    header += ["tokens of the largest step", "a token takes, KB", "K processes of one trial each, at most"]
    peaks = {slots: [one["peak"] for one in done] for slots, done in rounds.items()}
    alone = statistics.median(peaks[min(peaks)]) if min(peaks) == 1 else None
    rows = []
    for slots, done in rounds.items():
        middle = {key: statistics.median(one[key] for one in done) for key in done[0]}
        low, high = min(peaks[slots]) / 1e6, max(peaks[slots]) / 1e6
        rows.append(
            [
                str(slots),
                megabytes(middle["frozen"]),
                megabytes(middle["trained"]),
                megabytes(middle["before"]),
                f"{megabytes(middle['peak'])} ({low:,.0f} to {high:,.0f})",
                f"{middle['tokens']:,.0f}",
                f"{(middle['peak'] - middle['before']) / middle['tokens'] / 1e3:,.0f}",
                "" if alone is None else megabytes(slots * alone),
            ]
        )
    return table(header, rows)


def main() -> None:
    """Measure and print."""
    settings = arguments()
    if settings.measure:
        print(json.dumps(measure(settings)))
        return
    print(machine(settings))
    print(
        f"{settings.dtype}, batches of {settings.batch_size}, {settings.steps} steps; "
        f"{settings.rounds} rounds, every K in turn in a process of its own: median, and range of the peak"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_rows(settings, folder)
        settings.model = backbone_folder(settings, folder)
        write_study(folder, settings, model=settings.model)
        rounds: dict[int, list[Answer]] = {slots: [] for slots in settings.slots}
        for _ in range(settings.rounds):
            for slots, done in rounds.items():
                done.append(measure_apart(slots, settings, folder / "study.yaml"))
    print(report(rounds))


if __name__ == "__main__":
    main()
