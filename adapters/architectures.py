"""Where the sites of each model family are: a table, one row a family, and which sites a configuration uses.

A row names modules by their path inside one layer. Adapters act through forward hooks on these modules, so
nothing of the backbone is subclassed or rewritten; see `insert.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.forward import BERT, DISTILBERT, GPT2, Forward

Sublayer = Literal["attention", "ffn"]
Wiring = Literal["after", "parallel", "norm_inside"]
Hook = Literal["after", "beside", "residual", "norm"]


class Site(NamedTuple):
    """One point of a layer where a module acts: layer index from 0, sublayer, and how it is wired."""

    layer: int
    sublayer: Sublayer
    wiring: Wiring

    @property
    def key(self) -> str:
        """The name of the site's module inside an adapter, e.g. "layer_0_ffn"."""
        return f"layer_{self.layer}_{self.sublayer}"


class HookPoint(NamedTuple):
    """A module inside a layer, by path, and what a hook on it does.

    "after": the module's output h becomes h + A(h).
    "beside": the module's output h becomes h + A(x), with x its input.
    "residual": the module's second argument, the residual x, becomes x + A(x), before the module adds it.
    "norm": the module is a LayerNorm that reads u; its output n becomes LayerNorm(u + A(n)).
    """

    path: str
    hook: Hook


@dataclass(frozen=True)
class Architecture:
    """One row: where the layers of a family are, and the hook point of every wiring.

    Args:
        model_type: `config.model_type` of the family.
        layers: path of the list of layers, from `model.base_model`.
        attention: last projection of the attention sublayer, before the residual is added.
        ffn: last projection of the feed-forward sublayer, before the residual is added.
        parallel: hook point beside the FFN, reading what the FFN reads.
        ffn_norm: the LayerNorm after the FFN's residual; None where the family normalises first.
        forward: the pieces of its forward pass.
        linears: path, inside a layer, of each of its linears, by names that all families share: "query", "key",
            "value", "attention_output", "ffn_up", "ffn_down", and where the family has them "ffn_gate",
            "query_key_value" and "ffn_gate_up" (several in one). Their weight is ``[out, in]``, and GPT-2's
            ``[in, out]``: its modules are transformers' `Conv1D`.
        last_norm: path, from `model.base_model`, of the LayerNorm behind the last layer, if there is one.
        positions_after_padding: positions are counted from `pad_token_id + 1`, as in RoBERTa, not from 0.
    """

    model_type: str
    layers: str
    attention: str
    ffn: str
    parallel: HookPoint
    ffn_norm: str | None
    forward: Forward
    linears: Mapping[str, str]
    last_norm: str | None = None
    positions_after_padding: bool = False

    def hook_point(self, site: Site) -> HookPoint:
        """The module of the site's layer to put a hook on, and the hook's kind."""
        if site.wiring == "parallel":
            return self.parallel
        if site.wiring == "norm_inside":
            if self.ffn_norm is None:
                raise _needs_post_norm(self.model_type)
            return HookPoint(self.ffn_norm, "norm")
        return HookPoint(self.attention if site.sublayer == "attention" else self.ffn, "after")

    @property
    def normalises_first(self) -> bool:
        """Whether sublayers read their input through a LayerNorm, and pass on the bare sum."""
        return self.ffn_norm is None

    def end(self, layer_count: int) -> str:
        """Path, from `model.base_model`, of the module whose output is the last hidden states."""
        return self.last_norm or f"{self.layers}.{layer_count - 1}"

    def check(self, config: AdapterConfig) -> None:
        """Raise `AdapterError` if the family has no sites for the configuration's placement."""
        if config.placement == "pfeiffer_original" and self.ffn_norm is None:
            raise _needs_post_norm(self.model_type)


def _needs_post_norm(model_type: str) -> AdapterError:
    return AdapterError(
        "placement 'pfeiffer_original' puts the LayerNorm after the FFN inside the adapter, but "
        f"{model_type!r} normalises before its sublayers; use 'pfeiffer' or 'parallel'",
        "placement",
    )


def _linears(**paths: str) -> Mapping[str, str]:
    return MappingProxyType(paths)


