"""What an adapter needs to know of a backbone before it is built: sizes, without weights.

The sizes of the linears are read from a model without memory (on torch's meta device), so that no rule of
ours has to follow each family's configuration. A file of an adapter carries them, and needs no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from adapters.architectures import (
    Architecture,
    architecture_of,
    encoder_layer_count,
    hidden_size,
    layer_count,
)
from adapters.config import AdapterConfig
from adapters.errors import AdapterError

_MEASURED_METHODS = ("lora", "dora", "ia3", "prefix", "mam", "bitfit")


@dataclass(frozen=True)
class Shape:
    """The sizes of a backbone; it stands in for the backbone's configuration wherever that is only measured.

    Args:
        model_type: of the family.
        hidden_size: width of the hidden states.
        num_hidden_layers: layers.
        linears: (inputs, outputs) of each linear of a layer, by the names of `Architecture.linears`.
        biases: width of each bias of a layer, by the path of its module inside the layer; those that
            `Architecture.first_lacks` names are not in the first.
        key_width: width of the keys, and of the values, of all heads together.
        encoder_layers: of an encoder-decoder, how many of the layers are the encoder's; 0 of others.
        is_gated_act: of a T5, whether its FFN has a gate.
    """

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    linears: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    biases: Mapping[str, int] = field(default_factory=dict)
    key_width: int = 0
    encoder_layers: int = 0
    is_gated_act: bool = False

    @property
    def layer_total(self) -> int:
        """Layers, those of a decoder included."""
        return self.num_hidden_layers

    def measured(self) -> str:
        """What was measured of the backbone's layers, as JSON; `with_measured` reads it back.

        Sorted but for the biases: their order is that of BitFit's parameters, and so of an optimizer's state.
        """
        linears = {name: list(sizes) for name, sizes in sorted(self.linears.items())}
        values = {
            "biases": dict(self.biases),
            "encoder_layers": self.encoder_layers,
            "is_gated_act": self.is_gated_act,
            "key_width": self.key_width,
            "linears": linears,
        }
        return json.dumps(values)


def is_measured(method: str) -> bool:
    """Whether the modules of a method depend on the sizes of the backbone's linears or biases."""
    return method in _MEASURED_METHODS


def measuring(config: AdapterConfig) -> str:
    """The method by which a configuration's backbone is to be measured: its own, or that of a part."""
    parts = (part.config.method for part in config.parts)
    return next((method for method in parts if is_measured(method)), config.method)


def shape_of(method: str, backbone: Any) -> Shape:
    """The sizes that a method needs of a backbone.

    Args:
        method: one of `METHODS`.
        backbone: its Hugging Face configuration, or a Shape.

    Raises:
        AdapterError: an unknown family, or a configuration that no model can be made from.
    """
    if isinstance(backbone, Shape):
        return backbone
    model_type = architecture_of(backbone).model_type
    sizes = hidden_size(backbone), layer_count(backbone)
    bare = Shape(model_type, *sizes, encoder_layers=encoder_layer_count(backbone))
    if not is_measured(method):
        return bare
    config = getattr(backbone, "config", backbone)
    if not isinstance(config, PreTrainedConfig):
        raise AdapterError(f"the method {method} needs the backbone's Hugging Face configuration")
    linears, biases, key_width = _measured(_Key(config))
    return replace(
        bare,
        linears=linears,
        biases=biases,
        key_width=key_width,
        is_gated_act=bool(getattr(config, "is_gated_act", False)),
    )


def with_measured(shape: Shape, text: str) -> Shape:
    """A shape with what `Shape.measured` wrote.

    Raises:
        AdapterError: it is of another form, or its sizes are no whole numbers from 1 to a million.
    """
    try:
        values = json.loads(text)
        linears = {str(name): (_size(i), _size(o)) for name, (i, o) in values["linears"].items()}
        biases = {str(path): _size(width) for path, width in values["biases"].items()}
        key_width = _size(values["key_width"])
        encoder_layers = _size(values["encoder_layers"]) if values["encoder_layers"] != 0 else 0
        gated = values["is_gated_act"]
        if not isinstance(gated, bool):
            raise TypeError("is_gated_act is neither true nor false")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise AdapterError(f"its shape is not that of a backbone: {type(error).__name__}: {error}") from None
    if architecture_of(shape).decoder is not None and not encoder_layers:
        raise AdapterError(
            f"its shape does not say how many layers of a {shape.model_type!r} are the encoder's"
        )
    return replace(
        shape,
        linears=linears,
        biases=biases,
        key_width=key_width,
        encoder_layers=encoder_layers,
        is_gated_act=gated,
    )


def _size(value: object) -> int:
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise ValueError(f"{str(value)[:40]} is no whole number from 1 to 1000000")
    return value


class _Key:
    """A configuration that can be looked up: equal where its JSON is."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config
        self._text = f"{config.model_type}/{config.to_json_string(use_diff=False)}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@lru_cache(maxsize=16)
def _measured(key: _Key) -> tuple[dict[str, tuple[int, int]], dict[str, int], int]:
    row = architecture_of(key.config)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        base: Any = AutoModel.from_config(key.config).base_model
    layers: Any = base.get_submodule(row.layers)
    layer = layers[0]
    linears = _linears_of(row, layer)
    if row.decoder is not None and linears != _linears_of(
        row.decoder, base.get_submodule(f"{row.decoder.layers}.0")
    ):
        raise AdapterError("the linears of the encoder and of the decoder differ in size: use a bottleneck")
    upper = {path: width for path, width in _biases_of(layers[-1]).items() if path in row.first_lacks}
    return linears, {**_biases_of(layer), **upper}, _key_width(key.config, linears)


def _biases_of(layer: nn.Module) -> dict[str, int]:
    return {
        path: module.bias.numel()
        for path, module in layer.named_modules()
        if isinstance(getattr(module, "bias", None), nn.Parameter)
    }


def _linears_of(row: Architecture, layer: nn.Module) -> dict[str, tuple[int, int]]:
    try:
        return {name: _sizes(layer.get_submodule(path)) for name, path in row.linears.items()}
    except AttributeError as error:
        raise AdapterError(
            f"a layer of {row.model_type!r} lacks a linear that its row names: {error}; is it "
            f"another version "
            "or variant of the family?"
        ) from None


def _sizes(linear: nn.Module) -> tuple[int, int]:
    weight = linear.weight
    assert isinstance(weight, torch.Tensor)
    outputs, inputs = weight.shape[::-1] if isinstance(linear, Conv1D) else weight.shape
    return inputs, outputs


def _key_width(config: PreTrainedConfig, linears: Mapping[str, tuple[int, int]]) -> int:
    if "key" in linears:
        return linears["key"][1]
    heads: int = config.num_attention_heads
    size = getattr(config, "head_dim", None) or hidden_size(config) // heads
    return (getattr(config, "num_key_value_heads", None) or heads) * size
