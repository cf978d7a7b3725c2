"""What the machine computes on, and in which dtype."""

import pytest
import torch

from sweeper import device
from sweeper.device import describe, devices, measure_dtype, peak_memory_bytes, supports


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


def test_products_are_timed() -> None:
    assert device._rate("float32", "cpu") > 0.0
