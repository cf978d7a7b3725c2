"""AdapterHub's side of `benchmarks.inference`: a backbone, bare and adapted. Runs in .venv-adapterhub.

Reads a placement and a batch size from stdin, a line a round, and answers each with one JSON line: what a
batch takes bare and with the adapter. Bare is the model as transformers loads it, in this process.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from hubside import be_quiet, read_rows, versions
from turns import turns

import adapters

CONFIGS = {
    "houlsby": (adapters.DoubleSeqBnConfig, {"non_linearity": "relu"}),
    "pfeiffer": (adapters.SeqBnConfig, {"non_linearity": "relu", "original_ln_before": False}),
    "pfeiffer_original": (adapters.SeqBnConfig, {"non_linearity": "relu"}),
    "parallel": (adapters.ParBnConfig, {"non_linearity": "relu"}),
}


def load(folder: str):
    """The backbone without its pooling layer, as transformers loads it."""
    return transformers.AutoModel.from_pretrained(  # nosec B615
        folder, dtype=torch.float32, add_pooling_layer=False
    ).eval()


def with_adapter(folder: str, placement: str, bottleneck_dim: int):
    """The backbone with an active adapter of this size."""
    model = load(folder)
    adapters.init(model)
    kind, options = CONFIGS[placement]
    # Half a unit more: the library cuts off what comes after the point of hidden_size / reduction_factor.
    factor = model.config.hidden_size / (bottleneck_dim + 0.5)
    model.add_adapter("one", config=kind(reduction_factor=factor, **options))
    model.set_active_adapters("one")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--placements", nargs="+", required=True)
    parser.add_argument("--bottleneck-dim", type=int, required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    settings = parser.parse_args()
    be_quiet(settings.threads)
    bare = load(settings.model)
    models = {
        name: with_adapter(settings.model, name, settings.bottleneck_dim) for name in settings.placements
    }
    sizes = {
        name: sum(p.numel() for key, p in model.named_parameters() if ".adapters." in key)
        for name, model in models.items()
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings.model)  # nosec B615
    texts = list(read_rows(settings.data)["sentence"])
    print(json.dumps({"versions": versions(), "adapter_parameters": sizes}), flush=True)
    for line in sys.stdin:
        placement, batch_size = line.split()
        found = turns(bare, models[placement], tokenizer, texts, int(batch_size), settings.max_length)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
