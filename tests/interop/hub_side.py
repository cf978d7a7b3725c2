"""AdapterHub's side: loads what was exported, and makes adapters of its own. Runs in .venv-adapterhub.

    python hub_side.py FOLDER

Reads ``cases.json`` there; writes ``out.safetensors``, ``made.json``, ``made.safetensors``, ``sizes.json``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from files import randomise, read_json, read_tensors, write_json, write_tensors
from safetensors.torch import save_file

import adapters
from adapters import AutoAdapterModel, ConfigUnion
from adapters import DoubleSeqBnConfig as Double
from adapters import LoRAConfig as LoRA
from adapters import ParBnConfig as Par
from adapters import PrefixTuningConfig as Prefix
from adapters import SeqBnConfig as Seq

_MADE = {
    "seq_bn (Pfeiffer)": Seq(),
    "double_seq_bn (Houlsby)": Double(),
    "par_bn (He)": Par(),
    "seq_bn, gelu_new": Seq(non_linearity="gelu_new", reduction_factor=7),
    "seq_bn, leave_out": Seq(leave_out=[0, 5]),
    "double_seq_bn, channel scaling": Double(scaling="channel"),
    "union of mh and parallel": ConfigUnion(
        Double(mh_adapter=True, output_adapter=False, reduction_factor=16),
        Par(scaling=1.0, non_linearity="swish", init_weights="bert", reduction_factor=16),
    ),
    "LoRA, as it comes": LoRA(),
    "LoRA, all": LoRA(attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True, r=5, alpha=11),
    "prefix, flat": Prefix(flat=True, prefix_length=7),
    "prefix, with its network": Prefix(prefix_length=7, bottleneck_size=20),
}
_HEADS = {
    "head of two layers, as it comes": {},
    "head of one layer": {"layers": 1},
    "head on the pooler": {"layers": 1, "use_pooler": True},
    "head of three layers, relu": {"layers": 3, "activation_function": "relu"},
}


def logits(model, tokens, head: bool):
    with torch.no_grad():
        found = model(**tokens)
    return found.logits if head else found.last_hidden_state


def load_one(case, tokens):
    """One exported adapter, loaded and used; every weight of the file has to be one of the model's."""
    model = AutoAdapterModel.from_pretrained(case["model"], dtype=torch.float32).eval()
    info = {}
    name = model.load_adapter(case["folder"], use_safetensors=True, set_active=True, loading_info=info)
    # A prefix is one parameter that every layer names once more: one of its names is enough.
    missing = [key for key in info.get("missing_keys", []) if "prefix_tuning" not in key]
    if missing or info.get("unexpected_keys"):
        raise SystemExit(f"error: {case['folder']}: {info}")
    assert model.active_head == name
    return logits(model.eval(), tokens[case["tokens"]], True)


def make_one(folder: Path, config, head: dict, model_folder: str, tokens, seed: int):
    """An adapter of theirs with weights of its own, saved as safetensors, and what it computes."""
    model = AutoAdapterModel.from_pretrained(model_folder, dtype=torch.float32)
    model.add_adapter("made", config=config)
    if head.pop("tagging", False):
        model.add_tagging_head("made", num_labels=3)
    else:
        model.add_classification_head("made", num_labels=3, **head)
    model.set_active_adapters("made")
    randomise([p for name, p in model.named_parameters() if "made" in name], seed)
    model.eval()
    try:
        model.save_adapter(str(folder), "made", use_safetensors=True)
    except RuntimeError:  # they cannot save a prefix so: it is named many times, once a layer
        model.save_adapter(str(folder), "made")
        state = {key: value.clone() for key, value in model.state_dict().items() if ".made." in key}
        heads = {key: state.pop(key) for key in list(state) if key.startswith("heads.")}
        for weights, old, new in ((state, "adapter", "adapter"), (heads, "model_head", "model_head")):
            (folder / f"pytorch_{old}.bin").unlink()
            save_file(weights, folder / f"{new}.safetensors")
    return logits(model, tokens, True)


def sizes(factors: dict[str, float], model_folder: str) -> dict[str, int]:
    """The bottleneck dimension that their code makes of each reduction factor."""
    found = {}
    for dim, factor in factors.items():
        model = _bare(model_folder)
        model.add_adapter("sized", config=Seq(reduction_factor=factor, leave_out=[1, 2, 3, 4, 5]))
        found[dim] = model.base_model.encoder.layer[0].output.adapters["sized"].down_sample
        model.delete_adapter("sized")
    return found


_models: dict = {}


def _bare(folder: str):
    return _models.setdefault(folder, AutoAdapterModel.from_pretrained(folder, dtype=torch.float32))


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    work = Path(sys.argv[1])
    cases, flat = read_json(work / "cases.json"), read_tensors(work / "tokens.safetensors")
    tokens = {}
    for key, value in flat.items():
        kind, name = key.split("/")
        tokens.setdefault(kind, {})[name] = value
    out = {case["name"]: load_one(case, tokens) for case in cases["cases"]}
    write_tensors(work / "out.safetensors", out)
    made, results = [], {}
    kinds = [(row, config, {"layers": 1}) for row, config in _MADE.items()]
    kinds += [(row, Seq(), dict(head)) for row, head in _HEADS.items()] + [
        ("tagging head", Seq(), {"tagging": True})
    ]
    for number, (row, config, head) in enumerate(kinds):
        folder = work / f"made-{number}"
        results[folder.name] = make_one(folder, config, head, cases["model"], tokens["real"], number)
        made.append({"row": row, "folder": folder.name, "model": "real"})
    for number, (family, path) in enumerate(cases["families"].items()):
        folder = work / f"made-family-{number}"
        config = Double(reduction_factor=4)
        results[folder.name] = make_one(folder, config, {"tagging": True}, path, tokens["tiny"], number)
        made.append({"row": f"family {family}", "folder": folder.name, "model": family})
    write_json(work / "made.json", made)
    write_tensors(work / "made.safetensors", results)
    write_json(work / "sizes.json", sizes(cases["factors"], cases["model"]))
    versions = {module.__name__: module.__version__ for module in (adapters, transformers, torch)}
    write_json(work / "versions.json", versions)


if __name__ == "__main__":
    main()
