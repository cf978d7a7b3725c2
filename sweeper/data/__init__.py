"""Tables to tokens: tokenised once a study, cached by a fingerprint of everything that decides the tokens."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.data.enough import check_evaluations
from sweeper.data.split import Split
from sweeper.data.tables import Table, Tables, read_tables
from sweeper.data.tokens import tokenise
from sweeper.errors import UsageError
from sweeper.tasks import task_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sweeper.study import Study

__all__ = ["Split", "Table", "Tables", "TaskData", "prepare", "read_tables", "tokenise"]

FORMAT = 1
"""Counted up when the same tables would give other tokens or another layout of the cache."""


@dataclass(frozen=True)
class TaskData:
    """The data of a study, ready to train on.

    Args:
        label_names: by their numbers; None where there are none, as for a regression.
        fingerprint: 64 hex digits that change with any text, label, order, tokenizer or maximal length.
        report: for each split by name: ``rows``, ``label_counts`` (by name; {} without names),
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
        return _tokenise_tables(study, tables, tokenizer)

    splits, report = cached(Path(cache_dir) / "tokens", identity, build)
    for split in splits.values():
        _check_vocabulary(split, config.vocab_size, study)
    check_evaluations(study, len(splits["train"]))
    return TaskData(
        splits["train"], splits["validation"], splits.get("test"), tables.label_names, identity, report
    )


def _tokenise_tables(
    study: Study, tables: Tables, tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, Split], dict[str, Any]]:
    """Every split's tokens, and the report on them."""
    max_length = study.train.max_length
    splits: dict[str, Split] = {}
    kind, names = task_of(study.task.kind), tables.label_names
    keys = ("rows", "digest", "label_counts", "truncated", "mean_length", "max_length_seen")
    report: dict[str, Any] = {key: {} for key in keys}
    for name, table in tables.named():
        made = kind.tokenise(table.texts, table.labels, names, tokenizer, max_length, table.fault)
        splits[name] = made.split
        counts = Counter(label for labels in table.labels for label in kind.names_in(labels))
        report["rows"][name] = len(table)
        report["digest"][name] = _digest_of([table])
        report["label_counts"][name] = {label: counts[label] for label in names or ()}
        report["truncated"][name] = made.truncated
        report["mean_length"][name] = len(made.split.input_ids) / len(made.split)
        report["max_length_seen"][name] = max(made.full_lengths)
        for fact, value in made.facts.items():
            report.setdefault(fact, {})[name] = value
    report["duplicates_of_train"] = dict(tables.duplicates)
    return splits, report


def _check_shortest(study: Study, tokenizer: PreTrainedTokenizerBase) -> None:
    pair = len(study.task.text) == 2
    least = tokenizer.num_special_tokens_to_add(pair=pair) + len(study.task.text)
    if study.task.pooling == "next":
        least = 2  # specials are tokens like any other there
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
    if task_of(study.task.kind).language_head:
        about["begin"] = tokenizer.bos_token_id
    return _digest_of([table for _, table in tables.named()], json.dumps(about, sort_keys=True).encode())


def _digest_of(tables: Sequence[Table], start: bytes = b"") -> str:
    """A digest of texts and labels, behind some bytes."""
    digest = hashlib.sha256(start)
    for table in tables:
        for row in zip(*table.texts, table.labels, strict=True):
            # JSON's quotes keep neighbouring fields apart; its newline, neighbouring rows.
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        # Where its files lie, and whether the hub was asked for them, decides nothing.
        told = sorted(
            (key, str(value))
            for key, value in tokenizer.init_kwargs.items()
            if not key.endswith(("_file", "_path")) and key not in ("is_local", "local_files_only")
        )
        about = [tokenizer.truncation_side, tokenizer.model_input_names, told]
        return json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), about])
    content = json.loads(backend.to_str())
    # These follow whoever called the tokenizer last.
    content.pop("truncation", None)
    content.pop("padding", None)
    return json.dumps([content, tokenizer.truncation_side, tokenizer.model_input_names], sort_keys=True)
