"""Every method in four families: the laws that hold for all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from adapters import AdapterConfig, AdapterError, attach, build, load, remove, save
from adapters.config import METHODS, shares_step
from adapters.count import parameters_in
from adapters.flat import Sequences
from adapters.insert import activate
from adapters.methods import METHODS as ROWS
from adapters.pack import FlatBatch, Pack
from tests.tiny_models import FAMILIES, VOCABULARY, tiny_config, tiny_model

Fill = Callable[..., nn.Module]
FIELDS: dict[str, dict[str, object]] = {
    "bottleneck": {"bottleneck_dim": 4, "learned_scaling": "channel", "placement": "houlsby"},
    "ladder": {"bottleneck_dim": 4},
    "lora": {"rank": 2, "targets": "all"},
    "dora": {"rank": 2, "targets": "all"},
    "ia3": {},
    "compacter": {"bottleneck_dim": 8, "phm_dim": 4, "phm_rank": 2},
    "loreft": {"rank": 3},
    "prefix": {"prefix_length": 3},
    "prompt": {"prompt_length": 3},
    "mam": {"bottleneck_dim": 4, "prefix_length": 3},
    "bitfit": {},
    "head": {},
    "fuse": {"adapters": [
        {"config": {"bottleneck_dim": 4, "placement": "houlsby", "initialization": "kaiming"}},
        {"config": {"bottleneck_dim": 3, "layers": [0, 2], "initialization": "kaiming"}},
    ]},
    "stack": {
        "bottleneck_dim": 4,
        "layers": [0, 2],
        "adapters": [
            {"config": {"method": "lora", "targets": "all", "initialization": "kaiming"}},
            {"config": {"bottleneck_dim": 3, "placement": "houlsby", "initialization": "kaiming"}},
        ],
    },
}  # fmt: skip
CASES = [(method, family) for method in METHODS for family in FAMILIES]


def config_of(method: str, **fields: object) -> AdapterConfig:
    return AdapterConfig.from_dict({"method": method, **FIELDS[method], **fields})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hidden(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    states: Tensor = model(tokens).last_hidden_state
    return states


def is_bare(model: PreTrainedModel) -> bool:
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    left = any(key.startswith("sweeper") for module in model.modules() for key in vars(module))
    return not hooked and not left and model.config._attn_implementation == "sdpa"


def test_every_method_has_a_row_and_is_tested() -> None:
    assert tuple(ROWS) == METHODS == tuple(FIELDS)


@pytest.mark.parametrize(("method", "family"), CASES)
def test_the_laws(method: str, family: str, tokens: Tensor, fill: Fill, tmp_path: object) -> None:
    """Identity at the start, its count, its gradients, its file, and its removal; in fp32 and bf16."""
    model = tiny_model(family)
    alone = hidden(model, tokens)
    config = config_of(method)
    adapter = build(config, model.config, generator())
    assert parameters_in(config, model.config) == sum(p.numel() for p in adapter.parameters())
    attach(model, adapter)
    if ROWS[method].identity:
        # A norm's bias added twice and a row orthonormalised twice are off by a rounding, no more.
        torch.testing.assert_close(hidden(model, tokens), alone, rtol=0, atol=1e-6)
    fill(adapter)
    changed = hidden(model, tokens)
    trained = list(adapter.parameters())
    if trained:
        assert not torch.allclose(changed, alone, atol=1e-3)
        changed[..., :5].square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained if not is_idle(p, adapter))
        inside = {id(parameter) for parameter in trained}
        assert all(p.grad is None for p in model.parameters() if id(p) not in inside)
    path = save(adapter, f"{tmp_path}/adapter.safetensors")
    assert remove(model) is adapter
    assert torch.equal(hidden(model, tokens), alone) and is_bare(model)
    loaded = attach(model, load(path), "again")
    # An optimizer's state goes by the order of the parameters.
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in adapter.named_parameters()]
    assert torch.equal(hidden(model, tokens), changed)
    activate(model, None)
    assert torch.equal(hidden(model, tokens), alone) and model.config._attn_implementation == "sdpa"
    remove(model, "again")
    half = tiny_model(family).to(torch.bfloat16)
    attach(half, load(path))
    rough = hidden(half, tokens)
    assert rough.dtype == torch.bfloat16 and torch.isfinite(rough).all()
    error = (rough.float() - changed).abs().mean() / changed.abs().mean()
    assert error < 0.1


def is_idle(parameter: nn.Parameter, adapter: nn.Module) -> bool:
    """A bias of keys shifts all scores of a query alike: its gradient is zero but for rounding."""
    names = [name for name, own in adapter.named_parameters() if own is parameter]
    return any("key" in name or "k_lin" in name for name in names) and names[0].endswith("bias")


@pytest.mark.parametrize(("method", "family"), CASES)
def test_a_pack_gives_what_the_model_gives_and_each_what_it_is_alone(
    method: str, family: str, fill: Fill
) -> None:
    """In fp64: flat runs against the model's own, text by text; and packed with others against alone."""
    model = tiny_model(family).double()
    config = config_of(method)
    adapter = fill(build(config, model.config, generator()).double())
    own = batch(0, (3, 3, 6))
    attach(model, adapter)
    texts = own.input_ids.split(list(own.sequences.lengths))
    expected = torch.cat([hidden(model, text.unsqueeze(0))[0] for text in texts]).detach()
    remove(model)
    pack = Pack(model, slots=3)
    pack.put(1, adapter)
    alone = pack.forward([(1, own)])[0]
    torch.testing.assert_close(alone, expected, rtol=1e-9, atol=1e-9)
    gradients = gradients_of(alone, adapter)
    first = own.sequences.offsets[:-1]
    torch.testing.assert_close(pack.forward([(1, own)], "cls")[0], expected[first], rtol=1e-9, atol=1e-9)
    other = fill(build(AdapterConfig(bottleneck_dim=3, layers=(2,)), model.config, generator()), 1).double()
    if not shares_step(config):
        with pytest.raises(ValueError, match="alone in its pack"):
            pack.put(0, other)
        return
    twin = fill(build(config, model.config, generator()), 2).double()
    pack.put(0, other)
    pack.put(2, twin)
    parts = [(0, batch(1, (5, 2))), (1, own), (2, batch(2, (4,)))]
    for pooled in (None, "cls"):
        packed = pack.forward(parts, pooled)
        alone = pack.forward([(1, own)], pooled)[0]
        torch.testing.assert_close(packed[1], alone, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(packed[2], pack.forward(parts[2:], pooled)[0], rtol=1e-9, atol=1e-9)
        wanted = gradients
        if pooled is not None:
            wanted = gradients_of(pack.forward([(1, own)])[0][first], adapter)
        for mine, theirs in zip(gradients_of(pack.forward(parts, pooled)[1], adapter), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def batch(seed: int, lengths: tuple[int, ...]) -> FlatBatch:
    ids = torch.randint(5, VOCABULARY, (sum(lengths),), generator=generator(seed))
    return FlatBatch(ids, None, Sequences(lengths))


def gradients_of(outputs: Tensor, adapter: nn.Module) -> list[Tensor]:
    trained = list(adapter.parameters())
    if not trained:
        return []
    return list(torch.autograd.grad(outputs[..., :5].square().sum(), trained))


@pytest.mark.parametrize("method", METHODS)
def test_a_decoder_generates_with_a_cache_as_without(method: str, tokens: Tensor, fill: Fill) -> None:
    model = tiny_model("gpt2", auto_class=AutoModelForCausalLM)
    fill(attach(model, build(config_of(method), model.config, generator())))
    arguments = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with_cache, without = (
        model.generate(tokens[:, :6], use_cache=use_cache, **arguments) for use_cache in (True, False)
    )
    assert with_cache.shape == (2, 10) and torch.equal(with_cache, without)


@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_nothing(method: str, tokens: Tensor, fill: Fill) -> None:
    model = tiny_model("bert").double()
    fill(attach(model, build(config_of(method), model.config, generator()).double()))
    mask = torch.ones_like(tokens)
    mask[1, 7:] = 0
    padded = model(input_ids=tokens, attention_mask=mask).last_hidden_state[1, :7]
    torch.testing.assert_close(padded, hidden(model, tokens[1:, :7])[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_takes_its_own_adapter_along(method: str, tokens: Tensor, fill: Fill) -> None:
    model = tiny_model("bert")
    adapter = fill(attach(model, build(config_of(method), model.config, generator())))
    expected = hidden(model, tokens)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.zero_()
    assert torch.equal(hidden(other, tokens), expected)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("gpt2", {"method": "lora", "targets": "query"}, "computed in 'query_key_value'"),
        ("bert", {"method": "lora", "targets": "ffn_gate"}, "no linear 'ffn_gate'"),
        ("bert", {"method": "dora", "rank": 33}, "rank 33 is above 32"),
        ("bert", {"method": "loreft", "rank": 33}, "rank 33 is above"),
        ("bert", {"method": "compacter", "bottleneck_dim": 6}, "does not divide bottleneck_dim 6"),
        ("bert", {"method": "compacter", "bottleneck_dim": 5, "phm_dim": 5}, "does not divide the backbone"),
        ("bert", {"method": "ia3", "layers": [7]}, "out of range"),
        ("bert", {"method": "mam", "bottleneck_dim": 64}, "wider than"),
    ],
)
def test_what_does_not_fit_is_refused(family: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        build(AdapterConfig.from_dict(fields), tiny_config(family), generator())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "lora", "bottleneck_dim": 4}, "bottleneck_dim means nothing to the method lora"),
        ({"method": "head", "layers": "all"}, "its fields: none"),
        ({"method": "lora", "rank": True}, "rank is True"),
        ({"method": "lora", "rank": 0}, "at least 1"),
        ({"method": "lora", "alpha": 0}, "above 0"),
        ({"method": "lora", "targets": "query+quary"}, "did you mean 'query'"),
        ({"method": "lora", "targets": "query+query"}, "twice"),
        ({"method": "lora", "targets": []}, "empty"),
        ({"method": "lora", "targets": 3}, "targets is 3"),
        ({"method": "lora", "targets": ""}, "unknown target"),
        ({"method": "prefix", "prefix_length": 1.5}, "whole number"),
        ({"method": "mam"}, "bottleneck_dim is missing"),
        ({"bottleneck_dim": 4, "stochastic_depth": 1.0}, "below 1"),
        ({"bottleneck_dim": 4, "learned_scaling": "all"}, "unknown learned_scaling"),
    ],
)
def test_fields_are_those_of_the_method(fields: dict[str, object], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        AdapterConfig.from_dict(fields)


def test_targets_are_kept_in_one_form() -> None:
    one = AdapterConfig(method="lora", targets="value + query")
    assert one == AdapterConfig.from_dict({"method": "lora", "targets": ["query", "value"]})
    assert one.targets == "query+value"


def test_written_names_are_not_the_set_of_the_same_linears() -> None:
    """A set takes what the family has: the two differ where queries and values are computed in one linear."""
    named, of_set = (
        AdapterConfig(method="lora", targets=targets) for targets in ("query+value", "query_value")
    )
    assert named != of_set
    assert [place.key for place in build(of_set, tiny_config("gpt2", 1), generator()).sites] == [
        "layer_0_query_key_value"
    ]
    with pytest.raises(AdapterError, match="computed in 'query_key_value'"):
        build(named, tiny_config("gpt2", 1), generator())
