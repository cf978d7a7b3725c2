"""The Compacter method: bottlenecks whose projections are sums of Kronecker products of low rank.

It follows Karimi Mahabadi et al. 2021, "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers": a weight
of d inputs and m outputs is the sum over i < n of `A_i ⊗ (s_i t_i)`; the rule A, n matrices of n by n, is
shared by all projections of the adapter, and s_i t_i, of n-th the width and height, has a rank of its own.
The biases are whole, the rule is drawn from N(0, 0.01). Where it differs: as for every bottleneck here,
placement is chosen freely ("houlsby" is theirs) and LayerNorms stay frozen; s is drawn as theirs ("xavier"),
but t as `initialization` says, so that with "zero_up" nothing is changed at the start.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.bottleneck import activation_of, dropout_mask


class Rule(nn.Module):
    """The rule that the projections of one adapter share: ``weight`` is ``[n, n, n]``."""

    def __init__(self, phm_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(phm_dim, phm_dim, phm_dim, dtype=torch.float32))


class PHMLinear(nn.Module):
    """A projection of Kronecker products.

    Args:
        inputs, outputs: widths; multiples of phm_dim.
        phm_dim: n, terms of the sum.
        phm_rank: rank of the larger factor of each term.
    """

    def __init__(self, inputs: int, outputs: int, phm_dim: int, phm_rank: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.zeros(phm_dim, outputs // phm_dim, phm_rank, dtype=torch.float32))
        self.right = nn.Parameter(torch.zeros(phm_dim, phm_rank, inputs // phm_dim, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float32))

    def weight(self, rule: Tensor) -> Tensor:
        """The whole weight, ``[outputs, inputs]``, from a rule ``[n, n, n]``."""
        larger = self.left @ self.right
        terms = torch.einsum("iab,icd->acbd", rule, larger)
        return terms.reshape(self.bias.numel(), -1)

    def forward(self, hidden_states: Tensor, rule: Tensor) -> Tensor:
        """``[..., outputs]``, in the dtype of the hidden states."""
        dtype = hidden_states.dtype
        return functional.linear(hidden_states, self.weight(rule).to(dtype), self.bias.to(dtype))


class Compacter(nn.Module):
    """One module: `scaling * up(activation(down(hidden_states)))`, both projections PHM.

    Args:
        rule: shared with the other modules of the adapter; not registered here.
        hidden_size, bottleneck_dim: widths; multiples of phm_dim.
        phm_dim, phm_rank: see :class:`PHMLinear`.
        activation, scaling, dropout: as of :class:`adapters.bottleneck.Bottleneck`.
    """

    def __init__(
        self,
        rule: Rule,
        hidden_size: int,
        bottleneck_dim: int,
        phm_dim: int,
        phm_rank: int,
        activation: str,
        scaling: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self._rule = (rule,)  # in a tuple, so that it is registered once, with the adapter
        self._function = activation_of(activation)
        self.scaling = scaling
        self.dropout = dropout
        self.down = PHMLinear(hidden_size, bottleneck_dim, phm_dim, phm_rank)
        self.up = PHMLinear(bottleneck_dim, hidden_size, phm_dim, phm_rank)

    def forward(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What to add to the sublayer's output, ``[..., hidden_size]``, in its dtype."""
        rule = self._rule[0].weight
        units = self._function(self.down(hidden_states, rule))
        if self.dropout > 0 and self.training:
            units = units * dropout_mask(units, self.dropout, generator)
        delta: Tensor = self.up(units, rule)
        return delta if self.scaling == 1.0 else delta * self.scaling
