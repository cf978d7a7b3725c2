"""The LoReFT method: a trained edit of the hidden states, within a subspace of low rank.

It follows Wu et al. 2024, "ReFT: Representation Finetuning for Language Models": behind a layer, hidden
states h become `h + R'(W h + b - R h)`, with the rows of R orthonormal. Where it differs: a QR decomposition
in every forward pass makes R orthonormal, with the signs fixed, where theirs is kept so by torch's
parametrization; every token is edited, not chosen first and last ones; W starts equal to R and b at zero, so
that nothing is changed at the start; and dropout acts on the edit, where in their code it acts on all of the
edited states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.bottleneck import dropout_mask, empty_linear


class LoReFT(nn.Module):
    """An edit of hidden states in a subspace.

    Args:
        hidden_size: width of the hidden states.
        rank: dimensions of the subspace, at most the hidden size.
        dropout: share of the edit's units dropped in training mode, the others scaled up.
    """

    def __init__(self, hidden_size: int, rank: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.rotation = nn.Parameter(torch.zeros(rank, hidden_size, dtype=torch.float32))
        self.source = empty_linear(hidden_size, rank)

    def rows(self) -> Tensor:
        """R: orthonormal rows that span those of `rotation`, ``[rank, hidden_size]``, in fp32 or more."""
        rotation = self.rotation.to(torch.promote_types(self.rotation.dtype, torch.float32))
        basis, triangle = torch.linalg.qr(rotation.T)
        signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0).to(basis.dtype)
        return (basis * signs).T

    def change(
        self, hooked: nn.Module, inputs: Tensor, outputs: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """The edited hidden states, ``[..., hidden_size]``, in their dtype."""
        dtype = outputs.dtype
        rows = self.rows()
        # One product of the difference: where W equals R it is zero to the bit.
        difference = self.source.weight.to(rows.dtype) - rows
        units = functional.linear(outputs, difference.to(dtype), self.source.bias.to(dtype))
        if self.dropout > 0 and self.training:
            units = units * dropout_mask(units, self.dropout, generator)
        return outputs + functional.linear(units, rows.T.to(dtype))

    @torch.no_grad()
    def fill(self, generator: torch.Generator) -> None:
        """Draw R orthonormal, set W to it and b to zero."""
        nn.init.orthogonal_(self.rotation, generator=generator)
        self.source.weight.copy_(self.rows())
        self.source.bias.zero_()

    def extra_repr(self) -> str:
        return f"dropout={self.dropout:g}"
