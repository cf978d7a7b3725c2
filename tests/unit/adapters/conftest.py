"""What the tests of inserted adapters share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


def _fill(adapter: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return adapter


@pytest.fixture
def fill() -> Callable[..., nn.Module]:
    """Gives an adapter weights that change what a model computes."""
    return _fill


@pytest.fixture
def tokens() -> Tensor:
    """Two texts of 12 tokens, none of them a padding token of any family: int64 [2, 12]."""
    return torch.randint(5, 100, (2, 12), generator=torch.Generator().manual_seed(4))
