"""The average of several adapters' weights, as one adapter of the same configuration.

It follows Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time", for adapters in place of models. Of a product of two matrices,
such as LoRA's, the factors are averaged, not the product. Adapters whose initial weights were drawn alike lie
near enough to each other for their average to mean something; others may not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from adapters.adapter import Adapter
from adapters.errors import AdapterError
from adapters.shape import Shape


def average(
    adapters: Sequence[Adapter], weights: Sequence[float] | None = None, *, normalise: bool = False
) -> Adapter:
    """An adapter whose weights are the mean of others', taken in fp64 and kept in their dtype.

    Args:
        adapters: at least one; all of one configuration, backbone and dtype. They are left as they are.
        weights: how much each counts, 0 or more, 1 in sum; None for all alike.
        normalise: divide the weights by their sum, which then need not be 1.

    Returns:
        A new adapter, trainable, in eval mode, on the device of the first.

    Raises:
        AdapterError: they differ in what they are, or the weights are no shares; the message says in what.
    """
    if not adapters:
        raise AdapterError("an average needs at least one adapter")
    for adapter in adapters:
        if not isinstance(adapter, Adapter):
            raise AdapterError(f"expected an Adapter, not {type(adapter).__name__}")
    first = adapters[0]
    for number, adapter in enumerate(adapters[1:], start=2):
        _check_alike(first, adapter, number)
    shares = _shares(len(adapters), weights, normalise)
    states = [adapter.state_dict() for adapter in adapters]
    mean = {}
    for name, tensor in states[0].items():
        terms = [
            share * state[name].to("cpu", torch.float64) for share, state in zip(shares, states, strict=True)
        ]
        mean[name] = torch.stack(terms).sum(dim=0).to(tensor.device, tensor.dtype)
    made = Adapter(first.config, first.shape)
    made.load_state_dict(mean, assign=True)
    return made.requires_grad_(True).eval()


def _check_alike(first: Adapter, other: Adapter, number: int) -> None:
    """Raise AdapterError unless the weights of both mean the same."""
    if first.config != other.config:
        mine, theirs = first.config.to_dict(), other.config.to_dict()
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        told = "; ".join(f"{name} is {mine.get(name)} and {theirs.get(name)}" for name in names)
        raise AdapterError(
            f"adapter {number} has another configuration than the first, and weights of different modules "
            f"have no average: {told}",
            names[0],
        )
    if not _is_same(first.shape, other.shape):
        one, two = ((own.model_type, own.layer_count, own.hidden_size) for own in (first, other))
        raise AdapterError(f"adapter {number} is for another backbone than the first: {two}, not {one}")
    kinds = [{tensor.dtype for tensor in own.state_dict().values()} for own in (first, other)]
    if kinds[0] != kinds[1]:
        listed = " and ".join(", ".join(sorted(map(str, kind))) for kind in kinds)
        raise AdapterError(
            f"adapter {number} has another dtype than the first: {listed}; convert one of them"
        )


def _is_same(one: Shape, other: Shape) -> bool:
    """Whether two backbones have the same sizes, as far as both say: older files do not count the encoder."""
    if not one.encoder_layers or not other.encoder_layers:
        one, other = (replace(shape, encoder_layers=0) for shape in (one, other))
    return one == other


def _shares(count: int, weights: Sequence[float] | None, normalise: bool) -> list[float]:
    if weights is None:
        return [1.0 / count] * count
    if len(weights) != count:
        raise AdapterError(f"there are {len(weights)} weights for {count} adapters: give one each")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise AdapterError(f"a weight of an average is a number of 0 or more, not {weight!r}")
    total = math.fsum(weights)
    if normalise:
        if total <= 0:
            raise AdapterError("the weights are all 0: nothing would be left")
        return [weight / total for weight in weights]
    if abs(total - 1.0) > 1e-6:
        raise AdapterError(f"the weights are {total:g} in sum, not 1: change them, or pass normalise=True")
    return [float(weight) for weight in weights]
