"""The bottleneck method: down to a few units, an activation, and up again; the result is added.

It follows Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP": the placement "houlsby" has
their two modules a layer, behind the last projection of each sublayer and before its residual. The other
wirings are of two more papers:

- "pfeiffer_original": Pfeiffer et al. 2021, "AdapterFusion: Non-Destructive Task Composition for Transfer
  Learning", one module behind the FFN with the layer's LayerNorm inside. "pfeiffer" keeps its place, and is
  wired as Houlsby's.
- "parallel": He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning", one module
  beside the FFN; their dropout too, of the units. Their scaling of 4 is not the default here.

Of Steitz and Roth 2024, "Adapters Strike Back", come `learned_scaling` and `stochastic_depth` (that is Huang
et al. 2016, "Deep Networks with Stochastic Depth"), but not their place behind the residual. Where it differs
from all: the LayerNorms of the backbone stay frozen, which Houlsby et al. train; modules start as the
initialization says, and by default add nothing, as LoRA does and He et al. after it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.config import ACTIVATIONS
from adapters.errors import AdapterError, one_of


def _identity(hidden: Tensor) -> Tensor:
    return hidden


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "mish": functional.mish,
    "identity": _identity,
}


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """The function of an activation's name; AdapterError if it is unknown."""
    if name not in _FUNCTIONS:
        raise AdapterError(f"unknown activation {name!r}; {one_of(name, ACTIVATIONS)}", "activation")
    return _FUNCTIONS[name]


def empty_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer in fp32 on the CPU, all zero."""
    # Built on meta first: `nn.Linear` would otherwise draw its weights from the global generator.
    linear = nn.Linear(inputs, outputs, device="meta", dtype=torch.float32).to_empty(device="cpu")
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
    return linear


class Bottleneck(nn.Module):
    """One module of an adapter: `scaling * up(activation(down(hidden_states)))`.

    Parameters are fp32, made on the CPU, and all zero until `initialize` fills them. The products run in the
    dtype of the hidden states.

    Args:
        hidden_size: d, width of the hidden states.
        bottleneck_dim: m, units in between.
        activation: one of `ACTIVATIONS`.
        scaling: factor on the result.
        dropout: share of the m units dropped in training mode (He et al. 2022), the others scaled up.
        channel_scaling: a trained factor for each channel of the result, as in AdapterPlus (Steitz and Roth
            2024); all zero until they are set to one.
        stochastic_depth: probability with which the module adds nothing in a forward pass of training mode
            (Huang et al. 2016); otherwise its result is scaled up. Where AdapterPlus draws for each example,
            this draws for each pass.

    Raises:
        AdapterError: an unknown activation.
    """

    def __init__(
        self,
        hidden_size: int,
        bottleneck_dim: int,
        activation: str = "relu",
        scaling: float = 1.0,
        dropout: float = 0.0,
        channel_scaling: bool = False,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        self._function = activation_of(activation)
        self.activation = activation
        self.scaling = scaling
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.down = empty_linear(hidden_size, bottleneck_dim)
        self.up = empty_linear(bottleneck_dim, hidden_size)
        self.channels: nn.Parameter | None = None
        if channel_scaling:
            self.channels = nn.Parameter(torch.zeros(hidden_size, dtype=torch.float32))

    def forward(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What to add to the sublayer's output; the residual is not added here.

        Args:
            hidden_states: [..., d], any floating dtype.
            generator: draws the dropout mask; needed in training mode with dropout above 0.

        Returns:
            [..., d], in the dtype of `hidden_states`.

        Raises:
            AdapterError: dropout without a generator.
        """
        dtype = hidden_states.dtype
        down, up = self.down, self.up
        units = functional.linear(hidden_states, down.weight.to(dtype), down.bias.to(dtype))
        units = self._function(units)
        if self.dropout > 0 and self.training:
            units = units * dropout_mask(units, self.dropout, generator)
        delta = functional.linear(units, up.weight.to(dtype), up.bias.to(dtype))
        if self.channels is not None:
            delta = (delta * self.channels).to(dtype)  # rounded once, as a factor near 1 is none of bf16's
        if self.stochastic_depth > 0 and self.training:
            delta = delta * dropout_mask(delta.new_empty(1), self.stochastic_depth, generator)
        return delta if self.scaling == 1.0 else delta * self.scaling

    def extra_repr(self) -> str:
        return (
            f"activation={self.activation!r}, scaling={self.scaling:g}, dropout={self.dropout:g}, "
            f"channel_scaling={self.channels is not None}, stochastic_depth={self.stochastic_depth:g}"
        )


def dropout_mask(units: Tensor, dropout: float, generator: torch.Generator | None) -> Tensor:
    """What to multiply units with: zero for a share of them, and for the others what makes up for it.

    Raises:
        AdapterError: there is no generator.
    """
    if generator is None:
        raise AdapterError(
            "dropout in training needs a generator of its own: set `adapter.generator`", "dropout"
        )
    # Drawn in fp32 on the generator's device, so that the mask depends on neither dtype nor device.
    mask = torch.empty(units.shape, dtype=torch.float32, device=generator.device)
    mask.bernoulli_(1 - dropout, generator=generator).div_(1 - dropout)
    return mask.to(device=units.device, dtype=units.dtype)
