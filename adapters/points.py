"""Where the modules of each method act: a point is one module of one layer of the backbone, and what a hook
does.

Bottlenecks have the sites of their placement; the other methods have points that their family's row names by
its linears.
"""

from __future__ import annotations

from typing import NamedTuple

from adapters.architectures import Architecture, Hook, HookPoint, Site, architecture_of, layer_indices, sites
from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.fields import TARGET_SETS
from adapters.shape import Shape

_FUSED = {
    "query": "query_key_value",
    "key": "query_key_value",
    "value": "query_key_value",
    "ffn_up": "ffn_gate_up",
    "ffn_gate": "ffn_gate_up",
}


class Point(NamedTuple):
    """One module of the backbone that an adapter acts on.

    Args:
        layer: its layer, from 0.
        name: of the adapter's module there, within the layer.
        path: of the backbone's module, inside the layer; empty for the layer itself.
        hook: "change", "input", "layer" or "prefix"; see `hooks.register`.
        in_ffn: whether it lies behind the attention of its layer.
    """

    layer: int
    name: str
    path: str
    hook: Hook
    in_ffn: bool

    @property
    def key(self) -> str:
        """The name of the module inside an adapter, e.g. "layer_0_query"."""
        return f"layer_{self.layer}_{self.name}"


Place = Site | Point


def placed(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    """The sites of a placement."""
    return tuple(sites(config, shape.num_hidden_layers))


def beside_ffn(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    """The sites of bottlenecks parallel to the FFN."""
    parallel = AdapterConfig(bottleneck_dim=config.bottleneck_dim, placement="parallel", layers=config.layers)
    return tuple(sites(parallel, shape.num_hidden_layers))


def on_linears(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    """The target linears of each layer; a method that rescales acts on what `ffn_down` reads."""
    row = architecture_of(shape)
    names = target_linears(config.targets, row)
    return tuple(
        Point(
            layer,
            name,
            row.part(layer, shape).row.linears[name],
            "input" if config.method == "ia3" and name == "ffn_down" else "change",
            name.startswith("ffn"),
        )
        for layer in layer_indices(config.layers, shape.num_hidden_layers)
        for name in names
    )


def behind_layers(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    """The output of each layer."""
    layers = layer_indices(config.layers, shape.num_hidden_layers)
    return tuple(Point(layer, "output", "", "layer", True) for layer in layers)


def on_attention(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    """The module of each layer that calls the attention function: the one that holds its query."""
    row = architecture_of(shape)
    layers = layer_indices(config.layers, shape.num_hidden_layers)
    return tuple(
        Point(layer, "prefix", _attention_path(row.part(layer, shape).row), "prefix", False)
        for layer in layers
    )


def _attention_path(row: Architecture) -> str:
    query = row.linears.get("query") or row.linears.get("query_key_value")
    if query is None:
        raise AdapterError(f"the row of {row.model_type!r} does not name the linear of its queries", "method")
    return query.rpartition(".")[0]


def on_biases(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    """Every module of each layer that has a bias, but those of a decoder's cross-attention."""
    row = architecture_of(shape)
    if not shape.biases:
        raise AdapterError(f"bitfit trains biases, and the layers of {row.model_type!r} have none", "method")
    return tuple(
        Point(layer, path.replace(".", "_"), path, "change", _is_in_ffn(row, path))
        for layer in layer_indices(config.layers, shape.num_hidden_layers)
        for path in shape.biases
        if layer > 0 or path not in row.first_lacks
    )


def nowhere(config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
    """No point in any layer."""
    return ()


def target_linears(targets: str, row: Architecture) -> tuple[str, ...]:
    """The linears of a family that `AdapterConfig.targets` means.

    Of a named set: the linears that the family has, and the one that computes several where they are in one.
    Names that are written out must be there.

    Raises:
        AdapterError: the family has no linear of that name; the message lists those it has.
    """
    if targets in TARGET_SETS:
        there = (name if name in row.linears else _FUSED.get(name, "") for name in TARGET_SETS[targets])
        return tuple(dict.fromkeys(name for name in there if name in row.linears))
    names = tuple(targets.split("+"))
    for name in names:
        if name not in row.linears:
            fused = _FUSED.get(name)
            hint = f"; it is computed in {fused!r}" if fused in row.linears else ""
            raise AdapterError(
                f"{row.model_type!r} has no linear {name!r} of its own{hint}; "
                f"it has: {', '.join(row.linears)}",
                "targets",
            )
    return names


def hook_point(row: Architecture, place: Place) -> HookPoint:
    """The backbone's module and the kind of hook of a place."""
    if isinstance(place, Site):
        return row.hook_point(place)
    return HookPoint(place.path, place.hook)


def is_in_ffn(place: Place) -> bool:
    """Whether a place lies behind the attention of its layer."""
    return place.sublayer == "ffn" if isinstance(place, Site) else place.in_ffn


_STAGES = {
    **dict.fromkeys(("query", "key", "value", "query_key_value"), 1),
    "attention_output": 2,
    **dict.fromkeys(("ffn_up", "ffn_gate", "ffn_gate_up"), 3),
    "ffn_down": 4,
}


def linears_behind(place: Place, row: Architecture) -> tuple[str, ...]:
    """The linears of its layer that a gradient passes on its way from the layer's output to a place."""
    stage = _stage(place, row)
    return tuple(name for name in row.linears if _STAGES[name] > stage)


def _stage(place: Place, row: Architecture) -> int:
    if isinstance(place, Site):
        return _STAGES["ffn_down" if place.sublayer == "ffn" else "attention_output"]
    if place.hook == "prefix":
        return _STAGES["query"]
    own = next((name for name, path in row.linears.items() if path == place.path), None)
    if own is not None:
        return _STAGES[own] - (place.hook == "input")
    # A norm's bias: where a family normalises first, the lowest is in front of the attention.
    return 0 if place.hook == "change" and row.ffn_norm is None else _STAGES["ffn_down"]


def _is_in_ffn(row: Architecture, path: str) -> bool:
    """By the module that holds it: the FFN's, its norm's, or none of attention's."""
    attention = {row.linears[name].split(".")[0] for name in row.linears if not name.startswith("ffn")}
    first = path.split(".")[0]
    return first not in attention and first not in _BEFORE_FFN


_BEFORE_FFN = (
    "ln_1",
    "input_layernorm",
    "self_attn_layer_norm",
    "sa_layer_norm",
    "layernorm_before",
    "attn_norm",
)
