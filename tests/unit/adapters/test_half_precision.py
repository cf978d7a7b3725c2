"""What is trained and begins at one acts in half precision as finely as the dtype of the outputs can say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapters.bottleneck import Bottleneck
from adapters.frozen import Frozen
from adapters.fuse import Fuse
from adapters.ia3 import IA3
from tests.unit.adapters.test_lowrank import drawn, generator


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_factor_near_one_is_not_rounded_before_the_output_is(dtype: torch.dtype) -> None:
    """Else the first steps of IA3, of learned channels and of a fusion's values change nothing."""
    hidden = torch.randn(500, 64, generator=generator(), dtype=torch.float32).to(dtype)
    ia3, bottleneck = IA3(64), Bottleneck(64, 8, channel_scaling=True)
    for parameter in bottleneck.parameters():
        parameter.normal_(std=0.1, generator=generator(1))
    bottleneck.channels.fill_(1.0)
    plain = bottleneck(hidden)
    for share in (-0.0015, 0.0015, 0.006, 0.01):
        ia3.scale.fill_(1 + share)
        bottleneck.channels.fill_(1 + share)
        for found, before in (
            (ia3.change(nn.Identity(), hidden, hidden, None), hidden),
            (bottleneck(hidden), plain),
        ):
            exact = (1 + share) * before.double()
            assert found.dtype == dtype
            one_rounding = torch.finfo(dtype).eps / 2 * exact.abs()
            assert ((found.double() - exact).abs() <= 1.02 * one_rounding + 1e-6).all()


@torch.no_grad()
def test_what_a_fusion_has_learned_of_its_values_reaches_its_output() -> None:
    hidden = torch.randn(50, 16, generator=generator(), dtype=torch.float32).to(torch.bfloat16)
    fuse = Fuse(
        16, Frozen({0: drawn(Bottleneck(16, 4)), 1: drawn(Bottleneck(16, 4), 1)}), "trained", 1.0, 0.0
    )
    fuse.fill(generator())
    before = fuse(hidden)
    fuse.value.weight += 0.0015 * torch.randn(16, 16, generator=generator(2))
    assert (fuse(hidden) != before).any()
    # The identity itself changes nothing.
    nn.init.eye_(fuse.value.weight)
    assert torch.equal(fuse(hidden), before)
