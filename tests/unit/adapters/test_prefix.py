"""A prefix with caches: what is put into one at once or piece by piece, dynamic or static."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

from adapters import AdapterConfig
from adapters.architectures import ARCHITECTURES
from adapters.insert import insert
from tests.tiny_models import tiny_model

DECODERS = [name for name, row in ARCHITECTURES.items() if row.causal and "prefix" not in row.refuses]
CONFIGS = {
    "prefix": AdapterConfig(method="prefix", prefix_length=3),
    "mam": AdapterConfig(method="mam", bottleneck_dim=4, prefix_length=3),
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize("family", DECODERS)
def test_a_static_cache_computes_what_a_dynamic_one_does(
    family: str, method: str, tokens: Tensor, fill: Any
) -> None:
    model = tiny_model(family, 2, auto_class=AutoModelForCausalLM)
    fill(insert(model, CONFIGS[method], generator=generator())).eval()
    arguments = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    found = [
        model.generate(tokens, output_logits=True, return_dict_in_generate=True, **arguments, **cache)
        for cache in ({}, {"cache_implementation": "static"})
    ]
    assert torch.equal(found[0].sequences, found[1].sequences)
    dynamic, static = (torch.stack(one.logits) for one in found)
    torch.testing.assert_close(static, dynamic, rtol=0, atol=1e-4)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("family", DECODERS)
def test_a_text_in_pieces_is_that_text(family: str, static: bool, tokens: Tensor, fill: Any) -> None:
    model = tiny_model(family, 2)
    fill(insert(model, CONFIGS["prefix"], generator=generator())).eval()
    expected = model(input_ids=tokens, use_cache=False).last_hidden_state
    cache = (
        StaticCache(config=model.config, max_cache_len=20) if static else DynamicCache(config=model.config)
    )
    pieces = [
        model(input_ids=piece, past_key_values=cache, use_cache=True).last_hidden_state
        for piece in tokens.split([3, 1, 8], dim=1)
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=0, atol=1e-4)
