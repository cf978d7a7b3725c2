"""A pack gives each slot what it would get alone."""

import pytest
import torch

import adapters
from adapters import AdapterConfig
from adapters.flat import Sequences
from adapters.pack import FlatBatch, Pack
from tests.tiny_models import VOCABULARY, tiny_model

CONFIGS = [
    AdapterConfig(bottleneck_dim=4, initialization="normal"),
    AdapterConfig(bottleneck_dim=7, initialization="kaiming", placement="houlsby", activation="tanh"),
    AdapterConfig(bottleneck_dim=2, initialization="xavier", placement="parallel", layers=(1,)),
    None,
]


def batch(lengths: tuple[int, ...], seed: int) -> FlatBatch:
    generator = torch.Generator().manual_seed(seed)
    return FlatBatch(
        torch.randint(5, VOCABULARY, (sum(lengths),), generator=generator), None, Sequences(lengths)
    )


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_packed_equals_alone_forward_and_backward(family: str) -> None:
    model = tiny_model(family).double()
    pack = Pack(model, slots=len(CONFIGS))
    built = []
    for index, config in enumerate(CONFIGS):
        generator = torch.Generator().manual_seed(index)
        adapter = None if config is None else adapters.build(config, model.config, generator).double()
        built.append(adapter)
        pack.put(index, adapter)
    batches = [batch((3, 3, 6), 0), batch((5,), 1), batch((2, 4), 2), batch((4, 4), 3)]
    alone = [pack.forward([(index, own)])[0] for index, own in enumerate(batches)]
    sum(hidden.square().sum() for hidden in alone if hidden.requires_grad).backward()
    expected = [[p.grad.clone() for p in adapter.parameters()] if adapter else [] for adapter in built]
    for adapter in built:
        if adapter is not None:
            adapter.zero_grad()
    order = [2, 0, 3, 1]
    packed = pack.forward([(index, batches[index]) for index in order])
    sum(hidden.square().sum() for hidden in packed).backward()
    for hidden, index in zip(packed, order, strict=True):
        torch.testing.assert_close(hidden, alone[index], rtol=1e-10, atol=1e-10)
    for adapter, gradients in zip(built, expected, strict=True):
        if adapter is not None:
            for parameter, gradient in zip(adapter.parameters(), gradients, strict=True):
                torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "llama"])
@pytest.mark.parametrize("method", ["lora", "houlsby", "attention:parallel"])
@pytest.mark.parametrize("pooled", ["cls", "last"])
def test_dropout_draws_the_same_whatever_the_neighbour(family: str, method: str, pooled: str) -> None:
    config = AdapterConfig(method="lora", dropout=0.3) if method == "lora" else _placed(method, dropout=0.3)

    def first(neighbour: AdapterConfig | None) -> tuple[torch.Tensor, torch.Tensor]:
        model = tiny_model(family).double()
        pack = Pack(model, slots=2)
        for slot, own in enumerate((config, neighbour)):
            if own is not None:
                adapter = adapters.build(own, model.config, torch.Generator().manual_seed(slot)).double()
                adapter.generator = torch.Generator().manual_seed(slot)
                with torch.no_grad():
                    for parameter in adapter.parameters():
                        parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(7))
                pack.put(slot, adapter.train())
        parts = [(0, batch((3, 5), 0)), *([] if neighbour is None else [(1, batch((4,), 1))])]
        drawn = pack._adapters[0].generator
        return pack.forward(parts, pooled)[0], drawn.get_state()

    alone, state = first(None)
    for placement in ("pfeiffer", "houlsby", "attention:parallel", "attention:parallel+ffn:parallel"):
        packed, drawn = first(_placed(placement))
        torch.testing.assert_close(packed, alone, rtol=1e-9, atol=1e-9)
        assert torch.equal(drawn, state)


def _placed(placement: str, dropout: float = 0.0) -> AdapterConfig:
    return AdapterConfig(bottleneck_dim=4, placement=placement, dropout=dropout)


def test_an_empty_pack_leaves_the_backbone_as_it_was() -> None:
    model = tiny_model("bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pack = Pack(model)
    pack.put(
        0, adapters.build(AdapterConfig(bottleneck_dim=4), model.config, torch.Generator().manual_seed(0))
    )
    assert pack.clear(0) is not None
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_slots_are_checked() -> None:
    pack = Pack(tiny_model("bert"))
    pack.put(0, None)
    for slot in (0, 1, -1):
        with pytest.raises(ValueError, match="slot"):
            pack.put(slot, None)
    with pytest.raises(ValueError, match="at least one slot"):
        Pack(tiny_model("bert"), slots=0)
