"""LoRA and DoRA in half precision: what is trained acts as finely as the dtype of the outputs can say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters import AdapterConfig, attach, build
from adapters.lowrank import DoRA, weight_of
from tests.tiny_models import tiny_model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(module: Any, seed: int = 0) -> Any:
    """The module, its parameters drawn anew."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.1, generator=generator(seed))
    return module


def linear_and_inputs(dtype: torch.dtype) -> tuple[nn.Linear, Tensor]:
    linear = drawn(nn.Linear(64, 48, dtype=torch.float32)).to(dtype)
    return linear, torch.randn(500, 64, generator=generator(1), dtype=torch.float32).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_a_length_is_not_rounded_before_the_output_is(dtype: torch.dtype) -> None:
    linear, inputs = linear_and_inputs(dtype)
    dora = DoRA(64, 48, 2, 4.0)
    outputs = linear(inputs)
    for share in (-0.0015, 0.0015, 0.006, 0.01):
        dora.magnitude.copy_(share * weight_of(linear).float().norm(dim=1))
        changed = dora.change(linear, inputs, outputs, None)
        exact = outputs.double() + share * (outputs - linear.bias).double()
        assert changed.dtype == dtype
        one_rounding = torch.finfo(dtype).eps / 2 * exact.abs()
        assert ((changed.double() - exact).abs() <= 1.02 * one_rounding + 1e-6).all()


def test_under_autocast_the_outputs_keep_their_dtype_and_the_lengths_theirs() -> None:
    linear, inputs = linear_and_inputs(torch.float32)
    dora = drawn(DoRA(64, 48, 2, 4.0), seed=2)
    delta = dora.delta_weight(linear)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = linear(inputs)
        assert dora.change(linear, inputs, outputs, None).dtype == outputs.dtype == torch.bfloat16
        assert torch.equal(dora.delta_weight(linear), delta)


@pytest.mark.parametrize("family", ["bert", "gpt2", "deberta-v2"])
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_a_model_runs_and_trains_under_autocast(method: str, family: str, tokens: Tensor) -> None:
    model = tiny_model(family, 2)
    config = AdapterConfig(method=method, rank=3, targets="all")
    adapter = attach(model, drawn(build(config, model.config, generator())))
    expected = model(tokens).last_hidden_state.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(tokens).last_hidden_state
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()
    found.float().sin().sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())
