"""LoRA and DoRA, merged into the weights of the backbone, and taken out again to the bit.

A merged model has no hooks and costs what the backbone alone costs. Taking an adapter out by subtraction
would leave roundings behind: the weights that were replaced are kept, and put back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters.adapter import Adapter
from adapters.errors import AdapterError
from adapters.insert import active, attach, get, names, remove
from adapters.inserted import Rungs, places_of
from adapters.lowrank import LoRA

_KEPT = "_sweeper_merged"


class _Merged:
    """What is needed to take a merged adapter out: itself, and the parameters that it replaced."""

    def __init__(self, adapter: Adapter, name: str) -> None:
        self.adapter = adapter
        self.name = name
        self.replaced: list[tuple[nn.Module, nn.Parameter]] = []


def merge(model: nn.Module, name: str | None = None) -> None:
    """Put an inserted LoRA or DoRA into the weights of the backbone, and take its hooks off.

    The model computes what it did with the adapter active, but for rounding: the sums are made in fp32 or
    more, and rounded once to the dtype of the weight. It stays in the mode that it is in, training or
    evaluation, and the adapter's dropout is gone. Each linear that the adapter acts on gets a new weight,
    and the old one is kept for `unmerge`: memory for one more copy of those weights, on their device. The
    new weights are frozen. The adapter leaves the model, which may hold no other.

    Args:
        model: a Hugging Face model that holds the adapter, and no other.
        name: which adapter; the active one if None.

    Raises:
        AdapterError: no such adapter, another method than LoRA or DoRA, other adapters beside it, one merged
            already, a linear whose weight is not a matrix of floats of its own, or a merged weight that is
            not finite. Nothing is changed then.
    """
    backbone = _backbone(model)
    if merged(model) is not None:
        raise AdapterError(f"the adapter {merged(model)!r} is merged into this model: `unmerge` it first")
    chosen = active(model) if name is None else name
    if chosen is None:
        raise AdapterError("the model has no active adapter: say which to merge by its `name`")
    adapter = get(model, chosen)
    method = adapter.config.method
    if method not in ("lora", "dora"):
        raise AdapterError(
            f"the method {method} cannot be merged: only lora and dora change nothing but weights of linears",
            "method",
        )
    others = [other for other in names(model) if other != chosen]
    if others:
        listed = ", ".join(map(repr, others))
        raise AdapterError(f"merging {chosen!r} would change the backbone under {listed}: remove those first")
    weights = _merged_weights(adapter, backbone)
    training = [(module, module.training) for module in backbone.modules()]
    remove(model, chosen)
    for module, was in training:  # those from before the insertion are none of the merged model's
        module.training = was
    kept = _Merged(adapter, chosen)
    for linear, weight in weights:
        old = linear.weight
        assert isinstance(old, nn.Parameter)
        kept.replaced.append((linear, old))
        linear.weight = nn.Parameter(weight, requires_grad=False)
    object.__setattr__(backbone, _KEPT, kept)


def unmerge(model: nn.Module) -> Adapter:
    """Put the weights back that `merge` replaced, the same bits, and the adapter as the active one.

    A model that was moved to another device or dtype meanwhile gets them as if they had been moved with it.
    What was done to the merged weights is lost.

    Returns:
        The adapter, active in the model under its name.

    Raises:
        AdapterError: no adapter is merged into the model, or others were put in since.
    """
    backbone = _backbone(model)
    kept: _Merged | None = vars(backbone).get(_KEPT)
    if kept is None:
        raise AdapterError("no adapter is merged into this model; `merge` puts one in")
    if others := names(model):
        listed = ", ".join(map(repr, others))
        raise AdapterError(f"{listed} came in after {kept.name!r} was merged: remove those first")
    for linear, weight in kept.replaced:
        now = linear.weight
        assert isinstance(now, Tensor)
        weight.data = weight.data.to(now.device, now.dtype)
        linear.weight = weight
    object.__delattr__(backbone, _KEPT)
    return attach(model, kept.adapter, kept.name)


def merged(model: nn.Module) -> str | None:
    """The name of the adapter that is merged into a model, or None."""
    kept: _Merged | None = vars(_backbone(model)).get(_KEPT)
    return None if kept is None else kept.name


@torch.no_grad()
def _merged_weights(adapter: Adapter, backbone: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    """Each linear that the adapter acts on, and its merged weight, in the form and dtype of its own."""
    places = places_of(adapter, backbone)
    owners: dict[int, int] = {}
    for module in backbone.modules():
        for parameter in module._parameters.values():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: list[tuple[nn.Module, Tensor]] = []
    assert not isinstance(places, Rungs)  # those of a ladder
    for place in places:
        module, linear = place.module, place.hooked
        assert isinstance(module, LoRA)
        weight = linear.weight
        if not isinstance(linear, (nn.Linear, Conv1D)) or not isinstance(weight, nn.Parameter):
            raise AdapterError(
                f"a {type(linear).__name__} cannot take a merged weight: it is no plain linear"
            )
        if not weight.is_floating_point() or weight.ndim != 2:
            raise AdapterError(
                f"a weight of {weight.dtype} cannot be merged into: load the backbone in floats"
            )
        if owners[id(weight)] > 1:
            raise AdapterError("a linear of the adapter shares its weight with another module: not merged")
        delta = module.delta_weight(linear)
        if isinstance(linear, Conv1D):
            delta = delta.T
        sum_dtype = torch.promote_types(delta.dtype, weight.dtype)
        merged_weight = (weight.to(sum_dtype) + delta.to(sum_dtype)).to(weight.dtype).contiguous()
        if not torch.isfinite(merged_weight).all():
            raise AdapterError(f"a merged weight is not finite in {weight.dtype}: nothing was merged")
        found.append((linear, merged_weight))
    return found


def _backbone(model: nn.Module) -> Any:
    names(model)  # refuses what is no Hugging Face model
    return model.base_model
