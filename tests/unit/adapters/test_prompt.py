"""A prompt in whole models: with and without a head, in every form of output, with caches and in threads."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    StaticCache,
)

from adapters import AdapterConfig, AdapterError
from adapters.architectures import ARCHITECTURES
from adapters.flat import Sequences
from adapters.insert import get, insert
from adapters.pack import FlatBatch, Pack
from tests.tiny_models import tiny_model

LENGTH = 3
DECODERS = [name for name, row in ARCHITECTURES.items() if row.causal and "prompt" not in row.refuses]
HEADS = [AutoModel, AutoModelForSequenceClassification]


def prompted(family: str, fill: Any, auto_class: type = AutoModel) -> tuple[PreTrainedModel, Tensor]:
    """A model with a prompt in it, and the vectors of that prompt."""
    model = tiny_model(family, 2, auto_class=auto_class)
    config = AdapterConfig(method="prompt", prompt_length=LENGTH)
    adapter = fill(insert(model, config, generator=torch.Generator().manual_seed(0))).eval()
    return model, adapter.prompt.vectors


def in_front(model: PreTrainedModel, vectors: Tensor, tokens: Tensor) -> Tensor:
    """Words with a prompt in front of each text, for a model that has none."""
    words = model.get_input_embeddings()(tokens)
    return torch.cat([vectors.expand(len(tokens), -1, -1), words], dim=1)


@pytest.mark.parametrize(
    ("family", "auto_class"),
    [*((family, AutoModelForCausalLM) for family in DECODERS), *(("opt", head) for head in HEADS)],
)
def test_it_acts_once_whatever_head_the_model_has(
    family: str, auto_class: type, tokens: Tensor, fill: Any
) -> None:
    model, vectors = prompted(family, fill, auto_class)
    bare = tiny_model(family, 2, auto_class=auto_class)
    expected = bare(inputs_embeds=in_front(bare, vectors, tokens))[0]
    if auto_class is not AutoModelForSequenceClassification:
        expected = expected[:, LENGTH:]
    torch.testing.assert_close(model(input_ids=tokens)[0], expected, rtol=0, atol=1e-5)
    assert not torch.allclose(bare(input_ids=tokens)[0], expected, atol=1e-2)


def test_opt_generates_with_a_cache_as_without(tokens: Tensor, fill: Any) -> None:
    model, _ = prompted("opt", fill, AutoModelForCausalLM)
    bare = tiny_model("opt", 2, auto_class=AutoModelForCausalLM)
    arguments = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached, without = (model.generate(tokens, use_cache=use, **arguments) for use in (True, False))
    assert torch.equal(cached, without)
    assert not torch.equal(cached, bare.generate(tokens, **arguments))


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_token_types_in_a_pack_are_added_behind_the_prompt_alone(family: str, fill: Any) -> None:
    """A GPT-2 looks them up in the table of its words."""
    model, _ = prompted(family, fill)
    text, types = torch.arange(5, 12), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    expected = model(input_ids=text.unsqueeze(0), token_type_ids=types.unsqueeze(0)).last_hidden_state[0]
    pack = Pack(tiny_model(family, 2).eval())
    pack.put(0, get(model))
    actual = pack.forward([(0, FlatBatch(text, types, Sequences((7,))))])[0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "opt", "llama"])
def test_a_tuple_holds_what_the_names_do_and_hidden_states_are_cut(
    family: str, tokens: Tensor, fill: Any
) -> None:
    model, _ = prompted(family, fill)
    named = model(input_ids=tokens, output_hidden_states=True)
    plain = model(input_ids=tokens, output_hidden_states=True, return_dict=False)
    assert isinstance(plain, tuple) and len(plain) == len(named.to_tuple())
    assert torch.equal(plain[0], named.last_hidden_state)
    if family == "bert":
        assert torch.equal(plain[1], named.pooler_output)
        assert torch.equal(plain[1], model.pooler(named.last_hidden_state))
    assert len(named.hidden_states) == 3
    for mine, other in zip(named.hidden_states, plain[-1], strict=True):
        assert mine.shape == (2, 12, 32) and torch.equal(mine, other)
    assert torch.equal(named.hidden_states[-1], named.last_hidden_state)


def test_a_configuration_may_ask_for_tuples(tokens: Tensor, fill: Any) -> None:
    model, _ = prompted("bert", fill)
    named = model(input_ids=tokens)
    model.config.return_dict = False
    plain = model(input_ids=tokens)
    assert isinstance(plain, tuple) and torch.equal(plain[1], named.pooler_output)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "opt"])
@pytest.mark.parametrize("padded", [False, True])
def test_position_ids_go_on_behind_it(family: str, padded: bool, tokens: Tensor, fill: Any) -> None:
    model, vectors = prompted(family, fill)
    bare = tiny_model(family, 2)
    mask, longer = None, None
    if padded:
        mask = torch.ones_like(tokens)
        mask[1, 7:] = 0
        longer = torch.cat([mask.new_ones(2, LENGTH), mask], dim=1)
    positions = torch.arange(50, 50 + 12).expand(2, -1)
    found = model(input_ids=tokens, attention_mask=mask, position_ids=positions).last_hidden_state
    counted = torch.arange(50, 50 + LENGTH + 12).expand(2, -1)
    words = in_front(bare, vectors, tokens)
    expected = bare(inputs_embeds=words, attention_mask=longer, position_ids=counted).last_hidden_state
    real = slice(None) if mask is None else mask == 1
    torch.testing.assert_close(found[real], expected[:, LENGTH:][real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_several_texts_in_one_row_are_refused(family: str, tokens: Tensor, fill: Any) -> None:
    """A decoder tells them apart by their positions, where it is given neither a mask nor a cache."""
    model, _ = prompted(family, fill)
    positions = torch.arange(12).remainder(6).expand(2, -1)
    with pytest.raises(AdapterError, match="position ids that do not go up by one need an attention mask"):
        model(input_ids=tokens, position_ids=positions, use_cache=False)


@pytest.mark.parametrize("family", ["gpt2", "opt", "mistral", "gemma3_text"])
def test_a_static_cache_is_refused(family: str, tokens: Tensor, fill: Any) -> None:
    model, _ = prompted(family, fill, AutoModelForCausalLM)
    with pytest.raises(AdapterError, match="a static cache has no room for a prompt"):
        model.generate(tokens, cache_implementation="static", max_new_tokens=3, pad_token_id=0)
    cache = StaticCache(config=model.config, max_cache_len=40)
    with pytest.raises(AdapterError, match="a static cache has no room for a prompt"):
        model(input_ids=tokens, past_key_values=cache)


def test_threads_run_one_model_at_once(tokens: Tensor, fill: Any) -> None:
    model, _ = prompted("bert", fill)
    expected = [model(input_ids=text.unsqueeze(0)).last_hidden_state for text in tokens]
    both = threading.Barrier(2, timeout=30)

    def meet(module: nn.Module, arguments: Any) -> None:
        both.wait()

    model.encoder.layer[0].register_forward_pre_hook(meet)
    found: dict[int, Tensor] = {}

    def run(number: int) -> None:
        found[number] = model(input_ids=tokens[number : number + 1]).last_hidden_state

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, states in enumerate(expected):
        torch.testing.assert_close(found[number], states, rtol=0, atol=1e-5)
