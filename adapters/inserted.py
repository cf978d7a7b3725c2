"""The adapters that are in one backbone: which, where, which hooks are on, and what to restore at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import nn

from adapters.adapter import Adapter
from adapters.architectures import Architecture, Hook, HookPoint, Site, architecture_of, layer_indices
from adapters.config import AdapterConfig, shares_step
from adapters.errors import AdapterError
from adapters.fields import AFTER_PREFIX
from adapters.hooks import Handle, Segment, register, register_ladder, register_routed
from adapters.points import Point, hook_point, is_in_ffn
from adapters.prompt import register_prompt

Route: TypeAlias = tuple[str, int, int]


Pooled = Literal["ffn", "attention"]
"""What of the last layer sees pooled rows where a place does: its FFN, or the queries of its attention."""


class Place(NamedTuple):
    """One site of an adapter in a backbone: the adapter's module, and the backbone's module to hook."""

    module: nn.Module
    hooked: nn.Module
    point: HookPoint
    reads: nn.Module | None
    pooled: Pooled | None


class Rungs(NamedTuple):
    """Where a ladder is in a backbone: the layers whose input it reads, and the module it adds to."""

    layers: tuple[nn.Module, ...]
    end: nn.Module


Places: TypeAlias = tuple[Place, ...] | Rungs

_ORDER: tuple[Hook, ...] = (
    "positions", "prefix", "input", "norm", "change", "residual", "beside", "across", "after", "layer",
)  # fmt: skip
"""Hooks of one module act in this order, whoever put them there: what an adapter computes depends on no
other. A LayerNorm is computed anew before its output is changed, and what is behind reads all that was
added."""


class Inserted(nn.Module):
    """Submodule of a backbone as long as adapters are in it, so that they move and are copied with it.

    Args:
        backbone: nothing of it is kept but the names of what is trainable and in training mode now.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.places: dict[str, Places] = {}
        self.active: str | None = None
        self.in_route = False
        self.handles: list[Handle] = []
        self.were_trainable = {name for name, value in backbone.named_parameters() if value.requires_grad}
        self.were_training = {name for name, module in backbone.named_modules() if module.training}

    def put(self, name: str, adapter: Adapter, places: Places) -> None:
        """Add an adapter; no hook is set."""
        self.adapters[name] = adapter
        self.places[name] = places

    def drop(self, name: str) -> None:
        """Forget an adapter that is not active."""
        del self.adapters[name], self.places[name]

    def switch(self, name: str | None, backbone: nn.Module) -> None:
        """Make an adapter the active one, or none; on an error the one before stays it."""
        before, self.active = self.active, name
        try:
            self.hook_active(backbone)
        except BaseException:
            self.active = before
            self.hook_active(backbone)
            raise

    def hook_active(self, backbone: nn.Module) -> None:
        """Set the hooks of the active adapter, or none, in place of those that are on."""
        self.unhook()
        if self.active is None:
            return
        adapter, row = self._adapter(self.active), architecture_of(backbone)
        places = self.places[self.active]
        if isinstance(places, Rungs):
            self.handles.extend(register_ladder(adapter, *places))
            return
        for place in sorted(places, key=_rank):
            hooked = (place.hooked, place.point, adapter, place.module, backbone, place.reads)
            self.handles.append(register(*hooked))
        if adapter.prompt is not None:
            reader = _submodule(backbone, row.reader, row.model_type)
            self.handles.extend(register_prompt(adapter.prompt, reader))
        if (adapter.config.dropout or adapter.config.stochastic_depth) and adapter.sites:
            lowest = min(site.layer for site in adapter.sites)
            layer = _submodule(backbone, row.part(lowest, backbone.config).path, row.model_type)
            self.handles.append(
                layer.register_forward_pre_hook(partial(_refuse_recomputing, adapter, backbone))
            )

    def hook_routes(
        self, routes: Sequence[Route], pooled: Mapping[str, tuple[int, int]], alone: bool
    ) -> None:
        """Set hooks that give each adapter its own tokens, in place of those that are on.

        Args:
            pooled: (start, stop) in the FFN of the last layer, by name, where that differs.
            alone: those hold for the query of its attention too, and all that follows it.
        """
        self.unhook()
        behind = ("ffn", "attention") if alone else ("ffn",)
        segments: dict[tuple[nn.Module, HookPoint, nn.Module | None], list[Segment]] = {}
        here: list[tuple[Place, Segment]] = []
        for name, start, stop in routes:
            adapter, places = self._adapter(name), self.places[name]
            assert not isinstance(places, Rungs) and shares_step(adapter.config)  # refused by `route`
            for place in places:
                ends = pooled.get(name, (start, stop)) if place.pooled in behind else (start, stop)
                here.append((place, Segment(adapter, place.module, *ends)))
        for place, segment in sorted(here, key=lambda one: _rank(one[0])):
            segments.setdefault((place.hooked, place.point, place.reads), []).append(segment)
        for (hooked, point, reads), entries in segments.items():
            self.handles.append(register_routed(hooked, point, entries, reads))

    def unhook(self) -> None:
        """Take off every hook that is on."""
        while self.handles:
            self.handles.pop().remove()

    def restore(self, backbone: nn.Module) -> None:
        """Give the backbone back the flags that it had when this was made."""
        for name, parameter in backbone.named_parameters():
            if name in self.were_trainable:
                parameter.requires_grad_(True)
        for name, module in backbone.named_modules():
            module.training = name in self.were_training

    def config(self, name: str) -> AdapterConfig:
        """What an adapter is."""
        return self._adapter(name).config

    def _adapter(self, name: str) -> Adapter:
        adapter = self.adapters[name]
        assert isinstance(adapter, Adapter)
        return adapter


