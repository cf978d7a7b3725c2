"""LoRA, DoRA and IA3 as PEFT has them: a weight or two beside each linear that is changed.

What is changed is read from the names of the weights, not from `target_modules`: those may be suffixes, and
mean what a model makes of them. It is written as a pattern of whole paths, which means one thing everywhere.

DoRA: PEFT keeps the trained length of each output, this library its difference to the frozen weight's own, so
that both ways need the weights of the backbone.
"""

from __future__ import annotations

import math
import re
from typing import Any

from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.architectures import architecture_of
from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.interop.common import Folder, Place, grid, layers_of, number, put, refuse_rest, whole
from adapters.interop.naming import linear_path, place_of, targets_of
from adapters.lowrank import weight_of
from adapters.points import Point
from adapters.shape import Shape

_ANY = (
    "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
    "auto_mapping", "modules_to_save", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "fan_in_fan_out", "feedforward_modules", "init_ia3_weights",
)  # fmt: skip
_LORA = (
    *_ANY, "r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "init_lora_weights",
    "megatron_core", "qalora_group_size", "loftq_config", "runtime_config", "ephemeral_gpu_offload",
)  # fmt: skip
_WHOSE = "PEFT"


def linears_out(adapter: Adapter, backbone: Any, front: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of a configuration and the weights, by their names.

    Args:
        backbone: the model, whose weights DoRA needs.
        front: what stands before the path of a layer: "" or the name of the backbone and a dot.
    """
    config, shape = adapter.config, adapter.shape
    paths = {place.key: linear_path(shape, place) for place in adapter.sites if isinstance(place, Point)}
    tensors: dict[str, Tensor] = {}
    for place in adapter.sites:
        assert isinstance(place, Point)
        for weight, tensor in _weights_out(adapter, place, backbone).items():
            tensors[f"base_model.model.{front}{paths[place.key]}.{weight}"] = tensor
    fields: dict[str, Any] = {"target_modules": _pattern(paths.values()), "fan_in_fan_out": False}
    fields["fan_in_fan_out"] = adapter.model_type == "gpt2"
    if config.method == "ia3":
        inside = [paths[p.key] for p in adapter.sites if isinstance(p, Point) and p.hook == "input"]
        feedforward = _pattern(inside) if inside else []
        return {**fields, "peft_type": "IA3", "feedforward_modules": feedforward}, tensors
    alpha = config.alpha
    return {
        **fields,
        "peft_type": "LORA",
        "r": config.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": config.dropout,
        "use_dora": config.method == "dora",
        "init_lora_weights": True,
        "bias": "none",
    }, tensors


def linears_in(
    folder: Folder, weights: dict[str, Tensor], shape: Shape, prefix: str, backbone: Any
) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """The configuration and the state dict of an adapter that PEFT wrote."""
    values = folder.config
    found = {key: place_of(key, shape, prefix) for key in weights}
    for key, place in found.items():
        if place is None:
            raise AdapterError(f"its weight {key!r} lies in no layer of a {shape.model_type!r} backbone")
    places = {key: place for key, place in found.items() if place is not None}
    layers, names = grid(places.values(), _WHOSE)
    fields: dict[str, Any] = {"targets": targets_of(names, shape), "layers": layers_of(layers, shape)}
    if values["peft_type"] == "IA3":
        refuse_rest(values, _ANY, {}, _WHOSE)
        config = AdapterConfig(method="ia3", **fields)
    else:
        config = _lora_config(values, fields)
    tensors: dict[str, Tensor] = {}
    for key, place in places.items():
        name, tensor = _weight_in(config, place, weights[key], shape, backbone)
        put(tensors, f"layer_{place.layer}_{place.name}.{name}", tensor)
    return config, tensors


def _lora_config(values: dict[str, Any], fields: dict[str, Any]) -> AdapterConfig:
    refuse_rest(values, _LORA, {"bias": "none", "lora_bias": False}, _WHOSE)
    start = values.get("init_lora_weights", True)
    if start not in (True, False, "gaussian"):
        raise AdapterError(
            f"it starts by {start!r}, which changes the weights of the backbone too (PEFT): save it there "
            "with "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
        )
    rank, alpha = whole(values, "r", _WHOSE), number(values, "lora_alpha", _WHOSE)
    if values.get("use_rslora"):  # alpha / sqrt(r) there, alpha / r here
        alpha *= math.sqrt(rank)
    return AdapterConfig(
        method="dora" if values.get("use_dora") else "lora",
        rank=rank,
        alpha=alpha,
        dropout=values.get("lora_dropout", 0.0),
        initialization="zero_up" if start is True else "normal",
        **fields,
    )


def _weights_out(adapter: Adapter, place: Point, backbone: Any) -> dict[str, Tensor]:
    module: Any = adapter.get_submodule(place.key)
    if adapter.config.method == "ia3":
        return {"ia3_l": module.scale[None, :] if place.hook == "input" else module.scale[:, None]}
    found = {"lora_A.weight": module.down.weight, "lora_B.weight": module.up.weight}
    if adapter.config.method == "dora":
        own = _own_lengths(adapter.shape, place, backbone)
        found["lora_magnitude_vector"] = own.to(module.magnitude) + module.magnitude
    return found


def _weight_in(
    config: AdapterConfig, place: Place, tensor: Tensor, shape: Shape, backbone: Any
) -> tuple[str, Tensor]:
    if config.method == "ia3" and place.weight == "ia3_l":
        reads = place.name == "ffn_down"
        if tensor.ndim != 2 or tensor.shape[0 if reads else 1] != 1:
            what = "outputs" if reads else "inputs"
            raise AdapterError(
                f"it scales the {what} of {place.name}; this library scales what ffn_down reads, and what "
                "any "
                "other linear puts out: no such adapter here"
            )
        return "scale", tensor.flatten()
    if config.method != "ia3" and place.weight in ("lora_A.weight", "lora_B.weight"):
        return ("down.weight" if place.weight == "lora_A.weight" else "up.weight"), tensor
    if config.method == "dora" and place.weight == "lora_magnitude_vector":
        point = Point(place.layer, place.name, architecture_of(shape).linears[place.name], "change", False)
        own = _own_lengths(shape, point, backbone)
        if tensor.shape != own.shape or not tensor.is_floating_point():
            raise AdapterError(
                f"its lora_magnitude_vector of {place.name} is {list(tensor.shape)} of {tensor.dtype}, and "
                f"the linear has {len(own)} outputs"
            )
        return "magnitude", tensor - own.to(tensor)
    raise AdapterError(f"its weight {place.weight!r} of {place.name} is none of the method {config.method}")


def _own_lengths(shape: Shape, place: Point, backbone: Any) -> Tensor:
    """The length of each output's weight in the frozen linear."""
    if not isinstance(backbone, nn.Module):
        raise AdapterError(
            "PEFT keeps the length of each changed weight, this library its difference to the backbone's "
            "own: "
            "give the model itself as `backbone`, not its configuration"
        )
    base: Any = getattr(backbone, "base_model", backbone)
    return weight_of(base.get_submodule(linear_path(shape, place))).detach().float().norm(dim=1).cpu()


def _pattern(paths: Any) -> str:
    """A pattern that a whole module name has to match: these paths, whatever stands before them."""
    return "(?:.*\\.)?(?:" + "|".join(re.escape(path) for path in paths) + ")"
