"""Frozen modules inside an adapter that is trained: their weights are buffers, and they stay in eval mode.

What is no parameter is trained by no optimizer and in no count of what is trained; it is saved all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import nn


class Frozen(nn.ModuleDict):
    """Modules of frozen adapters at one place.

    Args:
        modules: by the number of their adapter, in rising order; their parameters become buffers.
    """

    def __init__(self, modules: Mapping[int, nn.Module]) -> None:
        super().__init__({str(number): module for number, module in modules.items()})
        for module in self.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever is asked for: nothing of a frozen adapter is dropped."""
        return super().train(False)
