"""How much of the machine a packed training step gets: achieved FLOP/s against matrix products, interleaved.

Three rates in each round: the step's own, by the closed form of benchmarks/flops.py over its time; the best
square product of this machine; and products of the shapes that the step itself has, ``[tokens, d] x [d, d]``,
``[tokens, d] x [d, f]`` and ``[tokens, f] x [f, d]``, in the numbers in which a layer has them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as functional

from adapters.config import AdapterConfig
from adapters.pack import Pack
from benchmarks.common import machine, parse, parser, spread, table
from benchmarks.flops import Shape, shape_of, step_flops
from benchmarks.material import Material, draw_rows, prepare_material, write_study
from benchmarks.steps import Steps, endless_jobs
from sweeper.device import DTYPES, supports

SQUARES = (1024, 2048, 4096)


@dataclass(frozen=True)
class Measured:
    """One K in one round.

    Args:
        tokens: of a step, on average.
        step, shapes, square: FLOP/s of the training step, of products of its shapes, of square ones.
        examples: texts a second.
    """

    tokens: float
    step: float
    shapes: float
    square: float
    examples: float


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    made = parser(__doc__, rounds=3, rows=1024, validation_rows=64)
    add = made.add_argument
    add("--slots", type=int, nargs="+", default=[1, 2, 4, 8, 16], metavar="K")
    add("--steps", type=int, default=4, help="steps of a pack of the most slots in a round (default: 4)")
    add("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    add("--batch-size", type=int, default=32)
    add("--placement", default="pfeiffer")
    add("--layers", choices=["all", "upper_half", "upper_third"], default="all")
    settings = parse(made)
    if min(settings.slots) < 1 or settings.steps < 1:
        made.error("--slots and --steps must be 1 or more")
    return settings


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def best_square(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the fastest square product, each size twice."""
    rates = []
    for size in SQUARES:
        left = torch.randn(size, size, device=device).to(dtype)
        for _ in range(2):
            rates.append(2 * size**3 / timed(partial(torch.matmul, left, left), device))
    return max(rates)


def shapes_rate(shape: Shape, tokens: int, dtype: torch.dtype, device: torch.device, flops: float) -> float:
    """FLOP/s of a layer's six products over some tokens, about as much work as ``flops``."""
    d, f = shape.width, shape.ffn_width
    narrow, wide = (torch.randn(tokens, width, device=device).to(dtype) for width in (d, f))
    weights = [
        torch.randn(rows, columns, device=device).to(dtype) for rows, columns in ((d, d), (f, d), (d, f))
    ]
    work = [(narrow, weights[0], 4), (narrow, weights[1], 1), (wide, weights[2], 1)]
    layer = 2 * tokens * (shape.attention_parameters + shape.ffn_parameters)

    def products() -> None:
        for values, weight, times in work:
            for _ in range(times):
                functional.linear(values, weight)

    products()
    layers = max(1, round(flops / layer))

    def all_layers() -> None:
        for _ in range(layers):
            products()

    return layers * layer / timed(all_layers, device)


class Bench:
    """Packs of one dtype and any K over one backbone, measured in turns."""

    def __init__(self, material: Material, settings: argparse.Namespace, dtype: str) -> None:
        self._material = material
        self._settings = settings
        self._dtype = DTYPES[dtype]
        self._device = torch.device(material.device)
        self._backbone = material.load_backbone(dtype)
        self.shape = shape_of(self._backbone.config)
        self._config = AdapterConfig(
            bottleneck_dim=max(1, self.shape.width // 16),
            placement=settings.placement,
            layers=settings.layers,
        )

    def measure(self, slots: int) -> Measured:
        """A pack of K trials, after a step that is not counted, and products beside it."""
        settings = self._settings
        jobs = endless_jobs(self._config, slots, settings.batch_size, settings.seed)
        steps = Steps(Pack(self._backbone, slots=slots), self._material, jobs)
        steps.run(1)
        count = max(settings.steps, settings.steps * max(settings.slots) // slots)
        seconds = timed(lambda: steps.run(count), self._device)
        seen = steps.seen[1:]
        steps.clear()
        lengths = [length for step in seen for part in step for length in part.tolist()]
        flops = step_flops(self.shape, lengths, self._config)
        tokens = sum(lengths) / count
        shapes = shapes_rate(self.shape, round(tokens), self._dtype, self._device, flops)
        square = best_square(self._dtype, self._device)
        return Measured(tokens, flops / seconds, shapes, square, len(lengths) / seconds)


def report(dtype: str, rounds: Mapping[int, Sequence[Measured]]) -> str:
    """A line for each K."""
    header = ["K", "tokens a step", "step, GFLOP/s", "products of its shapes, GFLOP/s"]
    header += ["step, % of those", "% of the best square", "examples a second"]
    rows = []
    for slots, done in rounds.items():
        rows.append(
            [
                str(slots),
                f"{statistics.fmean(one.tokens for one in done):,.0f}",
                spread([one.step / 1e9 for one in done], 1),
                spread([one.shapes / 1e9 for one in done], 1),
                spread([100 * one.step / one.shapes for one in done], 0),
                spread([100 * one.step / one.square for one in done], 0),
                spread([one.examples for one in done], 0),
            ]
        )
    best = spread([one.square / 1e9 for done in rounds.values() for one in done], 1)
    sizes = ", ".join(str(size) for size in SQUARES)
    return f"\n{dtype}: the best square product ({sizes}) reaches {best} GFLOP/s\n{table(header, rows)}"


def main() -> None:
    """Measure and print."""
    settings = arguments()
    print(machine(settings))
    print(
        f"adapters: {settings.placement}, {settings.layers}; batches of {settings.batch_size}; "
        f"{settings.rounds} rounds; median (range)"
    )
    with tempfile.TemporaryDirectory() as name, torch.random.fork_rng(devices=[]):
        folder = Path(name)
        draw_rows(settings, folder)
        material = prepare_material(write_study(folder, settings), settings.device, folder)
        dtypes = [dtype for dtype in settings.dtypes if supports(dtype, settings.device)]
        for dtype in set(settings.dtypes) - set(dtypes):
            print(f"{settings.device} cannot compute in {dtype}: left out")
        benches = {dtype: Bench(material, settings, dtype) for dtype in dtypes}
        rounds: dict[str, dict[int, list[Measured]]] = {
            dtype: {slots: [] for slots in settings.slots} for dtype in dtypes
        }
        for number in range(1, settings.rounds + 1):
            for dtype, bench in benches.items():
                for slots, done in rounds[dtype].items():
                    done.append(bench.measure(slots))
            print(f"round {number} done", flush=True)
        for dtype in dtypes:
            print(report(dtype, rounds[dtype]))


if __name__ == "__main__":
    main()
