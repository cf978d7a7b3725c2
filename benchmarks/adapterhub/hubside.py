"""What AdapterHub's sides share: rows, their tokens, and a quiet library. Runs in .venv-adapterhub."""

from __future__ import annotations

import csv
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import datasets
import torch
import transformers

import adapters

NOTEBOOK_LENGTH = 80
"""Tokens that AdapterHub's own notebook pads every row to."""


def be_quiet(threads: int) -> None:
    """No bars and no advice on the terminal, and no more threads than this."""
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def versions() -> dict[str, str]:
    """The versions of what this side runs on."""
    return {module.__name__: module.__version__ for module in (adapters, transformers, torch)}


def read_rows(path: Path) -> datasets.Dataset:
    """The sentences of a TSV file and the numbers of their labels, counted in alphabetical order."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = sorted({row["label"] for row in rows})
    return datasets.Dataset.from_dict(
        {"sentence": [row["sentence"] for row in rows], "labels": [names.index(row["label"]) for row in rows]}
    )


def tokenise(rows: datasets.Dataset, tokenizer, padding: str, max_length: int) -> datasets.Dataset:
    """Tokens of each row, padded as the notebook does under ``max_length``, else left as long as they are."""
    options = {"padding": "max_length", "max_length": NOTEBOOK_LENGTH} if padding == "max_length" else {}
    options = {"truncation": True, "max_length": max_length} | options
    encoded = rows.map(lambda batch: tokenizer(batch["sentence"], **options), batched=True)
    encoded.set_format("torch", columns=["input_ids", "attention_mask", "labels"])
    return encoded
