"""AdapterHub's side: `adapters` 1.3.0 and its AdapterTrainer, the trials of a file. Runs in .venv-adapterhub.

Follows AdapterHub's own notebook "Training an Adapter for a Transformer Model": AutoAdapterModel, an adapter,
a classification head, AdapterTrainer, evaluate. Two ways to pad:

- ``max_length``: every row is padded to 80 tokens when it is tokenised, as the notebook does;
- ``grouped``: the trainer pads to the longest row of a batch, and groups rows by their length.

The model is loaded once, and each trial's adapter and head are deleted after it. Answers with a line of JSON
for the versions, one for each trial, and one for the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "adapterhub"))

import torch
import transformers
from hubside import be_quiet, read_rows, tokenise, versions

from adapters import AdapterTrainer, AutoAdapterModel, BnConfig

NAME = "trial"


def accuracy(prediction: transformers.EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def training_arguments(
    folder: str, trial: dict, settings: argparse.Namespace
) -> transformers.TrainingArguments:
    """As the trial is trained; what the trial does not say is the library's default."""
    train = trial["train"]
    return transformers.TrainingArguments(
        output_dir=folder,
        num_train_epochs=train["epochs"],
        per_device_train_batch_size=train["batch_size"],
        per_device_eval_batch_size=train["batch_size"],
        learning_rate=train["learning_rate"],
        warmup_ratio=train["warmup"],
        weight_decay=train["weight_decay"],
        max_grad_norm=train["max_grad_norm"],
        lr_scheduler_type=train["schedule"],
        group_by_length=settings.padding == "grouped",
        bf16=settings.dtype == "bfloat16",
        seed=trial["seed"] % 2**31,
        remove_unused_columns=False,
        save_strategy="no",
        use_cpu=settings.device == "cpu",
        dataloader_pin_memory=settings.device != "cpu",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )


def run_trial(model, tokenizer, rows: dict, trial: dict, settings: argparse.Namespace) -> dict:
    """Train and evaluate one trial; what is told of it."""
    torch.manual_seed(trial["seed"] % 2**31)
    model.add_adapter(NAME, config=BnConfig(**trial["hub"]))
    labels = len({int(label) for label in rows["train"]["labels"]})
    model.add_classification_head(NAME, num_labels=labels, layers=1)
    model.train_adapter(NAME)
    with tempfile.TemporaryDirectory() as folder:
        trainer = AdapterTrainer(
            model=model,
            args=training_arguments(folder, trial, settings),
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            processing_class=tokenizer if settings.padding == "grouped" else None,
            compute_metrics=accuracy,
        )
        trainer.train()
        measured = trainer.evaluate()
    parameters = sum(p.numel() for name, p in model.named_parameters() if f".adapters.{NAME}." in name)
    model.delete_adapter(NAME)
    model.delete_head(NAME)
    return {
        "number": trial["number"],
        "accuracy": measured["eval_accuracy"],
        "adapter_parameters": parameters,
    }


def peak_memory_bytes(device: str) -> int:
    """Largest memory so far: allocated on a CUDA device, resident of this process otherwise."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # of this program alone: the other counter includes what it was started from
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="folder with train.tsv and validation.tsv")
    parser.add_argument("--trials", type=Path, required=True)
    parser.add_argument("--padding", choices=["max_length", "grouped"], required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    settings = parser.parse_args()
    be_quiet(settings.threads)
    if settings.device != "cpu":
        torch.cuda.set_device(settings.device)

    folder = str(settings.model)  # files of this machine, not of the hub: there is no revision to pin
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)  # nosec B615
    rows = {
        part: tokenise(
            read_rows(settings.rows / f"{part}.tsv"), tokenizer, settings.padding, settings.max_length
        )
        for part in ("train", "validation")
    }
    model = AutoAdapterModel.from_pretrained(folder, dtype=torch.float32)
    print(json.dumps({"versions": versions()}), flush=True)
    for trial in json.loads(settings.trials.read_text(encoding="utf-8")):
        print(json.dumps(run_trial(model, tokenizer, rows, trial, settings)), flush=True)
    print(json.dumps({"peak_memory_bytes": peak_memory_bytes(settings.device)}), flush=True)


if __name__ == "__main__":
    main()
