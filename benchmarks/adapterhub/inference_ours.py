"""This project's side of `benchmarks.inference`: a backbone bare and with one adapter. Runs in .venv.

Reads a placement and a batch size from stdin, a line a round, and answers each with one JSON line: what a
batch takes bare and with the adapter.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

import sweeper
from adapters import AdapterConfig
from adapters.insert import insert
from benchmarks.adapterhub.turns import turns
from benchmarks.material import read_rows

SCALING = {"parallel": 4.0}
"""Of AdapterHub's presets; 1 elsewhere."""


def load(folder: str) -> Any:
    """The backbone without its pooling layer, as transformers loads it."""
    return AutoModel.from_pretrained(  # nosec B615
        folder, dtype=torch.float32, add_pooling_layer=False
    ).eval()


def with_adapter(folder: str, placement: str, bottleneck_dim: int) -> Any:
    """The backbone with an active adapter of this size."""
    model = load(folder)
    config = AdapterConfig(
        bottleneck_dim=bottleneck_dim, placement=placement, scaling=SCALING.get(placement, 1.0)
    )
    insert(model, config, generator=torch.Generator().manual_seed(0)).eval()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--placements", nargs="+", required=True)
    parser.add_argument("--bottleneck-dim", type=int, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bare = load(settings.model)
    models = {
        name: with_adapter(settings.model, name, settings.bottleneck_dim) for name in settings.placements
    }
    sizes = {
        name: sum(p.numel() for key, p in model.named_parameters() if "sweeper_adapters" in key)
        for name, model in models.items()
    }
    tokenizer = AutoTokenizer.from_pretrained(settings.model)  # nosec B615
    header, rows = read_rows(settings.data)
    texts = [row[header.index("sentence")] for row in rows]
    found = {name: version(name) for name in ("transformers", "torch")}
    about = {"adapter-sweeper": sweeper.__version__, **found}
    print(json.dumps({"versions": about, "adapter_parameters": sizes}), flush=True)
    for line in sys.stdin:
        placement, batch_size = line.split()
        taken = turns(bare, models[placement], tokenizer, texts, int(batch_size), settings.max_length)
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
