"""The row of a model's family, its sizes, and which sites a configuration uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.families import ARCHITECTURES
from adapters.fields import AFTER_PREFIX, FROM_START
from adapters.forward import Forward
from adapters.placements import Sublayer, Wiring, wirings_of
from adapters.row import Architecture, Hook, HookPoint, Site, linears

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Hook",
    "HookPoint",
    "Site",
    "Sublayer",
    "Wiring",
    "architecture_of",
    "check_fits",
    "encoder_layer_count",
    "first_position",
    "forward_of",
    "hidden_size",
    "is_flat",
    "layer_count",
    "layer_indices",
    "layers_passed",
    "register",
    "sites",
]


def architecture_of(model_or_config: Any) -> Architecture:
    """The row of a Hugging Face model or of its configuration.

    Raises:
        AdapterError: it is neither, or its family has no row yet; the message shows how to write one.
    """
    config = getattr(model_or_config, "config", model_or_config)
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str):
        message = f"expected a Hugging Face model or its config, not {type(model_or_config).__name__}"
        raise AdapterError(message)
    row = ARCHITECTURES.get(model_type)
    if row is None:
        raise AdapterError(
            f"no row for the model family {model_type!r}; known: {', '.join(ARCHITECTURES)}. {_HOW_TO_ADD}"
        )
    return _variant(row, config)


_HOW_TO_ADD = """Name its sites in the study file, by their paths in the model:
backbone:
  sites:
    layers: encoder.layer                # the list of layers, from model.base_model
    attention: attention.output.dense    # inside a layer: the last linear of attention
    ffn: output.dense                    # inside a layer: the last linear of the FFN
    linears: {query: attention.self.query, key: attention.self.key, value: attention.self.value, \
attention_output: attention.output.dense, ffn_up: intermediate.dense, ffn_down: output.dense}
    ffn_norm: output.LayerNorm           # only if a LayerNorm follows the FFN's residual
    last_norm: final_norm                # only if a LayerNorm follows the last layer
In Python: adapters.architectures.register(Architecture.from_dict(model_type, {...})); for good: a row in \
adapters/families.py."""


def register(row: Architecture) -> None:
    """Add a row to the table, for this process.

    Raises:
        AdapterError: the family has another row already.
    """
    present = ARCHITECTURES.setdefault(row.model_type, row)
    if present != row:
        raise AdapterError(f"the family {row.model_type!r} has a row already, with other sites")


def _variant(row: Architecture, config: Any) -> Architecture:
    """The row of a member of the family that differs from the others by its configuration."""
    if row.model_type == "t5" and getattr(config, "is_gated_act", False):
        assert row.decoder is not None
        return replace(_gated(row), decoder=_gated(row.decoder))
    if row.model_type == "albert" and getattr(config, "inner_group_num", 1) != 1:
        raise AdapterError("an ALBERT of several layers a group (inner_group_num) has no row")
    if row.model_type == "opt" and not getattr(config, "do_layer_norm_before", True):
        raise AdapterError("an OPT that normalises after its sublayers (opt-350m) has no row")
    narrow = getattr(config, "embedding_size", None)
    if isinstance(narrow, int) and narrow != getattr(config, "hidden_size", narrow):
        why = "its word embeddings are narrower than its layers"
        return replace(row, refuses={**row.refuses, "prompt": why})
    return row


def _gated(row: Architecture) -> Architecture:
    up = row.linears["ffn_up"]
    return replace(row, linears=linears(**{**row.linears, "ffn_gate": f"{up}_0", "ffn_up": f"{up}_1"}))


def forward_of(model_or_config: Any) -> Forward:
    """The pieces of a model's forward pass.

    Raises:
        AdapterError: it cannot be cut into pieces; see :func:`is_flat`.
    """
    forward = architecture_of(model_or_config).forward
    if forward is None or not is_flat(model_or_config):
        raise AdapterError("this model cannot run on a flat run of tokens: it runs on padded texts")
    return forward


def is_flat(model_or_config: Any) -> bool:
    """Whether a model can run on a flat run of tokens, many adapters at once; otherwise it is run on padded
    texts, one adapter at a time.

    Not where its attention looks at distances or at both sides by a mask of its own, or where its rotary
    embeddings depend on how long the longest text is.
    """
    config = getattr(model_or_config, "config", model_or_config)
    if architecture_of(config).forward is None or getattr(config, "use_bidirectional_attention", False):
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    return not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in nested)


def first_position(backbone_config: Any) -> int:
    """The position id of a text's first token."""
    row = architecture_of(backbone_config)
    return int(backbone_config.pad_token_id) + 1 if row.positions_after_padding else 0


