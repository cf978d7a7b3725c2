"""The prompt method: trained vectors in front of each text's word embeddings.

It follows Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning": `prompt_length`
vectors, the same for all texts, are put in front of the embedded words, and nothing else of the model is
trained. Positions count them. Where it differs: the vectors are drawn from N(0, 0.02), not from the
vocabulary or from the names of the classes; what the model puts out for them is taken off again, so that the
first hidden state is that of the text's own first token; and a head may be trained beside them, where theirs
writes its answers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from adapters.errors import AdapterError


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


def register_prompt(prompt: Prompt, backbone: Any) -> list[RemovableHandle]:
    """Put a prompt in front of what a backbone is called with, and take it off what it puts out."""
    began: list[bool] = []  # from one hook to the other: whether this call has the prompt in front
    return [
        backbone.register_forward_pre_hook(partial(_put_in_front, prompt, began), with_kwargs=True),
        backbone.register_forward_hook(partial(_take_off, prompt, began)),
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
    prompt: Prompt, began: list[bool], backbone: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if arguments:
        named = {**named, "input_ids": arguments[0]}
        if len(arguments) > 1:
            raise AdapterError("with a prompt, give the backbone its arguments by name")
    named = dict(named)
    cache = named.get("past_key_values")
    first = cache is None or cache.get_seq_length() == 0
    began.append(first)
    words = named.pop("inputs_embeds", None)
    ids = named.pop("input_ids", None)
    words = backbone.get_input_embeddings()(ids) if words is None else words
    texts, length = words.shape[0], prompt.length
    for name in ("position_ids", "cache_position"):
        if first:
            named.pop(name, None)  # counted anew, with the prompt
        elif named.get(name) is not None:
            named[name] = named[name] + length
    mask = named.get("attention_mask")
    if isinstance(mask, Tensor):
        if mask.ndim != 2:
            raise AdapterError("with a prompt, the attention mask is [texts, tokens]")
        named["attention_mask"] = torch.cat([mask.new_ones(texts, length), mask], dim=1)
        if first and bool((mask[:, :1] == 0).any()):
            raise AdapterError("with a prompt, texts are padded on the right, or not at all")
    if first:
        vectors = prompt.vectors.to(words).expand(texts, -1, -1)
        words = torch.cat([vectors, words], dim=1)
        types = named.get("token_type_ids")
        if types is not None:
            named["token_type_ids"] = torch.cat([types.new_zeros(texts, length), types], dim=1)
    return (), {**named, "inputs_embeds": words}


def _take_off(
    prompt: Prompt, began: list[bool], backbone: Any, arguments: tuple[Any, ...], output: Any
) -> Any:
    first = began.pop()
    began.clear()
    if not first:
        return output
    if isinstance(output, tuple):
        return (output[0][:, prompt.length :], *output[1:])
    output.last_hidden_state = output.last_hidden_state[:, prompt.length :]
    pooler = getattr(backbone, "pooler", None)
    if getattr(output, "pooler_output", None) is not None and pooler is not None:
        output.pooler_output = pooler(output.last_hidden_state)
    return output
