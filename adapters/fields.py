"""The fields of an adapter's configuration: which of them each method has, its defaults, and the checks."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from adapters.errors import AdapterError, one_of, short, written
from adapters.placements import checked_placement

REQUIRED: Any = object()
"""In place of a default: the field must be given."""

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
LAYER_SETS = ("all", "upper_half", "upper_third")
LEARNED_SCALINGS = ("none", "channel")
VALUE_MATRICES = ("trained", "none")
FROM_START, AFTER_PREFIX = POSITIONS = ("from_start", "after_prefix")

LINEARS = (
    "query",
    "key",
    "value",
    "query_key_value",
    "attention_output",
    "ffn_up",
    "ffn_gate",
    "ffn_gate_up",
    "ffn_down",
)
"""Names of the linears of a layer, in the order in which a layer computes them."""
TARGET_SETS: Mapping[str, tuple[str, ...]] = {
    "query_value": ("query", "value"),
    "key_value_ffn": ("key", "value", "ffn_down"),
    "attention": ("query", "key", "value", "attention_output"),
    "ffn": ("ffn_up", "ffn_gate", "ffn_down"),
    "all": ("query", "key", "value", "attention_output", "ffn_up", "ffn_gate", "ffn_down"),
}
"""Named sets of linears. Of a family that computes some of them in one linear, that one is meant."""

_BOTTLENECK = {
    "bottleneck_dim": REQUIRED,
    "activation": "relu",
    "initialization": "zero_up",
    "placement": "pfeiffer",
    "layers": "all",
    "scaling": 1.0,
    "dropout": 0.0,
}
_LOW_RANK = {
    "rank": 8,
    "alpha": 8.0,
    "targets": "query_value",
    "layers": "all",
    "initialization": "zero_up",
    "dropout": 0.0,
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "bottleneck": {**_BOTTLENECK, "learned_scaling": "none", "stochastic_depth": 0.0},
    "ladder": {name: value for name, value in _BOTTLENECK.items() if name != "placement"},
    "lora": _LOW_RANK,
    "dora": _LOW_RANK,
    "ia3": {"targets": "key_value_ffn", "layers": "all"},
    "compacter": {**_BOTTLENECK, "activation": "gelu", "phm_dim": 4, "phm_rank": 1},
    "loreft": {"rank": 8, "layers": "all", "dropout": 0.0},
    "prefix": {"prefix_length": 30, "positions": FROM_START, "layers": "all"},
    "prompt": {"prompt_length": 20},
    "mam": {
        **{name: value for name, value in _BOTTLENECK.items() if name != "placement"},
        "prefix_length": 30,
        "scaling": 4.0,
    },
    "bitfit": {"layers": "all"},
    "head": {},
    "fuse": {"adapters": REQUIRED, "value_matrix": "trained", "temperature": 1.0, "dropout": 0.0},
    "stack": {"adapters": REQUIRED, **_BOTTLENECK, "learned_scaling": "none", "stochastic_depth": 0.0},
}
"""The fields of each method, and what they are if they are not given."""

METHODS = tuple(DEFAULTS)
PARTS: Mapping[str, tuple[str, ...]] = {
    "fuse": ("bottleneck",),
    "stack": ("bottleneck", "lora", "dora", "ia3", "loreft", "bitfit"),
}
"""The compositions, and the methods that the frozen adapters in each may have."""
EXAMPLES: Mapping[str, str] = {
    "adapters": "a list of the frozen adapters that it is made of",
    "bottleneck_dim": "a whole number such as 24",
}
"""What to give for the fields that have no default."""
WHOLE_FIELDS = ("bottleneck_dim", "rank", "prefix_length", "prompt_length", "phm_dim", "phm_rank")
POSITIVE_FIELDS = ("scaling", "alpha", "temperature")
SHARE_FIELDS = ("dropout", "stochastic_depth")
NAME_FIELDS: Mapping[str, tuple[str, ...]] = {
    "activation": ACTIVATIONS,
    "initialization": INITIALIZATIONS,
    "learned_scaling": LEARNED_SCALINGS,
    "value_matrix": VALUE_MATRICES,
    "positions": POSITIONS,
}


def check_method(value: object) -> None:
    """Raise AdapterError unless it is the name of a method."""
    _check_name("method", value, METHODS)


def checked(field: str, value: object) -> Any:
    """A value of a field in the one form in which it is kept; AdapterError if it is not allowed."""
    if field in NAME_FIELDS:
        _check_name(field, value, NAME_FIELDS[field])
        return value
    if field in WHOLE_FIELDS:
        return _checked_whole(field, value)
    if field == "placement":
        return checked_placement(value)
    if field == "layers":
        return _checked_layers(value)
    if field == "targets":
        return checked_targets(value)
    number = _checked_number(field, value)
    if field in POSITIVE_FIELDS and number <= 0:
        raise AdapterError(f"{field} is {number:g}; it must be above 0", field)
    if field in SHARE_FIELDS and not 0 <= number < 1:
        raise AdapterError(f"{field} is {number:g}; it must be at least 0 and below 1", field)
    return number


def shown(value: object) -> str:
    """A value and its type, short enough for a message."""
    text = written(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def layers_of_json(text: str) -> list[Any]:
    """A list of layers from its JSON text; AdapterError if it is none."""
    try:
        layers = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"layers {text[:60]!r} is not a JSON list: {error}", "layers") from None
    assert isinstance(layers, list)  # nothing else starts with a bracket
    return layers


def checked_targets(value: object) -> str:
    """One of `TARGET_SETS`, or names of `LINEARS` joined by "+", each once, in their order there.

    A list of names is taken too. Names stay what they are, also where they are those of a set: a set takes
    what the family has of it, names must be there, so that "query+value" is refused where "query_value" means
    "query_key_value".
    """
    if isinstance(value, str) and value in TARGET_SETS:
        return value
    if not isinstance(value, (str, tuple, list)):
        raise AdapterError(f"targets is {shown(value)}; {one_of('', (*TARGET_SETS, *LINEARS))}", "targets")
    names: Iterable[Any] = [part.strip() for part in value.split("+")] if isinstance(value, str) else value
    chosen = list(names)
    for name in chosen:
        if not isinstance(name, str) or name not in LINEARS:
            known = one_of(short(name), (*TARGET_SETS, *LINEARS))
            raise AdapterError(f"unknown target {shown(name)}; {known}; join several by '+'", "targets")
    if not chosen:
        raise AdapterError("targets is an empty list; name at least one linear", "targets")
    if len(set(chosen)) < len(chosen):
        raise AdapterError(f"targets {'+'.join(chosen)!r} names a linear twice", "targets")
    return "+".join(sorted(chosen, key=LINEARS.index))


def _check_name(field: str, value: object, names: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise AdapterError(f"{field} is {shown(value)}; {one_of('', names)}", field)
    if value not in names:
        raise AdapterError(f"unknown {field} {value!r}; {one_of(value, names)}", field)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int to Python, not to us


def _checked_whole(field: str, value: object) -> int:
    if not _is_integer(value):
        raise AdapterError(f"{field} is {shown(value)}; it must be a whole number", field)
    assert isinstance(value, int)
    if value < 1:
        raise AdapterError(f"{field} is {shown(value)}; it must be at least 1", field)
    return value


def _checked_number(field: str, value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # a whole number beyond all floats
            number = float(value)
            if math.isfinite(number):
                return number
    raise AdapterError(f"{field} is {shown(value)}; it must be a finite number", field)


def _checked_layers(value: object) -> str | tuple[int, ...]:
    if isinstance(value, str):
        if value not in LAYER_SETS:
            message = f"unknown layer set {value!r}; {one_of(value, LAYER_SETS)}, or a list of indices"
            raise AdapterError(message, "layers")
        return value
    if not isinstance(value, (tuple, list)):
        message = f"layers is {shown(value)}; {one_of('', LAYER_SETS)}, or a list of indices"
        raise AdapterError(message, "layers")
    if not value:
        raise AdapterError("layers is an empty list; name at least one layer", "layers")
    for index in value:
        if not _is_integer(index) or index < 0:
            message = f"layers holds {shown(index)}; indices are whole numbers counted from 0 at the bottom"
            raise AdapterError(message, "layers")
    if len(set(value)) < len(value):
        raise AdapterError(f"layers {list(value)} names a layer twice", "layers")
    return tuple(sorted(value))
