"""Adapters to AdapterHub and PEFT and back, on real text: the largest difference in what they compute.

`make interop` makes the environments and runs this. Each side is a process of its own, since AdapterHub's
package has the name of ours; what goes between them are folders of safetensors and JSON. Weights are random,
so that no module is an identity. Ends with 1 if a difference is above the bound.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

import adapters
from adapters.interop.adapterhub_bottleneck import reduction_factor
from adapters.interop.folders import load_head, write_folder
from adapters.interop.heads import Head
from tests.interop.cases import HIDDEN, REAL, Case, hub_cases, peft_cases
from tests.interop.files import pooled, randomise, read_json, read_tensors, write_json, write_tensors
from tests.tiny_models import VOCABULARY, tiny_model

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
QUICKSTART = ROOT / "studies" / "quickstart"
BOUND = 1e-5
LABELS = 3
Rows = dict[str, list[float]]


class Side:
    """One format, its cases, and the process that has its library."""

    def __init__(self, format: str, python: str, script: str, cases: list[Case], work: Path) -> None:
        self.format, self.python, self.script, self.cases = format, python, script, cases
        self.work = work / format
        self.work.mkdir()
        self.models: dict[str, Any] = {}

    def model(self, name: str) -> Any:
        """A backbone, and a folder that both sides load it from."""
        if name not in self.models:
            folder = QUICKSTART / "backbone" if name == REAL else self.work / f"model-{name}"
            if name != REAL:
                tiny_model(name).save_pretrained(folder)
            self.models[name] = AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), folder
        return self.models[name]


def texts(work: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tokens of films' reviews for the real backbone, and random ones for the tiny ones."""
    with (QUICKSTART / "films.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "backbone")
    real = tokenizer(rows[:12], padding=True, truncation=True, max_length=48, return_tensors="pt")
    tiny = torch.randint(3, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tiny)
    mask[1, 6:], mask[3, 4:] = 0, 0
    tiny = tiny * mask  # causal models look for the padding token, 0, behind the last one
    found = {
        "real": {name: real[name] for name in ("input_ids", "attention_mask")},
        "tiny": {"input_ids": tiny, "attention_mask": mask},
    }
    write_tensors(work, {f"{k}/{name}": value for k, own in found.items() for name, value in own.items()})
    return found


def compute(model: Any, adapter: Any, head: Head | None, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """What this library computes, once it is known that the adapter changes it."""
    bare = _computed(model, head, tokens)
    adapters.attach(model, adapter)
    try:
        found = _computed(model, head, tokens)
    finally:
        adapters.remove(model)
    if not (found - bare).abs().max() > 100 * BOUND:
        raise SystemExit(f"error: {adapter.config} changes nothing: it cannot be compared")
    return found


def _computed(model: Any, head: Head | None, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    mask = tokens["attention_mask"]
    with torch.no_grad():
        output = model(**tokens)
    found = output.last_hidden_state if head is None else head.logits(output, mask)
    return found * mask[..., None] if found.ndim == 3 else found


def export(side: Side, tokens: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Write every case for the other side, and what it computes here."""
    listed, ours = [], {}
    for number, case in enumerate(side.cases):
        model, where = side.model(case.model)
        adapter = adapters.build(case.config, model.config, torch.Generator().manual_seed(number)).eval()
        randomise(adapter.parameters(), number)
        generator = torch.Generator().manual_seed(number)
        width = model.config.hidden_size
        layer = (
            torch.randn(LABELS, width, generator=generator) / width**0.5,
            torch.randn(LABELS, generator=generator),
        )
        head = None if case.pooling is None else Head((layer,), case.pooling, ("a", "b", "c"))
        name, text = f"case-{number}", "real" if case.model == REAL else "tiny"
        write_folder(side.work / name, adapter, side.format, head=head, backbone=model)
        ours[name] = compute(model, adapter, head, tokens[text])
        config = case.config
        listed.append({"name": name, "folder": str(side.work / name), "model": str(where), "tokens": text,
                       "head": head is not None, "count_from": _count_from(config, model),
                       "prompt": config.prompt_length or 0})  # fmt: skip
        back = adapters.load(side.work / name, backbone=model)
        state = back.state_dict()
        if config.learned_scaling != "channel" and not all(
            torch.allclose(state[key], value, atol=1e-6) for key, value in adapter.state_dict().items()
        ):
            raise SystemExit(f"error: {case.row}: what was written is not what is read")
    return listed, ours


def _count_from(config: adapters.AdapterConfig, model: Any) -> int | None:
    """The position at which a text has to begin there; None where the model counts by itself."""
    learned = adapters.architectures.architecture_of(model).position_table is not None
    return -config.prefix_length if config.positions == "from_start" and learned else None


def compare_out(side: Side, ours: dict[str, torch.Tensor], tokens: dict[str, Any], rows: Rows) -> None:
    """Exported here, loaded there."""
    theirs = read_tensors(side.work / "out.safetensors")
    for number, case in enumerate(side.cases):
        name = f"case-{number}"
        mask = tokens["real" if case.model == REAL else "tiny"]["attention_mask"]
        found = pooled(theirs[name], mask, case.pooling)
        difference = (found - ours[name]).abs().max().item()
        rows.setdefault(f"{side.format}|out|{case.row}", []).append(difference)


def compare_in(side: Side, tokens: dict[str, Any], rows: Rows) -> None:
    """Made there, loaded here."""
    theirs = read_tensors(side.work / "made.safetensors")
    for made in read_json(side.work / "made.json"):
        name = REAL if made["model"] == "real" else made["model"]
        own = tokens["real" if name == REAL else "tiny"]
        model, _ = side.model(name)
        adapter = adapters.load(side.work / made["folder"], backbone=model)
        head = load_head(side.work / made["folder"], backbone=model)
        assert head is not None
        found = theirs[made["folder"]]
        if found.ndim == 3:
            found = found * own["attention_mask"][..., None]
        difference = (compute(model, adapter, head, own) - found).abs().max().item()
        rows.setdefault(f"{side.format}|in|{made['row']}", []).append(difference)


def run(side: Side, tokens: dict[str, Any]) -> Rows:
    """Everything of one format."""
    rows: Rows = {}
    listed, ours = export(side, tokens)
    families = sorted({case.model for case in side.cases} - {REAL})
    write_json(side.work / "cases.json", {
        "cases": listed, "model": str(QUICKSTART / "backbone"),
        "families": {family: str(side.model(family)[1]) for family in families},
        "factors": {str(dim): reduction_factor(HIDDEN, dim) for dim in range(1, HIDDEN + 1)},
    })  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [side.python, str(HERE / side.script), str(side.work)]
    done = subprocess.run(
        command, cwd=side.work, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"error: {side.script} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}"
        )
    compare_out(side, ours, tokens, rows)
    compare_in(side, tokens, rows)
    if (side.work / "sizes.json").is_file():
        wrong = {dim: made for dim, made in read_json(side.work / "sizes.json").items() if int(dim) != made}
        rows[f"{side.format}|out|bottleneck_dim 1 to {HIDDEN}, in its configuration"] = [
            float(len(wrong))
        ] * HIDDEN
    return rows


def report(rows: Rows) -> int:
    """Print the table; how many rows are above the bound."""
    names = {"adapterhub": "AdapterHub", "peft": "PEFT", "out": "from here", "in": "from there"}
    print("| format | way | what | cases | largest difference |\n|---|---|---|---|---|")
    for key, values in rows.items():
        format, way, row = key.split("|")
        print(f"| {names[format]} | {names[way]} | {row} | {len(values)} | {max(values):.1e} |")
    above = sum(not max(values) <= BOUND for values in rows.values())
    largest, cases = max(max(values) for values in rows.values()), sum(map(len, rows.values()))
    print(
        f"\n{len(rows)} rows, {cases} cases: the largest difference is {largest:.1e}, the bound {BOUND:.0e}"
    )
    return above


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--hub", default=".venv-adapterhub/bin/python", help="Python with AdapterHub's adapters"
    )
    parser.add_argument("--peft", default=".venv-interop/bin/python", help="Python with PEFT")
    parser.add_argument("--only", choices=("adapterhub", "peft"))
    parser.add_argument("--keep", type=Path, help="a new folder that keeps what went over")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="interop-")) if settings.keep is None else settings.keep
    work.mkdir(exist_ok=True)
    try:
        rows: Rows = {}
        sides = (("adapterhub", settings.hub, "hub_side.py", hub_cases),
                 ("peft", settings.peft, "peft_side.py", peft_cases))  # fmt: skip
        for format, python, script, cases in sides:
            if settings.only in (None, format):
                side = Side(format, str(Path(python).absolute()), script, cases(), work)
                tokens = texts(side.work / "tokens.safetensors")
                rows |= run(side, tokens)
                print(f"{format}: {read_json(side.work / 'versions.json')}", file=sys.stderr)
    finally:
        if settings.keep is None:
            shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if report(rows) else 0)


if __name__ == "__main__":
    main()
