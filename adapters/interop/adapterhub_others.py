"""LoRA and prefix tuning as AdapterHub has them.

Their LoRA reaches query, key and value (each by its letter) and the two linears of the FFN. Of a family that
computes query, key and value in one linear they train a change for each, and this library one for all three.

Their prefix is usually the output of a network that is thrown away after training; one that was saved with it
is read as the keys and values that it puts out, and can then be trained as those alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters.adapter import Adapter
from adapters.architectures import layer_indices
from adapters.bottleneck import activation_of
from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.fields import FROM_START
from adapters.interop.adapterhub_bottleneck import activation_here
from adapters.interop.common import (
    Folder,
    Place,
    grid,
    layers_of,
    number,
    put,
    refuse_rest,
    refuse_without_key_width,
    same,
    whole,
    without,
)
from adapters.interop.hubnames import HubNames
from adapters.interop.naming import linear_path, place_of, targets_of
from adapters.points import Point
from adapters.prefix import Prefix
from adapters.shape import Shape

_WHOSE = "AdapterHub"
_LETTERS = {"query": "q", "key": "k", "value": "v"}
_LORA = (
    "architecture", "selfattn_lora", "intermediate_lora", "output_lora", "leave_out", "r", "alpha", "dropout",
    "attn_matrices", "init_weights", "init_weights_seed", "dtype",
)  # fmt: skip
_PREFIX = (
    "architecture", "encoder_prefix", "cross_prefix", "leave_out", "flat", "prefix_length", "bottleneck_size",
    "non_linearity", "dropout", "shared_gating", "init_weights_seed",
)  # fmt: skip
_NETWORK = ("control_trans.0", "control_trans.2")
Read = tuple[AdapterConfig, Shape, dict[str, Tensor]]


def lora_out(adapter: Adapter, names: HubNames, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Their configuration and weights of a LoRA of ours."""
    config, shape = adapter.config, adapter.shape
    places = [place for place in adapter.sites if isinstance(place, Point)]
    targets = dict.fromkeys(place.name for place in places)
    for target in targets:
        if target not in _LETTERS and target not in names.lora:
            raise AdapterError(
                f"AdapterHub's LoRA does not reach {target} of {shape.model_type!r}; it reaches "
                f"{', '.join((*_LETTERS, *names.lora))}. PEFT's reaches every linear",
                "targets",
            )
    tensors = {}
    for place in places:
        front = f"{names.prefix}.{linear_path(shape, place)}.loras.{name}"
        module: Any = adapter.get_submodule(place.key)
        tensors[f"{front}.lora_A"] = module.down.weight
        tensors[f"{front}.lora_B"] = module.up.weight
    alpha = config.alpha
    values = {
        "architecture": "lora",
        "selfattn_lora": any(target in _LETTERS for target in targets),
        **{flag: target in targets for target, flag in names.lora.items()},
        "attn_matrices": [letter for target, letter in _LETTERS.items() if target in targets],
        "leave_out": _left_out(config, shape),
        "r": config.rank,
        "alpha": int(alpha) if alpha.is_integer() else alpha,
        "dropout": config.dropout,
        "init_weights": "bert" if config.initialization == "normal" else "lora",
    }
    return values, tensors


def lora_in(folder: Folder, shape: Shape, names: HubNames, name: str) -> Read:
    """Configuration, backbone and weights of a LoRA of theirs."""
    values = folder.config
    if values.get("composition_mode", "add") != "add":
        raise AdapterError(
            "it multiplies what linears put out (composition_mode, AdapterHub): their IA3 does so before the "
            "activation of the FFN, and the one here behind it"
        )
    refuse_rest(values, (*_LORA, "composition_mode"), {"use_dora": False}, _WHOSE)
    found: list[Place] = []
    tensors: dict[str, Tensor] = {}
    for key, tensor in folder.tensors.items():
        place = place_of(key, shape, names.prefix)
        own = {f"loras.{name}.lora_A": "down.weight", f"loras.{name}.lora_B": "up.weight"}
        if place is None or place.weight not in own:
            raise AdapterError(f"it holds {key!r}, which is no weight of a LoRA (AdapterHub)")
        if place.name not in _LETTERS and place.name not in names.lora:
            raise AdapterError(
                f"it changes {place.name}, of which AdapterHub trains a change for each part, and this "
                "library one "
                "for all", "targets",
            )  # fmt: skip
        found.append(place)
        put(tensors, f"layer_{place.layer}_{place.name}.{own[place.weight]}", tensor)
    layers, linears = grid(found, _WHOSE)
    config = AdapterConfig(
        method="lora",
        rank=whole(values, "r", _WHOSE),
        alpha=number(values, "alpha", _WHOSE),
        targets=targets_of(linears, shape),
        layers=layers_of(layers, shape),
        initialization="normal" if values.get("init_weights") == "bert" else "zero_up",
        dropout=values.get("dropout", 0.0),
    )
    return config, shape, tensors


