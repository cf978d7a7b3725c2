"""What the machine computes on, and in which dtype."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sweeper import device
from sweeper.device import (
    describe,
    devices,
    is_lost,
    is_out_of_memory,
    measure_dtype,
    peak_memory_bytes,
    supports,
)


def test_every_device_is_described_and_has_a_dtype() -> None:
    for name in devices():
        assert describe(name)
        assert supports("float32", name) and not supports("float8", name)
        assert peak_memory_bytes(torch.device(name)) > 0


@pytest.mark.parametrize(("bfloat16", "chosen"), [(1.1, "float32"), (1.3, "bfloat16"), (0.3, "float32")])
def test_bfloat16_has_to_win_by_a_fifth(
    bfloat16: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_rate", lambda dtype, where: {"bfloat16": bfloat16, "float32": 1.0}[dtype])
    assert measure_dtype("cpu") == chosen


@pytest.mark.parametrize(
    ("error", "out_of_memory", "lost"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True, False),
        (torch.AcceleratorError("CUDA error: out of memory"), True, False),  # of a stream, say, or a kernel
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), False, True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
            False,
        ),
        (MemoryError(), True, False),
        (RuntimeError("shapes do not match"), False, False),
    ],
)
def test_what_does_not_fit_is_told_from_a_device_that_failed(
    error: Exception, out_of_memory: bool, lost: bool
) -> None:
    assert (is_out_of_memory(error), is_lost(error)) == (out_of_memory, lost)


def test_products_are_timed() -> None:
    assert device._rate("float32", "cpu") > 0.0


FAULTS = """
import ctypes, resource, torch
from pathlib import Path
from sweeper.device import release_memory
from sweeper.worker.process import main

assert main(["no-such-study"]) == 2

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(32):
    torch.ones(16, 1024, 1024)
faults, kept = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, resident()
release_memory()
print(faults, kept - resident(), ctypes.CDLL(None).mallopt(-3, 2**31 - 1))
"""


def test_a_worker_keeps_the_memory_of_its_tensors_until_it_is_released(tmp_path: Path) -> None:
    environment = {**os.environ, "SWEEPER_HOME": str(tmp_path)}
    command = [sys.executable, "-c", FAULTS]
    said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
    faults, released, large = (int(word) for word in said.split())
    a_tensor = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    # 32 times as many pages if nothing were kept; some tensors do not fit where an earlier one was.
    if large:
        assert faults < 20 * a_tensor
        assert released >= a_tensor - 100
    else:  # an older glibc keeps none that is larger than 32 MiB
        assert faults >= 32 * a_tensor
