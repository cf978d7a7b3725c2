"""PEFT's side: loads what was exported, and makes adapters of its own. Runs in .venv-interop.

    python peft_side.py FOLDER

Reads ``cases.json`` there and writes ``out.safetensors``, ``made.json`` and ``made.safetensors``.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import torch
import transformers
from files import randomise, read_json, read_tensors, write_json, write_tensors
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

_MADE = {
    "LoRA, query and value": peft.LoraConfig(r=6, lora_alpha=9, target_modules=["query", "value"]),
    "LoRA, all linears": peft.LoraConfig(r=4, target_modules=r".*encoder.*(query|key|value|dense)"),
    "LoRA, rank-stabilised": peft.LoraConfig(r=5, target_modules=["key"], use_rslora=True),
    "LoRA, layers 1 and 3": peft.LoraConfig(
        r=5, target_modules=["query"], layers_to_transform=[1, 3], layers_pattern="layer"
    ),
    "DoRA": peft.LoraConfig(r=6, target_modules=["query", "intermediate.dense"], use_dora=True),
    "IA3": peft.IA3Config(
        target_modules=r".*(key|value|\d\.output\.dense)", feedforward_modules=r".*\d\.output\.dense"
    ),
    "prompt": peft.PromptTuningConfig(num_virtual_tokens=9, token_dim=None),
    "prefix": peft.PrefixTuningConfig(num_virtual_tokens=9),
    "prefix, with its network": peft.PrefixTuningConfig(
        num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=24
    ),
}
_PREFIX = ("roberta", "electra", "gpt2", "gpt_neox", "llama", "qwen2", "qwen3", "phi3")
_SEQUENCE = {
    "real": ["query"], "roberta": ["query"], "electra": ["query"], "distilbert": ["q_lin"],
    "mpnet": ["attn.q"], "gpt2": ["c_attn"], "llama": ["q_proj"], "qwen3": ["q_proj"],
}  # fmt: skip


def logits(model, tokens):
    with torch.no_grad():
        found = model(**tokens)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def load_one(case, tokens):
    """One exported adapter, loaded and used; every weight of the file has to be one of the model's."""
    kind = AutoModelForTokenClassification if case["head"] else AutoModel
    arguments = {"num_labels": 3} if case["head"] else {}
    base = kind.from_pretrained(case["model"], dtype=torch.float32, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a missing or an unexpected weight
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        model = peft.PeftModel.from_pretrained(base, case["folder"]).eval()
    given = dict(tokens[case["tokens"]])
    if case["count_from"] is not None:
        positions = torch.arange(given["input_ids"].shape[1]) + case["count_from"]
        given["position_ids"] = positions.expand_as(given["input_ids"])
    return logits(model, given)[:, case["prompt"] :]


def make_one(folder: Path, config, kind, task: str, model_folder: str, tokens, seed: int):
    """An adapter of theirs with weights of its own, saved, and what it computes."""
    base = kind.from_pretrained(
        model_folder, dtype=torch.float32, **({} if kind is AutoModel else {"num_labels": 3})
    )
    config.task_type = task
    model = peft.get_peft_model(base, config)
    randomise([p for p in model.parameters() if p.requires_grad], seed)
    model.eval().save_pretrained(str(folder))
    prompt = config.num_virtual_tokens if isinstance(config, peft.PromptTuningConfig) else 0
    return logits(model, tokens)[:, prompt:] if prompt else logits(model, tokens)


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    work = Path(sys.argv[1])
    cases, flat = read_json(work / "cases.json"), read_tensors(work / "tokens.safetensors")
    tokens = {}
    for key, value in flat.items():
        kind, name = key.split("/")
        tokens.setdefault(kind, {})[name] = value
    write_tensors(work / "out.safetensors", {case["name"]: load_one(case, tokens) for case in cases["cases"]})
    made, results = [], {}
    for number, (row, config) in enumerate(_MADE.items()):
        folder = work / f"made-{number}"
        given = (config, AutoModelForTokenClassification, "TOKEN_CLS", cases["model"], tokens["real"], number)
        results[folder.name] = make_one(folder, *given)
        made.append({"row": row, "folder": folder.name, "model": "real"})
    for number, (family, targets) in enumerate(_SEQUENCE.items()):
        folder = work / f"made-sequence-{number}"
        saved = ["pre_classifier", "classifier"] if family == "distilbert" else None
        config = peft.LoraConfig(r=3, target_modules=targets, modules_to_save=saved)
        where, text = (cases["model"], "real") if family == "real" else (cases["families"][family], "tiny")
        given = (config, AutoModelForSequenceClassification, "SEQ_CLS", where, tokens[text], number)
        results[folder.name] = make_one(folder, *given)
        row = "head for sequences" if family == "real" else f"head for sequences, {family}"
        made.append({"row": row, "folder": folder.name, "model": family})
    for number, family in enumerate(_PREFIX):
        folder, config = work / f"made-prefix-{number}", peft.PrefixTuningConfig(num_virtual_tokens=6)
        where = cases["families"][family]
        given = (config, AutoModelForTokenClassification, "TOKEN_CLS", where, tokens["tiny"], number)
        results[folder.name] = make_one(folder, *given)
        made.append({"row": f"prefix, {family}", "folder": folder.name, "model": family})
    write_json(work / "made.json", made)
    write_tensors(work / "made.safetensors", results)
    write_json(
        work / "versions.json",
        {module.__name__: module.__version__ for module in (peft, transformers, torch)},
    )


if __name__ == "__main__":
    main()
