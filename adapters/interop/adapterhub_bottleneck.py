"""Bottlenecks as AdapterHub has them: a `BnConfig`, or a `ConfigUnion` where sublayers differ in wiring.

| here | their `BnConfig` (x the residual, h what the sublayer puts out) |
|---|---|
| after | `original_ln_before=False`: LN(h + A(h) + x) |
| parallel | `is_parallel=True`: LN(h + A(x) + x) |
| norm_inside, of the FFN | `original_ln_before=True, residual_before_ln=True`: LN(h + A(LN(h + x)) + x) |

Families that normalise first have the first alone: their parallel adapter reads the residual there, and here
it reads the input of the sublayer, which is its norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters.architectures import architecture_of, layer_indices
from adapters.config import AdapterConfig
from adapters.errors import AdapterError, short
from adapters.interop.common import number, refuse_rest, without
from adapters.placements import wirings_of
from adapters.shape import Shape

_WHOSE = "AdapterHub"
_FLAGS = {"attention": "mh_adapter", "ffn": "output_adapter"}
ACTIVATIONS: Mapping[str, str] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "swish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "leaky_relu": "leakyrelu",
    "mish": "mish",
    "identity": "linear",
}
"""Names of activations here, and what the same function is called there; the others have no name there."""
_ALIASES = {
    **{theirs: ours for ours, theirs in ACTIVATIONS.items()},
    "gelu_python": "gelu",
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh"), "gelu_tanh"),
    "silu": "silu",
    "leaky_relu": "leaky_relu",
}
_INITIALIZATIONS = {"zero_up": "mam_adapter", "normal": "bert", "truncated_normal": "houlsby"}
_READ = (
    "mh_adapter", "output_adapter", "reduction_factor", "non_linearity", "original_ln_before",
    "original_ln_after", "init_weights", "init_weights_seed", "is_parallel", "scaling", "residual_before_ln",
    "adapter_residual_before_ln", "inv_adapter_reduction_factor", "leave_out", "dropout", "phm_dim",
    "factorized_phm_W", "shared_W_phm", "shared_phm_rule", "factorized_phm_rule", "phm_c_init",
    "phm_init_range", "learn_phm", "hypercomplex_nonlinearity", "phm_rank", "phm_bias", "stochastic_depth",
)  # fmt: skip


def reduction_factor(hidden_size: int, bottleneck_dim: int) -> float:
    """A reduction factor of which their ``int(hidden_size // reduction_factor)`` makes this dimension."""
    factor = hidden_size / bottleneck_dim
    # Division of floats rounds: of 384 and 5 they would make 4.
    return factor if int(hidden_size // factor) == bottleneck_dim else hidden_size / (bottleneck_dim + 0.5)


def activation_name(name: str) -> str:
    """What an activation is called there; AdapterError if nothing there computes the same."""
    if name not in ACTIVATIONS:
        raise AdapterError(
            f"AdapterHub has no activation that computes {name}; it has: {', '.join(ACTIVATIONS)}",
            "activation",
        )
    return ACTIVATIONS[name]


def activation_here(name: object) -> str:
    """What one of their activations is called here; AdapterError if nothing here computes the same."""
    found = _ALIASES.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        raise AdapterError(f"its activation is {short(name)!r}, which no activation here computes")
    return found


def bottleneck_out(config: AdapterConfig, shape: Shape) -> dict[str, Any]:
    """Their configuration of a bottleneck of ours.

    Raises:
        AdapterError: an activation or a wiring that they do not have.
    """
    if architecture_of(shape).normalises_first and {w for _, w in wirings_of(config.placement or "")} != {
        "after"
    }:
        raise AdapterError(
            f"in {shape.model_type!r}, which normalises first, AdapterHub's adapters read the bare residual, "
            f"and those of the placement {config.placement} its norm: only modules after a sublayer go there",
            "placement",
        )
    by_wiring: dict[str, list[str]] = {}
    for sublayer, wiring in wirings_of(config.placement or ""):
        by_wiring.setdefault(wiring, []).append(sublayer)
    used = layer_indices(config.layers, shape.num_hidden_layers)
    common = {
        "reduction_factor": reduction_factor(shape.hidden_size, config.bottleneck_dim),
        "non_linearity": activation_name(config.activation),
        "init_weights": _INITIALIZATIONS.get(config.initialization, "bert"),
        "leave_out": [layer for layer in range(shape.num_hidden_layers) if layer not in used],
        "scaling": "channel" if config.learned_scaling == "channel" else float(config.scaling),
        "dropout": config.dropout,
        "stochastic_depth": config.stochastic_depth,
        "original_ln_after": True,
        "residual_before_ln": True,
    }
    configs = [
        {
            **common,
            **{flag: sublayer in sublayers for sublayer, flag in _FLAGS.items()},
            "is_parallel": wiring == "parallel",
            "original_ln_before": wiring == "norm_inside",
        }
        for wiring, sublayers in by_wiring.items()
    ]
    return configs[0] if len(configs) == 1 else {"architecture": "union", "configs": configs}


def bottleneck_in(values: Mapping[str, Any], shape: Shape) -> AdapterConfig:
    """Our configuration of a bottleneck of theirs.

    Args:
        values: their `BnConfig` or `ConfigUnion` as JSON values.
        shape: of the backbone.

    Raises:
        AdapterError: it does what no configuration here does; the message says what.
    """
    if values.get("architecture") != "union":
        return _one_in(values, shape)
    parts = values.get("configs")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise AdapterError("its union holds no configurations (AdapterHub)")
    if any(part.get("architecture") is not None for part in parts):
        kinds = ", ".join(str(part.get("architecture") or "bottleneck") for part in parts)
        raise AdapterError(f"it is a union of {kinds} (AdapterHub); of unions, only bottlenecks are read")
    configs = [_one_in(part, shape) for part in parts]
    plain = [{**config.to_dict(), "placement": None} for config in configs]
    if any(other != plain[0] for other in plain):
        raise AdapterError("the bottlenecks of its union differ in more than where they are (AdapterHub)")
    pairs = [pair for config in configs for pair in wirings_of(config.placement or "")]
    return AdapterConfig.from_dict({**configs[0].to_dict(), "placement": pairs})


def _one_in(values: Mapping[str, Any], shape: Shape) -> AdapterConfig:
    refuse_rest(values, _READ, {}, _WHOSE)
    learned = values.get("scaling", 1.0) == "channel"
    if values.get("scaling") == "learned":
        raise AdapterError(
            "its scaling is one learned factor a module (AdapterHub); here it is a constant, or one a channel"
        )
    starts = {theirs: ours for ours, theirs in _INITIALIZATIONS.items()}
    wiring = _wiring(values, shape)
    sublayers = [sublayer for sublayer, flag in _FLAGS.items() if values.get(flag)]
    if wiring == "norm_inside" and "attention" in sublayers:
        raise AdapterError(
            "it has the LayerNorm inside after attention (mh_adapter with original_ln_before, AdapterHub), "
            "and here "
            "that wiring is of the FFN alone"
        )
    used = without(values, shape.num_hidden_layers)
    start = values.get("init_weights")
    return AdapterConfig(
        bottleneck_dim=_bottleneck_dim(values.get("reduction_factor"), shape),
        activation=activation_here(values.get("non_linearity")),
        initialization=starts.get(start, "normal") if isinstance(start, str) else "normal",
        placement=[(sublayer, wiring) for sublayer in sublayers],  # type: ignore[arg-type]
        layers="all" if len(used) == shape.num_hidden_layers else tuple(used),
        scaling=1.0 if learned else number({"scaling": 1.0, **values}, "scaling", _WHOSE),
        learned_scaling="channel" if learned else "none",
        dropout=values.get("dropout", 0.0),
        stochastic_depth=values.get("stochastic_depth") or 0.0,
    )


def _wiring(values: Mapping[str, Any], shape: Shape) -> str:
    before, after = values.get("original_ln_before", False), values.get("original_ln_after", True)
    residual = values.get("residual_before_ln", True)
    first = architecture_of(shape).normalises_first
    if after is not True:
        raise AdapterError("it leaves out the LayerNorm behind the adapter (original_ln_after, AdapterHub)")
    if values.get("is_parallel"):
        if first:
            raise AdapterError(
                f"its parallel adapter reads the residual of a {shape.model_type!r}, and here it reads its "
                "norm"
            )
        return "parallel"
    if not before:
        if residual == "post_add":
            raise AdapterError("residual_before_ln is 'post_add' without original_ln_before (AdapterHub)")
        return "after"
    if first:
        raise AdapterError(
            "it reads the sum with the residual (original_ln_before, AdapterHub) in a "
            f"{shape.model_type!r}, which "
            "normalises first; here a module after a sublayer reads what that puts out"
        )
    if residual is not True:
        raise AdapterError(
            f"residual_before_ln is {residual!r} (AdapterHub): no wiring here adds that residual"
        )
    return "norm_inside"


def _bottleneck_dim(factor: object, shape: Shape) -> int:
    if isinstance(factor, Mapping):
        if any(isinstance(one, Mapping) for one in factor.values()):
            raise AdapterError("its reduction_factor holds mappings in a mapping (AdapterHub)")
        made = {_bottleneck_dim(one, shape) for one in factor.values()}
        if len(made) != 1:
            raise AdapterError("its layers differ in size (reduction_factor, AdapterHub); here they have one")
        return made.pop()
    given = number({"reduction_factor": factor}, "reduction_factor", _WHOSE)
    if given <= 0:
        raise AdapterError(f"its reduction_factor is {given:g}, not a number above 0 (AdapterHub)")
    if given < 1:
        raise AdapterError(
            f"its reduction_factor is {given:g} (AdapterHub), which makes more units than the backbone has "
            "channels"
        )
    return max(1, int(shape.hidden_size // given))
