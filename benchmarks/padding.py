"""Which share of the tokens that a packed step computes is real, at several K with independent orders.

Counted where it happens: in real training steps, every frozen linear and every attention call is watched, and
the rows and pairs of tokens that it is given are added up. Beside it, what padding would compute: each slot's
batch to its own longest text, and all slots of a step to the longest text among them. The backbone is tiny:
what is real does not depend on its width.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import BertConfig, BertModel

from adapters.config import AdapterConfig
from adapters.pack import Pack
from benchmarks.common import machine, parse, parser, spread, table
from benchmarks.material import Material, draw_rows, prepare_material, write_study
from benchmarks.steps import Steps, endless_jobs

LAYERS, WIDTH = 2, 32


class Watch(TorchFunctionMode):
    """Counts what frozen linears and attention compute while it is on.

    Attributes:
        rows: tokens that went through a frozen linear, one product after the other.
        pairs: pairs of tokens that attention compared, of one head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linears = 0
        self.rows = 0
        self.attention_calls = 0
        self.pairs = 0

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        if function is functional.linear and not arguments[1].requires_grad:
            self.linears += 1
            self.rows += arguments[0].shape[:-1].numel()
        elif function is functional.scaled_dot_product_attention:
            query, key = arguments[:2]
            self.attention_calls += 1
            self.pairs += query.shape[0] * query.shape[-2] * key.shape[-2]
        return function(*arguments, **(options or {}))


@dataclass(frozen=True)
class Shares:
    """Real tokens in a hundred computed: in linears, in pairs of attention, and with two ways of padding."""

    linears: float
    attention: float
    padded_slots: float
    padded_steps: float
    groups: float


def backbone(vocabulary: int, positions: int) -> BertModel:
    """A small model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=vocabulary, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2,
            intermediate_size=2 * WIDTH, max_position_embeddings=positions,
        )  # fmt: skip
        return BertModel(config, add_pooling_layer=False)


def measure(
    material: Material, model: BertModel, slots: int, steps: int, batch_size: int, seed: int
) -> Shares:
    """Train some steps under watch."""
    jobs = endless_jobs(AdapterConfig(bottleneck_dim=2), slots, batch_size, 1000 * seed)
    under_way = Steps(Pack(model, slots=slots), material, jobs)
    with Watch() as watch:
        under_way.run(steps)
    under_way.clear()
    return shares(under_way.seen, watch)


def shares(seen: list[list[Tensor]], watch: Watch) -> Shares:
    """What was watched against the lengths of the texts: ``seen[step][slot]``."""
    tokens = sum(int(part.sum()) for step in seen for part in step)
    pairs = sum(int(part.square().sum()) for step in seen for part in step)
    slot_wise = sum(int(part.max()) * len(part) for step in seen for part in step)
    step_wise = sum(max(int(p.max()) for p in step) * sum(len(p) for p in step) for step in seen)
    # Six linears a layer, and every step passes through each of them once.
    return Shares(
        100 * tokens * 6 * LAYERS / watch.rows,
        100 * pairs * LAYERS / watch.pairs,
        100 * tokens / slot_wise,
        100 * tokens / step_wise,
        watch.attention_calls / LAYERS / len(seen),
    )


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=3, rows=1024, validation_rows=64)
    made.add_argument("--slots", type=int, nargs="+", default=[1, 8, 32], metavar="K")
    made.add_argument("--steps", type=int, default=8, help="steps a round (default: 8)")
    made.add_argument("--batch-size", type=int, default=32)
    settings = parse(made)
    print(machine(settings))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_rows(settings, folder)
        material = prepare_material(write_study(folder, settings), settings.device, folder)
        model = backbone(int(material.data.train.input_ids.max()) + 1, settings.max_length).to(
            settings.device
        )
        rounds: dict[int, list[Shares]] = {slots: [] for slots in settings.slots}
        for number in range(settings.rounds):
            for slots, done in rounds.items():
                seed = settings.seed + number
                done.append(measure(material, model, slots, settings.steps, settings.batch_size, seed))
    print(report(rounds, settings))


def report(rounds: dict[int, list[Shares]], settings: argparse.Namespace) -> str:
    """A line for each K."""
    header = ["K", "linears", "pairs of attention", "padded slot by slot", "padded to the longest of a step"]
    header += ["calls of attention a layer and step"]
    rows = [
        [
            str(slots),
            spread([one.linears for one in done], 1),
            spread([one.attention for one in done], 1),
            spread([one.padded_slots for one in done], 1),
            spread([one.padded_steps for one in done], 1),
            spread([one.groups for one in done], 1),
        ]
        for slots, done in rounds.items()
    ]
    return (
        f"real tokens in a hundred computed; batches of {settings.batch_size} with orders of their own, "
        f"{settings.steps} steps a round, {settings.rounds} rounds: median (range)\n{table(header, rows)}"
    )


if __name__ == "__main__":
    main()
