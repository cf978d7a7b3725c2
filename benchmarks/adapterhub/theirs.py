"""AdapterHub's side: `adapters` 1.3.0 and its AdapterTrainer, one epoch a round. Runs in .venv-adapterhub.

Follows AdapterHub's own notebook "Training an Adapter for a Transformer Model": AutoAdapterModel, a `seq_bn`
adapter, a classification head, AdapterTrainer with the defaults of TrainingArguments. Two ways to pad:

- ``longest``: the trainer is given the tokenizer, so that its default collator is DataCollatorWithPadding,
  and a batch is as wide as its longest row;
- ``max_length``: every row is padded to 80 tokens when it is tokenised, as the notebook does.

Reads a way to pad and a number of rows from stdin, a line a round, and answers each with one JSON line: the
seconds from the beginning of the epoch to its end, without the trainer's own preparation, by the clock and of
processor time.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import datasets
import torch
import transformers

import adapters
from adapters import AdapterTrainer, AutoAdapterModel, SeqBnConfig

NOTEBOOK_LENGTH = 80


class EpochClock(transformers.TrainerCallback):
    """Seconds from the beginning of an epoch to its end: batches, steps and optimizer, nothing else."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.seconds = time.perf_counter() - self.start
        self.cpu_seconds = time.process_time() - self.cpu_start


def read_rows(path: Path) -> datasets.Dataset:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = sorted({row["label"] for row in rows})
    return datasets.Dataset.from_dict(
        {"sentence": [row["sentence"] for row in rows], "labels": [names.index(row["label"]) for row in rows]}
    )


def tokenise(rows: datasets.Dataset, tokenizer, padding: str, max_length: int) -> datasets.Dataset:
    options = {"padding": "max_length", "max_length": NOTEBOOK_LENGTH} if padding == "max_length" else {}
    options = {"truncation": True, "max_length": max_length} | options
    encoded = rows.map(lambda batch: tokenizer(batch["sentence"], **options), batched=True)
    encoded.set_format("torch", columns=["input_ids", "attention_mask", "labels"])
    return encoded


def build_model(folder: Path, bottleneck_dim: int):
    model = AutoAdapterModel.from_pretrained(str(folder), dtype=torch.float32)
    reduction_factor = model.config.hidden_size / bottleneck_dim
    model.add_adapter("sst2", config=SeqBnConfig(reduction_factor=reduction_factor, non_linearity="relu"))
    model.add_classification_head("sst2", num_labels=2, layers=1)
    model.train_adapter("sst2")
    return model


def one_round(
    model, rows: datasets.Dataset, tokenizer, padding: str, settings: argparse.Namespace
) -> EpochClock:
    """Train one epoch; the clock that was held beside it."""
    clock = EpochClock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=1e-3,
            remove_unused_columns=False,
            save_strategy="no",
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        AdapterTrainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer if padding == "longest" else None,
            callbacks=[clock],
        ).train()
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--bottleneck-dim", type=int, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()

    rows = read_rows(settings.data)
    folder = str(settings.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)  # nosec B615
    ways = {p: tokenise(rows, tokenizer, p, settings.max_length) for p in ("longest", "max_length")}
    model = build_model(settings.model, settings.bottleneck_dim)
    parameters = sum(p.numel() for name, p in model.named_parameters() if ".adapters." in name)
    versions = {m.__name__: m.__version__ for m in (adapters, transformers, torch)}
    print(json.dumps({"adapter_parameters": parameters, "versions": versions}), flush=True)
    for line in sys.stdin:
        padding, count = line.split()
        clock = one_round(model, ways[padding].select(range(int(count))), tokenizer, padding, settings)
        print(json.dumps({"seconds": clock.seconds, "cpu_seconds": clock.cpu_seconds}), flush=True)


if __name__ == "__main__":
    main()
