"""How each model family computes, cut where adapters and caches need it: a few plain functions a family.

A layer has three pieces: its attention, up to what its last projection puts out; what adds that to the hidden
states that the layer was given, which makes the residual that the FFN reads; and the FFN, which takes that
residual to the hidden states of the next layer. The functions call the model's own modules, so that hooks on
them act; together they are the model's own forward pass, and the tests hold them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from adapters.flat import flat_attention


@dataclass(frozen=True)
class Forward:
    """The pieces of one family's forward pass. Hidden states are flat: ``[1, tokens, hidden_size]``.

    Args:
        embed: ``(base model, ids, token types or None, positions)``, each int64 ``[1, tokens]``, to the
            input of the first layer.
        attend: ``(layer, hidden states, keyword arguments of the attention function)`` to what the last
            projection of the attention puts out.
        add: ``(layer, that, hidden states)`` to the residual that the FFN reads.
        ffn: ``(layer, residual)`` to the output of the layer.
        expand: paths, inside a layer, of the modules that widen what the FFN reads.
        finish: ``(base model, output of the last layer)`` to the last hidden states.
        attend_alone: ``(layer, hidden states, those of them that ask, keyword arguments)`` to what the last
            projection puts out for those that ask, one token of each text: ``[1, texts, hidden_size]``. None
            where a family's attention cannot be asked so, or its tokens do not see all of their text.
        rotary: ``(base model, hidden states, positions)`` to the "position_embeddings" among the arguments of
            every attention; None where positions are embedded with the words.
    """

    embed: Callable[[Any, Tensor, Tensor | None, Tensor], Tensor]
    attend: Callable[[Any, Tensor, dict[str, Any]], Tensor]
    add: Callable[[Any, Tensor, Tensor], Tensor]
    ffn: Callable[[Any, Tensor], Tensor]
    expand: tuple[str, ...]
    finish: Callable[[Any, Tensor], Tensor] = lambda model, hidden_states: hidden_states
    attend_alone: Callable[[Any, Tensor, Tensor, dict[str, Any]], Tensor] | None = None
    rotary: Callable[[Any, Tensor, Tensor], Any] | None = None


def _bert_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    # Embedded here: given ids, some families look for padding tokens, and wait for the device to see.
    words = model.get_input_embeddings()(ids)
    embedded: Tensor = model.embeddings(inputs_embeds=words, token_type_ids=types, position_ids=positions)
    return embedded


def _bert_attend(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    context = layer.attention.self(hidden_states, **arguments)[0]
    output: Tensor = layer.attention.output.dense(context)
    return output


def _bert_attend_alone(
    layer: Any, hidden_states: Tensor, asking: Tensor, arguments: dict[str, Any]
) -> Tensor:
    attention = layer.attention.self
    read = ((attention.query, asking), (attention.key, hidden_states), (attention.value, hidden_states))
    query, key, value = (
        linear(states).unflatten(2, (-1, attention.attention_head_size)).transpose(1, 2)
        for linear, states in read
    )
    context, _ = flat_attention(attention, query, key, value, scaling=attention.scaling, **arguments)
    output: Tensor = layer.attention.output.dense(context.flatten(2))
    return output


def _bert_add(layer: Any, output: Tensor, hidden_states: Tensor) -> Tensor:
    residual: Tensor = layer.attention.output.LayerNorm(output + hidden_states)
    return residual


def _bert_ffn(layer: Any, residual: Tensor) -> Tensor:
    output: Tensor = layer.feed_forward_chunk(residual)
    return output


def _distilbert_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    words = model.get_input_embeddings()(ids)
    embedded: Tensor = model.embeddings(input_ids=None, inputs_embeds=words, position_ids=positions)
    return embedded


def _distilbert_attend(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    output: Tensor = layer.attention(hidden_states, **arguments)[0]
    return output


def _distilbert_add(layer: Any, output: Tensor, hidden_states: Tensor) -> Tensor:
    residual: Tensor = layer.sa_layer_norm(output + hidden_states)
    return residual


def _distilbert_ffn(layer: Any, residual: Tensor) -> Tensor:
    output: Tensor = layer.output_layer_norm(layer.ffn(residual) + residual)
    return output


def _gpt2_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    embedded: Tensor = model.wte(ids) + model.wpe(positions)
    if types is not None:
        embedded = embedded + model.wte(types)
    return embedded


def _gpt2_attend(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    output: Tensor = layer.attn(layer.ln_1(hidden_states), **arguments)[0]
    return output


def _plain_add(layer: Any, output: Tensor, hidden_states: Tensor) -> Tensor:
    return output + hidden_states


def _gpt2_ffn(layer: Any, residual: Tensor) -> Tensor:
    output: Tensor = residual + layer.mlp(layer.ln_2(residual))
    return output


def _gpt2_finish(model: Any, hidden_states: Tensor) -> Tensor:
    normalised: Tensor = model.ln_f(hidden_states)
    return normalised


def _electra_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    embedded = _bert_embed(model, ids, types, positions)
    if hasattr(model, "embeddings_project"):  # where the embeddings are narrower than the layers
        embedded = model.embeddings_project(embedded)
    return embedded


def _word_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    embedded: Tensor = model.get_input_embeddings()(ids)  # Gemma's multiplies by the root of the width
    return embedded


def _llama_rotary(model: Any, hidden_states: Tensor, positions: Tensor) -> Any:
    return model.rotary_emb(hidden_states, positions)


def _llama_attend(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    output: Tensor = layer.self_attn(layer.input_layernorm(hidden_states), **arguments)[0]
    return output


def _llama_ffn(layer: Any, residual: Tensor) -> Tensor:
    output: Tensor = residual + layer.mlp(layer.post_attention_layernorm(residual))
    return output


def _llama_finish(model: Any, hidden_states: Tensor) -> Tensor:
    normalised: Tensor = model.norm(hidden_states)
    return normalised


def _by_layer_type(model: Any, hidden_states: Tensor, positions: Tensor) -> Any:
    kinds = set(model.config.layer_types)
    return {kind: model.rotary_emb(hidden_states, positions, kind) for kind in sorted(kinds)}


def _gemma_add(layer: Any, output: Tensor, hidden_states: Tensor) -> Tensor:
    residual: Tensor = hidden_states + layer.post_attention_layernorm(output)
    return residual


def _gemma3_attend(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    rotary = arguments["position_embeddings"][layer.self_attn.layer_type]
    return _llama_attend(layer, hidden_states, {**arguments, "position_embeddings": rotary})


def _gemma_ffn(layer: Any, residual: Tensor) -> Tensor:
    widened = layer.mlp(layer.pre_feedforward_layernorm(residual))
    output: Tensor = residual + layer.post_feedforward_layernorm(widened)
    return output


def _modernbert_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    embedded: Tensor = model.embeddings(input_ids=ids)
    return embedded


def _modernbert_attend(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    own = {**arguments, "position_embeddings": arguments["position_embeddings"][layer.attention_type]}
    output: Tensor = layer.attn(layer.attn_norm(hidden_states), **own)[0]
    return output


def _modernbert_ffn(layer: Any, residual: Tensor) -> Tensor:
    output: Tensor = residual + layer.mlp(layer.mlp_norm(residual))
    return output


def _modernbert_finish(model: Any, hidden_states: Tensor) -> Tensor:
    normalised: Tensor = model.final_norm(hidden_states)
    return normalised


def _opt_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    decoder = model.decoder
    embedded: Tensor = decoder.embed_tokens(ids) + decoder.embed_positions(None, position_ids=positions)
    return embedded


def _opt_attend(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    output: Tensor = layer.self_attn(layer.self_attn_layer_norm(hidden_states), **arguments)[0]
    return output


def _opt_ffn(layer: Any, residual: Tensor) -> Tensor:
    units = layer.activation_fn(layer.fc1(layer.final_layer_norm(residual)))
    output: Tensor = residual + layer.fc2(units)
    return output


def _opt_finish(model: Any, hidden_states: Tensor) -> Tensor:
    final = model.decoder.final_layer_norm
    normalised: Tensor = hidden_states if final is None else final(hidden_states)
    return normalised


_GATED = ("mlp.gate_proj", "mlp.up_proj")

BERT = Forward(
    _bert_embed,
    _bert_attend,
    _bert_add,
    _bert_ffn,
    expand=("intermediate",),
    attend_alone=_bert_attend_alone,
)
ELECTRA = replace(BERT, embed=_electra_embed)
DISTILBERT = Forward(
    _distilbert_embed, _distilbert_attend, _distilbert_add, _distilbert_ffn, expand=("ffn.lin1",)
)
GPT2 = Forward(_gpt2_embed, _gpt2_attend, _plain_add, _gpt2_ffn, expand=("mlp.c_fc",), finish=_gpt2_finish)
OPT = Forward(_opt_embed, _opt_attend, _plain_add, _opt_ffn, expand=("fc1",), finish=_opt_finish)
LLAMA = Forward(
    _word_embed,
    _llama_attend,
    _plain_add,
    _llama_ffn,
    expand=_GATED,
    finish=_llama_finish,
    rotary=_llama_rotary,
)
PHI3 = replace(LLAMA, expand=("mlp.gate_up_proj",))
GEMMA2 = replace(LLAMA, add=_gemma_add, ffn=_gemma_ffn)
GEMMA3 = replace(GEMMA2, attend=_gemma3_attend, rotary=_by_layer_type)
MODERNBERT = Forward(
    _modernbert_embed,
    _modernbert_attend,
    _plain_add,
    _modernbert_ffn,
    expand=("mlp.Wi",),
    finish=_modernbert_finish,
    rotary=_by_layer_type,
)
