"""What one adapter is: a frozen, validated, hashable configuration, with JSON in and out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from adapters.errors import AdapterError, one_of
from adapters.fields import (
    ACTIVATIONS,
    DEFAULTS,
    EXAMPLES,
    INITIALIZATIONS,
    LAYER_SETS,
    LEARNED_SCALINGS,
    LINEARS,
    METHODS,
    PARTS,
    REQUIRED,
    TARGET_SETS,
    check_method,
    checked,
    layers_of_json,
    shown,
)
from adapters.placements import PLACEMENTS

__all__ = [
    "ACTIVATIONS",
    "INITIALIZATIONS",
    "LAYER_SETS",
    "LEARNED_SCALINGS",
    "LINEARS",
    "METHODS",
    "PLACEMENTS",
    "TARGET_SETS",
    "AdapterConfig",
    "Part",
    "fields_of",
    "shares_step",
]

_NOT_GIVEN: Any = None
_ALONE = ("prefix", "prompt", "mam")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """One adapter, apart from the backbone it goes into.

    A field that is not given is what `DEFAULTS` of its method says; one that means nothing to the method is
    None, and may not be given. `fields_of` lists those of a method.

    Args:
        method: one of `METHODS`; see `methods.py` for their papers.
        bottleneck_dim: units between down and up, at least 1, at most the backbone's hidden size.
        activation: one of `ACTIVATIONS`.
        initialization: one of `INITIALIZATIONS`; with "zero_up" the backbone is unchanged at the start.
        placement: which sublayers of a layer carry a module, and how it is wired: one of `PLACEMENTS`, or
            (sublayer, wiring) pairs, kept as a text such as "attention:after+ffn:parallel".
        layers: one of `LAYER_SETS`, or layer indices counted from 0 at the bottom; kept in rising order. Of a
            ladder: those whose input it reads; what leaves the last layer is read in any case.
        scaling: factor on what the module adds, finite and above 0.
        learned_scaling: "none", or "channel" for a trained factor for each channel of what is added.
        dropout: share of units dropped in training, 0 <= dropout < 1.
        stochastic_depth: probability with which a module is left out of a training step, 0 <= it < 1.
        rank: of the low-rank change, at least 1.
        alpha: the low-rank change is multiplied by alpha / rank; finite and above 0.
        targets: which linears of a layer: one of `TARGET_SETS`, or names of `LINEARS` joined by "+". A set
            takes those that the family has, names must be there: the two are never equal.
        prefix_length: trained keys and values in front of each layer's own.
        positions: where those of a text begin: "from_start", as without a prefix, or "after_prefix", counted
            on behind it; the latter in families with a table of learned positions.
        prompt_length: trained vectors in front of each text's word embeddings.
        phm_dim: Kronecker factors of a projection; divides the hidden size and bottleneck_dim.
        phm_rank: rank of each factor's larger half.
        adapters: of a composition, the frozen adapters that it is made of: a Part each, or its configuration;
            of a stack from the bottom up.
        value_matrix: "trained" for one that starts as the identity, or "none".
        temperature: attention scores are divided by it; finite and above 0.

    Raises:
        AdapterError: a value is of the wrong type or not allowed; `field` names it.
    """

    method: str = "bottleneck"
    bottleneck_dim: int = _NOT_GIVEN
    activation: str = _NOT_GIVEN
    initialization: str = _NOT_GIVEN
    placement: str | None = None
    layers: str | tuple[int, ...] = _NOT_GIVEN
    scaling: float = _NOT_GIVEN
    learned_scaling: str = _NOT_GIVEN
    dropout: float = _NOT_GIVEN
    stochastic_depth: float = _NOT_GIVEN
    rank: int = _NOT_GIVEN
    alpha: float = _NOT_GIVEN
    targets: str = _NOT_GIVEN
    prefix_length: int = _NOT_GIVEN
    positions: str = _NOT_GIVEN
    prompt_length: int = _NOT_GIVEN
    phm_dim: int = _NOT_GIVEN
    phm_rank: int = _NOT_GIVEN
    adapters: tuple[Part, ...] = _NOT_GIVEN
    value_matrix: str = _NOT_GIVEN
    temperature: float = _NOT_GIVEN

    def __post_init__(self) -> None:
        check_method(self.method)
        defaults = DEFAULTS[self.method]
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if field.name not in defaults:
                if value is not None:
                    raise _meaningless(self.method, field.name)
                continue
            value = defaults[field.name] if value is None else value
            if value is REQUIRED:
                raise AdapterError(f"{field.name} is missing; give {EXAMPLES[field.name]}", field.name)
            # Written back in one form, so that equal adapters are equal and hash alike.
            kept = _parts(self.method, value) if field.name == "adapters" else checked(field.name, value)
            object.__setattr__(self, field.name, kept)

    @property
    def draws(self) -> bool:
        """Whether training draws from the adapter's generator: dropout, or stochastic depth."""
        return bool(self.dropout) or bool(self.stochastic_depth)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The frozen adapters of a composition; none of any other method."""
        return self.adapters or ()

    @property
    def own(self) -> AdapterConfig | None:
        """Of a stack, the bottleneck that is trained on the frozen adapters; else None."""
        if self.method != "stack":
            return None
        return AdapterConfig(**{name: getattr(self, name) for name in fields_of("bottleneck")[1:]})

    def to_dict(self) -> dict[str, Any]:
        """The fields of its method as plain JSON values (layers as a list); `from_dict` reads it back."""
        values = {name: getattr(self, name) for name in fields_of(self.method)}
        if self.parts:
            values["adapters"] = [part.to_dict() for part in self.parts]
        if isinstance(self.layers, tuple):
            values["layers"] = list(self.layers)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdapterConfig:
        """Read a configuration from plain JSON values.

        `layers` may also be a JSON text of a list, such as "[0, 2, 4]".

        Raises:
            AdapterError: an unknown key, one that means nothing to the method, a missing `bottleneck_dim`, or
                a value that is not allowed.
        """
        if not isinstance(values, Mapping):
            raise AdapterError(f"an adapter's configuration is a mapping, not {shown(values)}")
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise AdapterError(f"unknown key {key!r} of an adapter; {one_of(key, known)}")
        method = values.get("method", cls.method)
        check_method(method)
        for key, value in values.items():
            if key not in fields_of(method):
                raise _meaningless(method, key)
            if value is None:  # only the constructor has it for "not given"
                raise AdapterError(f"{key} is {shown(None)}; give a value, or leave the key out", key)
        arguments = dict(values)
        layers = arguments.get("layers")
        if isinstance(layers, str) and layers.lstrip().startswith("["):
            arguments["layers"] = layers_of_json(layers)
        return cls(**arguments)


@dataclass(frozen=True)
class Part:
    """A frozen adapter in a composition.

    Args:
        config: what it is.
        weights: sha256 of its file, 64 hex digits, as `files.digest` gives it; None for one whose weights
            come from no file and are drawn.

    Raises:
        AdapterError: one of them is of another type.
    """

    config: AdapterConfig
    weights: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.config, AdapterConfig):
            raise AdapterError(f"adapters holds {shown(self.config)}, which is no configuration", "adapters")
        if self.weights is not None and not _is_digest(self.weights):
            raise AdapterError(f"weights is {shown(self.weights)}, which is no sha256", "adapters")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` reads them back."""
        named = {} if self.weights is None else {"weights": self.weights}
        return {"config": self.config.to_dict(), **named}

    @classmethod
    def from_dict(cls, values: Any) -> Part:
        """Read a part from plain JSON values; AdapterError if they are none."""
        if not isinstance(values, Mapping) or not {"config"} <= set(values) <= {"config", "weights"}:
            raise AdapterError("adapters holds something else than {config: …, weights: …}", "adapters")
        config = values["config"]
        # Before it is read: what is nested deeper is no part, however deep.
        if isinstance(config, Mapping) and config.get("method") in PARTS:
            raise AdapterError(f"adapters holds a {config['method']}: compositions do not nest", "adapters")
        return cls(AdapterConfig.from_dict(config), values.get("weights"))


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _parts(method: str, value: object) -> tuple[Part, ...]:
    """The parts of a composition in the one form in which they are kept; AdapterError if not allowed."""
    if not isinstance(value, (list, tuple)):
        raise AdapterError(f"adapters is {shown(value)}; it must be a list of frozen adapters", "adapters")
    given = [part if isinstance(part, Part) else _part(part) for part in value]
    least = 2 if method == "fuse" else 1
    if len(given) < least:
        message = f"a {method} is made of at least {least} frozen adapters, not of {len(given)}"
        raise AdapterError(message, "adapters")
    for part in given:
        if part.config.method not in PARTS[method]:
            allowed = ", ".join(PARTS[method])
            message = f"a {method} takes no adapter of the method {part.config.method}, but: {allowed}"
            raise AdapterError(message, "adapters")
    named = [part.weights for part in given if part.weights is not None]
    if len(set(named)) < len(named):
        raise AdapterError(f"a {method} holds the same adapter twice", "adapters")
    return tuple(given)


def _part(value: object) -> Part:
    return Part(value) if isinstance(value, AdapterConfig) else Part.from_dict(value)


def fields_of(method: str) -> tuple[str, ...]:
    """The fields of `AdapterConfig` that mean something to a method, in their order."""
    names = DEFAULTS[method]
    return ("method", *(field.name for field in fields(AdapterConfig) if field.name in names))


def shares_step(config: AdapterConfig | None) -> bool:
    """Whether an adapter can be trained in one step with others: if not, it is alone in its pack.

    What changes attention itself or the length of the texts acts on all tokens of a run; everything else acts
    on tokens of its own. None is a head alone.
    """
    return config is None or config.method not in _ALONE


def _meaningless(method: str, field: str) -> AdapterError:
    if method == "ladder" and field == "placement":
        message = "a ladder has no placement: it reads every layer of `layers` and acts on none"
        return AdapterError(message, field)
    listed = ", ".join(fields_of(method)[1:]) or "none"
    return AdapterError(f"{field} means nothing to the method {method}; its fields: {listed}", field)
