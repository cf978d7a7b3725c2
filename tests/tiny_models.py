"""Tiny backbones built from configurations: real architectures, random weights, no network."""

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

HIDDEN_SIZE = 32
VOCABULARY = 100
FAMILIES = ("bert", "roberta", "distilbert", "gpt2")
MAIN_FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "gpt2")
"""What the longer tests of adapters run on; `test_families.py` runs on every family of the table."""

_COMMON = {"vocab_size": VOCABULARY, "attn_implementation": "sdpa", "initializer_range": 0.1}
_BERT = {
    "hidden_size": HIDDEN_SIZE,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 160,
}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA = {**_BERT, **_SPECIAL, "num_key_value_heads": 2, "head_dim": 8}
_GEMMA3_TEXT = {
    **_LLAMA,
    "vocab_size": VOCABULARY,
    "sliding_window": 5,
    "sliding_window_pattern": 2,
    "initializer_range": 0.1,
}
_LAYERS = {
    "distilbert": ("n_layers",),
    "gpt2": ("n_layer",),
    "t5": ("num_layers", "num_decoder_layers"),
    "bart": ("encoder_layers", "decoder_layers"),
}
# The end and padding tokens of a real GPT-2 or RoBERTa may lie beyond a vocabulary of 100: they are set here.
_FAMILY_KEYS: dict[str, dict[str, object]] = {
    "bert": {**_BERT, "pad_token_id": 0},
    "roberta": {**_BERT, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1},
    "xlm-roberta": {**_BERT, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1},
    "distilbert": {"dim": HIDDEN_SIZE, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 160},
    "electra": {**_BERT, "embedding_size": 16, "pad_token_id": 0},
    "deberta-v2": {
        **_BERT,
        "pad_token_id": 0,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "attn_implementation": None,
    },
    "mpnet": {**_BERT, **_SPECIAL, "pad_token_id": 1, "bos_token_id": 0, "attn_implementation": None},
    "albert": {**_BERT, **_SPECIAL, "embedding_size": 16},
    "modernbert": {**_BERT, **_SPECIAL, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8},
    "opt": {
        **_BERT,
        **_SPECIAL,
        "intermediate_size": None,
        "ffn_dim": 64,
        "word_embed_proj_dim": HIDDEN_SIZE,
    },
    "gpt_neox": {**_BERT, **_SPECIAL},
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 5},
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": {**_LLAMA, "sliding_window": 5, "attn_implementation": "eager"},
    "gemma3_text": {**_LLAMA, "sliding_window": 5, "sliding_window_pattern": 2},
    "gemma3": {
        "vocab_size": None,
        "text_config": {},
        "vision_config": {
            "hidden_size": HIDDEN_SIZE,
            "num_attention_heads": 4,
            "num_hidden_layers": 1,
            "intermediate_size": 64,
            "image_size": 16,
            "patch_size": 8,
        },
        "mm_tokens_per_image": 4,
        "image_token_index": 4,
        "boi_token_index": 3,
        "eoi_token_index": 2,
    },
    "phi3": _LLAMA,
    "t5": {"d_model": HIDDEN_SIZE, "d_kv": 8, "d_ff": 64, "num_heads": 4, "initializer_range": None},
    "bart": {
        "d_model": HIDDEN_SIZE,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 160,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "forced_eos_token_id": None,
        "initializer_range": None,
        "init_std": 0.1,
    },
    "vit": {
        "hidden_size": HIDDEN_SIZE,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 16,
        "patch_size": 8,
        "vocab_size": None,
    },
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
    """The configuration of a tiny backbone: hidden size 32, 4 heads, 100 tokens, 160 positions.

    `layers` are those of the encoder, and as many of a decoder if it has both.
    """
    keys = {**_COMMON, **_FAMILY_KEYS[family]}
    for name in _LAYERS.get(family, ("num_hidden_layers",)):
        keys[name] = layers
    if "text_config" in keys:
        text: dict[str, object] = dict(_GEMMA3_TEXT)
        keys["text_config"] = {**text, "num_hidden_layers": keys.pop("num_hidden_layers")}
    given = {name: value for name, value in keys.items() if value is not None}
    return AutoConfig.for_model(family, **given)


def tiny_model(family: str, layers: int = 3, seed: int = 0, auto_class: type = AutoModel) -> PreTrainedModel:
    """A tiny backbone of any family in the table, in eval mode.

    The weights depend on `seed` alone, and the global generator is left as it was. `auto_class` builds it
    with a head, e.g. `AutoModelForSequenceClassification`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return auto_class.from_config(tiny_config(family, layers)).eval()
