"""Tiny backbones built from configurations: real architectures, random weights, no network."""

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

HIDDEN_SIZE = 32
VOCABULARY = 100
FAMILIES = ("bert", "roberta", "distilbert", "gpt2")

_COMMON = {"vocab_size": VOCABULARY, "attn_implementation": "sdpa", "initializer_range": 0.1}
_BERT = {
    "hidden_size": HIDDEN_SIZE,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 160,
}
# The end and padding tokens of a real GPT-2 or RoBERTa may lie beyond a vocabulary of 100: they are set here.
_FAMILY_KEYS: dict[str, dict[str, object]] = {
    "bert": {**_BERT, "pad_token_id": 0},
    "roberta": {**_BERT, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1},
    "xlm-roberta": {**_BERT, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1},
    "distilbert": {"dim": HIDDEN_SIZE, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 160},
    "gpt2": {
        "n_embd": HIDDEN_SIZE,
        "n_head": 4,
        "n_inner": 64,
        "n_positions": 160,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}


def tiny_config(family: str, layers: int = 3) -> PreTrainedConfig:
    """The configuration of a tiny backbone: hidden size 32, 4 heads, 100 tokens, 160 positions."""
    keys = {**_COMMON, **_FAMILY_KEYS[family]}
    keys[{"distilbert": "n_layers", "gpt2": "n_layer"}.get(family, "num_hidden_layers")] = layers
    return AutoConfig.for_model(family, **keys)


def tiny_model(family: str, layers: int = 3, seed: int = 0, auto_class: type = AutoModel) -> PreTrainedModel:
    """A tiny backbone of a family ("bert", "roberta", "xlm-roberta", "distilbert", "gpt2"), in eval mode.

    The weights depend on `seed` alone, and the global generator is left as it was. `auto_class` builds it
    with a head, e.g. `AutoModelForSequenceClassification`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto_class.from_config(tiny_config(family, layers)).eval()