def _refuse_recomputing(
    adapter: Adapter, backbone: Any, layer: nn.Module, arguments: tuple[Any, ...]
) -> None:
    if adapter.training and backbone.is_gradient_checkpointing:
        raise AdapterError(
            "gradient checkpointing computes layers again, and dropout would draw another mask then: train "
            "without the checkpointing, or with dropout and stochastic_depth 0",
            "dropout",
        )


def _rank(place: Place) -> int:
    return _ORDER.index(place.point.hook)


def places_of(adapter: Adapter, backbone: Any) -> Places:
    """Where the modules of an adapter go, each moved to the device of its layer; a ladder goes to the last.

    Raises:
        AdapterError: the backbone lacks a module that its family's row names, or the half of an
            encoder-decoder that a layer is in.
    """
    row = architecture_of(backbone)
    if row.decoder is not None:
        _check_halves(adapter, row, backbone)
    if adapter.side is not None:
        return _rungs_of(adapter, backbone)
    modules, places = adapter.modules_by_site, []
    for site in adapter.sites:
        part, layer_path = row.part(site.layer, backbone.config)
        point = hook_point(part, site)
        hooked = _submodule(backbone, f"{layer_path}.{point.path}".rstrip("."), row.model_type)
        reads = None
        if point.reads is not None:
            reads = _submodule(backbone, f"{layer_path}.{point.reads}", row.model_type)
        device = next(backbone.get_submodule(layer_path).parameters()).device
        last = site.layer == adapter.layer_count - 1
        pooled = _pooled(part, site) if last else None
        places.append(Place(modules[site.key].to(device), hooked, point, reads, pooled))
    if adapter.config.positions == AFTER_PREFIX:
        assert row.position_table is not None  # or it was refused
        table = _submodule(backbone, row.position_table, row.model_type)
        places.append(Place(adapter, table, HookPoint(row.position_table, "positions"), None, None))
    if adapter.shared is not None:
        adapter.shared.to(next(backbone.parameters()).device)
    return tuple(places)


def _check_halves(adapter: Adapter, row: Architecture, backbone: Any) -> None:
    """Refuse the layers of a decoder in a model that is the encoder alone, and the other way round."""
    paths = [row.part(layer, backbone.config).path for layer in range(adapter.layer_count)]
    modules = {path for path, _ in backbone.named_modules()}
    there = [layer for layer, path in enumerate(paths) if path in modules]
    if there and any(site.layer not in there for site in adapter.sites):
        lacking, other = ("decoder", "encoder") if 0 in there else ("encoder", "decoder")
        raise AdapterError(
            f"{type(backbone).__name__} has no {lacking}: give the layers of its {other}, layers={there}",
            "layers",
        )


def _pooled(row: Architecture, place: Site | Point) -> Pooled | None:
    if is_in_ffn(place):
        return "ffn"
    of_all = ("key", "value", "query_key_value")
    if isinstance(place, Point) and place.path in [row.linears.get(name) for name in of_all]:
        return None
    return "attention"


def _rungs_of(adapter: Adapter, backbone: Any) -> Rungs:
    row = architecture_of(backbone)
    assert adapter.side is not None
    indices = layer_indices(adapter.config.layers, adapter.layer_count)
    layers = tuple(_submodule(backbone, f"{row.layers}.{index}", row.model_type) for index in indices)
    end = _submodule(backbone, row.end(adapter.layer_count), row.model_type)
    adapter.side.to(next(end.parameters()).device)
    return Rungs(layers, end)


def _submodule(backbone: nn.Module, path: str, model_type: str) -> nn.Module:
    try:
        return backbone.get_submodule(path)
    except AttributeError:
        raise AdapterError(
            f"{type(backbone).__name__} has no module {path!r}, which the row of {model_type!r} in "
            "adapters/families.py names; is it another version or variant of the family?"
        ) from None
