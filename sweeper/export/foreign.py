"""``sweeper export --format``: a finished adapter and its head in the files of AdapterHub or PEFT.

What is computed there is what is computed here (docs/interop.md); what they cannot express is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import SweeperError, UsageError

if TYPE_CHECKING:
    from adapters import Adapter
    from adapters.interop.heads import Head
    from sweeper.ledger import StudyRow
    from sweeper.study import Study

FORMATS = ("sweeper", "adapterhub", "peft")
FILES: Mapping[str, Mapping[str, str]] = {
    "adapterhub": {
        "README.md": "this card",
        "adapter_config.json": "what the adapter is, in AdapterHub's words",
        "adapter.safetensors": "its weights",
        "head_config.json": "what its head is",
        "model_head.safetensors": "the head's weights",
        "metrics.json": "the trial, its configuration and results as data, with the digests of the files",
    },
    "peft": {
        "README.md": "this card",
        "adapter_config.json": "what the adapter is, in PEFT's words",
        "adapter_model.safetensors": "its weights, and those of its head",
        "metrics.json": "the trial, its configuration and results as data, with the digests of the files",
    },
}
_NAME = "default"


def foreign_files(
    format: str, row: StudyRow, study: Study, trial: str, weights: Mapping[str, Path]
) -> dict[str, bytes]:
    """The files of an adapter and its head, by their names, as another library loads them.

    Args:
        format: one of `FILES`.
        row, study: the study.
        trial: its name, for messages.
        weights: ``adapter.safetensors`` and ``head.safetensors``, checked already.

    Raises:
        UsageError: the format cannot express the adapter or its head; the message says why.
        UnreachableError: the backbone is needed, and is on a hub that cannot be reached.
    """
    import adapters
    from adapters.interop.folders import files_of

    if study.task.kind == "causal_lm":
        raise UsageError(
            f"{trial} cannot be exported with --format {format}: a language model has no head of its own, "
            "and these files hold an adapter with a trained head. Export it without --format"
        )
    try:
        adapter = adapters.load(weights["adapter.safetensors"])
        return files_of(
            adapter,
            format,
            head=_head(weights["head.safetensors"], row, study),
            backbone=_backbone(adapter, format, study, row.dtype),
            name=_NAME,
            backbone_name=str(study.backbone.path or study.backbone.model),
        )
    except adapters.AdapterError as error:
        raise UsageError(f"{trial} cannot be exported with --format {format}: {error}") from error


def foreign_card(format: str, facts: Mapping[str, Any], folder: Path) -> str:
    """The card of such an export, in Markdown.

    Args:
        format: one of `FILES`.
        facts: what ``metrics.json`` holds.
        folder: where the files will be.
    """
    trial, backbone, adapter = facts["trial"], facts["backbone"], facts["configuration"]["adapter"]
    metric = facts["objective"]["metric"]
    return "\n".join(
        [
            f"# trial-{trial['number']:04d} of the study {facts['study']}, for {_TITLES[format]}",
            "",
            f"A {adapter['method']} adapter and its head for the frozen backbone {backbone['model']}"
            + ("" if backbone["revision"] is None else f" at revision {backbone['revision']}")
            + f": {metric} {trial['objective']!r} on the validation rows of the study.",
            "",
            "```python",
            *_code(format, facts, folder),
            "```",
            "",
            *_notes(format, facts),
            "",
            "| file | what it holds |",
            "|---|---|",
            *(f"| {name} | {what} |" for name, what in FILES[format].items()),
            "",
        ]
    )


_TITLES = {"adapterhub": "AdapterHub's adapters", "peft": "PEFT"}


def _head(path: Path, row: StudyRow, study: Study) -> Head:
    from safetensors.torch import load_file

    from adapters.interop.heads import Head

    tensors = load_file(path)
    if set(tensors) != {"weight", "bias"}:
        raise SweeperError("holds no linear head, so that it cannot go to another library", path)
    labels = None if row.label_names is None else tuple(row.label_names)
    return Head(((tensors["weight"], tensors["bias"]),), _pooling(study), labels)


def _pooling(study: Study) -> str:
    return "tokens" if study.task.kind == "token_classification" else study.task.pooling


def _backbone(adapter: Adapter, format: str, study: Study, dtype: str) -> Any:
    """The backbone, as far as the format needs it."""
    from sweeper.backbone import load_backbone, load_config

    if format == "peft" and adapter.config.method == "dora":
        return load_backbone(study.backbone, dtype, "cpu")
    return load_config(study.backbone) if format == "peft" else None


def _code(format: str, facts: Mapping[str, Any], folder: Path) -> list[str]:
    revision = facts["backbone"]["revision"]
    model = facts["backbone"]["path"] or facts["backbone"]["model"]
    at = repr(model) if revision is None else f"{model!r}, revision={revision!r}"
    dtype = f"dtype={facts['configuration']['train']['dtype']!r}"  # what it was trained on computes the same
    if format == "adapterhub":
        return [
            "from adapters import AutoAdapterModel  # AdapterHub's package",
            f"model = AutoAdapterModel.from_pretrained({at}, {dtype})",
            f"model.load_adapter({str(folder)!r}, use_safetensors=True, set_active=True)",
        ]
    outputs = len(facts["task"]["label_names"] or [None])
    return [
        "from peft import PeftModel",
        "from transformers import AutoModelForTokenClassification",
        f"model = AutoModelForTokenClassification.from_pretrained({at}, {dtype}, num_labels={outputs})",
        f"model = PeftModel.from_pretrained(model, {str(folder)!r}).eval()",
    ]


_READ = {
    "cls": "the first token",
    "last": "the last token that is no padding",
    "mean": "all tokens that are no padding, averaged",
}


def _notes(format: str, facts: Mapping[str, Any]) -> list[str]:
    """What one has to know to get the same numbers."""
    adapter, pooling = facts["configuration"]["adapter"], facts["task"].get("pooling")
    notes = []
    if facts["task"]["kind"] != "token_classification" and (format == "peft" or pooling != "cls"):
        notes.append(f"The head puts out logits for each token: those of a text are of {_READ[pooling]}.")
    if format == "peft" and adapter["method"] == "prompt":
        length = adapter["prompt_length"]
        notes.append(f"The first {length} of them are of the prompt, and are left out.")
    if format == "peft" and adapter["method"] == "prefix" and adapter["positions"] == "from_start":
        length = adapter["prefix_length"]
        notes.append(
            "PEFT counts positions behind the prefix. Where they are rotary, its keys were turned as far, "
            "and nothing is left to do. Where they are learned (BERT, GPT-2, OPT, …), call the model with "
            f"position_ids from -{length} (torch.arange(tokens) - {length}), so that those of the text begin "
            "at 0."
        )
    return notes
