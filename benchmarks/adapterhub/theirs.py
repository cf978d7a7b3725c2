"""AdapterHub's side: `adapters` 1.3.0 and its AdapterTrainer, one epoch a round. Runs in .venv-adapterhub.

Follows AdapterHub's own notebook "Training an Adapter for a Transformer Model": AutoAdapterModel, a `seq_bn`
adapter (without a second LayerNorm), a classification head, AdapterTrainer with the defaults of
TrainingArguments. Two ways to pad:

- ``longest``: the trainer is given the tokenizer, so that its default collator is DataCollatorWithPadding,
  and a batch is as wide as its longest row;
- ``max_length``: every row is padded to 80 tokens when it is tokenised, as the notebook does.

Reads a way to pad and a number of rows from stdin, a line a round, and answers each with one JSON line: the
seconds from the beginning of the epoch to its end, without the trainer's own preparation, by the clock and of
processor time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import datasets
import torch
import transformers
from hubside import be_quiet, read_rows, tokenise, versions

from adapters import AdapterTrainer, AutoAdapterModel, SeqBnConfig


class EpochClock(transformers.TrainerCallback):
    """Seconds from the beginning of an epoch to its end: batches, steps and optimizer, nothing else."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.seconds = time.perf_counter() - self.start
        self.cpu_seconds = time.process_time() - self.cpu_start


def build_model(folder: Path, bottleneck_dim: int):
    model = AutoAdapterModel.from_pretrained(str(folder), dtype=torch.float32)
    reduction_factor = model.config.hidden_size / bottleneck_dim
    # Without the second LayerNorm of its default, in front of the adapter: both sides train the same module.
    config = SeqBnConfig(reduction_factor=reduction_factor, non_linearity="relu", original_ln_before=False)
    model.add_adapter("sst2", config=config)
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
    be_quiet(settings.threads)

    rows = read_rows(settings.data)
    folder = str(settings.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)  # nosec B615
    ways = {p: tokenise(rows, tokenizer, p, settings.max_length) for p in ("longest", "max_length")}
    model = build_model(settings.model, settings.bottleneck_dim)
    parameters = sum(p.numel() for name, p in model.named_parameters() if ".adapters." in name)
    print(json.dumps({"adapter_parameters": parameters, "versions": versions()}), flush=True)
    for line in sys.stdin:
        padding, count = line.split()
        clock = one_round(model, ways[padding].select(range(int(count))), tokenizer, padding, settings)
        print(json.dumps({"seconds": clock.seconds, "cpu_seconds": clock.cpu_seconds}), flush=True)


if __name__ == "__main__":
    main()
