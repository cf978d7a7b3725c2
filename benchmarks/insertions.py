"""Adapters put into a backbone and taken out again, in turn: what is left in memory, and what of the outputs.

Every method and placement takes its turn, with weights that change the outputs, on real texts. Between
insertion and removal the backbone runs once. Memory is what this process keeps resident, after the first few
have made what is made once.
"""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import psutil
import torch

from adapters import AdapterConfig
from adapters.insert import insert, remove
from benchmarks.common import machine, megabytes, parse, parser
from benchmarks.material import draw_rows, read_rows

WARM_UP = 20
CONFIGS = (
    *(
        AdapterConfig(bottleneck_dim=24, placement=placement)
        for placement in ("houlsby", "pfeiffer", "parallel", "pfeiffer_original")
    ),
    AdapterConfig(method="lora"),
    AdapterConfig(method="dora"),
    AdapterConfig(method="ia3"),
    AdapterConfig(method="compacter", bottleneck_dim=24),
    AdapterConfig(method="loreft"),
    AdapterConfig(method="prefix", prefix_length=10),
    AdapterConfig(method="prompt", prompt_length=10),
    AdapterConfig(method="mam", bottleneck_dim=24, prefix_length=10),
    AdapterConfig(method="bitfit"),
    AdapterConfig(method="ladder", bottleneck_dim=24),
)


def one_turn(model: Any, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
    """Put an adapter in, run the backbone, take it out; how far apart the outputs of the tokens were."""
    generator = torch.Generator().manual_seed(number)
    adapter = insert(model, CONFIGS[number % len(CONFIGS)], f"turn-{number}", generator=generator)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        changed = model(**batch).last_hidden_state
    remove(model, f"turn-{number}")
    return changed


def live_tensors() -> int:
    """How many tensors this process holds."""
    gc.collect()
    return sum(1 for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))


def hooks(model: torch.nn.Module) -> int:
    """How many hooks are on the modules of a model."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def main() -> None:
    """Measure and print."""
    from transformers import AutoModel, AutoTokenizer

    made = parser(__doc__, rounds=1, rows=8, validation_rows=2)
    made.add_argument("--insertions", type=int, default=100, help="adapters in turn (default: 100)")
    settings = parse(made)
    if settings.shapes:
        made.error("measured with weights of a folder")
    print(machine(settings))
    with tempfile.TemporaryDirectory() as name:
        draw_rows(settings, Path(name))
        header, rows = read_rows(Path(name) / "train.tsv")
    texts = [row[header.index("sentence")] for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(str(settings.model))  # nosec B615
    options = {"padding": True, "truncation": True, "max_length": settings.max_length, "return_tensors": "pt"}
    batch = dict(tokenizer(texts, **options).to(settings.device))
    model = AutoModel.from_pretrained(str(settings.model)).eval().to(settings.device)  # nosec B615
    process = psutil.Process()
    with torch.no_grad():
        before = model(**batch).last_hidden_state
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for number in range(WARM_UP):
        one_turn(model, batch, number)
    tensors, resident = live_tensors(), process.memory_info().rss
    smallest = float("inf")
    for number in range(settings.insertions):
        changed = one_turn(model, batch, number)
        if changed.shape == before.shape:
            smallest = min(smallest, (changed - before).abs().max().item())
    del changed
    left, grown = live_tensors(), process.memory_info().rss
    with torch.no_grad():
        after = model(**batch).last_hidden_state
    same = all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    print(
        f"{settings.insertions} adapters of {len(CONFIGS)} kinds in turn, on {len(texts)} texts\n"
        f"outputs with an adapter: at least {smallest:.2g} away from those of the backbone alone\n"
        f"outputs after the last one: largest difference {(after - before).abs().max().item():g}\n"
        f"the backbone's weights: {'the same bits' if same else 'CHANGED'}; {hooks(model)} hooks left\n"
        f"tensors alive: {tensors} before, {left} after\n"
        f"resident memory: {megabytes(resident)} before, {megabytes(grown)} after"
    )


if __name__ == "__main__":
    main()
