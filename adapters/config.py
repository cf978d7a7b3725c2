"""What one adapter is: a frozen, validated, hashable configuration, with JSON in and out."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from adapters.errors import AdapterError, one_of

METHODS = ("bottleneck", "ladder")
ACTIVATIONS = (
    "relu",
    "gelu",
    "gelu_tanh",
    "silu",
    "tanh",
    "sigmoid",
    "softplus",
    "leaky_relu",
    "elu",
    "mish",
    "identity",
)
INITIALIZATIONS = ("zero_up", "normal", "truncated_normal", "kaiming", "xavier", "orthogonal")
PLACEMENTS = ("houlsby", "pfeiffer", "attention", "parallel", "pfeiffer_original")
LAYER_SETS = ("all", "upper_half", "upper_third")

_NAME_TABLES = {
    "method": METHODS,
    "activation": ACTIVATIONS,
    "initialization": INITIALIZATIONS,
}


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """One adapter, apart from the backbone it goes into.

    Args:
        method: "bottleneck" (Houlsby et al. 2019): down, activation, up, added to what it reads; or "ladder"
            (Sung et al. 2022): a narrow network beside the backbone, added to the last hidden states.
        bottleneck_dim: units between down and up, at least 1, at most the backbone's hidden size.
        activation: one of `ACTIVATIONS`.
        initialization: one of `INITIALIZATIONS`; with "zero_up" the backbone is unchanged at the start.
        placement: one of `PLACEMENTS`: which sublayers of a layer carry a module, and how it is wired;
            "pfeiffer" if it is not given. A ladder has none.
        layers: one of `LAYER_SETS`, or layer indices counted from 0 at the bottom; kept in rising order. Of a
            ladder: those whose input it reads; what leaves the last layer is read in any case.
        scaling: factor on what the module adds, finite and above 0.
        dropout: share of the bottleneck units dropped in training, 0 <= dropout < 1.

    Raises:
        AdapterError: a value is of the wrong type or not allowed; `field` names it.
    """

    method: str = "bottleneck"
    bottleneck_dim: int
    activation: str = "relu"
    initialization: str = "zero_up"
    placement: str | None = None
    layers: str | tuple[int, ...] = "all"
    scaling: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for field, names in _NAME_TABLES.items():
            _check_name(field, getattr(self, field), names)
        _check_bottleneck_dim(self.bottleneck_dim)
        object.__setattr__(self, "placement", _checked_placement(self.method, self.placement))
        # Written back in one form, so that equal adapters are equal and hash alike.
        object.__setattr__(self, "layers", _checked_layers(self.layers))
        object.__setattr__(self, "scaling", _checked_number("scaling", self.scaling))
        object.__setattr__(self, "dropout", _checked_number("dropout", self.dropout))
        if self.scaling <= 0:
            raise AdapterError(f"scaling is {self.scaling:g}; it must be above 0", "scaling")
        if not 0 <= self.dropout < 1:
            raise AdapterError(f"dropout is {self.dropout:g}; it must be at least 0 and below 1", "dropout")

    def to_dict(self) -> dict[str, Any]:
        """The fields of its method as plain JSON values (layers as a list); `from_dict` reads it back."""
        values = {name: getattr(self, name) for name in fields_of(self.method)}
        if isinstance(self.layers, tuple):
            values["layers"] = list(self.layers)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdapterConfig:
        """Read a configuration from plain JSON values.

        `layers` may also be a JSON text of a list, such as "[0, 2, 4]".

        Raises:
            AdapterError: an unknown key, a missing `bottleneck_dim`, or a value that is not allowed.
        """
        if not isinstance(values, Mapping):
            raise AdapterError(f"an adapter's configuration is a mapping, not {_shown(values)}")
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise AdapterError(f"unknown key {key!r} of an adapter; {one_of(key, known)}")
        if "bottleneck_dim" not in values:
            raise AdapterError("bottleneck_dim is missing; give a whole number such as 24", "bottleneck_dim")
        if values.get("placement", "") is None:  # only the constructor has it for "not given"
            raise AdapterError(f"placement is {_shown(None)}; {one_of('', PLACEMENTS)}", "placement")
        arguments = dict(values)
        layers = arguments.get("layers")
        if isinstance(layers, str) and layers.lstrip().startswith("["):
            arguments["layers"] = _layers_of_json(layers)
        return cls(**arguments)


def fields_of(method: str) -> tuple[str, ...]:
    """The fields of `AdapterConfig` that mean something to a method, in their order."""
    missing = ("placement",) if method == "ladder" else ()
    return tuple(field.name for field in fields(AdapterConfig) if field.name not in missing)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = "a huge value"
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _check_name(field: str, value: object, names: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise AdapterError(f"{field} is {_shown(value)}; {one_of('', names)}", field)
    if value not in names:
        raise AdapterError(f"unknown {field} {value!r}; {one_of(value, names)}", field)


def _checked_placement(method: str, value: object) -> str | None:
    if method == "ladder":
        if value is not None:
            message = "a ladder has no placement: it reads every layer of `layers` and acts on none"
            raise AdapterError(message, "placement")
        return None
    if value is None:
        return "pfeiffer"
    _check_name("placement", value, PLACEMENTS)
    assert isinstance(value, str)
    return value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int to Python, not to us


def _check_bottleneck_dim(value: object) -> None:
    if not _is_integer(value):
        raise AdapterError(f"bottleneck_dim is {_shown(value)}; it must be a whole number", "bottleneck_dim")
    assert isinstance(value, int)
    if value < 1:
        raise AdapterError(f"bottleneck_dim is {value}; it must be at least 1", "bottleneck_dim")


def _checked_number(field: str, value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number beyond all floats
            number = float(value)
            if math.isfinite(number):
                return number
    raise AdapterError(f"{field} is {_shown(value)}; it must be a finite number", field)


def _checked_layers(value: object) -> str | tuple[int, ...]:
    if isinstance(value, str):
        if value not in LAYER_SETS:
            message = f"unknown layer set {value!r}; {one_of(value, LAYER_SETS)}, or a list of indices"
            raise AdapterError(message, "layers")
        return value
    if not isinstance(value, (tuple, list)):
        message = f"layers is {_shown(value)}; {one_of('', LAYER_SETS)}, or a list of indices"
        raise AdapterError(message, "layers")
    if not value:
        raise AdapterError("layers is an empty list; name at least one layer", "layers")
    for index in value:
        if not _is_integer(index) or index < 0:
            message = f"layers holds {_shown(index)}; indices are whole numbers counted from 0 at the bottom"
            raise AdapterError(message, "layers")
    if len(set(value)) < len(value):
        raise AdapterError(f"layers {list(value)} names a layer twice", "layers")
    return tuple(sorted(value))


def _layers_of_json(text: str) -> list[Any]:
    try:
        layers = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"layers {text[:60]!r} is not a JSON list: {error}", "layers") from None
    assert isinstance(layers, list)  # nothing else starts with a bracket
    return layers
