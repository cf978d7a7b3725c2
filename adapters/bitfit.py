"""The BitFit method: the biases of the layers are trained, and nothing else.

It follows Ben Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models": every bias of the chosen layers, those of the LayerNorms included. Where it differs: biases
outside the layers stay frozen, as that of the embeddings' LayerNorm, and so do those of a decoder's
cross-attention and of its LayerNorm; and what is trained is added to what the frozen module puts out, and
starts at zero. Its gradients are those of the bias, the backbone's own stay as they are, and so trials share
a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BitFit(nn.Module):
    """What is added to the bias of one module.

    Args:
        width: of the bias.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width, dtype=torch.float32))

    def change(
        self, hooked: nn.Module, inputs: Tensor, outputs: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """The output with the bias's change, in its dtype."""
        return outputs + self.bias.to(outputs.dtype)
