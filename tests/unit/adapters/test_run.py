"""A run from frozen hidden states gives what the whole model gives, from whatever depth its texts enter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModel, PreTrainedModel

import adapters
from adapters import AdapterConfig
from adapters.depth import ATTENTION, EMBEDDED, FFN, INPUT, Depth, deepest, depth_of
from adapters.flat import Sequences
from adapters.layerwise import Entry, Pooled
from adapters.pack import FlatBatch, Pack
from tests.tiny_models import VOCABULARY, tiny_config, tiny_model

FAMILIES = ("bert", "roberta", "distilbert", "gpt2")
PLACEMENTS = {
    "pfeiffer": FFN,
    "parallel": FFN,
    "attention": ATTENTION,
    "houlsby": ATTENTION,
    "attention:parallel": INPUT,
}
LENGTHS = (3, 3, 6)


def batch(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> FlatBatch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (sum(lengths),), generator=generator)
    return FlatBatch(ids, None, Sequences(lengths))


def built(model: PreTrainedModel, config: AdapterConfig, seed: int = 0) -> adapters.Adapter:
    adapter = adapters.build(config, model.config, torch.Generator().manual_seed(seed))
    return adapter.to(model.dtype)


def reference(model: PreTrainedModel, config: AdapterConfig | None, own: FlatBatch) -> torch.Tensor:
    """Text by text, by the model's own forward pass with the adapter in it."""
    model.set_attn_implementation("sdpa")
    if config is not None:
        adapters.attach(model, built(model, config), "reference")
    texts = own.input_ids.split(list(own.sequences.lengths))
    hidden = [model(input_ids=text.unsqueeze(0)).last_hidden_state[0] for text in texts]
    if config is not None:
        adapters.remove(model, "reference")
    return torch.cat(hidden)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_depth_below_an_adapter_gives_what_the_model_gives(family: str, placement: str) -> None:
    model = tiny_model(family).double()
    config = AdapterConfig(
        bottleneck_dim=4, initialization="normal", placement=placement, layers=(1, 2), scaling=3.0
    )
    own = batch()
    expected = reference(model, config, own)
    pack = Pack(model)
    pack.put(0, built(model, config))
    assert pack.depth(0) == Depth(1, PLACEMENTS[placement])
    depths = [Depth(layer, behind) for layer in (0, 1) for behind in (INPUT, ATTENTION, FFN)]
    depths = depths[: 4 + PLACEMENTS[placement]]
    states = pack.frozen_states(own, depths)
    assert set(states) == set(depths)
    for depth in depths:
        assert len(states[depth]) == depth.tensors
        hidden = pack.forward([(0, Entry(depth, states[depth], own.sequences))])[0]
        torch.testing.assert_close(hidden, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_enter_at_different_depths_do_not_disturb_each_other(family: str) -> None:
    model = tiny_model(family).double()
    configs = [
        None,
        AdapterConfig(bottleneck_dim=4, initialization="normal", layers=(2,)),
        AdapterConfig(bottleneck_dim=3, initialization="normal", placement="houlsby"),
        AdapterConfig(bottleneck_dim=5, initialization="kaiming", placement="parallel", layers=(1, 2)),
        AdapterConfig(bottleneck_dim=5, initialization="kaiming", placement="attention", layers=(2,)),
        AdapterConfig(
            bottleneck_dim=4, initialization="kaiming", placement="attention:parallel", layers=(2,)
        ),
    ]
    lengths = [(2, 5), (4,), (3, 3), (1, 7), (6,), (3, 1)]
    batches = [batch(seed, own) for seed, own in enumerate(lengths)]
    expected = [reference(model, *pair) for pair in zip(configs, batches, strict=True)]
    pack = Pack(model, slots=len(configs))
    for slot, config in enumerate(configs):
        pack.put(slot, None if config is None else built(model, config))
    hidden = pack.forward(list(enumerate(batches)))
    for actual, wanted in zip(hidden, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_states_change_no_bit(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family).to(dtype)
    pack = Pack(model)
    config = AdapterConfig(bottleneck_dim=4, initialization="normal", layers=(2,))
    pack.put(0, built(model, config).float())
    own = batch()
    known = pack.frozen_states(own, [EMBEDDED, pack.depth(0)])
    results = []
    for parts in (own, *(Entry(depth, states, own.sequences) for depth, states in known.items())):
        adapter = pack.clear(0)
        assert adapter is not None
        adapter.zero_grad()
        pack.put(0, adapter)
        hidden = pack.forward([(0, parts)])[0]
        hidden.float().square().sum().backward()
        results.append([hidden.detach(), *(p.grad.clone() for p in adapter.parameters())])
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_nothing_beyond_the_deepest_depth_is_computed() -> None:
    model = tiny_model("bert")
    pack = Pack(model)
    called: list[int] = []
    for index, layer in enumerate(model.encoder.layer):
        layer.intermediate.register_forward_hook(
            lambda module, _, output, index=index: called.extend([index] if output.numel() else [])
        )
    pack.frozen_states(batch(), [Depth(1, 0), EMBEDDED])
    assert called == [0]
    called.clear()
    pack.put(0, built(model, AdapterConfig(bottleneck_dim=4, layers=(2,))))
    states = pack.frozen_states(batch(), [pack.depth(0)])
    called.clear()
    pack.forward([(0, Entry(pack.depth(0), states[pack.depth(0)], batch().sequences))])
    assert called == []  # all that is left lies behind the projection of the last FFN


def test_states_from_beyond_an_adapter_are_refused() -> None:
    model = tiny_model("bert")
    pack = Pack(model)
    pack.put(0, built(model, AdapterConfig(bottleneck_dim=4)))
    states = pack.frozen_states(batch(), [Depth(2, 0)])[Depth(2, 0)]
    with pytest.raises(ValueError, match="beyond slot 0"):
        pack.forward([(0, Entry(Depth(2, 0), states, batch().sequences))])


def test_a_failure_within_a_layer_leaves_the_model_as_it_was() -> None:
    model = tiny_model("bert")
    pack = Pack(model)
    pack.put(0, built(model, AdapterConfig(bottleneck_dim=4, layers=(2,))))
    own = batch()
    residual, output = pack.frozen_states(own, [pack.depth(0)])[pack.depth(0)]
    with pytest.raises(RuntimeError):
        pack.forward([(0, Entry(pack.depth(0), (residual, output[:, :5]), own.sequences))])
    assert all("forward" not in vars(module) for module in model.modules())


def test_the_deepest_of_the_depths_at_hand_is_taken() -> None:
    config = tiny_config("bert")
    assert depth_of(None, config) == Depth(3, 0)
    assert depth_of(AdapterConfig(bottleneck_dim=4, placement="pfeiffer_original"), config) == Depth(0, FFN)
    assert deepest([Depth(0, FFN), Depth(2, 0)], Depth(2, FFN)) == Depth(2, 0)
    assert deepest([Depth(0, FFN), Depth(2, 0)], Depth(1, 0)) == Depth(0, FFN)
    assert deepest([Depth(2, 0)], Depth(1, FFN)) is None
    keys = [Depth(3, behind).key for behind in (INPUT, ATTENTION, FFN)]
    assert keys == ["layer_3", "layer_3_attention", "layer_3_ffn"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooled", ["cls", "last", "read"])
def test_one_token_of_each_text_is_what_it_would_be_among_all(family: str, pooled: Pooled) -> None:
    model = tiny_model(family).double()
    configs = [
        None,
        AdapterConfig(bottleneck_dim=4, initialization="normal", layers=(2,)),
        AdapterConfig(bottleneck_dim=3, initialization="normal", placement="houlsby"),
        AdapterConfig(bottleneck_dim=5, initialization="kaiming", placement="parallel"),
        AdapterConfig(bottleneck_dim=5, initialization="kaiming", placement="attention", layers=(2,)),
    ]
    batches = [batch(seed, lengths) for seed, lengths in enumerate([(2, 5), (4,), (3, 3), (1, 7), (6,)])]
    if pooled == "read":  # none of a text, one, or several
        reads = [(1, 2, 6), (0, 3), (1, 2), (0, 4, 5, 6, 7), (5,)]
        batches = [
            replace(own, sequences=Sequences(own.sequences.lengths, torch.tensor(read)))
            for own, read in zip(batches, reads, strict=True)
        ]
    pack = Pack(model, slots=len(configs))
    built_here = [None if config is None else built(model, config) for config in configs]
    for slot, adapter in enumerate(built_here):
        pack.put(slot, adapter)
    gradients = []
    for parts in (list(enumerate(batches)), [(1, batches[1])], [(3, batches[3])], [(0, batches[0])]):
        rows = [own.sequences.offsets for _, own in parts]
        if pooled == "read":
            rows = [own.sequences.read for _, own in parts]
        else:
            rows = [offsets[:-1] if pooled == "cls" else offsets[1:] - 1 for offsets in rows]
        everything = [states[row] for states, row in zip(pack.forward(parts), rows, strict=True)]
        alone = pack.forward(parts, pooled)
        for one, other in zip(alone, everything, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        for outputs in (everything, alone):
            total = sum(states.square().sum() for states in outputs)
            assert isinstance(total, torch.Tensor)
            if not total.requires_grad:
                continue
            total.backward()
            found = [p.grad.clone() for a in built_here if a for p in a.parameters() if p.grad is not None]
            for adapter in built_here:
                if adapter is not None:
                    adapter.zero_grad()
            gradients.append(found)
    for one, other in zip(gradients[::2], gradients[1::2], strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_last_ffn_sees_one_token_of_each_text() -> None:
    model = tiny_model("bert")
    pack = Pack(model)
    pack.put(0, built(model, AdapterConfig(bottleneck_dim=4)))
    seen: list[int] = []
    for layer in model.encoder.layer:
        layer.output.register_forward_hook(lambda module, _, output: seen.append(output.shape[1]))
    pack.forward([(0, batch())], "cls")
    assert seen[-1] == len(LENGTHS) and set(seen[:-1]) == {sum(LENGTHS)}


@pytest.mark.parametrize("placement", ["houlsby", "attention:parallel"])
def test_one_token_of_each_text_asks_the_last_attention(placement: str) -> None:
    model = tiny_model("bert")
    pack = Pack(model)
    pack.put(0, built(model, AdapterConfig(bottleneck_dim=4, placement=placement)))
    seen: dict[str, list[int]] = {"query": [], "key": []}
    for layer in model.encoder.layer:
        for name, rows in seen.items():
            linear = layer.attention.self.get_submodule(name)
            linear.register_forward_hook(lambda module, _, output, rows=rows: rows.append(output.shape[1]))
    pack.forward([(0, batch())], "cls")
    assert seen["query"][-1] == len(LENGTHS) and set(seen["query"][:-1]) == {sum(LENGTHS)}
    assert set(seen["key"]) == {sum(LENGTHS)}


def test_a_decoder_of_the_family_is_asked_by_all_tokens() -> None:
    config = tiny_config("bert")
    config.is_decoder = True
    pack = Pack(AutoModel.from_config(config).eval().double())
    pack.put(0, None)
    own = batch()
    first = pack.forward([(0, own)])[0][own.sequences.offsets[:-1]]
    torch.testing.assert_close(pack.forward([(0, own)], "cls")[0], first, rtol=1e-10, atol=1e-10)
