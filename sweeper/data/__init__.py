"""Tables to tokens: tokenised once a study, cached by a fingerprint of everything that decides the tokens."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.data.tables import Table, Tables, read_tables
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from adapters.depth import Depth, States
    from sweeper.study import Study

__all__ = ["Split", "Table", "Tables", "TaskData", "prepare", "read_tables", "tokenise"]

FORMAT = 1
"""Counted up when the same tables would give other tokens or another layout of the cache."""
TEXTS_AT_ONCE = 1000


@dataclass(frozen=True)
class Split:
    """The tokens of a split, one text after the other.

    Args:
        input_ids: int32 ``[tokens]``.
        token_type_ids: int32 ``[tokens]`` for pairs that the tokenizer tells apart, else None.
        offsets: int64 ``[texts + 1]``: text i is ``offsets[i]:offsets[i + 1]``, never empty.
        labels: int64 class numbers or float32 values, ``[texts]``.
        frozen: what the backbone makes of the tokens up to some depths, ``[tokens, hidden_size]`` each, where
            that was computed before (see ``sweeper.cache``).
    """

    input_ids: Tensor
    token_type_ids: Tensor | None
    offsets: Tensor
    labels: Tensor
    frozen: Mapping[Depth, States] = field(default_factory=dict, repr=False)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text, int64 ``[texts]``."""
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class TaskData:
    """The data of a study, ready to train on.

    Args:
        label_names: of a classification, by class number; None for a regression.
        fingerprint: 64 hex digits that change with any text, label, order, tokenizer or maximal length.
        report: for each split by name: ``rows``, ``label_counts`` (by name; {} for a regression),
            ``truncated`` (texts), ``mean_length`` (tokens, as trained on) and ``max_length_seen`` (tokens,
            before any was cut); and ``duplicates_of_train`` for the other splits.
    """

    train: Split
    validation: Split
    test: Split | None
    label_names: tuple[str, ...] | None
    fingerprint: str
    report: dict[str, dict[str, Any]]


def prepare(
    study: Study, tables: Tables, tokenizer: PreTrainedTokenizerBase, cache_dir: str | Path
) -> TaskData:
    """Tokenise the tables, or load what was tokenised before from ``cache_dir/tokens/FINGERPRINT``.

    Raises:
        UsageError: the study file asks for more than the backbone has positions for, for pooling that it
            cannot do, or for too short texts; a text gives no token; the tokenizer is not the backbone's.
    """
    from sweeper.backbone import load_config
    from sweeper.data.tokencache import cached
    from sweeper.task import check_task

    config = load_config(study.backbone)
    check_task(study, config)
    _check_shortest(study, tokenizer)
    identity = _fingerprint(study, tables, tokenizer)

    def build() -> tuple[dict[str, Split], dict[str, Any]]:
        return _tokenise_tables(study, tables, tokenizer, config.vocab_size)

    splits, report = cached(Path(cache_dir) / "tokens", identity, build)
    return TaskData(
        splits["train"], splits["validation"], splits.get("test"), tables.label_names, identity, report
    )


