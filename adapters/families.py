"""The table of model families: one row each. Paths are checked against the model when an adapter goes in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from adapters.forward import (
    BERT,
    DISTILBERT,
    ELECTRA,
    GEMMA2,
    GEMMA3,
    GPT2,
    LLAMA,
    MODERNBERT,
    OPT,
    PHI3,
    Forward,
)
from adapters.row import Architecture, HookPoint, linears

_NO_PREFIX = dict.fromkeys(("prefix", "mam"), "its attention knows nothing of keys in front of the text")
_TEXT_ALONE = dict.fromkeys(
    ("prefix", "mam", "prompt"),
    "its images have keys and vectors of their own; the family gemma3_text takes it",
)
_ENCODER_DECODER = {
    "ladder": "it reads every layer once, from the bottom up, and this is an encoder and a decoder",
    "prompt": "it goes in front of one text, and encoder and decoder have one each",
}


_TABLE = "embeddings.position_embeddings"


def _bert_like(
    model_type: str,
    *,
    refuses: Mapping[str, str] = MappingProxyType({}),
    forward: Forward | None = BERT,
    attention: str = "attention.output.dense",
    inputs: tuple[str, str, str] = ("attention.self.query", "attention.self.key", "attention.self.value"),
    layer_end: str | None = None,
    positions_after_padding: bool = False,
) -> Architecture:
    # The FFN of these families is no module of its own: `intermediate` and `output.dense`, with the residual
    # and the LayerNorm inside `output`. What the FFN reads is that residual: one hook on `output` sees all.
    query, key, value = inputs
    return Architecture(
        model_type=model_type,
        layers="encoder.layer",
        attention=attention,
        ffn="output.dense",
        linears=linears(
            query=query,
            key=key,
            value=value,
            attention_output=attention,
            ffn_up="intermediate.dense",
            ffn_down="output.dense",
        ),
        parallel=HookPoint("output", "residual"),
        ffn_norm="output.LayerNorm",
        forward=forward,
        layer_end=layer_end,
        positions_after_padding=positions_after_padding,
        position_table=None if "prefix" in refuses else _TABLE,
        refuses=refuses,
    )


def _llama_like(
    model_type: str,
    *,
    refuses: Mapping[str, str] = MappingProxyType({}),
    forward: Forward | None = LLAMA,
    fused: bool = False,
    inside: str = "",
) -> Architecture:
    apart = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj"}
    gated = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
    together = {"query_key_value": "self_attn.qkv_proj", "ffn_gate_up": "mlp.gate_up_proj"}
    return Architecture(
        model_type=model_type,
        layers=f"{inside}layers",
        attention="self_attn.o_proj",
        ffn="mlp.down_proj",
        linears=linears(
            **(together if fused else {**apart, **gated}),
            attention_output="self_attn.o_proj",
            ffn_down="mlp.down_proj",
        ),
        parallel=HookPoint("mlp", "beside"),  # reads the output of the norm before it
        forward=forward,
        last_norm=f"{inside}norm",
        causal=True,
        refuses=refuses,
    )


def _t5_stack(stack: str, ffn: int, count: str, decoder: Architecture | None = None) -> Architecture:
    # A decoder's layers have their cross-attention at 1, so its FFN is at 2. `wi` is of the first T5 alone:
    # see `architectures.architecture_of` for the gated ones.
    return Architecture(
        model_type="t5",
        layers=f"{stack}.block",
        attention="layer.0.SelfAttention.o",
        ffn=f"layer.{ffn}.DenseReluDense.wo",
        linears=linears(
            query="layer.0.SelfAttention.q",
            key="layer.0.SelfAttention.k",
            value="layer.0.SelfAttention.v",
            attention_output="layer.0.SelfAttention.o",
            ffn_up=f"layer.{ffn}.DenseReluDense.wi",
            ffn_down=f"layer.{ffn}.DenseReluDense.wo",
        ),
        parallel=HookPoint(f"layer.{ffn}.DenseReluDense", "beside"),
        last_norm=f"{stack}.final_layer_norm",
        count=count,
        causal=stack == "decoder",
        refuses={**_ENCODER_DECODER, **_NO_PREFIX},
        decoder=decoder,
    )


def _fairseq_like(
    model_type: str,
    layers: str,
    *,
    ffn_norm: str | None = None,
    forward: Forward | None = None,
    last_norm: str | None = None,
    count: str = "num_hidden_layers",
    causal: bool = False,
    position_table: str | None = None,
    reader: str = "",
    decoder: Architecture | None = None,
) -> Architecture:
    return Architecture(
        model_type=model_type,
        layers=layers,
        attention="self_attn.out_proj",
        ffn="fc2",
        linears=linears(
            query="self_attn.q_proj",
            key="self_attn.k_proj",
            value="self_attn.v_proj",
            attention_output="self_attn.out_proj",
            ffn_up="fc1",
            ffn_down="fc2",
        ),
        ffn_norm=ffn_norm,
        forward=forward,
        last_norm=last_norm,
        count=count,
        causal=causal,
        position_table=position_table,
        reader=reader,
        refuses={} if decoder is None else _ENCODER_DECODER,
        decoder=decoder,
    )


_ROWS = (
    _bert_like("bert"),
    _bert_like("roberta", positions_after_padding=True),
    _bert_like("xlm-roberta", positions_after_padding=True),
    _bert_like("electra", forward=ELECTRA),
    _bert_like(
        "deberta-v2",
        forward=None,  # its attention adds what it makes of distances, for all pairs of one text
        inputs=("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
        layer_end="output.LayerNorm",
        refuses=_NO_PREFIX,
    ),
    _bert_like(
        "mpnet",
        forward=None,  # its attention adds a bias by distance
        attention="attention.attn.o",
        inputs=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        layer_end="output.LayerNorm",
        positions_after_padding=True,
        refuses=_NO_PREFIX,
    ),
    Architecture(
        model_type="albert",
        layers="encoder.albert_layer_groups",
        attention="albert_layers.0.attention.dense",
        ffn="albert_layers.0.ffn_output",
        linears=linears(
            query="albert_layers.0.attention.query",
            key="albert_layers.0.attention.key",
            value="albert_layers.0.attention.value",
            attention_output="albert_layers.0.attention.dense",
            ffn_up="albert_layers.0.ffn",
            ffn_down="albert_layers.0.ffn_output",
        ),
        ffn_norm="albert_layers.0.full_layer_layer_norm",
        position_table=_TABLE,
        count="num_hidden_groups",
        passes="num_hidden_layers",
        refuses={
            "ladder": "it reads every layer once, and the layers of this family are passed several times"
        },
    ),
    Architecture(
        model_type="distilbert",
        layers="transformer.layer",
        attention="attention.out_lin",
        ffn="ffn.lin2",
        linears=linears(
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            attention_output="attention.out_lin",
            ffn_up="ffn.lin1",
            ffn_down="ffn.lin2",
        ),
        parallel=HookPoint("ffn", "beside"),
        ffn_norm="output_layer_norm",
        position_table=_TABLE,
        forward=DISTILBERT,
    ),
    Architecture(
        model_type="modernbert",
        layers="layers",
        attention="attn.Wo",
        ffn="mlp.Wo",
        linears=linears(
            query_key_value="attn.Wqkv", attention_output="attn.Wo", ffn_gate_up="mlp.Wi", ffn_down="mlp.Wo"
        ),
        parallel=HookPoint("mlp", "beside"),
        forward=MODERNBERT,
        last_norm="final_norm",
        first_lacks=("attn_norm",),
    ),
    Architecture(
        model_type="gpt2",
        layers="h",
        attention="attn.c_proj",
        ffn="mlp.c_proj",
        linears=linears(
            query_key_value="attn.c_attn",
            attention_output="attn.c_proj",
            ffn_up="mlp.c_fc",
            ffn_down="mlp.c_proj",
        ),
        parallel=HookPoint("mlp", "beside"),  # `mlp` reads the output of `ln_2`
        forward=GPT2,
        position_table="wpe",
        last_norm="ln_f",
        causal=True,
    ),
    _fairseq_like(
        "opt",
        "decoder.layers",
        forward=OPT,
        last_norm="decoder.final_layer_norm",
        causal=True,
        position_table="decoder.embed_positions",
        reader="decoder",  # OPTForCausalLM passes OPTModel by
    ),
    Architecture(
        model_type="gpt_neox",
        layers="layers",
        attention="attention.dense",
        ffn="mlp.dense_4h_to_h",
        linears=linears(
            query_key_value="attention.query_key_value",
            attention_output="attention.dense",
            ffn_up="mlp.dense_h_to_4h",
            ffn_down="mlp.dense_4h_to_h",
        ),
        parallel=HookPoint("mlp", "beside"),
        forward=None,  # attention and FFN read the same residual: no cut lies between them
        last_norm="final_layer_norm",
        causal=True,
    ),
    _llama_like("llama"),
    _llama_like("mistral"),
    _llama_like("qwen2"),
    _llama_like("qwen3"),
    _llama_like("gemma2", forward=GEMMA2, refuses=_NO_PREFIX),
    _llama_like("gemma3_text", forward=GEMMA3),
    # Of texts and images: the layers of its language model.
    _llama_like("gemma3", forward=None, inside="language_model.", refuses=_TEXT_ALONE),
    _llama_like("phi3", forward=PHI3, fused=True),
    _t5_stack("encoder", 1, "num_layers", decoder=_t5_stack("decoder", 2, "num_decoder_layers")),
    _fairseq_like(
        "bart",
        "encoder.layers",
        ffn_norm="final_layer_norm",
        count="encoder_layers",
        decoder=_fairseq_like(
            "bart", "decoder.layers", ffn_norm="final_layer_norm", count="decoder_layers", causal=True
        ),
    ),
    Architecture(
        model_type="vit",
        layers="layers",
        attention="attention.o_proj",
        ffn="mlp.fc2",
        linears=linears(
            query="attention.q_proj",
            key="attention.k_proj",
            value="attention.v_proj",
            attention_output="attention.o_proj",
            ffn_up="mlp.fc1",
            ffn_down="mlp.fc2",
        ),
        parallel=HookPoint("mlp", "beside"),
        forward=None,  # it reads images
        last_norm="layernorm",
        refuses={"prompt": "it goes in front of words, and this family reads images"},
    ),
)

ARCHITECTURES: dict[str, Architecture] = {row.model_type: row for row in _ROWS}
