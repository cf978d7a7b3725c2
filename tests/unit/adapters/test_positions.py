"""Positions counted on behind a prefix: what a model computes that is called with such position ids."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from adapters import AdapterConfig, AdapterError, attach, build, load, remove, save
from adapters.architectures import ARCHITECTURES, first_position
from adapters.depth import EMBEDDED, FROM_TOKENS, Depth, deepest, depth_of
from adapters.flat import Sequences
from adapters.layerwise import Entry
from adapters.pack import FlatBatch, Pack
from tests.tiny_models import tiny_config, tiny_model

LENGTH = 4
LEARNED = [name for name, row in ARCHITECTURES.items() if row.position_table is not None]
AFTER = AdapterConfig(method="prefix", prefix_length=LENGTH, positions="after_prefix")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def twins(model: PreTrainedModel, fill: object) -> tuple[nn.Module, nn.Module]:
    """Two prefixes of equal weights: one counts positions behind itself, the other leaves them."""
    after, start = (
        fill(build(config, model.config, generator()).double())  # type: ignore[operator]
        for config in (AFTER, AdapterConfig(method="prefix", prefix_length=LENGTH))
    )
    return after, start


@pytest.mark.parametrize("family", LEARNED)
def test_positions_begin_behind_the_prefix(family: str, tokens: Tensor, fill: object) -> None:
    """Padded, in a flat run and with one token read: as with position ids that say so; and out again."""
    model = tiny_model(family).double()
    alone = model(tokens).last_hidden_state
    after, start = twins(model, fill)
    positions = torch.arange(12).expand(2, -1) + first_position(model.config)
    mask = torch.ones_like(tokens)
    mask[1, 7:] = 0
    attach(model, start)
    if family == "distilbert":  # takes no position ids: its table is turned instead
        table = model.embeddings.position_embeddings
        kept = table.weight.data
        table.weight.data = kept.roll(-LENGTH, 0)
        expected = model(tokens, attention_mask=mask).last_hidden_state
        table.weight.data = kept
    else:
        expected = model(tokens, attention_mask=mask, position_ids=positions + LENGTH).last_hidden_state
    assert not torch.allclose(model(tokens, attention_mask=mask).last_hidden_state, expected, atol=1e-3)
    remove(model)
    attach(model, after)
    found = model(tokens, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask == 1], expected[mask == 1], rtol=1e-9, atol=1e-9)
    remove(model)
    assert torch.equal(model(tokens).last_hidden_state, alone)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    pack = Pack(model)
    pack.put(0, after)
    batch = FlatBatch(torch.cat([tokens[0], tokens[1, :7]]), None, Sequences((12, 7)))
    flat = pack.forward([(0, batch)])[0]
    torch.testing.assert_close(flat, expected[mask == 1], rtol=1e-9, atol=1e-9)
    first = pack.forward([(0, batch)], "cls")[0]
    torch.testing.assert_close(first, expected[:, 0], rtol=1e-9, atol=1e-9)
    gradients = torch.autograd.grad(first[..., :5].square().sum(), list(after.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_generate_counts_on_with_a_cache_as_without(family: str, tokens: Tensor, fill: object) -> None:
    model = tiny_model(family, auto_class=AutoModelForCausalLM)
    arguments = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(tokens[:, :6])
    mask[1, :2] = 0  # padded on the left, as generation is
    given = {"inputs": tokens[:, :6], "attention_mask": mask, **arguments}
    found = []
    for adapter in twins(model, fill):
        attach(model, adapter.float())
        with_cache, without = (
            model.generate(use_cache=cached, output_logits=True, return_dict_in_generate=True, **given)
            for cached in (True, False)
        )
        assert torch.equal(with_cache.sequences, without.sequences)
        found.append(torch.stack(with_cache.logits))
        torch.testing.assert_close(found[-1], torch.stack(without.logits), rtol=0, atol=1e-4)
        remove(model)
    assert not torch.allclose(*found, atol=1e-3)


def test_it_takes_tokens_whatever_states_are_kept(tokens: Tensor) -> None:
    """A ladder keeps the input of the first layer, where positions are embedded already."""
    model = tiny_model("bert")
    for config in (AFTER, AdapterConfig(method="prompt", prompt_length=2)):
        assert depth_of(config, model.config) == FROM_TOKENS
        assert deepest([EMBEDDED, Depth(1, 0)], FROM_TOKENS) is None
        pack = Pack(model)
        pack.put(0, build(config, model.config, generator()))
        assert pack.layers(0) == 3
        entry = Entry(EMBEDDED, (torch.zeros(5, 32),), Sequences((5,)))
        with pytest.raises(ValueError, match="slot 0 changes how texts are embedded: it takes tokens"):
            pack.forward([(0, entry)])
        pack.clear(0)


@pytest.mark.parametrize(("family", "longest"), [("bert", 160), ("roberta", 158), ("opt", 160)])
def test_a_text_that_is_longer_than_the_table_is_refused(family: str, longest: int) -> None:
    model = tiny_model(family)
    attach(model, build(AFTER, model.config, generator()))
    tokens = torch.full((1, longest - LENGTH), 7)
    assert torch.isfinite(model(tokens).last_hidden_state).all()
    with pytest.raises(AdapterError, match=r"prefix of 4, .* position \d+, .*: cut texts by 3 tokens"):
        model(torch.full((1, longest - LENGTH + 3), 7))


@pytest.mark.parametrize("family", ["llama", "modernbert", "bart", "gpt_neox", "vit"])
def test_families_without_a_table_refuse_it(family: str) -> None:
    with pytest.raises(AdapterError, match="are taken from a table of learned ones") as refused:
        build(AFTER, tiny_config(family), generator())
    assert refused.value.field == "positions"


def test_its_file_says_so_and_an_older_one_reads_as_ever(tmp_path: object) -> None:
    adapter = build(AFTER, tiny_config("bert"), generator())
    assert load(save(adapter, f"{tmp_path}/adapter.safetensors")).config == AFTER
    older = {"method": "prefix", "prefix_length": 4, "layers": "all"}
    assert AdapterConfig.from_dict(older).positions == "from_start"
    for given, message in (("middle", "unknown positions 'middle'"), (3, "positions is 3")):
        with pytest.raises(AdapterError, match=message):
            AdapterConfig.from_dict({**older, "positions": given})
    with pytest.raises(AdapterError, match="positions means nothing to the method lora"):
        AdapterConfig(method="lora", positions="from_start")
