"""A ladder reads every layer and feeds nothing back: the module, in a model, and in a pack."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

import adapters
from adapters import Adapter, AdapterConfig, AdapterError
from adapters.depth import FFN, Depth, reads
from adapters.flat import Sequences
from adapters.insert import insert
from adapters.ladder import Ladder, ladder_shapes
from adapters.layerwise import Entry
from adapters.pack import FlatBatch, Pack
from adapters.run import Readings
from tests.tiny_models import FAMILIES, HIDDEN_SIZE, VOCABULARY, tiny_config, tiny_model

Fill = Callable[..., Adapter]


def config_of(**fields: object) -> AdapterConfig:
    return AdapterConfig(**{"method": "ladder", "bottleneck_dim": 4, **fields})  # type: ignore[arg-type]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hidden(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    states: Tensor = model.base_model(tokens).last_hidden_state
    return states


def batch(seed: int = 0, lengths: tuple[int, ...] = (3, 3, 6)) -> FlatBatch:
    ids = torch.randint(5, VOCABULARY, (sum(lengths),), generator=generator(seed))
    return FlatBatch(ids, None, Sequences(lengths))


def readings(pack: Pack, slot: int, own: FlatBatch) -> Readings:
    states = pack.frozen_states(own, pack.reads(slot))
    return Readings({depth: states[depth][0] for depth in pack.reads(slot)}, own.sequences)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_module_is_that_of_the_formulas(normalise: bool) -> None:
    ladder = Ladder(6, 3, ["a", "b", "c"], "tanh", scaling=2.5, normalise=normalise).double()
    with torch.no_grad():
        for parameter in ladder.parameters():
            parameter.normal_(std=0.3, generator=generator())
    states = [torch.randn(5, 6, dtype=torch.float64, generator=generator(seed)) for seed in range(3)]
    read = [functional.layer_norm(state, (6,)) for state in states[:2]] if normalise else states[:2]
    side = None
    for number, (state, key) in enumerate(zip([*read, states[2]], "abc", strict=True)):
        rung = ladder.rungs[key]
        units = state @ rung.down.weight.T + rung.down.bias
        if side is None:
            side = units
        else:
            gate = 1 / (1 + torch.exp(-ladder.gates[number - 1] / 0.1))
            side = gate * side + (1 - gate) * units
        side = side + torch.tanh(side @ rung.mix.weight.T + rung.mix.bias)
    assert side is not None
    expected = 2.5 * (side @ ladder.up.weight.T + ladder.up.bias)
    torch.testing.assert_close(ladder(states), expected, rtol=1e-12, atol=1e-12)


def test_the_shapes_are_known_before_it_is_built() -> None:
    for keys in (["a", "b"], ["a", "b", "c", "d"]):
        built = Ladder(7, 3, keys).state_dict()
        assert ladder_shapes(7, 3, keys) == {name: list(tensor.shape) for name, tensor in built.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_up_changes_no_bit_and_removal_none_either(
    family: str, dtype: torch.dtype, tokens: Tensor, fill: Fill
) -> None:
    model = tiny_model(family).to(dtype)
    alone, before = hidden(model, tokens), repr(model)
    adapter = insert(model, config_of(layers=(0, 2)), generator=generator())
    assert torch.equal(hidden(model, tokens), alone)
    fill(adapter)
    assert not torch.allclose(hidden(model, tokens), alone, atol=1e-2)
    adapters.activate(model, None)
    assert torch.equal(hidden(model, tokens), alone)
    adapters.remove(model)
    assert torch.equal(hidden(model, tokens), alone)
    assert repr(model) == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_it_reads_the_layers_and_adds_to_the_last_hidden_states(
    family: str, tokens: Tensor, fill: Fill
) -> None:
    model = tiny_model(family).double()
    read = model(tokens, output_hidden_states=True).hidden_states  # the last ones are behind GPT-2's ln_f
    adapter = fill(insert(model, config_of(layers=(0, 2), scaling=2.0), generator=generator())).double()
    assert adapter.side is not None
    assert adapter.side.normalise == (family == "gpt2")
    expected = read[3] + adapter.side([read[0], read[2], read[3]])
    torch.testing.assert_close(hidden(model, tokens), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_ladder_only_and_all_of_it(family: str, tokens: Tensor, fill: Fill) -> None:
    model = tiny_model(family)
    adapter = fill(insert(model, config_of(activation="gelu"), generator=generator()))
    (hidden(model, tokens) * torch.linspace(-1, 1, HIDDEN_SIZE)).sum().backward()
    own = {id(parameter) for parameter in adapter.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in own:
            assert parameter.grad is not None and parameter.grad.any(), name
        else:
            assert not parameter.requires_grad and parameter.grad is None, name


def test_the_head_of_a_model_sees_it(tokens: Tensor, fill: Fill) -> None:
    model = tiny_model("bert", auto_class=AutoModelForSequenceClassification)
    alone = model(tokens).logits
    fill(insert(model, config_of(), generator=generator()))
    assert not torch.allclose(model(tokens).logits, alone, atol=1e-2)


def test_a_copy_of_a_model_takes_its_own_ladder_along(tokens: Tensor, fill: Fill) -> None:
    model = tiny_model("bert")
    fill(insert(model, config_of(), generator=generator()))
    changed = hidden(model, tokens)
    copied = copy.deepcopy(model)
    adapters.remove(model)
    assert torch.equal(hidden(copied, tokens), changed)
    fill(adapters.get(copied), seed=1)
    assert not torch.equal(hidden(copied, tokens), changed)


def test_gpt2_generates_with_a_cache_as_without(tokens: Tensor, fill: Fill) -> None:
    model = tiny_model("gpt2", auto_class=AutoModelForCausalLM).double()
    plain = model.generate(tokens, max_new_tokens=6, do_sample=False)
    fill(insert(model, config_of(scaling=4.0), generator=generator())).double()
    cached, whole = (
        model.generate(tokens, max_new_tokens=6, do_sample=False, use_cache=use) for use in (True, False)
    )
    assert torch.equal(cached, whole) and not torch.equal(cached, plain)


def test_dropout_draws_from_the_adapters_generator(tokens: Tensor, fill: Fill) -> None:
    model = tiny_model("bert")
    adapter = fill(insert(model, config_of(dropout=0.5), generator=generator()))
    with pytest.raises(AdapterError, match="generator"):
        hidden(model, tokens)
    adapter.generator = generator(1)
    first = hidden(model, tokens)
    assert not torch.equal(hidden(model, tokens), first)
    adapter.generator.manual_seed(1)
    assert torch.equal(hidden(model, tokens), first)
    adapter.eval()
    assert torch.equal(hidden(model, tokens), hidden(model, tokens))


def test_a_route_through_a_ladder_is_refused() -> None:
    model = tiny_model("bert")
    insert(model, config_of(), "side", generator=generator())
    with pytest.raises(AdapterError, match="ladder has no sites"), adapters.route(model, [("side", 0, 3)]):
        pass


def test_what_a_ladder_reads() -> None:
    config = tiny_config("bert")
    assert reads(config_of(), config) == (Depth(0, 0), Depth(1, 0), Depth(2, 0), Depth(3, 0))
    assert reads(config_of(layers="upper_third"), config) == (Depth(2, 0), Depth(3, 0))
    assert reads(AdapterConfig(bottleneck_dim=4, layers=(1,)), config) == (Depth(1, FFN),)
    assert reads(None, config) == (Depth(3, 0),)
    with pytest.raises(AdapterError, match="out of range"):
        reads(config_of(layers=(3,)), config)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_a_pack_it_gives_what_the_model_gives_and_runs_no_layer(family: str, fill: Fill) -> None:
    model, own = tiny_model(family).double(), batch()
    adapter = fill(adapters.build(config_of(layers=(0, 2)), model.config, generator())).double()
    adapters.attach(model, adapter)
    texts = own.input_ids.split(list(own.sequences.lengths))
    expected = torch.cat([hidden(model, text.unsqueeze(0))[0] for text in texts])
    adapters.remove(model)
    pack = Pack(model)
    pack.put(0, adapter)
    torch.testing.assert_close(pack.forward([(0, own)])[0], expected, rtol=1e-10, atol=1e-10)
    known = readings(pack, 0, own)
    rows = {"cls": own.sequences.offsets[:-1], "last": own.sequences.offsets[1:] - 1}
    called: list[str] = []
    for name, module in model.named_modules():
        if "sweeper_adapters" not in name and name not in ("", "ln_f"):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    again = pack.forward([(0, known)])[0]
    again.square().sum().backward()
    torch.testing.assert_close(again, expected, rtol=1e-10, atol=1e-10)
    for pooled in rows:
        one_token = pack.forward([(0, known)], pooled)[0]  # type: ignore[arg-type]
        torch.testing.assert_close(one_token, expected[rows[pooled]], rtol=1e-10, atol=1e-10)
    assert called == []


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("cached", [False, True])
def test_it_shares_a_step_with_other_slots(family: str, cached: bool) -> None:
    configs = [
        AdapterConfig(bottleneck_dim=4, initialization="normal", layers=(1, 2)),
        config_of(initialization="xavier"),
        None,
        config_of(initialization="normal", layers=(1,), activation="tanh"),
        AdapterConfig(bottleneck_dim=3, initialization="kaiming", placement="houlsby"),
    ]
    model = tiny_model(family).double()
    pack = Pack(model, slots=len(configs))
    built = []
    for slot, config in enumerate(configs):
        adapter = adapters.build(config, model.config, generator(slot)).double() if config else None
        built.append(adapter)
        pack.put(slot, adapter)
    parts = [
        (slot, readings(pack, slot, own) if cached and len(pack.reads(slot)) > 1 else own)
        for slot, own in enumerate(batch(seed, (2 + seed, 4)) for seed in range(len(configs)))
    ]

    def gradients(outputs: list[Tensor]) -> list[Tensor]:
        torch.stack([one.square().sum() for one in outputs]).sum().backward()
        found = [p.grad.clone() for adapter in built if adapter for p in adapter.parameters()]
        for adapter in built:
            if adapter is not None:
                adapter.zero_grad()
        return found

    alone = [pack.forward([part])[0] for part in parts]
    expected = gradients(alone)
    order = [3, 0, 4, 1, 2]
    together = pack.forward([parts[slot] for slot in order])
    for slot, states in zip(order, together, strict=True):
        torch.testing.assert_close(states, alone[slot], rtol=1e-10, atol=1e-10)
    for one, other in zip(gradients(together), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for slot, states in zip(order, pack.forward([parts[slot] for slot in order], "cls"), strict=True):
        first = alone[slot][parts[slot][1].sequences.offsets[:-1]]
        torch.testing.assert_close(states, first, rtol=1e-10, atol=1e-10)


def test_states_of_the_wrong_kind_are_refused() -> None:
    pack, own = Pack(tiny_model("bert"), slots=2), batch()
    pack.put(0, adapters.build(config_of(), pack.backbone.config, generator()))
    pack.put(1, None)
    known = readings(pack, 0, own)
    top = Depth(3, 0)
    with pytest.raises(ValueError, match="only a ladder"):
        pack.forward([(1, known)])
    with pytest.raises(ValueError, match="all the depths"):
        pack.forward([(0, Entry(top, (known.states[top],), own.sequences))])
    with pytest.raises(ValueError, match="all the depths"):
        pack.forward([(0, Readings({top: known.states[top]}, own.sequences))])


def test_a_token_of_it_costs_less_than_a_layer() -> None:
    pack = Pack(tiny_model("bert"), slots=3)
    pack.put(0, adapters.build(config_of(layers=(2,)), pack.backbone.config, generator()))
    pack.put(1, adapters.build(AdapterConfig(bottleneck_dim=4), pack.backbone.config, generator()))
    pack.put(2, None)
    assert 0 < pack.layers(0) < 0.1
    assert (pack.layers(1), pack.layers(2)) == (2.0, 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_alone_from_known_states_it_is_what_it_is_among_others(family: str) -> None:
    model = tiny_model(family).double()
    pack, own = Pack(model, slots=3), batch()
    for slot in range(2):
        config = config_of(initialization="normal")
        pack.put(slot, adapters.build(config, model.config, generator(slot)).double())
    pack.put(2, adapters.build(AdapterConfig(bottleneck_dim=4), model.config, generator()).double())
    parts = [(0, readings(pack, 0, own)), (1, readings(pack, 1, own)), (2, own)]
    together = pack.forward(parts)
    for several in (parts[:1], parts[:2], parts[1:]):
        for (slot, _), states in zip(several, pack.forward(several), strict=True):
            torch.testing.assert_close(states, together[slot], rtol=1e-10, atol=1e-10)