def _bert_like(model_type: str, *, positions_after_padding: bool = False) -> Architecture:
    # The FFN of these families is no module of its own: `intermediate` and `output.dense`, with the residual
    # and the LayerNorm inside `output`. What the FFN reads is that residual: one hook on `output` sees all.
    return Architecture(
        model_type=model_type,
        layers="encoder.layer",
        attention="attention.output.dense",
        ffn="output.dense",
        parallel=HookPoint("output", "residual"),
        ffn_norm="output.LayerNorm",
        forward=BERT,
        linears=_linears(
            query="attention.self.query",
            key="attention.self.key",
            value="attention.self.value",
            attention_output="attention.output.dense",
            ffn_up="intermediate.dense",
            ffn_down="output.dense",
        ),
        positions_after_padding=positions_after_padding,
    )


ARCHITECTURES = {
    row.model_type: row
    for row in (
        _bert_like("bert"),
        _bert_like("roberta", positions_after_padding=True),
        _bert_like("xlm-roberta", positions_after_padding=True),
        Architecture(
            model_type="distilbert",
            layers="transformer.layer",
            attention="attention.out_lin",
            ffn="ffn.lin2",
            parallel=HookPoint("ffn", "beside"),
            ffn_norm="output_layer_norm",
            forward=DISTILBERT,
            linears=_linears(
                query="attention.q_lin",
                key="attention.k_lin",
                value="attention.v_lin",
                attention_output="attention.out_lin",
                ffn_up="ffn.lin1",
                ffn_down="ffn.lin2",
            ),
        ),
        Architecture(
            model_type="gpt2",
            layers="h",
            attention="attn.c_proj",
            ffn="mlp.c_proj",
            parallel=HookPoint("mlp", "beside"),  # `mlp` reads the output of `ln_2`
            ffn_norm=None,
            forward=GPT2,
            linears=_linears(
                query_key_value="attn.c_attn",
                attention_output="attn.c_proj",
                ffn_up="mlp.c_fc",
                ffn_down="mlp.c_proj",
            ),
            last_norm="ln_f",
        ),
    )
}


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
            f"no row for the model family {model_type!r}; known: {', '.join(ARCHITECTURES)}. To add it, "
            "write a row in adapters/architectures.py (paths from model.base_model and from one layer), e.g. "
            f"Architecture(model_type={model_type!r}, layers='encoder.layer', ffn='output.dense', "
            "attention='attention.output.dense', parallel=HookPoint('output', 'residual'), "
            "ffn_norm='output.LayerNorm', forward=BERT), with its forward pass in adapters/forward.py"
        )
    return row


def first_position(backbone_config: Any) -> int:
    """The position id of a text's first token."""
    row = architecture_of(backbone_config)
    return int(backbone_config.pad_token_id) + 1 if row.positions_after_padding else 0


def hidden_size(backbone_config: Any) -> int:
    """Width of the backbone's hidden states, whatever the family calls it."""
    return _size(backbone_config, "hidden_size")


def layer_count(backbone_config: Any) -> int:
    """Number of the backbone's layers, whatever the family calls it."""
    return _size(backbone_config, "num_hidden_layers")


def _size(backbone_config: Any, name: str) -> int:
    config = getattr(backbone_config, "config", backbone_config)
    value = getattr(config, name, None)
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
    wirings: dict[str, tuple[tuple[Sublayer, Wiring], ...]] = {
        "houlsby": (("attention", "after"), ("ffn", "after")),
        "pfeiffer": (("ffn", "after"),),
        "attention": (("attention", "after"),),
        "parallel": (("ffn", "parallel"),),
        "pfeiffer_original": (("ffn", "norm_inside"),),
    }
    layers = layer_indices(config.layers, layer_count) if config.layers is not None else ()
    if config.placement is None:
        return ()
    return tuple(
        Site(layer, sublayer, wiring) for layer in layers for sublayer, wiring in wirings[config.placement]
    )


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
            range, or a bottleneck wider than the hidden size.
    """
    architecture_of(backbone_config).check(config)
    width = hidden_size(backbone_config)
    if config.bottleneck_dim is not None and config.bottleneck_dim > width:
        message = f"bottleneck_dim {config.bottleneck_dim} is wider than the backbone's hidden size {width}"
        raise AdapterError(message, "bottleneck_dim")
    return sites(config, layer_count(backbone_config))
