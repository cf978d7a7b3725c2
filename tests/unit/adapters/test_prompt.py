"""A prompt in whole models, with and without a head."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from adapters import AdapterConfig
from adapters.architectures import ARCHITECTURES
from adapters.insert import insert
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
