"""The ladder method: a narrow network beside the backbone that reads its layers and feeds nothing back.

It follows Sung et al. 2022, "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning":
the hidden states of each layer are projected down to a few units and joined to the side network by a learned
gate, and what comes out at the top is projected up.
No gradient enters the backbone, and nothing that is trained changes what it computes, so that its hidden
states can be computed once and kept.

Where it differs: a layer of theirs is a small transformer layer, initialised from a pruned backbone. Here a
rung is one residual layer of the side's own width, without attention: the states that it reads have been
through the attention of the backbone. Theirs replaces the last hidden states; here it is added to them, so
that with "zero_up" the model starts as the backbone alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.bottleneck import activation_of, dropout_mask, empty_linear

TEMPERATURE = 0.1
"""Of the gates, as in the paper: they open and close ten times as fast as the other weights move."""


class Rung(nn.Module):
    """What a ladder has at one depth: ``down`` from the backbone, and ``mix`` from units to units."""

    def __init__(self, hidden_size: int, bottleneck_dim: int) -> None:
        super().__init__()
        self.down = empty_linear(hidden_size, bottleneck_dim)
        self.mix = empty_linear(bottleneck_dim, bottleneck_dim)


class Ladder(nn.Module):
    """The side network. With s the side's units, m of them, and h the states at one depth after the other:

        s = down(h)                                at the first rung
        s = g * s + (1 - g) * down(h)              at the others, g = sigmoid(gate / TEMPERATURE)
        s = s + activation(mix(s))                 at all
        scaling * up(s)                            behind the last

    Parameters are fp32, made on the CPU, and all zero until `initialize_ladder` fills them. The products run
    in the dtype of the hidden states.

    Args:
        hidden_size: d, width of the hidden states.
        bottleneck_dim: m, units of the side.
        keys: a name for each rung, from the bottom up, two or more, such as "layer_0".
        activation: one of `ACTIVATIONS`.
        scaling: factor on the result.
        dropout: share of the m units dropped before `up` in training mode, the others scaled up.
        normalise: read the states through a LayerNorm without weights, all but the last. For backbones that
            normalise first: their own sublayers read them so.

    Raises:
        AdapterError: an unknown activation.
    """

    def __init__(
        self,
        hidden_size: int,
        bottleneck_dim: int,
        keys: Sequence[str],
        activation: str = "relu",
        scaling: float = 1.0,
        dropout: float = 0.0,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self._function = activation_of(activation)
        self.activation = activation
        self.scaling = scaling
        self.dropout = dropout
        self.normalise = normalise
        self.rungs = nn.ModuleDict({key: Rung(hidden_size, bottleneck_dim) for key in keys})
        self.gates = nn.Parameter(torch.zeros(len(keys) - 1, dtype=torch.float32))
        self.up = empty_linear(bottleneck_dim, hidden_size)

    def forward(self, states: Sequence[Tensor], generator: torch.Generator | None = None) -> Tensor:
        """What to add to the last hidden states.

        Args:
            states: [..., d] each, any floating dtype, one a rung; the last are the last hidden states.
            generator: draws the dropout mask; needed in training mode with dropout above 0.

        Returns:
            [..., d], in the dtype of the states.

        Raises:
            AdapterError: dropout without a generator.
        """
        *lower, last = states
        if self.normalise:
            lower = [functional.layer_norm(state, state.shape[-1:]) for state in lower]
        gates = torch.sigmoid(self.gates / TEMPERATURE).to(last.dtype).unbind()
        side: Tensor | None = None
        for number, (state, rung) in enumerate(zip([*lower, last], self.rungs.values(), strict=True)):
            assert isinstance(rung, Rung)
            units = _linear(state, rung.down)
            side = units if side is None else torch.lerp(units, side, gates[number - 1])
            side = side + self._function(_linear(side, rung.mix))
        assert side is not None
        if self.dropout > 0 and self.training:
            side = side * dropout_mask(side, self.dropout, generator)
        delta = _linear(side, self.up)
        return delta if self.scaling == 1.0 else delta * self.scaling

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}, scaling={self.scaling:g}, dropout={self.dropout:g}"


def _linear(hidden_states: Tensor, linear: nn.Linear) -> Tensor:
    dtype = hidden_states.dtype
    return functional.linear(hidden_states, linear.weight.to(dtype), linear.bias.to(dtype))


def ladder_shapes(hidden_size: int, bottleneck_dim: int, keys: Sequence[str]) -> dict[str, list[int]]:
    """The shape of each tensor in the state dict of a ladder, without building it."""
    units = bottleneck_dim
    rung = {
        "down.weight": [units, hidden_size],
        "down.bias": [units],
        "mix.weight": [units, units],
        "mix.bias": [units],
    }
    shapes = {f"rungs.{key}.{name}": shape for key in keys for name, shape in rung.items()}
    return {**shapes, "gates": [len(keys) - 1], "up.weight": [hidden_size, units], "up.bias": [hidden_size]}
