"""The tokens of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sweeper.tasks.kind import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from adapters.depth import Depth, States


@dataclass(frozen=True)
class Split:
    """The tokens of a split, one text after the other.

    Args:
        input_ids: int32 ``[tokens]``.
        token_type_ids: int32 ``[tokens]`` for pairs that the tokenizer tells apart, else None.
        offsets: int64 ``[texts + 1]``: text i is ``offsets[i]:offsets[i + 1]``, never empty.
        labels: one row a text: int64 class numbers or float32 values, ``[texts]``, or float32
            ``[texts, labels]``; or int32 ``[tokens]``, one a token, where those that are not read have -100.
        frozen: what the backbone makes of the tokens up to some depths, ``[tokens, hidden_size]`` each, where
            that was computed before (see ``sweeper.cache``).
    """

    input_ids: Tensor
    token_type_ids: Tensor | None
    offsets: Tensor
    labels: Tensor
    frozen: Mapping[Depth, States] = field(default_factory=dict, repr=False)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text, int64 ``[texts]``."""
        return self.offsets.diff()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def by_token(self) -> bool:
        """Whether there is a label a token."""
        import torch

        return self.labels.dtype == torch.int32

    def tokens_of(self, indices: Tensor) -> Tensor:
        """Where the tokens of some texts are, one text after the other, int64."""
        import torch

        lengths = self.offsets[indices + 1] - self.offsets[indices]
        first = torch.repeat_interleave(self.offsets[indices] - (lengths.cumsum(0) - lengths), lengths)
        return first + torch.arange(len(first))

    def label_rows(self, indices: Tensor) -> Tensor:
        """Where the labels of some texts are, int64: a row a text, or one for each token that is read."""
        if not self.by_token:
            return indices
        tokens = self.tokens_of(indices)
        return tokens[self.labels[tokens] != IGNORED]
