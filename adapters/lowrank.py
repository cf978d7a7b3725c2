"""LoRA and DoRA: a trained change of low rank to a frozen linear.

LoRA follows Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models": the output of a linear gets
`alpha / rank * up(down(input))`, without biases; `down` starts as `nn.Linear` does and `up` at zero, so that
nothing is changed at the start. Dropout acts on the input of `down`, as in their code. Where it differs: a
family that computes query, key and value in one linear gets one change for all three, where their code has
one for each.

DoRA follows Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation": the changed weight is scaled to a
trained length for each output. As in their code, the length of the changed weight is a constant to the
gradient. Where it differs: what is trained of the length is its difference to the frozen weight's own, which
starts at zero; its gradients are the same, and no weight of the backbone is needed to build it. And dropout
acts on the input of `down` alone, where theirs acts on what the frozen weight is scaled for as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from adapters.bottleneck import dropout_mask


def empty_matrix(outputs: int, inputs: int) -> nn.Linear:
    """A linear layer without bias in fp32 on the CPU, all zero."""
    # Built on meta first: `nn.Linear` would otherwise draw its weights from the global generator.
    linear = nn.Linear(inputs, outputs, bias=False, device="meta", dtype=torch.float32)
    linear = linear.to_empty(device="cpu")
    with torch.no_grad():
        linear.weight.zero_()
    return linear


def weight_of(linear: nn.Module) -> Tensor:
    """The weight of a linear, ``[outputs, inputs]``; GPT-2's `Conv1D` keeps it the other way round."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(linear, Conv1D) else weight


class LoRA(nn.Module):
    """A change of low rank to the output of a linear.

    Args:
        inputs, outputs: widths of the linear.
        rank: units in between.
        alpha: the change is multiplied by alpha / rank.
        dropout: share of the inputs dropped in training mode, the others scaled up.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.scaling = alpha / rank
        self.dropout = dropout
        self.down = empty_matrix(rank, inputs)
        self.up = empty_matrix(outputs, rank)

    def change(
        self, hooked: nn.Module, inputs: Tensor, outputs: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """The output of a linear with the change, ``[..., outputs]``, in its dtype."""
        return outputs + self.low_rank(inputs, generator).to(outputs.dtype)

    def low_rank(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """What the low-rank change makes of an input, scaled."""
        dtype = inputs.dtype
        if self.dropout > 0 and self.training:
            inputs = inputs * dropout_mask(inputs, self.dropout, generator)
        units = functional.linear(inputs, self.down.weight.to(dtype))
        return functional.linear(units, self.up.weight.to(dtype)) * self.scaling

    def delta_weight(self, hooked: nn.Module) -> Tensor:
        """What to add to the weight in place of the hook, ``[outputs, inputs]``, in fp32 or more."""
        dtype = torch.promote_types(self.up.weight.dtype, torch.float32)
        with torch.autocast(self.up.weight.device.type, enabled=False):
            return self.scaling * (self.up.weight.to(dtype) @ self.down.weight.to(dtype))

    def extra_repr(self) -> str:
        return f"scaling={self.scaling:g}, dropout={self.dropout:g}"


class DoRA(LoRA):
    """LoRA with a trained length for each output; arguments as for :class:`LoRA`."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__(inputs, outputs, rank, alpha, dropout)
        self.magnitude = nn.Parameter(torch.zeros(outputs, dtype=torch.float32))

    def change(
        self, hooked: nn.Module, inputs: Tensor, outputs: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """The output of a linear with the change, ``[..., outputs]``, in its dtype."""
        # A length changes by less than bf16 tells from 1: the sum is made in fp32 or more, and rounded once.
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        factor = self._factor(hooked).to(dtype)
        bias = getattr(hooked, "bias", None)
        frozen = outputs if bias is None else outputs - bias
        low_rank = self.low_rank(inputs, generator).to(outputs.dtype)
        return (outputs + (factor - 1) * frozen + factor * low_rank).to(outputs.dtype)

    def delta_weight(self, hooked: nn.Module) -> Tensor:
        """What to add to the weight in place of the hook, ``[outputs, inputs]``, in fp32 or more."""
        delta = super().delta_weight(hooked)
        weight = weight_of(hooked).to(delta.dtype)
        return self._factor(hooked).to(delta.dtype)[:, None] * (weight + delta) - weight

    def _factor(self, hooked: nn.Module) -> Tensor:
        """The trained length of each output's weight by the length of its changed weight."""
        with torch.no_grad():
            delta = super().delta_weight(hooked)
            weight = weight_of(hooked).to(delta.dtype)
            own, changed = weight.norm(dim=1), (weight + delta).norm(dim=1)
            own, changed = (length.clamp_min(torch.finfo(delta.dtype).tiny) for length in (own, changed))
        return (own + self.magnitude) / changed
