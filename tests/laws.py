"""What has to hold where a method goes into a family: tests run it, docs/adapters.md is made from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapters import AdapterError, remove
from adapters.architectures import ARCHITECTURES
from adapters.config import METHODS
from adapters.count import parameters_in
from adapters.insert import insert
from adapters.methods import METHODS as ROWS
from adapters.pairs import default_of
from tests.tiny_models import VOCABULARY, tiny_model

LAYERS = 2
BOTTLENECK_DIM = 8
PASSED = "passed"


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def hidden(model: Any, family: str) -> Tensor:
    """What a tiny model of a family computes of two inputs."""
    if family == "vit":
        inputs = {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator())}
    else:
        ids = torch.randint(5, VOCABULARY, (2, 9), generator=generator())
        inputs = {"input_ids": ids}
        if ARCHITECTURES[family].decoder is not None:
            inputs["decoder_input_ids"] = ids[:, :6].flip(0)
    states: Tensor = model.base_model(**inputs).last_hidden_state
    return states


def verdict(method: str, family: str) -> str:
    """``passed`` where the laws hold, else the reason why the two do not go together.

    Raises:
        AssertionError: a law is broken, or a refusal leaves something in the model.
    """
    # Frozen before, too: for T5's bias by distance torch takes another kernel while it needs a gradient.
    model = tiny_model(family, LAYERS).requires_grad_(False)
    modules = [name for name, _ in model.named_modules()]
    alone = hidden(model, family)
    config = default_of(method, BOTTLENECK_DIM)
    reason = None
    try:
        adapter = insert(model, config, generator=generator())
    except AdapterError as error:
        reason = str(error)
    if reason is not None:
        assert len(reason.split()) > 5
        assert [name for name, _ in model.named_modules()] == modules
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        return reason
    trained = list(adapter.parameters())
    assert sum(parameter.numel() for parameter in trained) == parameters_in(config, model.config)
    if ROWS[method].identity:
        torch.testing.assert_close(hidden(model, family), alone, rtol=0, atol=1e-5)
    _fill(adapter)
    changed = hidden(model, family)
    assert changed.shape == alone.shape
    if trained:
        assert not torch.allclose(changed, alone, atol=1e-3)
        changed.sin().sum().backward()
        named = adapter.named_parameters()
        assert [name for name, own in named if not _is_reached(own) and not _is_idle(name)] == []
    inside = {id(parameter) for parameter in trained}
    assert all(own.grad is None for own in model.parameters() if id(own) not in inside)
    assert remove(model) is adapter
    assert torch.equal(hidden(model, family), alone)
    assert [name for name, _ in model.named_modules()] == modules
    return PASSED


def verdicts() -> dict[str, dict[str, str]]:
    """The verdict on every method in every family, by family; every pair is run."""
    return {family: {method: verdict(method, family) for method in METHODS} for family in ARCHITECTURES}


def _fill(adapter: nn.Module) -> None:
    own = generator()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.3, generator=own)


def _is_reached(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)


def _is_idle(name: str) -> bool:
    """A bias of keys shifts all scores of a query alike: its gradient is zero but for rounding."""
    return name.endswith("bias") and ("key" in name or "k_" in name)
