"""What this machine computes on, and in which dtype it is fast."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from pathlib import Path

import torch

from sweeper.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
_SECONDS_A_DTYPE = 0.4
_TOKENS, _WIDTH = 1024, 768
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST = -1, -3, 2**31 - 1
"""Of mallopt(3): the numbers of two parameters, and the largest value that either can have."""
_OLD_LARGEST = 2**25
"""Of the second one in older versions of glibc, which refuse more."""


def devices() -> list[str]:
    """The devices that workers can have, one each: every CUDA device, else the CPU."""
    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu"]


def choose(device: str | None) -> str:
    """The device that was asked for, or the first that there is.

    Raises:
        UsageError: this machine has no such device.
    """
    there = devices()
    if device is None:
        return there[0]
    known = list(dict.fromkeys([*there, "cpu"]))
    if device not in known:
        raise UsageError(f"there is no device {device!r} here, but: {', '.join(known)}")
    return device


def describe(device: str) -> str:
    """A device in words, for people and for tags."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    threads = torch.get_num_threads()
    unit = "thread" if threads == 1 else "threads"
    return f"CPU, {threads} {unit}, {torch.backends.cpu.get_cpu_capability()}"


def supports(dtype: str, device: str) -> bool:
    """Whether a device can compute in a dtype at all."""
    if device.startswith("cuda") and dtype == "bfloat16":
        with torch.cuda.device(device):  # it is asked of the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return dtype in DTYPES


def measure_dtype(device: str) -> str:
    """The faster of float32 and bfloat16 here, measured by matrix products in under a second.

    bfloat16 has to win by a fifth: it costs precision.
    """
    if not supports("bfloat16", device):
        return "float32"
    return "bfloat16" if _rate("bfloat16", device) > 1.2 * _rate("float32", device) else "float32"


def _rate(dtype: str, device: str) -> float:
    """Matrix products a second of ``[1024, 768] x [768, 768]``, the best of several tries."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(_TOKENS, _WIDTH, generator=generator).to(device, DTYPES[dtype])
    right = torch.randn(_WIDTH, _WIDTH, generator=generator).to(device, DTYPES[dtype])
    best, deadline = 0.0, time.perf_counter() + _SECONDS_A_DTYPE
    while True:
        started = time.perf_counter()
        left @ right
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = max(best, 1.0 / (time.perf_counter() - started))
        if time.perf_counter() > deadline:
            return best


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory so far: allocated on a CUDA device, resident of this process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone: the other counter includes what it was started from
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a device, or of the machine, did not do."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # On the CPU torch raises a plain RuntimeError; on CUDA, where its allocator was not asked (for streams,
    # kernels, pinned memory), one that other failures of the device have, too.
    said = "out of memory" if isinstance(error, torch.AcceleratorError) else "can't allocate memory"
    return isinstance(error, RuntimeError) and said in str(error)


def is_lost(error: BaseException) -> bool:
    """Whether a CUDA device failed in a way that only a new process mends."""
    return isinstance(error, torch.AcceleratorError) and not is_out_of_memory(error)


def keep_freed_memory() -> None:
    """Let this process keep the memory of tensors that are freed for those that follow, until it is released.

    A step on a CPU frees its tensors and the next one makes them again. glibc returns each of more than
    32 MiB to the kernel, which hands the next one out page by page, each zeroed (mallopt(3)). Other C
    libraries stay as they are.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        # The second call ends the adaptation of the first threshold, so that one has to be large before it.
        if mallopt(_MMAP_THRESHOLD, _LARGEST) or mallopt(_MMAP_THRESHOLD, _OLD_LARGEST):
            mallopt(_TRIM_THRESHOLD, _LARGEST)


def release_memory() -> None:
    """Give kept memory back, of CUDA devices and of this process, after what held it is gone."""
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def synchronize(device: torch.device) -> None:
    """Wait until a CUDA device has done what it was told; others have done it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def set_threads(threads: int) -> None:
    """How many threads of the CPU this process computes with."""
    torch.set_num_threads(threads)