def hidden_size(backbone_config: Any) -> int:
    """Width of the backbone's hidden states, whatever the family calls it."""
    return _size(backbone_config, "hidden_size")


def layer_count(backbone_config: Any) -> int:
    """Number of the backbone's layers, whatever the family calls it.

    Of an encoder-decoder: those of both, the encoder's first. Of ALBERT: the layers that differ, usually one.
    """
    total = getattr(backbone_config, "layer_total", None)
    if isinstance(total, int):
        return total  # of a Shape
    row = architecture_of(backbone_config)
    decoder = 0 if row.decoder is None else _size(backbone_config, row.decoder.count)
    return _size(backbone_config, row.count) + decoder


def encoder_layer_count(backbone_config: Any) -> int:
    """Of an encoder-decoder, how many of its layers are the encoder's; 0 of others, or where a Shape does not
    say."""
    row = architecture_of(backbone_config)
    if row.decoder is None:
        return 0
    known = getattr(backbone_config, "encoder_layers", None)  # of a Shape, and of BART's configuration
    return known if isinstance(known, int) else _size(backbone_config, row.count)


def layers_passed(backbone_config: Any) -> tuple[int, ...]:
    """The index of each layer that a token passes, in order: each once, but in ALBERT."""
    layers = layer_count(backbone_config)
    row = architecture_of(backbone_config)
    if row.passes is None:
        return tuple(range(layers))
    total = _size(backbone_config, row.passes)
    return tuple(int(number / (total / layers)) for number in range(total))  # rounded as ALBERT does


def _size(backbone_config: Any, name: str) -> int:
    config = getattr(backbone_config, "config", backbone_config)
    value = getattr(config, name, None)
    if value is None:  # of a model of texts and images, the text model's
        value = getattr(getattr(config, "text_config", None), name, None)
    if not isinstance(value, int) or value < 1:
        raise AdapterError(f"the backbone's config has no usable {name}: {value!r}")
    return value


def sites(config: AdapterConfig, layer_count: int) -> tuple[Site, ...]:
    """The sites of a configuration in a backbone of `layer_count` layers, from the bottom up.

    "upper_half" and "upper_third" round up: the two upper of three layers, the two upper of six. A ladder has
    no sites.

    Raises:
        AdapterError: a layer index is out of range (`field` is "layers").
    """
    layers = layer_indices(config.layers, layer_count) if config.layers is not None else ()
    if config.placement is None:
        return ()
    return tuple(Site(layer, *pair) for layer in layers for pair in wirings_of(config.placement))


def layer_indices(layers: str | tuple[int, ...], layer_count: int) -> tuple[int, ...]:
    """The indices of a set of layers, rising; AdapterError if one is out of range."""
    if isinstance(layers, tuple):
        if layers[-1] >= layer_count:
            message = f"layer {layers[-1]} is out of range: the backbone has layers 0 to {layer_count - 1}"
            raise AdapterError(message, "layers")
        return layers
    parts = {"all": 1, "upper_half": 2, "upper_third": 3}[layers]
    used = -(-layer_count // parts)
    return tuple(range(layer_count - used, layer_count))


def check_fits(config: AdapterConfig, backbone_config: Any) -> tuple[Site, ...]:
    """The sites of a configuration in a given backbone, or the reason why it has none.

    Raises:
        AdapterError: unknown family, a placement that the family has no sites for, a layer index out of
            range, a bottleneck wider than the hidden size, or positions after a prefix where none are
            learned.
    """
    wirings = () if config.placement is None else wirings_of(config.placement)
    row = architecture_of(backbone_config)
    row.check(config.method, wirings)
    if config.positions == AFTER_PREFIX and row.position_table is None:
        raise AdapterError(
            f"positions {AFTER_PREFIX!r} are taken from a table of learned ones, and the row of "
            f"{row.model_type!r} names none: use {FROM_START!r}. Where positions are rotary, it comes to the "
            "same: a prefix learns how far away it is",
            "positions",
        )
    width = hidden_size(backbone_config)
    if config.bottleneck_dim is not None and config.bottleneck_dim > width:
        message = f"bottleneck_dim {config.bottleneck_dim} is wider than the backbone's hidden size {width}"
        raise AdapterError(message, "bottleneck_dim")
    return sites(config, layer_count(backbone_config))
