"""Words to tokens: which token is each word's first, and which words a maximal length leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.data.tokens import TEXTS_AT_ONCE, flat_row, flat_split
from sweeper.errors import UsageError
from sweeper.tasks.kind import IGNORED, Fault, Tokens
from sweeper.words import short

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans = Sequence[tuple[int, int]]


def tokenise_words(
    rows: Sequence[Sequence[str]],
    labels: Sequence[Sequence[int]] | None,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    fault: Fault,
) -> Tokens:
    """The tokens of texts that are given as words; the label of a word is that of its first token.

    The words are joined by spaces and tokenised as any text is. What lies beyond ``max_length`` is cut, and
    the words whose first token is gone are counted.

    Args:
        labels: a number for each word; None if they are not known.

    Raises:
        UsageError: the tokenizer makes no token of a word, or the maximal length leaves no word of a text; or
            it cannot tell where in a text its tokens are.
    """
    if not tokenizer.is_fast:
        raise UsageError(
            "the backbone's tokenizer does not say where in a text its tokens are, which labels of words "
            "need: take a backbone with a fast tokenizer (tokenizer.json)"
        )
    ids: list[list[int]] = []
    by_token: list[list[int]] = []
    full_lengths: list[int] = []
    kept: list[range] = []
    for start in range(0, len(rows), TEXTS_AT_ONCE):
        chunk = rows[start : start + TEXTS_AT_ONCE]
        made = _encode(tokenizer, chunk, None)
        for row, (words, (row_ids, spans)) in enumerate(zip(chunk, made, strict=True), start=start):
            firsts = first_tokens(words, spans)
            if None in firsts:
                word = firsts.index(None)
                raise fault(row, f"the tokenizer makes no token of word {word + 1}, {short(words[word])}")
            full_lengths.append(len(row_ids))
            if len(row_ids) > max_length:
                whole = [spans[first] for first in firsts if first is not None]
                ((row_ids, spans),) = _encode(tokenizer, [words], max_length)
                # Where the beginning is cut off, a later token of a word is not its first one.
                firsts = [
                    first if first is not None and spans[first] == span else None
                    for first, span in zip(first_tokens(words, spans), whole, strict=True)
                ]
            there = [word for word, first in enumerate(firsts) if first is not None]
            if not there:
                raise fault(row, f"of this text, cut to {max_length} tokens, no word's first token is left")
            kept.append(range(there[0], there[-1] + 1))
            ids.append(row_ids)
            own = [IGNORED] * len(row_ids)
            for word in there:
                own[firsts[word]] = 0 if labels is None else labels[row][word]  # type: ignore[index]
            by_token.append(own)
    words_of = [len(words) for words in rows]
    read = sum(len(own) for own in kept)
    return Tokens(
        flat_split(ids, [], flat_row(by_token)),
        full_lengths,
        sum(length > max_length for length in full_lengths),
        {"words": read, "words_cut": sum(words_of) - read},
        [1] * len(ids),
        words_of,
        kept,
    )


def first_tokens(words: Sequence[str], spans: Spans) -> list[int | None]:
    """The first token of each word, words being joined by spaces; None for one of which there is no token.

    Args:
        spans: where each token begins and ends in the text; special tokens are empty.
    """
    found: list[int | None] = []
    token = begin = 0
    for word in words:
        end = begin + len(word)
        # Before the word there may be a token for the space alone; a token may hold the space as well.
        while token < len(spans) and (spans[token][1] <= begin or spans[token][0] == spans[token][1]):
            token += 1
        if token < len(spans) and spans[token][0] < end:
            found.append(token)
            token += 1
        else:
            found.append(None)
        begin = end + 1
    return found


def _encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[str]], max_length: int | None
) -> list[tuple[list[int], Spans]]:
    options: dict[str, Any] = {"truncation": False}
    if max_length is not None:
        options = {"truncation": True, "max_length": max_length}
    made = tokenizer(
        [" ".join(words) for words in rows],
        padding=False,
        return_attention_mask=False,
        return_offsets_mapping=True,
        verbose=False,
        **options,
    )
    return list(zip(made["input_ids"], made["offset_mapping"], strict=True))
