"""Fusions, stacks and averages: what they compute, what they train, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import adapters
from adapters import Adapter, AdapterConfig, AdapterError, Part, attach, build, digest, load, remove, save
from adapters.architectures import ARCHITECTURES, is_flat
from adapters.average import average
from adapters.compose import fuse, stack
from adapters.count import frozen_parameters_in, parameters_in
from adapters.depth import ATTENTION, FFN, Depth, depth_of
from adapters.flat import Sequences
from adapters.flops import flops_per_token
from adapters.pack import FlatBatch, Pack
from tests.tiny_models import HIDDEN_SIZE, VOCABULARY, tiny_config, tiny_model

FLAT = [family for family in ARCHITECTURES if is_flat(tiny_config(family, 2))]
D = HIDDEN_SIZE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(backbone: Any, seed: int = 0, **fields: Any) -> Adapter:
    """An adapter with weights that change what the backbone computes."""
    needed = {} if "method" in fields else {"bottleneck_dim": 4}
    made = build(AdapterConfig(**{**needed, **fields}), backbone, generator(seed))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3, generator=generator(seed + 100))
    return made.eval()


def hidden(model: Any, tokens: Tensor) -> Tensor:
    states: Tensor = model(tokens).last_hidden_state
    return states


def batch(seed: int, lengths: tuple[int, ...]) -> FlatBatch:
    ids = torch.randint(5, VOCABULARY, (sum(lengths),), generator=generator(seed))
    return FlatBatch(ids, None, Sequences(lengths))


def trained_names(adapter: nn.Module) -> set[str]:
    return {name for name, _ in adapter.named_parameters()}


@pytest.mark.parametrize("family", FLAT)
def test_every_flat_family_takes_a_fusion_and_a_stack_packed_as_alone(family: str) -> None:
    model = tiny_model(family, 2).double()
    parts = [
        trained(model.config, seed, placement=p).double() for seed, p in enumerate(("pfeiffer", "houlsby"))
    ]
    fused = fuse(parts, generator())
    stacked = stack(parts[1:], AdapterConfig(bottleneck_dim=3, initialization="kaiming"), generator())
    assert next(fused.parameters()).dtype == torch.float64
    alone = Pack(model, slots=2)
    texts = batch(1, (4, 2, 2))
    for composed in (fused, stacked):
        other = batch(2, (3,))
        alone.put(0, composed)
        expected = alone.forward([(0, texts)])[0]
        alone.put(1, trained(model.config, 9).double())
        packed = alone.forward([(1, other), (0, texts)])[1]
        torch.testing.assert_close(packed, expected, rtol=1e-9, atol=1e-9)
        packed.sin().sum().backward()
        assert all(own.grad is not None and own.grad.abs().sum() > 0 for own in composed.parameters())
        assert all(own.grad is None for part in parts for own in part.parameters())
        alone.clear(0)
        alone.clear(1)


def test_a_fusion_is_attention_over_what_the_adapters_add(tokens: Tensor) -> None:
    parts = [trained(tiny_config("bert"), seed) for seed in range(3)]
    fused = fuse(parts, generator(), temperature=2.0)
    module: Any = fused.get_submodule("layer_1_ffn")
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.normal_(std=0.2, generator=generator(5))
    states = torch.randn(2, 5, D, generator=generator(1))
    deltas = torch.stack([part.get_submodule("layer_1_ffn")(states) for part in parts])
    query = states @ module.query.weight.T + module.query.bias
    scores = torch.einsum("btd,nbtd->nbt", query, deltas @ module.key.weight.T) / 2.0
    values = deltas @ module.value.weight.T
    expected = torch.einsum("nbt,nbtd->btd", scores.softmax(0), values)
    torch.testing.assert_close(module(states), expected)
    attention = module.attention(states, deltas)
    assert attention.shape == (3, 2, 5)
    torch.testing.assert_close(attention.sum(0), torch.ones(2, 5))


def test_a_fusion_starts_with_the_identity_for_values_and_attends_to_all() -> None:
    parts = [trained(tiny_config("bert"), seed) for seed in range(2)]
    fused = fuse(parts, generator())
    module: Any = fused.get_submodule("layer_0_ffn")
    assert torch.equal(module.value.weight, torch.eye(D))
    states = torch.randn(1, 4, D, generator=generator(1))
    deltas = torch.stack([part.get_submodule("layer_0_ffn")(states) for part in parts])
    attention = module.attention(states, deltas)
    assert attention.min() > 0.2
    torch.testing.assert_close(module(states), (attention.unsqueeze(-1) * deltas).sum(0))
    without: Any = fuse(parts, generator(), value_matrix="none").get_submodule("layer_0_ffn")
    assert without.value is None
    assert torch.equal(without.query.weight, module.query.weight)


def test_only_the_fusion_is_trained_and_its_count_is_the_closed_form(tokens: Tensor) -> None:
    """Two adapters meet behind two FFNs; one alone is behind attention and behind the other FFN."""
    model = tiny_model("bert")
    one = trained(model.config, 0, placement="houlsby")
    two = trained(model.config, 1, layers=(0, 2))
    fused = fuse([one, two], generator())
    square = D * D
    assert parameters_in(fused.config, model.config) == 2 * (3 * square + D) + 4 * square
    frozen = sum(own.numel() for part in (one, two) for own in part.parameters())
    assert frozen_parameters_in(fused.config, model.config) == frozen
    assert sum(own.numel() for own in fused.parameters()) == parameters_in(fused.config, model.config)
    assert not any("frozen" in name for name in trained_names(fused))
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    attach(model, fused.train())
    optimizer = torch.optim.AdamW(fused.parameters(), lr=0.1, weight_decay=0.1)
    hidden(model, tokens)[..., :5].square().sum().backward()
    optimizer.step()
    changed = {name for name, tensor in fused.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trained_names(fused)


def test_the_dropout_of_frozen_adapters_is_off_and_that_of_attention_is_drawn() -> None:
    parts = [trained(tiny_config("bert"), seed, dropout=0.5) for seed in range(2)]
    states = torch.randn(1, 4, D, generator=generator(1))
    quiet: Any = fuse(parts, generator()).train().get_submodule("layer_0_ffn")
    assert torch.equal(quiet(states), quiet(states))  # would ask for a generator
    fused = fuse(parts, generator(), dropout=0.5).train()
    assert fused.config.draws
    dropping: Any = fused.get_submodule("layer_0_ffn")
    with pytest.raises(AdapterError, match="generator"):
        dropping(states)
    assert not torch.equal(dropping(states, generator(3)), quiet(states))
    assert torch.equal(dropping.eval()(states), quiet(states))


@pytest.mark.parametrize(("placement", "reads_changed"), [("pfeiffer", True), ("parallel", False)])
def test_a_stack_reads_what_lies_below_but_beside_a_sublayer(placement: str, reads_changed: bool) -> None:
    lower = trained(tiny_config("gpt2"), 0, placement=placement)
    config = AdapterConfig(bottleneck_dim=3, placement=placement, initialization="kaiming")
    stacked = stack([lower], config, generator(1))
    upper = build(config, tiny_config("gpt2"), generator(1))
    states = torch.randn(2, 5, D, generator=generator(2))
    module, below, above = (own.get_submodule("layer_2_ffn") for own in (stacked, lower, upper))
    first = below(states)
    read = states + first if reads_changed else states
    assert torch.equal(module(states), first + above(read))
    assert trained_names(stacked) == {name.replace("ffn.", "ffn.own.") for name in trained_names(upper)}


def test_a_stack_is_its_lower_adapter_at_the_start_and_without_what_is_on_top(tokens: Tensor) -> None:
    model = tiny_model("bert")
    lower = trained(model.config, 0, method="lora", targets="all")
    attach(model, lower)
    alone = hidden(model, tokens)
    remove(model)
    attach(model, stack([lower], AdapterConfig(bottleneck_dim=4, placement="houlsby"), generator()))
    assert torch.equal(hidden(model, tokens), alone)


def test_what_acts_on_one_module_acts_in_one_order_alone_and_packed() -> None:
    """A LayerNorm that an adapter computes anew keeps what others change of its output."""
    model = tiny_model("bert").double()
    biases = trained(model.config, 0, method="bitfit").double()
    on_top = AdapterConfig(bottleneck_dim=3, placement="pfeiffer_original", initialization="kaiming")
    stacked = stack([biases], on_top, generator())
    pack = Pack(model, slots=3)
    pack.put(0, stacked)
    expected = pack.forward([(0, batch(1, (4, 3)))])[0]
    pack.put(1, build(on_top, model.config, generator(4)).double())
    pack.put(2, trained(model.config, 5, method="bitfit").double())
    bare = pack.forward([(2, batch(2, (5,)))])[0]
    packed = pack.forward([(2, batch(2, (5,))), (1, batch(3, (2,))), (0, batch(1, (4, 3)))])
    torch.testing.assert_close(packed[2], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(packed[0], bare, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [("lora", "ia3"), ("ia3", "dora")])
def test_inputs_and_outputs_of_one_linear_are_changed_by_a_part_each(
    order: tuple[str, str], tokens: Tensor, tmp_path: Any
) -> None:
    model = tiny_model("bert").double()
    fields: dict[str, Any] = {"lora": {"targets": "ffn"}, "dora": {"targets": "ffn"}, "ia3": {}}
    parts = [
        trained(model.config, seed, method=one, **fields[one]).double() for seed, one in enumerate(order)
    ]
    stacked = stack(parts, AdapterConfig(bottleneck_dim=4), generator()).double()
    names = {name.split(".")[0] for name in stacked.state_dict()}
    assert {"layer_0_ffn_down", "layer_0_ffn_down_input"} <= names
    attach(model, stacked)
    both = hidden(model, tokens)
    save(stacked, tmp_path / "adapter.safetensors")
    again = load(tmp_path / "adapter.safetensors")
    remove(model)
    attach(model, again.double())
    assert torch.equal(hidden(model, tokens), both)
    remove(model)
    for part in parts:
        attach(model, part)
        assert not torch.allclose(both, hidden(model, tokens), atol=1e-3)
        remove(model)


def test_the_file_of_a_composition_needs_no_other(tokens: Tensor, tmp_path: Any) -> None:
    model = tiny_model("bert")
    parts = [trained(model.config, seed) for seed in range(2)]
    for part, name in zip(parts, "ab", strict=True):
        path = save(part, tmp_path / f"{name}.safetensors")
        assert digest(load(path)) == digest(part)
    lower = trained(model.config, 3, method="dora")
    made = [fuse(parts, generator()), stack([lower], AdapterConfig(bottleneck_dim=3), generator())]
    for composed in made:
        attach(model, composed)
        expected = hidden(model, tokens)
        remove(model)
        again = load(save(composed, tmp_path / "composed.safetensors"))
        assert again.config == composed.config == AdapterConfig.from_dict(composed.config.to_dict())
        assert json.loads(json.dumps(again.config.to_dict())) == composed.config.to_dict()
        assert trained_names(again) == trained_names(composed)
        attach(model, again)
        assert torch.equal(hidden(model, tokens), expected)
        remove(model)
    assert made[0].config.adapters[1] == Part(parts[1].config, digest(parts[1]))


def test_depth_and_cost_are_those_of_all_that_acts() -> None:
    backbone = tiny_config("bert")
    upper = trained(backbone, 0, layers=(2,))
    lower = trained(backbone, 1, layers=(1, 2))
    assert depth_of(fuse([upper, lower], generator()).config, backbone) == Depth(1, FFN)
    stacked = stack([upper], AdapterConfig(bottleneck_dim=4, placement="houlsby", layers=(1,)), generator())
    assert depth_of(stacked.config, backbone) == Depth(1, ATTENTION)
    own = AdapterConfig(bottleneck_dim=4, layers=(1, 2))
    below = trained(backbone, 2, layers=(1, 2))
    more = flops_per_token(stack([below], own, generator()).config, backbone) - flops_per_token(own, backbone)
    assert more == 4 * sum(parameter.numel() for parameter in below.parameters())
    # A module that is trained above frozen ones asks for no gradient in the layers below its own.
    top = AdapterConfig(bottleneck_dim=4, layers=(2,))
    more = flops_per_token(stack([below], top, generator()).config, backbone) - flops_per_token(top, backbone)
    a_layer = sum(parameter.numel() for parameter in below.parameters()) // 2
    assert more == 2 * a_layer + 4 * a_layer


def test_a_part_is_given_by_the_digest_of_its_weights() -> None:
    backbone = tiny_config("bert")
    parts = {digest(part): part for part in (trained(backbone, seed) for seed in range(2))}
    config = AdapterConfig(
        method="fuse", adapters=tuple(Part(part.config, weights) for weights, part in parts.items())
    )
    first, second = parts
    build(config, backbone, generator(), parts=parts)
    with pytest.raises(AdapterError, match="is not given"):
        build(config, backbone, generator(), parts={first: parts[first]})
    other = trained(backbone, 5, activation="gelu")
    with pytest.raises(AdapterError, match="not what was configured"):
        build(config, backbone, generator(), parts={**parts, second: other})
    deeper = tiny_config("bert", layers=4)
    with pytest.raises(AdapterError, match="a frozen adapter is for a bert of 3 layers"):
        build(config, deeper, generator(), parts=parts)


BOTTLENECK = {"bottleneck_dim": 4}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "fuse"}, "adapters is missing; give a list"),
        ({"method": "fuse", "adapters": 3}, "must be a list"),
        ({"method": "fuse", "adapters": []}, "at least 2 frozen adapters, not of 0"),
        ({"method": "fuse", "adapters": [{"config": BOTTLENECK}]}, "at least 2"),
        ({"method": "stack", "bottleneck_dim": 4, "adapters": []}, "at least 1"),
        ({"method": "fuse", "adapters": [BOTTLENECK, BOTTLENECK]}, "something else than"),
        ({"method": "fuse", "adapters": [{"config": BOTTLENECK, "weights": "abc"}] * 2}, "no sha256"),
        ({"method": "fuse", "adapters": [{"config": BOTTLENECK, "weights": "0" * 64}] * 2}, "twice"),
        (
            {"method": "fuse", "adapters": [{"config": {"method": "lora"}}] * 2},
            "takes no adapter of the method",
        ),
        ({"method": "fuse", "adapters": [{"config": {"method": "fuse"}}] * 2}, "do not nest"),
        ({"method": "fuse", "adapters": [{"config": 3}] * 2}, "is a mapping"),
        ({"method": "stack", "adapters": [{"config": BOTTLENECK}]}, "bottleneck_dim is missing"),
        ({"bottleneck_dim": 4, "adapters": [{"config": BOTTLENECK}]}, "adapters means nothing"),
        ({"method": "fuse", "adapters": [{"config": BOTTLENECK}] * 2, "temperature": 0}, "above 0"),
        ({"method": "fuse", "adapters": [{"config": BOTTLENECK}] * 2, "value_matrix": "no"}, "did you mean"),
    ],
)
def test_what_is_no_composition_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        AdapterConfig.from_dict(fields)


def test_adapters_that_do_not_go_together_are_refused(tmp_path: Any) -> None:
    backbone = tiny_config("bert")
    one = trained(backbone, 0)
    with pytest.raises(AdapterError, match="wire the ffn of layer 0 differently") as error:
        fuse([one, trained(backbone, 1, placement="parallel")], generator())
    assert error.value.field == "placement"
    with pytest.raises(AdapterError, match="no two of the adapters share a site"):
        fuse([one, trained(backbone, 1, placement="attention")], generator())
    with pytest.raises(AdapterError, match="the same adapter twice"):
        fuse([one, one], generator())
    with pytest.raises(AdapterError, match="for a gpt2"):
        fuse([one, trained(tiny_config("gpt2"), 1)], generator())
    with pytest.raises(AdapterError, match="expected an Adapter, not str"):
        fuse([one, "two"], generator())  # type: ignore[list-item]
    with pytest.raises(AdapterError, match="is a bottleneck, not a lora"):
        stack([one], AdapterConfig(method="lora"), generator())
    with pytest.raises(AdapterError, match="takes no adapter of the method prefix"):
        stack([trained(backbone, 1, method="prefix")], AdapterConfig(bottleneck_dim=4), generator())


def test_an_average_is_the_mean_of_the_weights() -> None:
    backbone = tiny_config("bert")
    several = [trained(backbone, seed) for seed in range(3)]
    for weights, normalise, shares in (
        (None, False, (1 / 3, 1 / 3, 1 / 3)),
        ((0.5, 0.25, 0.25), False, (0.5, 0.25, 0.25)),
        ((2, 1, 1), True, (0.5, 0.25, 0.25)),
    ):
        made = average(several, weights, normalise=normalise)
        for name, tensor in made.state_dict().items():
            terms = zip(shares, several, strict=True)
            expected = sum(share * own.state_dict()[name].double() for share, own in terms)
            torch.testing.assert_close(tensor, torch.as_tensor(expected).float())
    assert made.config == several[0].config and all(own.requires_grad for own in made.parameters())
    assert digest(average([several[0]])) == digest(several[0])
    half = average([own.to(torch.bfloat16) for own in several])
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("others", "weights", "message"),
    [
        ([{"activation": "gelu"}], None, "activation is relu and gelu"),
        ([{"method": "lora"}], None, "method is bottleneck and lora"),
        ([{}], (0.5, 0.4), "0.9 in sum, not 1"),
        ([{}], (1.0,), "1 weights for 2 adapters"),
        ([{}], (1.5, -0.5), "a number of 0 or more"),
        ([{}], (float("nan"), 1.0), "a number of 0 or more"),
    ],
)
def test_what_has_no_average_is_refused(others: list[dict[str, Any]], weights: Any, message: str) -> None:
    backbone = tiny_config("bert")
    several = [trained(backbone, 0), *(trained(backbone, 1, **fields) for fields in others)]
    with pytest.raises(AdapterError, match=message):
        average(several, weights)


def test_averages_of_other_backbones_and_dtypes_are_refused() -> None:
    one = trained(tiny_config("bert"))
    with pytest.raises(AdapterError, match="another backbone"):
        average([one, trained(tiny_config("bert", layers=2))])
    with pytest.raises(AdapterError, match="another dtype"):
        average([one, trained(tiny_config("bert"), 1).double()])
    with pytest.raises(AdapterError, match="at least one"):
        average([])
    with pytest.raises(AdapterError, match="all 0"):
        average([one], [0.0], normalise=True)
    assert adapters.digest is digest


def test_an_average_takes_files_that_do_not_count_the_layers_of_the_encoder(tmp_path: Path) -> None:
    backbone = tiny_config("t5", layers=2)
    new = trained(backbone)
    path = save(new, tmp_path / "old.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != "encoder_layers"}
    save_file(load_file(path), path, metadata)
    assert average([new, load(path)]).shape == new.shape
    backbone.num_layers, backbone.num_decoder_layers = 1, 3
    with pytest.raises(AdapterError, match="another backbone"):
        average([new, trained(backbone)])