def prefix_out(adapter: Adapter, names: HubNames, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Their configuration and weights of a prefix of ours."""
    config, shape = adapter.config, adapter.shape
    _check_prefixes(names, shape.model_type)
    if config.positions != FROM_START:
        raise AdapterError("AdapterHub leaves positions where they are, and does not count on", "positions")
    modules = [adapter.get_submodule(place.key) for place in adapter.sites]
    pairs: list[Tensor] = [
        tensor for own in modules if isinstance(own, Prefix) for tensor in (own.keys, own.values)
    ]
    values = {
        "architecture": "prefix_tuning",
        "flat": True,
        "prefix_length": config.prefix_length,
        "leave_out": _left_out(config, shape),
        "dropout": 0.0,
        "use_gating": False,
    }
    return values, {f"{_front(names, name)}.control_trans": torch.cat(pairs, dim=1).flatten()}


def prefix_in(folder: Folder, shape: Shape, names: HubNames, name: str) -> Read:
    """Configuration, backbone and weights of a prefix of theirs."""
    values = folder.config
    _check_prefixes(names, shape.model_type)
    refuse_rest(values, _PREFIX, {"use_gating": False}, _WHOSE)
    if values.get("dropout"):
        raise AdapterError(
            "it drops parts of its keys and values in training (dropout, AdapterHub): here is none"
        )
    layers = without(values, shape.num_hidden_layers)
    config = AdapterConfig(
        method="prefix",
        prefix_length=whole(values, "prefix_length", _WHOSE),
        layers="all" if len(layers) == shape.num_hidden_layers else tuple(layers),
    )
    vectors = _flat(folder, config.prefix_length, names, name)
    refuse_without_key_width(shape, _WHOSE)
    width = 2 * len(layers) * shape.key_width
    if vectors.numel() != config.prefix_length * width:
        raise AdapterError(
            f"it holds {vectors.numel()} numbers; {config.prefix_length} keys and values of {len(layers)} "
            "layers "
            f"are {config.prefix_length * width}"
        )
    parts = vectors.reshape(config.prefix_length, width).split(shape.key_width, dim=1)
    tensors = {}
    for number_, layer in enumerate(layers):
        tensors[f"layer_{layer}_prefix.keys"] = parts[2 * number_].clone()
        tensors[f"layer_{layer}_prefix.values"] = parts[2 * number_ + 1].clone()
    return config, shape, tensors


def _flat(folder: Folder, length: int, names: HubNames, name: str) -> Tensor:
    """The keys and values of a prefix; of one with its network, what that puts out."""
    found: dict[str, list[Tensor]] = {}
    marker = f"prefix_tunings.{name}.{names.prefixes}."
    for key, tensor in folder.tensors.items():
        _, there, weight = key.partition(marker)
        if not there:
            raise AdapterError(
                f"it holds {key!r}, which is no weight of a prefix of self-attention (AdapterHub)"
            )
        found.setdefault(weight, []).append(tensor)  # each layer names the one that all share once more
    weights = {weight: same(tensors) for weight, tensors in found.items()}
    if set(weights) == {"control_trans"}:
        return weights["control_trans"]
    function = activation_of(activation_here(folder.config.get("non_linearity", "tanh")))
    if not _is_network(weights, length):
        raise AdapterError(
            "its weights are neither those of a flat prefix nor of one with its network (AdapterHub)"
        )
    embedded, (down, down_bias), (up, up_bias) = weights["wte.weight"], *_linears(weights)
    return functional.linear(function(functional.linear(embedded, down, down_bias)), up, up_bias)


def _linears(weights: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in _NETWORK]


def _is_network(weights: dict[str, Tensor], length: int) -> bool:
    """Whether weights are an embedding of so many positions and two linears on it, all of one dtype."""
    names = {"wte.weight", *(f"{name}.{part}" for name in _NETWORK for part in ("weight", "bias"))}
    if set(weights) != names or {weights[name].dtype for name in names} - {weights["wte.weight"].dtype}:
        return False
    embedded = weights["wte.weight"]
    if embedded.ndim != 2 or len(embedded) != length or not embedded.is_floating_point():
        return False
    width = embedded.shape[1]
    for weight, bias in _linears(weights):
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            return False
        width = len(weight)
    return True


def _check_prefixes(names: HubNames, model_type: str) -> None:
    if names.prefixes is None:
        raise AdapterError(
            f"with a prefix in {model_type!r}, AdapterHub's attention computes something else than this "
            "library's",
            "method",
        )


def _front(names: HubNames, name: str) -> str:
    return f"{names.prefix}.prefix_tuning.prefix_tunings.{name}.{names.prefixes}"


def _left_out(config: AdapterConfig, shape: Shape) -> list[int]:
    used = layer_indices(config.layers, shape.num_hidden_layers)
    return [layer for layer in range(shape.num_hidden_layers) if layer not in used]
