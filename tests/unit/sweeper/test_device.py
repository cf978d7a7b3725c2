"""What the machine computes on, and in which dtype."""

import torch

from sweeper.device import describe, devices, measure_dtype, peak_memory_bytes, supports


def test_every_device_is_described_and_has_a_dtype() -> None:
    for device in devices():
        assert describe(device)
        assert measure_dtype(device) in ("float32", "bfloat16")
        assert supports("float32", device) and not supports("float8", device)
        assert peak_memory_bytes(torch.device(device)) >= 0
