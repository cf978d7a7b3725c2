"""The files by which both sides talk: cases as JSON, tensors as safetensors. Knows neither side's library.

Each side runs this file from its own environment: nothing but torch and safetensors may be imported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def randomise(parameters: Any, seed: int, spread: float = 0.05) -> None:
    """Move every parameter off its initial value, so that nothing is zero and nothing an identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


def pooled(values: torch.Tensor, mask: torch.Tensor, how: str | None) -> torch.Tensor:
    """What a text gets of what its tokens got, ``[texts, tokens, n]``; padding is zeroed where all are "
    "kept."""
    if how is None or how == "tokens":
        return values * mask[..., None]
    if values.ndim == 2:  # the other side has picked a token itself
        return values
    if how == "mean":
        return (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    rows = torch.arange(len(values))
    return values[rows, 0 if how == "cls" else mask.sum(1) - 1]
