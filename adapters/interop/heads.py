"""Heads between libraries: what is computed from the last hidden states of a backbone.

A head of this project is one linear on one vector a text: the first token's state, the last one's, or their
mean. Elsewhere a head may have more layers, or read what the backbone's pooler makes of the first token; such
a head can be computed here, but not trained or exported again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters.errors import AdapterError
from adapters.files import FLOATING

Layer = tuple[Tensor, Tensor | None]
POOLINGS = ("cls", "mean", "last", "pooler", "tokens")


@dataclass(frozen=True, eq=False)
class Head:
    """What a model has on top of its backbone.

    Args:
        layers: (weight ``[outputs, inputs]``, bias ``[outputs]`` or None) of each linear, in their order.
        pooling: what the first one reads: "cls", "last" (first and last token), "mean" (of all), "pooler"
            (what the backbone's pooler puts out) or "tokens" (each by itself).
        labels: names of the outputs, if they are known.
        between: what is done between two linears; None if there is one alone.
    """

    layers: tuple[Layer, ...]
    pooling: str
    labels: tuple[str, ...] | None = None
    between: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise AdapterError(f"the pooling of a head is one of {', '.join(POOLINGS)}, not {self.pooling!r}")
        outputs = None
        for weight, bias in self.layers:
            given = [weight, *([] if bias is None else [bias])]
            if not all(own.dtype in FLOATING and torch.isfinite(own).all() for own in given):
                raise AdapterError("the weights of a head are floating, and finite: these are not")
            fits = weight.ndim == 2 and (outputs is None or weight.shape[1] == outputs)
            outputs = weight.shape[0] if weight.ndim == 2 else None
            if not fits or (bias is not None and bias.shape != (outputs,)):
                raise AdapterError(f"the weights of a head do not fit together: {list(weight.shape)}")
        if not self.layers or (self.labels is not None and len(self.labels) not in (outputs, 0)):
            raise AdapterError(f"a head with {outputs} outputs has {len(self.labels or ())} labels")

    def check_reads(self, hidden_size: int) -> Head:
        """Itself, if it reads hidden states of this width; else AdapterError."""
        inputs = self.layers[0][0].shape[1]
        if inputs != hidden_size:
            raise AdapterError(f"its head reads {inputs} channels, and the backbone has {hidden_size}")
        return self

    def logits(self, output: Any, attention_mask: Tensor) -> Tensor:
        """``[texts, outputs]``, or ``[texts, tokens, outputs]`` of a head on tokens.

        In the dtype of the backbone or of the head, whichever is wider; a mean is taken in fp32 at least.

        Args:
            output: of the backbone, with ``last_hidden_state`` and, for "pooler", ``pooler_output``.
            attention_mask: ``[texts, tokens]``, 0 for padding.
        """
        states = self._pooled(output, attention_mask)
        for number, (weight, bias) in enumerate(self.layers):
            if number and self.between is not None:
                states = self.between(states)
            states = states.to(torch.promote_types(states.dtype, weight.dtype))
            states = functional.linear(states, weight.to(states), None if bias is None else bias.to(states))
        return states

    def linear(self, whose: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a head that is one linear on tokens or on one of them.

        Raises:
            AdapterError: it is more than that, which `whose` format has no place for.
        """
        if len(self.layers) != 1 or self.pooling == "pooler":
            raise AdapterError(
                f"{whose} takes a head of this library: one linear on the hidden states of a token or their "
                "mean"
            )
        weight, bias = self.layers[0]
        return weight, torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias

    def _pooled(self, output: Any, attention_mask: Tensor) -> Tensor:
        hidden_states: Tensor = output.last_hidden_state
        if self.pooling == "pooler":
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                raise AdapterError("the head reads the backbone's pooler, and the backbone has none")
            return torch.as_tensor(pooled)
        if self.pooling == "tokens":
            return hidden_states
        if self.pooling == "mean":
            hidden_states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
            mask = attention_mask.to(hidden_states)
            return (hidden_states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        mask = attention_mask.to(hidden_states.device).long()  # bf16 tells no positions beyond 256 apart
        rows = torch.arange(len(mask), device=mask.device)
        positions = torch.arange(mask.shape[1], device=mask.device)
        if self.pooling == "last":
            return hidden_states[rows, (mask * (positions + 1)).argmax(1)]
        return hidden_states[rows, mask.argmax(1)]
