"""LoRA and DoRA merged: the outputs of the inserted adapter without a hook, and all back to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters import AdapterConfig, AdapterError, attach, build, names, remove, unmerge
from adapters.insert import activate, active
from adapters.merge import merge, merged
from tests.tiny_models import tiny_model


def lora(method: str = "lora", **fields: Any) -> AdapterConfig:
    return AdapterConfig(**{"method": method, "rank": 3, "alpha": 6.0, "targets": "all", **fields})


def put(model: Any, config: AdapterConfig, name: str = "one", seed: int = 0) -> nn.Module:
    """An adapter whose weights change what the model computes, though not beyond what rounds alike."""
    generator = torch.Generator().manual_seed(seed)
    adapter = build(config, model.config, generator).to(model.dtype)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return attach(model, adapter, name)


def hidden(model: Any, tokens: Tensor) -> Tensor:
    states: Tensor = model(tokens).last_hidden_state.detach()
    return states


def hooks(model: nn.Module) -> int:
    return sum(len(own._forward_hooks) + len(own._forward_pre_hooks) for own in model.modules())


@pytest.mark.parametrize("family", ["bert", "gpt2", "albert", "modernbert", "deberta-v2"])
@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_merged_is_what_inserted_computes_and_comes_out_to_the_bit(
    method: str, family: str, dtype: torch.dtype, off: float, tokens: Tensor
) -> None:
    model = tiny_model(family, 2).to(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = {name: id(value) for name, value in model.named_parameters()}
    flags = {name: value.requires_grad for name, value in model.named_parameters()}
    alone = hidden(model, tokens)
    adapter = put(model, lora(method))
    inserted = hidden(model, tokens)
    assert not torch.allclose(inserted, alone, atol=1e-3)
    merge(model)
    assert merged(model) == "one" and names(model) == () and hooks(model) == 0
    torch.testing.assert_close(hidden(model, tokens), inserted, rtol=0, atol=off)
    assert unmerge(model) is adapter and active(model) == "one" and merged(model) is None
    assert torch.equal(hidden(model, tokens), inserted)
    activate(model, None)
    assert torch.equal(hidden(model, tokens), alone)
    remove(model, "one")
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
    assert {name: id(value) for name, value in model.named_parameters()} == ids
    assert {name: value.requires_grad for name, value in model.named_parameters()} == flags


def test_only_lora_and_dora_are_merged_and_a_refusal_changes_nothing(tokens: Tensor) -> None:
    model = tiny_model("bert", 2)
    with pytest.raises(AdapterError, match="no active adapter"):
        merge(model)
    with pytest.raises(AdapterError, match="no adapter is merged"):
        unmerge(model)
    put(model, AdapterConfig(bottleneck_dim=4))
    changed = hidden(model, tokens)
    with pytest.raises(AdapterError, match="bottleneck cannot be merged"):
        merge(model)
    put(model, lora(), "two")
    with pytest.raises(AdapterError, match="under 'one': remove those first"):
        merge(model)
    with pytest.raises(AdapterError, match="three"):
        merge(model, "three")
    remove(model, "two")
    activate(model, "one")
    assert torch.equal(hidden(model, tokens), changed)


def test_one_at_a_time_and_what_came_in_since_goes_first() -> None:
    model = tiny_model("bert", 2)
    put(model, lora())
    merge(model, "one")
    with pytest.raises(AdapterError, match="'one' is merged into this model"):
        merge(model)
    put(model, lora("dora"), "two")
    with pytest.raises(AdapterError, match="'two' came in after 'one' was merged"):
        unmerge(model)
    remove(model, "two")
    unmerge(model)
    assert names(model) == ("one",)


def test_a_weight_that_is_not_finite_or_shared_is_refused(tokens: Tensor) -> None:
    model = tiny_model("bert", 2)
    alone = hidden(model, tokens)
    adapter = put(model, lora())
    with torch.no_grad():
        next(adapter.parameters()).fill_(float("inf"))
    with pytest.raises(AdapterError, match="not finite"):
        merge(model)
    remove(model, "one")
    assert torch.equal(hidden(model, tokens), alone)
    attention = model.encoder.layer[0].attention.self
    attention.key.weight = attention.query.weight
    put(model, lora())
    with pytest.raises(AdapterError, match="shares its weight"):
        merge(model)


def test_a_copy_and_a_moved_model_unmerge_their_own(tokens: Tensor) -> None:
    model = tiny_model("bert", 2)
    alone = hidden(model, tokens)
    put(model, lora())
    merge(model)
    other = copy.deepcopy(model)
    unmerge(other)
    remove(other, "one")
    assert torch.equal(hidden(other, tokens), alone) and merged(model) == "one"
    model.double()
    unmerge(model)
    remove(model, "one")
    torch.testing.assert_close(hidden(model, tokens), alone.double(), rtol=0, atol=1e-5)
    assert {value.dtype for value in model.parameters()} == {torch.float64}


def test_a_model_that_evaluates_goes_on_evaluating(tokens: Tensor) -> None:
    model = tiny_model("bert").train()
    put(model, lora())
    model.eval()
    inserted = hidden(model, tokens)
    merge(model)
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(hidden(model, tokens), inserted, rtol=0, atol=2e-5)
