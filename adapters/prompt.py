"""The prompt method: trained vectors in front of each text's word embeddings.

It follows Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning": `prompt_length`
vectors, the same for all texts, are put in front of the embedded words, and nothing else of the model is
trained. Positions count them: position ids that a model is called with are moved on by them. Where it
differs: the vectors are drawn from N(0, 0.02), not from the vocabulary or from the names of the classes; the
hidden states that the model puts out for them are taken off again, so that the first one is that of the
text's own first token (attention weights keep them); and a head may be trained beside them, where theirs
writes its answers. A static cache is refused: it has no room for them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import StaticCache

from adapters.errors import AdapterError
from adapters.kept import Kept


class Prompt(nn.Module):
    """The trained vectors.

    Args:
        length: how many.
        hidden_size: width of the word embeddings.
    """

    def __init__(self, length: int, hidden_size: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(length, hidden_size, dtype=torch.float32))

    @property
    def length(self) -> int:
        """How many vectors."""
        return self.vectors.shape[0]

    @torch.no_grad()
    def fill(self, generator: torch.Generator) -> None:
        """Draw them from N(0, 0.02)."""
        nn.init.normal_(self.vectors, std=0.02, generator=generator)


class _Call(NamedTuple):
    """What is kept of one call of a model, from the hook before it to the one behind.

    Args:
        first: it has the prompt in front; later calls find it in their cache.
        as_tuple: the caller wants a tuple.
    """

    first: bool
    as_tuple: bool


def register_prompt(prompt: Prompt, reader: Any) -> list[RemovableHandle]:
    """Put a prompt in front of what a model is called with, and take it off what it puts out.

    Args:
        reader: the module of a backbone that reads the words.
    """
    kept = Kept()
    return [
        reader.register_forward_pre_hook(partial(_put_in_front, prompt, kept), with_kwargs=True),
        reader.register_forward_hook(partial(_take_off, prompt, kept)),
    ]


def flat_vectors(prompt: Prompt, words: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Word embeddings of a flat run with the prompt in front of each text.

    Args:
        words: ``[1, tokens, hidden_size]``, with `prompt.length` rows to be replaced in front of each text.
        lengths: of each text, those rows included.
    """
    vectors = prompt.vectors.to(words.dtype)
    texts = [torch.cat([vectors, text[prompt.length :]]) for text in words[0].split(list(lengths))]
    return torch.cat(texts).unsqueeze(0)


def _put_in_front(
    prompt: Prompt, kept: Kept, reader: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if arguments:
        named = {**named, "input_ids": arguments[0]}
        if len(arguments) > 1:
            raise AdapterError("with a prompt, give the backbone its arguments by name")
    named = dict(named)
    cache = named.get("past_key_values")
    if isinstance(cache, StaticCache):
        raise AdapterError("a static cache has no room for a prompt; take a dynamic one, the default")
    first = cache is None or cache.get_seq_length() == 0
    kept.values[0] = _Call(first, _wants_tuple(reader, named))
    named["return_dict"] = True
    words = named.pop("inputs_embeds", None)
    ids = named.pop("input_ids", None)
    words = reader.get_input_embeddings()(ids) if words is None else words
    _make_room(named, len(words), prompt.length, first)
    if first:
        vectors = prompt.vectors.to(words).expand(len(words), -1, -1)
        words = torch.cat([vectors, words], dim=1)
    return (), {**named, "inputs_embeds": words}


def _make_room(named: dict[str, Any], texts: int, length: int, first: bool) -> None:
    """Let positions, mask and token types count the prompt."""
    mask = named.get("attention_mask")
    if named.get("position_ids") is not None:
        named["position_ids"] = _moved(named["position_ids"], length, first, mask)
    if first:
        named.pop("cache_position", None)  # counted anew, with the prompt
    elif named.get("cache_position") is not None:
        named["cache_position"] = named["cache_position"] + length
    if isinstance(mask, Tensor):
        if mask.ndim != 2:
            raise AdapterError("with a prompt, the attention mask is [texts, tokens]")
        named["attention_mask"] = torch.cat([mask.new_ones(texts, length), mask], dim=1)
        if first and bool((mask[:, :1] == 0).any()):
            raise AdapterError("with a prompt, texts are padded on the right, or not at all")
    types = named.get("token_type_ids")
    if first and types is not None:
        named["token_type_ids"] = torch.cat([types.new_zeros(texts, length), types], dim=1)


def _wants_tuple(reader: Any, named: dict[str, Any]) -> bool:
    asked = named.get("return_dict")
    return not (getattr(reader.config, "return_dict", True) if asked is None else asked)


def _moved(positions: Tensor, length: int, first: bool, mask: Any) -> Tensor:
    """Position ids of a text that go on behind the prompt, which begins where the text would have begun."""
    moved = positions + length
    if not first:
        return moved
    if mask is None and bool((positions.diff(dim=-1) != 1).any()):
        # A decoder would take them for several texts in one row, and the prompt for the first of them.
        raise AdapterError("with a prompt, position ids that do not go up by one need an attention mask")
    front = positions[..., :1] + torch.arange(length, device=positions.device)
    return torch.cat([front, moved], dim=-1)


def _take_off(prompt: Prompt, kept: Kept, reader: Any, arguments: tuple[Any, ...], output: Any) -> Any:
    call: _Call = kept.values.pop(0)
    if call.first:
        output.last_hidden_state = output.last_hidden_state[:, prompt.length :]
        pooler = getattr(reader, "pooler", None)
        if getattr(output, "pooler_output", None) is not None and pooler is not None:
            output.pooler_output = pooler(output.last_hidden_state)
        if getattr(output, "hidden_states", None) is not None:
            output.hidden_states = tuple(
                None if states is None else states[:, prompt.length :] for states in output.hidden_states
            )
    return output.to_tuple() if call.as_tuple else output
