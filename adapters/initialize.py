"""Named initializations of a module's two projections. Biases start at zero under every name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adapters.config import INITIALIZATIONS
from adapters.errors import AdapterError, one_of
from adapters.ladder import Ladder, Rung

Fill = Callable[[Tensor, torch.Generator], object]


def _normal(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.normal_(weight, std=0.02, generator=generator)


def _truncated_normal(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.trunc_normal_(weight, std=0.01, a=-0.02, b=0.02, generator=generator)


def _kaiming(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


def _xavier(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.xavier_uniform_(weight, generator=generator)


def _orthogonal(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.orthogonal_(weight, generator=generator)


def _zero(weight: Tensor, generator: torch.Generator) -> None:
    nn.init.zeros_(weight)


# (down, up) of each name.
_FILLS: dict[str, tuple[Fill, Fill]] = {
    "zero_up": (_kaiming, _zero),
    "normal": (_normal, _normal),
    "truncated_normal": (_truncated_normal, _truncated_normal),
    "kaiming": (_kaiming, _kaiming),
    "xavier": (_xavier, _xavier),
    "orthogonal": (_orthogonal, _orthogonal),
}


@torch.no_grad()
def initialize(name: str, down: nn.Linear, up: nn.Linear, generator: torch.Generator) -> None:
    """Fill both projections in place: down's weight is drawn first, then up's, then biases become zero.

    - "zero_up": down as "kaiming", up zero: the module adds exactly nothing at the start (Hu et al. 2021).
    - "normal": N(0, 0.02), BERT's own.
    - "truncated_normal": N(0, 0.01) cut at two standard deviations (Houlsby et al. 2019).
    - "kaiming": uniform, as `nn.Linear` starts (a = sqrt 5); "xavier": uniform.
    - "orthogonal": orthonormal rows of down, orthonormal columns of up.

    Args:
        name: one of `INITIALIZATIONS`.
        down: weight [bottleneck_dim, hidden_size].
        up: weight [hidden_size, bottleneck_dim].
        generator: on the device of the weights; the global generator is not touched.

    Raises:
        AdapterError: an unknown name.
    """
    fill_down, fill_up = fills_of(name)
    fill_down(down.weight, generator)
    fill_up(up.weight, generator)
    nn.init.zeros_(down.bias)
    nn.init.zeros_(up.bias)


@torch.no_grad()
def initialize_ladder(name: str, ladder: Ladder, generator: torch.Generator) -> None:
    """Fill a ladder in place, rung by rung from the bottom up, and `up` at the end.

    `down` and `mix` are drawn as the down of :func:`initialize`, `up` as its up. Biases become zero, and so
    do the gates: half of the side, half of the backbone.

    Args:
        name, generator: as for :func:`initialize`.

    Raises:
        AdapterError: an unknown name.
    """
    fill_down, fill_up = fills_of(name)
    for rung in ladder.rungs.values():
        assert isinstance(rung, Rung)
        for linear in (rung.down, rung.mix):
            fill_down(linear.weight, generator)
            nn.init.zeros_(linear.bias)
    fill_up(ladder.up.weight, generator)
    nn.init.zeros_(ladder.up.bias)
    nn.init.zeros_(ladder.gates)


def fills_of(name: str) -> tuple[Fill, Fill]:
    """(down, up) of a name; AdapterError if it is unknown."""
    if name not in _FILLS:
        raise AdapterError(
            f"unknown initialization {name!r}; {one_of(name, INITIALIZATIONS)}", "initialization"
        )
    return _FILLS[name]
