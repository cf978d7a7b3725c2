"""Folders as ``sweeper export`` writes them, without a study: an adapter with drawn weights, and a head."""

from __future__ import annotations

from pathlib import Path

import torch

import adapters
from adapters.config import AdapterConfig
from sweeper.backbone import fingerprint, load_config
from sweeper.export.head import HeadFacts, head_bytes
from sweeper.study import Backbone


def write_export(folder: Path, backbone: Path, config: AdapterConfig, seed: int = 0) -> Path:
    """Write the adapter and the head of an export, and return the folder.

    Args:
        folder: is made; ``backbone``: the directory of a BERT of width 32.
        config: of the adapter, whose weights depend on the seed and change what the backbone computes.
    """
    source = Backbone(backbone.name, None, backbone)
    generator = torch.Generator().manual_seed(seed)
    adapter = adapters.build(config, load_config(source), generator)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=generator)
    facts = HeadFacts(
        kind="classification",
        text=("sentence",),
        label="label",
        label_names=("negative", "positive"),
        pooling="mean",
        max_length=32,
        dtype="float32",
        backbone={
            "model": backbone.name,
            "revision": None,
            "path": str(backbone),
            "fingerprint": fingerprint(source),
        },
        data_fingerprint="of no data",
    )
    folder.mkdir(parents=True, exist_ok=True)
    adapters.save(adapter, folder / "adapter.safetensors")
    tensors = {"weight": torch.zeros(2, adapter.hidden_size), "bias": torch.zeros(2)}
    (folder / "head.safetensors").write_bytes(head_bytes(tensors, facts))
    return folder
