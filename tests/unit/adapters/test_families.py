"""Every row of the table, on a tiny model of its family: what adapters in it change, and what they leave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

import adapters
from adapters import AdapterConfig, AdapterError
from adapters.architectures import ARCHITECTURES, architecture_of, check_fits, is_flat, layer_count
from adapters.config import PLACEMENTS
from adapters.count import adapter_parameters, parameters_in
from adapters.flat import Sequences
from adapters.insert import activate, insert, remove
from adapters.pack import FlatBatch, Pack
from tests.tiny_models import HIDDEN_SIZE, VOCABULARY, tiny_config, tiny_model

LAYERS = 2
DECODERS = [family for family, row in ARCHITECTURES.items() if row.causal]
ENCODER_DECODERS = [family for family, row in ARCHITECTURES.items() if row.decoder is not None]
FLAT = [family for family in ARCHITECTURES if is_flat(tiny_config(family))]
PADDED = [family for family in ARCHITECTURES if family not in {*FLAT, "vit"}]
FUSED = {"query_key_value": {"query", "key", "value"}, "ffn_gate_up": {"ffn_gate", "ffn_up"}}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs_of(family: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    if family == "vit":
        return {
            "pixel_values": torch.randn(2, 3, 16, 16, generator=generator(), dtype=torch.float32).to(dtype)
        }
    ids = torch.randint(5, VOCABULARY, (2, 11), generator=generator(4))
    decoder = {"decoder_input_ids": ids[:, :7].flip(0)} if ARCHITECTURES[family].decoder else {}
    return {"input_ids": ids, **decoder}


def hidden(model: Any, family: str) -> Tensor:
    states: Tensor = model.base_model(**inputs_of(family, model.dtype)).last_hidden_state
    return states


def placements_of(family: str) -> list[str]:
    row = ARCHITECTURES[family]
    made = ("attention:parallel", "attention:after+ffn:parallel")
    return [name for name in (*PLACEMENTS, *made) if name != "pfeiffer_original" or row.ffn_norm is not None]


def config_of(placement: str, **fields: Any) -> AdapterConfig:
    return AdapterConfig(**{"bottleneck_dim": 4, "placement": placement, **fields})


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_path_of_the_row_exists_and_all_linears_are_named(family: str) -> None:
    model = tiny_model(family, LAYERS)
    row = architecture_of(model)
    for index in range(layer_count(model.config)):
        part, path = row.part(index, model.config)
        layer = model.base_model.get_submodule(path)
        for last in (part.attention, part.ffn):
            weight = layer.get_submodule(last).weight
            assert (weight.shape[1] if family == "gpt2" else weight.shape[0]) == HIDDEN_SIZE
        if part.ffn_norm is not None:
            assert isinstance(layer.get_submodule(part.ffn_norm), nn.LayerNorm)
        covered = {name for fused in part.linears for name in FUSED.get(fused, {fused})}
        assert covered - {"ffn_gate"} == {"query", "key", "value", "attention_output", "ffn_up", "ffn_down"}
        wide = {
            name
            for name, module in layer.named_modules()
            if isinstance(getattr(module, "weight", None), Tensor)
            and module.weight.ndim == 2
            and not isinstance(module, nn.Embedding)
            and not name.startswith(("encoder_attn", "layer.1.EncDecAttention"))
        }
        assert wide == set(part.linears.values())
    with pytest.raises(AttributeError):
        model.base_model.get_submodule(row.part(layer_count(model.config), model.config).path)


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_up_changes_no_bit_and_removal_none_either(family: str, dtype: torch.dtype, fill: Any) -> None:
    # Frozen before, too: for T5's bias by distance torch takes another kernel while it needs a gradient.
    model = tiny_model(family, LAYERS).to(dtype).requires_grad_(False)
    alone = hidden(model, family)
    for placement in placements_of(family):
        adapter = insert(model, config_of(placement), generator=generator())
        assert torch.equal(hidden(model, family), alone), placement
        fill(adapter)
        changed = hidden(model, family)
        assert changed.dtype == dtype
        assert not torch.allclose(changed, alone, atol=1e-2), placement
        activate(model, None)
        assert torch.equal(hidden(model, family), alone), placement
        remove(model)
        assert torch.equal(hidden(model, family), alone), placement


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_gradients_reach_all_of_the_adapter_and_nothing_else(family: str, fill: Any) -> None:
    model = tiny_model(family, LAYERS)
    for placement in placements_of(family):
        config = config_of(placement, activation="tanh")
        adapter = fill(insert(model, config, generator=generator()))
        count = sum(parameter.numel() for parameter in adapter.parameters())
        assert count == adapter_parameters(config, HIDDEN_SIZE, layer_count(model.config))
        hidden(model, family).sin().sum().backward()
        for name, parameter in adapter.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, f"{placement}, {name}"
        remove(model)
        assert all(parameter.grad is None for parameter in model.parameters())


def model_of(config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModel.from_config(config).eval()


BIASED = {
    "modernbert": {"norm_bias": True, "attention_bias": True, "mlp_bias": True},
    "llama": {"attention_bias": True, "mlp_bias": True},
}


@pytest.mark.parametrize("family", [family for family in ARCHITECTURES if family != "t5"])
def test_bitfit_trains_every_bias_of_the_layers_but_those_of_cross_attention(family: str) -> None:
    config = tiny_config(family, LAYERS)
    for key, value in BIASED.get(family, {}).items():
        setattr(config, key, value)
    model = model_of(config)
    layers = range(layer_count(config))
    biases = {
        f"{path}.{name}": own.numel()
        for path in [architecture_of(model).part(layer, config).path for layer in layers]
        for name, own in model.base_model.get_submodule(path).named_parameters()
        if name.endswith("bias") and not name.startswith("encoder_attn")
    }
    bitfit = AdapterConfig(method="bitfit")
    if not biases:
        with pytest.raises(AdapterError, match="have none"):
            insert(model, bitfit, generator=generator())
        return
    adapter = insert(model, bitfit, generator=generator())
    row = architecture_of(model)
    trained = [f"{row.part(site.layer, config).path}.{site.path}.bias" for site in adapter.sites]
    assert sorted(trained) == sorted(biases)
    count = sum(parameter.numel() for parameter in adapter.parameters())
    assert count == parameters_in(bitfit, config) == sum(biases.values())


def test_a_bitfit_of_modernbert_with_biases_runs_flat_as_the_model_does(fill: Any, tmp_path: Any) -> None:
    config = tiny_config("modernbert", LAYERS)
    config.norm_bias = True
    model = model_of(config).double()
    alone = hidden(model, "modernbert")
    adapter = insert(model, AdapterConfig(method="bitfit"), generator=generator()).double()
    assert torch.equal(hidden(model, "modernbert"), alone)
    fill(adapter)
    expected = hidden(model, "modernbert")
    expected.sin().sum().backward()
    assert all(own.grad is not None and own.grad.abs().sum() > 0 for own in adapter.parameters())
    loaded = adapters.load(adapters.save(adapter, tmp_path / "adapter.safetensors"))
    assert [key for key, _ in loaded.named_parameters()] == [key for key, _ in adapter.named_parameters()]
    remove(model)
    pack = Pack(model, slots=1)
    pack.put(0, loaded)
    ids = inputs_of("modernbert")["input_ids"]
    flat = pack.forward([(0, FlatBatch(ids.flatten(), None, Sequences((11, 11))))])[0]
    torch.testing.assert_close(flat, expected.flatten(0, 1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_ladder_reads_every_layer_or_is_refused(family: str, fill: Any) -> None:
    config = AdapterConfig(method="ladder", bottleneck_dim=4)
    row = ARCHITECTURES[family]
    if "ladder" in row.refuses:
        with pytest.raises(AdapterError, match="every layer once"):
            check_fits(config, tiny_config(family))
        return
    model = tiny_model(family, LAYERS)
    alone = hidden(model, family)
    adapter = insert(model, config, generator=generator())
    assert torch.equal(hidden(model, family), alone)
    fill(adapter)
    changed = hidden(model, family)
    assert not torch.allclose(changed, alone, atol=1e-2)
    changed.sin().sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())


GREEDY: dict[str, Any] = {
    "max_new_tokens": 6,
    "do_sample": False,
    "eos_token_id": None,
    "pad_token_id": 0,
    "output_logits": True,
    "return_dict_in_generate": True,
}


@pytest.mark.parametrize("family", [*DECODERS, *ENCODER_DECODERS])
def test_generation_with_a_cache_is_that_without(family: str, fill: Any) -> None:
    start = [] if family in DECODERS else [0]
    model = tiny_model(family, LAYERS, auto_class=AutoModelForSeq2SeqLM if start else AutoModelForCausalLM)
    prompt = {"input_ids": inputs_of(family)["input_ids"][:, :5]}
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    greedy = {**GREEDY, **({"decoder_start_token_id": 0} if start else {})}
    alone = model.generate(**prompt, **greedy).sequences
    for placement in ("houlsby", "parallel"):
        adapter = insert(model, config_of(placement), generator=generator())
        assert torch.equal(model.generate(**prompt, **greedy).sequences, alone)
        fill(adapter)
        made = model.generate(**prompt, **greedy)
        with torch.no_grad():
            if start:
                known = made.sequences[:, :-1]
                logits = model(**prompt, decoder_input_ids=known, use_cache=False).logits
            else:
                logits = model(made.sequences[:, :-1], use_cache=False).logits[:, 4:]
        assert made.sequences.shape == (2, len(start) + (0 if start else 5) + 6)
        torch.testing.assert_close(torch.stack(made.logits, 1), logits, rtol=1e-4, atol=1e-4)
        remove(model)
        assert torch.equal(model.generate(**prompt, **greedy).sequences, alone)


def test_the_language_model_of_texts_and_images_takes_adapters(fill: Any) -> None:
    model = tiny_model("gemma3", LAYERS, auto_class=AutoModelForImageTextToText)
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    # Zero in a model that was not trained: no image would be seen.
    projection = model.model.multi_modal_projector.mm_input_projection_weight
    torch.nn.init.normal_(projection, generator=generator())
    image = {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator())}
    ids = inputs_of("gemma3")["input_ids"][:, :6]
    ids = torch.cat([torch.full((2, 4), model.config.image_token_id), ids], dim=1)
    prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **image}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    alone = model(**prompt).logits
    without = model(**{**prompt, "pixel_values": image["pixel_values"].flip(0)}).logits
    assert not torch.allclose(alone, without, atol=1e-3)  # the image is read
    adapter = insert(model, config_of("houlsby", activation="tanh"), generator=generator())
    assert {site.layer for site in adapter.sites} == set(range(LAYERS))
    assert torch.equal(model(**prompt).logits, alone)
    fill(adapter)
    changed = model(**prompt).logits
    assert not torch.allclose(changed, alone, atol=1e-2)
    changed.sin().sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())
    own = {id(parameter) for parameter in adapter.parameters()}
    assert not [n for n, p in model.base_model.named_parameters() if p.grad is not None and id(p) not in own]
    made = model.generate(**prompt, **GREEDY)
    with torch.no_grad():
        full = {**prompt, "input_ids": made.sequences[:, :-1]}
        full["attention_mask"] = torch.ones_like(full["input_ids"])
        logits = model(**full, use_cache=False).logits[:, ids.shape[1] - 1 :]
    torch.testing.assert_close(torch.stack(made.logits, 1), logits, rtol=1e-4, atol=1e-4)
    remove(model)
    assert torch.equal(model(**prompt).logits, alone)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trainable


def flat_batch(lengths: tuple[int, ...], seed: int = 0) -> FlatBatch:
    ids = torch.randint(5, VOCABULARY, (sum(lengths),), generator=generator(seed))
    return FlatBatch(ids, None, Sequences(lengths))


def text_by_text(model: PreTrainedModel, batch: FlatBatch) -> Tensor:
    texts = batch.input_ids.split(list(batch.sequences.lengths))
    row = architecture_of(model)
    found = []
    for text in texts:
        inputs = {"input_ids": text.unsqueeze(0)}
        if row.decoder is not None:
            start = torch.tensor([getattr(model.config, "decoder_start_token_id", 0)])
            inputs["decoder_input_ids"] = torch.cat([start, text[:-1]]).unsqueeze(0)
        found.append(model(**inputs).last_hidden_state[0])
    return torch.cat(found)


@pytest.mark.parametrize("family", [*FLAT, *PADDED])
def test_a_pack_computes_what_the_model_computes_text_by_text(family: str, fill: Any) -> None:
    model = tiny_model(family, LAYERS).double().requires_grad_(False)
    attention = model.config._attn_implementation
    configs = [None, config_of("houlsby"), config_of("attention:parallel+ffn:after", layers=(1,))]
    if family == "albert":
        configs[2] = config_of("attention:parallel+ffn:after")
    batches = [flat_batch(lengths, seed) for seed, lengths in enumerate([(9, 2), (3, 3, 8), (12,)])]
    built = [
        config and fill(adapters.build(config, model.config, generator())).double() for config in configs
    ]
    expected = []
    for adapter, batch in zip(built, batches, strict=True):
        if adapter is not None:
            adapters.attach(model, adapter, "alone")
        expected.append(text_by_text(model, batch).detach())
        if adapter is not None:
            adapters.remove(model, "alone")
    pack = Pack(model, slots=3)
    for slot, adapter in enumerate(built):
        pack.put(slot, adapter)
    parts = list(enumerate(batches))
    # Gemma 2 squeezes its scores, and transformers takes their softmax in fp32.
    close = dict.fromkeys(("rtol", "atol"), 1e-5 if family == "gemma2" else 1e-9)
    for own, wanted in zip(pack.forward(parts), expected, strict=True):
        torch.testing.assert_close(own, wanted, **close)
    for pooled in ("cls", "last"):
        for own, wanted, batch in zip(pack.forward(parts, pooled), expected, batches, strict=True):
            offsets = batch.sequences.offsets
            rows = offsets[:-1] if pooled == "cls" else offsets[1:] - 1
            torch.testing.assert_close(own, wanted[rows], **close)
    for slot in range(3):
        pack.clear(slot)
    model.set_attn_implementation(attention)
    torch.testing.assert_close(text_by_text(model, batches[0]), expected[0], rtol=0, atol=0)
