"""The IA3 method: trained factors on keys, values and the inside of the FFN.

It follows Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning": keys and values are multiplied by a vector each, and so is what the last projection of the FFN
reads. All factors start at one, so that nothing is changed at the start. Where it differs: other linears may
be chosen too; their output is multiplied. Where a family computes queries, keys and values in one linear,
queries have factors as well. The cross-attention of an encoder-decoder has none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class IA3(nn.Module):
    """A trained factor for each channel.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(width, dtype=torch.float32))

    def change(
        self, hooked: nn.Module, inputs: Tensor, outputs: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Each channel times its factor, ``[..., width]``, in the dtype it came in."""
        # A factor changes by less than bf16 tells from 1: the product is made in fp32, and rounded once.
        return (outputs * self.scale).to(outputs.dtype)