def tokenise(
    texts: Sequence[Sequence[str]],
    labels: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    fault: Callable[[int, str], UsageError] | None = None,
) -> tuple[Split, list[int]]:
    """The tokens of texts, each cut to ``max_length`` tokens (of a pair, the longer text is cut first).

    Args:
        texts: one column of texts, or two of equal length.
        labels: ``[texts]``; passed through.
        fault: makes the error about a row, counted from 0; None for one that names its number alone.

    Returns:
        The tokens, and how many each text had before it was cut.

    Raises:
        UsageError: the tokenizer makes no token of a text.
    """
    import numpy as np
    import torch

    ids: list[list[int]] = []
    types: list[list[int]] = []
    full_lengths: list[int] = []
    for start in range(0, len(texts[0]), TEXTS_AT_ONCE):
        chunk = [list(column[start : start + TEXTS_AT_ONCE]) for column in texts]
        made = _encode(tokenizer, chunk, None)
        full_lengths += [len(row) for row in made["input_ids"]]
        if 0 in full_lengths[start:]:
            empty = full_lengths.index(0, start)
            raise (fault or _row_fault)(empty, "the tokenizer makes no token of this text")
        long = [place for place, row in enumerate(made["input_ids"]) if len(row) > max_length]
        if long:
            cut = _encode(tokenizer, [[column[place] for place in long] for column in chunk], max_length)
            for key, rows in cut.items():
                for place, row in zip(long, rows, strict=True):
                    made[key][place] = row
        ids += made["input_ids"]
        types += made.get("token_type_ids", [])

    def flat(rows: Iterable[Iterable[int]]) -> Tensor:
        return torch.from_numpy(np.fromiter(chain.from_iterable(rows), dtype=np.int32))

    offsets = torch.zeros(len(ids) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor([len(row) for row in ids], dtype=torch.int64).cumsum(0)
    return Split(flat(ids), flat(types) if types and len(texts) == 2 else None, offsets, labels), full_lengths


def _row_fault(row: int, message: str) -> UsageError:
    return UsageError(f"row {row + 1}: {message}")


def _encode(
    tokenizer: PreTrainedTokenizerBase, columns: list[list[str]], max_length: int | None
) -> dict[str, list[list[int]]]:
    """What the tokenizer makes of a chunk; its own settings of cutting and padding do not count."""
    options: dict[str, Any] = {"truncation": False}
    if max_length is not None:
        options = {"truncation": True, "max_length": max_length}
    made = tokenizer(*columns, padding=False, return_attention_mask=False, verbose=False, **options)
    return {key: made[key] for key in ("input_ids", "token_type_ids") if key in made}


def _tokenise_tables(
    study: Study, tables: Tables, tokenizer: PreTrainedTokenizerBase, vocab_size: int
) -> tuple[dict[str, Split], dict[str, Any]]:
    """Every split's tokens, and the report on them."""
    max_length = study.train.max_length
    splits: dict[str, Split] = {}
    keys = ("rows", "label_counts", "truncated", "mean_length", "max_length_seen")
    report: dict[str, Any] = {key: {} for key in keys}
    for name, table in tables.named():
        split, full_lengths = tokenise(
            table.texts, _labels(tables, table), tokenizer, max_length, table.fault
        )
        _check_vocabulary(split, vocab_size, study)
        splits[name] = split
        counts = Counter(table.labels) if tables.label_names else Counter()
        report["rows"][name] = len(split)
        report["label_counts"][name] = {label: counts[label] for label in tables.label_names or ()}
        report["truncated"][name] = sum(length > max_length for length in full_lengths)
        report["mean_length"][name] = len(split.input_ids) / len(split)
        report["max_length_seen"][name] = max(full_lengths)
    report["duplicates_of_train"] = dict(tables.duplicates)
    return splits, report


def _labels(tables: Tables, table: Table) -> Tensor:
    import torch

    if tables.label_names is None:
        return torch.tensor(table.labels, dtype=torch.float32)
    numbers = {name: number for number, name in enumerate(tables.label_names)}
    return torch.tensor([numbers[str(label)] for label in table.labels], dtype=torch.int64)


def _check_shortest(study: Study, tokenizer: PreTrainedTokenizerBase) -> None:
    pair = len(study.task.text) == 2
    least = tokenizer.num_special_tokens_to_add(pair=pair) + len(study.task.text)
    if study.train.max_length < least:
        raise UsageError(
            f"train.max_length is {study.train.max_length}, but the special tokens and one token of each "
            f"text need {least}",
            file=study.path,
            line=study.line("train", "max_length"),
        )


def _check_vocabulary(split: Split, vocab_size: int, study: Study) -> None:
    if int(split.input_ids.max()) >= vocab_size:
        raise UsageError(
            f"the tokenizer gives the id {int(split.input_ids.max())}, but the backbone's vocabulary has "
            f"{vocab_size}: they do not belong together",
            file=study.backbone.path or study.path,
        )


def _fingerprint(study: Study, tables: Tables, tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of everything that decides the tokens and labels."""
    about = {
        "format": FORMAT,
        "kind": study.task.kind,
        "max_length": study.train.max_length,
        "label_names": tables.label_names,
        "splits": [[name, len(table)] for name, table in tables.named()],
        "tokenizer": _tokenizer_identity(tokenizer),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for _, table in tables.named():
        for row in zip(*table.texts, table.labels, strict=True):
            # JSON's quotes keep neighbouring fields apart; its newline, neighbouring rows.
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    content = json.loads(backend.to_str())
    # These follow whoever called the tokenizer last.
    content.pop("truncation", None)
    content.pop("padding", None)
    return json.dumps([content, tokenizer.truncation_side, tokenizer.model_input_names], sort_keys=True)
