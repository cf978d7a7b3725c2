"""The fuse method: attention over what several frozen adapters add, at each of their sites.

It follows Pfeiffer et al. 2021, "AdapterFusion: Non-Destructive Task Composition for Transfer Learning": at
a site whose adapters add z_1 … z_n to hidden states h, `softmax_n((Q h)·(K z_n))` weighs them, and what is
added is `V` times their weighted sum. The query is what the site reads: the sublayer's output, or of a
parallel site the sublayer's input. V starts as the identity, Q and K at N(0, 0.02), scores are not scaled,
as in their code. Where it differs: K has no bias, which no softmax over the adapters would see; V starts as
the identity to the bit and is not drawn to it by a penalty; the temperature is a number that stays; and a
site that only one of the adapters has gets V alone. `V Σ a z` and `(Kᵀ Q h)·z` are computed in this order, so
that the products cost the same for any number of adapters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.bottleneck import dropout_mask, empty_linear
from adapters.frozen import Frozen
from adapters.lowrank import empty_matrix


class Fuse(nn.Module):
    """The fusion at one site.

    Args:
        hidden_size: d, width of the hidden states.
        frozen: the adapters' modules at this site, at least one.
        value_matrix: "trained" or "none".
        temperature: scores are divided by it.
        dropout: share of the attention weights dropped in training mode, the others scaled up.
    """

    def __init__(
        self,
        hidden_size: int,
        frozen: Frozen,
        value_matrix: str = "trained",
        temperature: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.dropout = dropout
        self.frozen = frozen
        several = len(frozen) > 1
        self.query = empty_linear(hidden_size, hidden_size) if several else None
        self.key = empty_matrix(hidden_size, hidden_size) if several else None
        self.value = empty_matrix(hidden_size, hidden_size) if value_matrix == "trained" else None

    def forward(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What to add to the sublayer's output, ``[..., d]``, in the dtype of `hidden_states`.

        Args:
            hidden_states: [..., d], any floating dtype.
            generator: draws the dropout mask; needed in training mode with dropout above 0.

        Raises:
            AdapterError: dropout without a generator.
        """
        deltas = torch.stack([module(hidden_states) for module in self.frozen.values()])
        if self.query is None:
            mixed = deltas[0]
        else:
            attention = self.attention(hidden_states, deltas)
            if self.dropout > 0 and self.training:
                attention = attention * dropout_mask(attention, self.dropout, generator)
            mixed = (attention.unsqueeze(-1) * deltas).sum(dim=0)
        if self.value is None:
            return mixed
        # V begins at the identity, and changes by less than bf16 tells from 1: what it changes is added.
        weight = self.value.weight
        change = weight - torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        return mixed + functional.linear(mixed, change.to(mixed.dtype))

    def attention(self, hidden_states: Tensor, deltas: Tensor) -> Tensor:
        """How much of each adapter's ``[n, ..., d]`` is taken at each token: ``[n, ...]``, 1 in sum."""
        assert self.query is not None and self.key is not None
        dtype = hidden_states.dtype
        query = functional.linear(hidden_states, self.query.weight.to(dtype), self.query.bias.to(dtype))
        asked = query @ self.key.weight.to(dtype)
        scores = (deltas * asked).sum(dim=-1) / self.temperature
        wide = torch.promote_types(dtype, torch.float32)
        return torch.softmax(scores, dim=0, dtype=wide).to(dtype)

    @torch.no_grad()
    def fill(self, generator: torch.Generator) -> None:
        """Draw Q and K from N(0, 0.02), and set V to the identity."""
        if self.query is not None and self.key is not None:
            nn.init.normal_(self.query.weight, std=0.02, generator=generator)
            nn.init.zeros_(self.query.bias)
            nn.init.normal_(self.key.weight, std=0.02, generator=generator)
        if self.value is not None:
            nn.init.eye_(self.value.weight)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}, dropout={self.dropout:g}"


def fuse_shapes(hidden_size: int, several: bool, value_matrix: str) -> dict[str, list[int]]:
    """The shape of each trained tensor of a fusion at one site.

    Args:
        several: whether more than one adapter is fused there.
    """
    square = [hidden_size, hidden_size]
    found = {"query.weight": square, "query.bias": [hidden_size], "key.weight": square} if several else {}
    return {**found, "value.weight": square} if value_matrix == "trained" else found
