"""Every pair of a method and a family: laws where docs/adapters.md has a tick, a refusal elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters import AdapterError, remove
from adapters.architectures import ARCHITECTURES
from adapters.config import METHODS
from adapters.count import parameters_in
from adapters.insert import insert
from adapters.methods import METHODS as ROWS
from adapters.pairs import default_of, pairs
from tests.tiny_models import VOCABULARY, tiny_config, tiny_model

LAYERS = 2
FOUND = pairs({family: tiny_config(family, LAYERS) for family in ARCHITECTURES})
TICKED = [pair for pair, reason in FOUND.items() if reason is None]
REFUSED = [pair for pair, reason in FOUND.items() if reason is not None]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def hidden(model: Any, family: str) -> Tensor:
    if family == "vit":
        inputs = {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator())}
    else:
        ids = torch.randint(5, VOCABULARY, (2, 9), generator=generator())
        inputs = {"input_ids": ids}
        if ARCHITECTURES[family].decoder is not None:
            inputs["decoder_input_ids"] = ids[:, :6].flip(0)
    states: Tensor = model.base_model(**inputs).last_hidden_state
    return states


def test_the_table_covers_all_and_most_of_it_is_ticked() -> None:
    assert set(FOUND) == {(method, family) for method in METHODS for family in ARCHITECTURES}
    assert {method for method, _ in TICKED} == set(METHODS)
    assert {family for _, family in TICKED} == set(ARCHITECTURES)
    assert len(TICKED) > 4 * len(REFUSED) > 0


@pytest.mark.parametrize(("method", "family"), TICKED)
def test_a_ticked_pair_keeps_the_laws(method: str, family: str, fill: Any) -> None:
    """Identity where it is promised, gradients for its parameters alone, removal bit for bit."""
    # Frozen before, too: for T5's bias by distance torch takes another kernel while it needs a gradient.
    model = tiny_model(family, LAYERS).requires_grad_(False)
    alone = hidden(model, family)
    config = default_of(method, 8)
    adapter = insert(model, config, generator=generator())
    trained = list(adapter.parameters())
    assert sum(parameter.numel() for parameter in trained) == parameters_in(config, model.config)
    if ROWS[method].identity:
        torch.testing.assert_close(hidden(model, family), alone, rtol=0, atol=1e-5)
    fill(adapter)
    changed = hidden(model, family)
    assert changed.shape == alone.shape
    if trained:
        assert not torch.allclose(changed, alone, atol=1e-3)
        changed.sin().sum().backward()
        named = adapter.named_parameters()
        assert [name for name, own in named if not is_reached(own) and not is_idle(name)] == []
    inside = {id(parameter) for parameter in trained}
    assert all(own.grad is None for own in model.parameters() if id(own) not in inside)
    assert remove(model) is adapter
    assert torch.equal(hidden(model, family), alone)


def is_reached(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)


def is_idle(name: str) -> bool:
    """A bias of keys shifts all scores of a query alike: its gradient is zero but for rounding."""
    return name.endswith("bias") and ("key" in name or "k_" in name)


@pytest.mark.parametrize(("method", "family"), REFUSED)
def test_a_pair_without_a_tick_is_refused_and_nothing_is_left(method: str, family: str) -> None:
    model = tiny_model(family, LAYERS)
    modules = [name for name, _ in model.named_modules()]
    with pytest.raises(AdapterError) as error:
        insert(model, default_of(method, 8), generator=generator())
    assert str(error.value) == FOUND[method, family] and len(str(error.value).split()) > 5
    assert [name for name, _ in model.named_modules()] == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
