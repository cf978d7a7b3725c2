"""One row of the table of model families: where the sites of its layers are, and how each is wired.

A row names modules by their path inside one layer. Adapters act through forward hooks on these modules, so
nothing of the backbone is subclassed or rewritten; see `insert.py`. A row is data: `Architecture.from_dict`
reads one from a study file, and `architectures.register` adds it to the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from adapters.errors import AdapterError, one_of
from adapters.fields import LINEARS
from adapters.forward import Forward
from adapters.placements import Sublayer, Wiring, Wirings

Hook = Literal[
    "after", "beside", "residual", "norm", "across", "change", "input", "layer", "prefix", "positions"
]


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
    "across": the module's output h becomes h + A(x), with x the input of the module at `reads`.
    The others are of methods without sites: see `points.Point`.
    """

    path: str
    hook: Hook
    reads: str | None = None


class Part(NamedTuple):
    """One layer of a backbone: the row that describes it, and its path from `model.base_model`."""

    row: Architecture
    path: str


@dataclass(frozen=True)
class Architecture:
    """One row: where the layers of a family are, and the hook point of every wiring.

    Args:
        model_type: `config.model_type` of the family.
        layers: path of the list of layers, from `model.base_model`.
        attention: last projection of the attention sublayer, before the residual is added.
        ffn: last projection of the feed-forward sublayer, before the residual is added.
        linears: path, inside a layer, of each of its linears, by names that all families share: "query",
            "key", "value", "attention_output", "ffn_up", "ffn_down", and where the family has them
            "ffn_gate", "query_key_value" and "ffn_gate_up" (several in one). Their weight is ``[out, in]``,
            and GPT-2's ``[in, out]``: its modules are transformers' `Conv1D`.
        parallel: hook point beside the FFN, reading what the FFN reads; None where the FFN is no module of
            its own: then the input of its first linear is added to the output of its last one.
        ffn_norm: the LayerNorm after the FFN's residual; None where the family normalises first.
        forward: the pieces of its forward pass; None if it cannot be cut: such a model runs on padded texts.
        last_norm: path, from `model.base_model`, of the LayerNorm behind the last layer, if there is one.
        layer_end: path, inside a layer, of the module whose output is the layer's, where the layer itself
            puts out a tuple.
        positions_after_padding: positions are counted from `pad_token_id + 1`, as in RoBERTa, not from 0.
        position_table: path, from `model.base_model`, of the embedding of learned positions; None where
            positions are rotary, or a model has several such tables, or none.
        count: the name, in the model's configuration, of the number of layers.
        passes: the name there of how many layers a token passes, where it passes the same ones several times.
        first_lacks: modules, inside a layer, that all have but the first, where an identity stands for them.
        causal: a token sees only those before it.
        reader: path, from `model.base_model`, of the module that reads the words in every model of the
            family, with a head or without; empty for the base model itself.
        refuses: methods that the family cannot take, and why.
        decoder: the row of the decoder's layers, which are counted on from the encoder's; None without one.
            Cross-attention has no sites.
    """

    model_type: str
    layers: str
    attention: str
    ffn: str
    linears: Mapping[str, str]
    parallel: HookPoint | None = None
    ffn_norm: str | None = None
    forward: Forward | None = field(default=None, compare=False)
    last_norm: str | None = None
    layer_end: str | None = None
    positions_after_padding: bool = False
    position_table: str | None = None
    count: str = "num_hidden_layers"
    passes: str | None = None
    first_lacks: tuple[str, ...] = ()
    causal: bool = False
    reader: str = ""
    refuses: Mapping[str, str] = field(default_factory=dict)
    decoder: Architecture | None = None

    @classmethod
    def from_dict(cls, model_type: str, values: Mapping[str, Any]) -> Architecture:
        """A row from plain values, as a study file gives it: `layers`, `attention`, `ffn`, `linears`, and
        where they are needed `ffn_norm`, `last_norm`, `layer_end`, `count` and `causal`.

        Raises:
            AdapterError: an unknown or a missing key, or a value of the wrong type.
        """
        if not isinstance(values, Mapping):
            raise AdapterError(f"the sites of a backbone are a mapping, not {type(values).__name__}")
        needed = ("layers", "attention", "ffn", "linears")
        known = (*needed, "ffn_norm", "last_norm", "layer_end", "count", "causal")
        for key, value in values.items():
            if key not in known:
                raise AdapterError(f"unknown key {key!r} of a backbone's sites; {one_of(str(key), known)}")
            expected = {"linears": Mapping, "causal": bool}.get(key, str)
            if not isinstance(value, expected) or value == "":
                raise AdapterError(f"{key} of a backbone's sites is {value!r}; it must be {_KINDS[expected]}")
        missing = [key for key in needed if key not in values]
        if missing:
            raise AdapterError(f"the sites of a backbone lack {', '.join(missing)}")
        return cls(model_type=model_type, **{**values, "linears": _checked_linears(values["linears"])})

    def part(self, layer: int, backbone_config: Any) -> Part:
        """The row and the path of one layer; those of a decoder follow those of its encoder."""
        if self.decoder is not None:
            # A Shape calls them so, whatever the family's configuration does.
            encoder_layers = getattr(backbone_config, "encoder_layers", None) or getattr(
                backbone_config, self.count
            )
            if layer >= encoder_layers:
                return Part(self.decoder, f"{self.decoder.layers}.{layer - encoder_layers}")
        return Part(self, f"{self.layers}.{layer}")

    def hook_point(self, site: Site) -> HookPoint:
        """The module of the site's layer to put a hook on, and the hook's kind."""
        last = self.attention if site.sublayer == "attention" else self.ffn
        if site.wiring == "after":
            return HookPoint(last, "after")
        if site.wiring == "norm_inside":
            if self.ffn_norm is None or site.sublayer != "ffn":
                raise _needs_post_norm(self.model_type)
            return HookPoint(self.ffn_norm, "norm")
        if site.sublayer == "ffn" and self.parallel is not None:
            return self.parallel
        # Elsewhere than where the last query is asked by some rows alone, the value's: DeBERTa asks its query
        # once more, for what it makes of distances.
        asks_alone = self.forward is not None and self.forward.attend_alone is not None
        of_attention = ("query",) if asks_alone else ("value", "query_key_value")
        names = of_attention if site.sublayer == "attention" else ("ffn_up", "ffn_gate_up")
        reads = next((self.linears[name] for name in names if name in self.linears), None)
        if reads is None:
            raise AdapterError(
                f"the row of {self.model_type!r} names no linear that reads what its {site.sublayer} "
                f"sublayer reads ({' or '.join(names)}): a parallel module needs one",
                "placement",
            )
        return HookPoint(last, "across", reads)

    @property
    def normalises_first(self) -> bool:
        """Whether sublayers read their input through a LayerNorm, and pass on the bare sum."""
        return self.ffn_norm is None

    def end(self, layer_count: int) -> str:
        """Path, from `model.base_model`, of the module whose output is the last hidden states."""
        last = f"{self.layers}.{layer_count - 1}"
        return self.last_norm or (f"{last}.{self.layer_end}" if self.layer_end else last)

    def check(self, method: str, wirings: Wirings) -> None:
        """Raise `AdapterError` if the family has no sites for a method, or for one of the wirings."""
        if method in self.refuses:
            message = f"{self.model_type!r} takes no adapter of the method {method}: {self.refuses[method]}"
            raise AdapterError(message, "method")
        for row in (self, self.decoder):
            for sublayer, wiring in wirings if row is not None else ():
                assert row is not None
                row.hook_point(Site(0, sublayer, wiring))


_KINDS: dict[type, str] = {
    str: "a path or a name, such as encoder.layer",
    bool: "true or false",
    Mapping: "a mapping of linears to their paths inside a layer",
}


def linears(**paths: str) -> Mapping[str, str]:
    """The linears of a layer, by the names that all families share."""
    return MappingProxyType(paths)


def _checked_linears(paths: Mapping[Any, Any]) -> Mapping[str, str]:
    for name, path in paths.items():
        if name not in LINEARS:
            raise AdapterError(f"unknown linear {name!r} of a backbone's sites; {one_of(str(name), LINEARS)}")
        if not isinstance(path, str) or not path:
            raise AdapterError(f"linear {name} of a backbone's sites is {path!r}; it must be {_KINDS[str]}")
    return MappingProxyType(dict(paths))


def _needs_post_norm(model_type: str) -> AdapterError:
    return AdapterError(
        "placement 'pfeiffer_original' (the wiring norm_inside) puts the LayerNorm after the FFN inside the "
        f"adapter, but {model_type!r} normalises before its sublayers; use 'pfeiffer' or 'parallel'",
        "placement",
    )
