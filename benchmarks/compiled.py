"""Whether ``torch.compile`` pays for a packed training step: the same steps with and without it, in turns.

Compiled is what of each layer carries no adapter: the first half of the FFN with its activation, and the
LayerNorms; with dynamic shapes, since no two steps have the same number of tokens. ``--mode reduce-overhead``
adds CUDA graphs on CUDA, which are recorded anew for each number of tokens. Both sides train the same trials
on the same batches. What compiling itself takes is in no step, and printed beside them. On a CPU it needs a
C++ compiler.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import nn

from adapters.config import AdapterConfig
from adapters.pack import Pack
from benchmarks.common import machine, parse, parser, spread, table
from benchmarks.material import Material, draw_rows, prepare_material, write_study
from benchmarks.roofline import timed
from benchmarks.steps import Steps, endless_jobs

MODES = ("default", "reduce-overhead")


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    made = parser(__doc__, rounds=5, rows=1024, validation_rows=64)
    add = made.add_argument
    add("--slots", type=int, nargs="+", default=[1, 4], metavar="K")
    add("--steps", type=int, default=4, help="of a pack of the most slots in a round (default: 4)")
    add("--dtype", choices=["float32", "bfloat16"], default="float32")
    add("--batch-size", type=int, default=32)
    add("--mode", choices=MODES, default="default")
    settings = parse(made)
    if min(settings.slots) < 1 or settings.steps < 1:
        made.error("--slots and --steps must be 1 or more")
    return settings


def compile_in_place(backbone: nn.Module, mode: str) -> int:
    """Compile the parts of a BERT's layers that no adapter hooks into; returns how many."""
    parts = [
        module
        for name, module in backbone.named_modules()
        if ".layer." in name and (name.endswith(".intermediate") or isinstance(module, nn.LayerNorm))
    ]
    for module in parts:
        module.compile(dynamic=True, mode=None if mode == "default" else mode)
    return len(parts)


class Side:
    """Packs over one backbone, compiled or not."""

    def __init__(self, material: Material, settings: argparse.Namespace) -> None:
        self.backbone = material.load_backbone(settings.dtype)
        self._material = material
        self._settings = settings

    def measure(self, slots: int) -> tuple[float, float]:
        """Seconds of the first step, and of each of the others on average."""
        settings = self._settings
        jobs = endless_jobs(AdapterConfig(bottleneck_dim=24), slots, settings.batch_size, settings.seed)
        steps = Steps(Pack(self.backbone, slots=slots), self._material, jobs)
        count = settings.steps * max(settings.slots) // slots
        first, others = (
            timed(partial(steps.run, number), torch.device(settings.device)) for number in (1, count)
        )
        steps.clear()
        return first, others / count


def main() -> None:
    """Measure and print."""
    settings = arguments()
    print(machine(settings))
    with tempfile.TemporaryDirectory() as name, torch.random.fork_rng(devices=[]):
        folder = Path(name)
        draw_rows(settings, folder)
        material = prepare_material(write_study(folder, settings), settings.device, folder)
        plain, compiled = Side(material, settings), Side(material, settings)
        parts = compile_in_place(compiled.backbone, settings.mode)
        if not parts:
            raise SystemExit(
                f"error: {settings.model} has no layers as BERT names them: give another --model"
            )
        print(
            f"{parts} modules compiled, mode {settings.mode}, {settings.dtype}; batches of "
            f"{settings.batch_size}; {settings.rounds} rounds; median (range)"
        )
        rows = []
        for slots in settings.slots:
            begun = [side.measure(slots)[0] for side in (plain, compiled)]  # the first of which compiles
            times: list[tuple[float, float]] = []
            for number in range(settings.rounds):
                order = (plain, compiled) if number % 2 == 0 else (compiled, plain)
                found = {side: side.measure(slots)[1] for side in order}
                times.append((found[plain], found[compiled]))
            rows.append(
                [
                    str(slots),
                    *(spread([1000 * pair[side] for pair in times], 0) for side in (0, 1)),
                    spread([one / other for one, other in times]),
                    f"{begun[1] - begun[0]:.1f}",
                ]
            )
            print(f"K = {slots} done: {statistics.median(a / b for a, b in times):.2f}", flush=True)
    print("\n" + table(["K", "a step, ms", "compiled, ms", "times faster", "compiling took, s"], rows))


if __name__ == "__main__":
    main()
