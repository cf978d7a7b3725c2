"""How each model family computes, cut where adapters and caches need it: a few plain functions a family.

A layer has two halves. The attention half takes hidden states to the residual that the FFN reads; the FFN
half takes that residual to the hidden states of the next layer. The functions call the model's own modules,
so that hooks on them act; together they are the model's own forward pass, and the tests hold them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Forward:
    """The pieces of one family's forward pass. Hidden states are flat: ``[1, tokens, hidden_size]``.

    Args:
        embed: ``(base model, ids, token types or None, positions)``, each int64 ``[1, tokens]``, to the
            input of the first layer.
        attention: ``(layer, hidden states, keyword arguments of the attention function)`` to the residual
            that the FFN reads.
        ffn: ``(layer, residual)`` to the output of the layer.
        expand: path, inside a layer, of the module that widens what the FFN reads.
        finish: ``(base model, output of the last layer)`` to the last hidden states.
    """

    embed: Callable[[Any, Tensor, Tensor | None, Tensor], Tensor]
    attention: Callable[[Any, Tensor, dict[str, Any]], Tensor]
    ffn: Callable[[Any, Tensor], Tensor]
    expand: str
    finish: Callable[[Any, Tensor], Tensor] = lambda model, hidden_states: hidden_states


def _bert_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    # Embedded here: given ids, some families look for padding tokens, and wait for the device to see.
    words = model.get_input_embeddings()(ids)
    embedded: Tensor = model.embeddings(inputs_embeds=words, token_type_ids=types, position_ids=positions)
    return embedded


def _bert_attention(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    residual: Tensor = layer.attention(hidden_states, **arguments)[0]
    return residual


def _bert_ffn(layer: Any, residual: Tensor) -> Tensor:
    output: Tensor = layer.feed_forward_chunk(residual)
    return output


def _distilbert_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    words = model.get_input_embeddings()(ids)
    embedded: Tensor = model.embeddings(input_ids=None, inputs_embeds=words, position_ids=positions)
    return embedded


def _distilbert_attention(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    residual: Tensor = layer.sa_layer_norm(layer.attention(hidden_states, **arguments)[0] + hidden_states)
    return residual


def _distilbert_ffn(layer: Any, residual: Tensor) -> Tensor:
    output: Tensor = layer.output_layer_norm(layer.ffn(residual) + residual)
    return output


def _gpt2_embed(model: Any, ids: Tensor, types: Tensor | None, positions: Tensor) -> Tensor:
    embedded: Tensor = model.wte(ids) + model.wpe(positions)
    if types is not None:
        embedded = embedded + model.wte(types)
    return embedded


def _gpt2_attention(layer: Any, hidden_states: Tensor, arguments: dict[str, Any]) -> Tensor:
    residual: Tensor = layer.attn(layer.ln_1(hidden_states), **arguments)[0] + hidden_states
    return residual


def _gpt2_ffn(layer: Any, residual: Tensor) -> Tensor:
    output: Tensor = residual + layer.mlp(layer.ln_2(residual))
    return output


def _gpt2_finish(model: Any, hidden_states: Tensor) -> Tensor:
    normalised: Tensor = model.ln_f(hidden_states)
    return normalised


BERT = Forward(_bert_embed, _bert_attention, _bert_ffn, expand="intermediate")
DISTILBERT = Forward(_distilbert_embed, _distilbert_attention, _distilbert_ffn, expand="ffn.lin1")
GPT2 = Forward(_gpt2_embed, _gpt2_attention, _gpt2_ffn, expand="mlp.c_fc", finish=_gpt2_finish)
