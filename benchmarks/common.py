"""What every benchmark shares: its options, the machine it names, and figures with their spread."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "studies" / "quickstart"
SHAPES = ("bert-base", "bert-large")
PARTS = ("train", "validation")


def parser(
    description: str | None, *, rounds: int, rows: int, validation_rows: int
) -> argparse.ArgumentParser:
    """The options that all benchmarks take, with this one's defaults."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--device", default="cpu", help="cpu, cuda or cuda:1 (default: cpu)")
    add("--model", type=Path, help="directory of a backbone (default: the quickstart's)")
    add("--shapes", choices=SHAPES, help="a backbone of these shapes with random weights instead")
    add("--data", type=Path, help="folder with train.tsv and validation.tsv: sentence, label "
        "(default: the quickstart's films, split with the seed)")  # fmt: skip
    add("--rows", type=int, default=rows, help=f"training rows, drawn once (default: {rows})")
    add("--validation-rows", type=int, default=validation_rows, help=f"(default: {validation_rows})")
    add("--max-length", type=int, default=64, help="tokens; longer texts are cut (default: 64)")
    add(
        "--rounds",
        type=int,
        default=rounds,
        help=f"what is compared takes turns, this often (default: {rounds})",
    )
    add("--threads", type=int, default=cores(), help="of a process (default: one a core)")
    add("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    return made


def parse(made: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked; ``device`` is one that is there, and torch uses ``threads`` threads."""
    settings = made.parse_args(arguments)
    if settings.model and settings.shapes:
        made.error("--model and --shapes exclude each other")
    for name in ("rows", "validation_rows", "max_length", "rounds", "threads"):
        if getattr(settings, name) < 1:
            made.error(f"--{name.replace('_', '-')} must be 1 or more, not {getattr(settings, name)}")
    settings.model = settings.model.resolve() if settings.model else QUICKSTART / "backbone"
    needed = [settings.model / "config.json"]
    if settings.data:
        settings.data = settings.data.resolve()
        needed += [settings.data / f"{part}.tsv" for part in PARTS]
    else:
        needed.append(QUICKSTART / "films.tsv")
    for path in needed:
        if not path.is_file():
            made.error(
                f"{path}: no such file; `python -m sweeper.quickstart {QUICKSTART}` fetches the quickstart's"
            )
    settings.device = _checked_device(made, settings.device)
    import torch

    from sweeper.device import keep_freed_memory

    torch.set_num_threads(settings.threads)
    keep_freed_memory()  # as workers do
    return settings


def _checked_device(made: argparse.ArgumentParser, device: str) -> str:
    import torch

    if device == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = [f"cuda:{index}" for index in range(count)]
    wanted = "cuda:0" if device == "cuda" else device
    if wanted not in known:
        made.error(f"there is no device {device!r} here, but: {', '.join(['cpu', *known])}")
    return wanted


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(settings: argparse.Namespace) -> str:
    """The processor, its cores, the device, and the versions that matter, in a few lines."""
    import torch

    from sweeper.device import describe

    where = f"{processor()}, {cores()} cores ({torch.backends.cpu.get_cpu_capability()}), "
    where += f"{settings.threads} threads a process"
    if settings.device != "cpu":
        where += f"; {describe(settings.device)}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("adapter-sweeper", "torch", "transformers"))
    weights = f"{settings.shapes}, random weights" if settings.shapes else f"{settings.model}"
    if settings.model == QUICKSTART / "backbone" and not settings.shapes:
        weights = "all-MiniLM-L6-v2, of the quickstart"
    return (
        f"machine: {where}\nversions: Python {platform.python_version()}, {versions}\n"
        f"backbone: {weights}; data: {settings.data or 'the films of the quickstart'}"
    )


def processor() -> str:
    """The name of the processor, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range: ``3.10 (2.95 to 3.30)``."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text: the first to the left, the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def megabytes(count: float) -> str:
    """Bytes as ``1,234 MB`` of a million bytes each."""
    return f"{count / 1e6:,.0f} MB"


def three_quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles; of a single value, it three times."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
