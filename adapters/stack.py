"""The stack method: a bottleneck trained on top of frozen adapters.

It follows Pfeiffer et al. 2020, "MAD-X: An Adapter-Based Framework for Multi-Task Cross-Lingual Transfer",
where a task adapter is trained on a frozen language adapter: at a site of both, the upper one reads the
sublayer's output with what the lower one added. Modules beside a sublayer read its input, which none of them
changes, and their results are added. Where it differs: the adapters below may be of other methods, and at
other sites and layers than the one on top: each acts where it would alone. Invertible adapters at the
embeddings are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters.frozen import Frozen


class Stack(nn.Module):
    """The modules of a stack at one place.

    Args:
        frozen: those below, from the bottom up; none where only the one on top acts.
        own: the one that is trained, or None where only frozen ones act.
        reads_changed: whether a module reads what those below it have added: not beside a sublayer.
    """

    def __init__(self, frozen: Frozen, own: nn.Module | None, reads_changed: bool) -> None:
        super().__init__()
        self.frozen = frozen
        self.own = own
        self.reads_changed = reads_changed

    def forward(self, hidden_states: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What all of them add at a site, ``[..., d]``; arguments as for :class:`Bottleneck`."""
        delta: Tensor | None = None
        for module in self._modules_upwards():
            read = hidden_states if delta is None or not self.reads_changed else hidden_states + delta
            more: Tensor = module(read, generator)
            delta = more if delta is None else delta + more
        assert delta is not None
        return delta

    def change(
        self, hooked: nn.Module, inputs: Tensor, outputs: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """What they make of the output of one module of the backbone, one after the other."""
        for module in self._modules_upwards():
            outputs = module.change(hooked, inputs, outputs, generator)  # type: ignore[operator]
        return outputs

    def _modules_upwards(self) -> list[nn.Module]:
        return [*self.frozen.values(), *([] if self.own is None else [self.own])]
