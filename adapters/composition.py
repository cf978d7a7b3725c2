"""Compositions of adapters: where the modules of their parts meet, and how they are made, filled and counted.

A composition is one adapter like any other: its configuration holds those of its frozen parts, its file
their weights. `compose.fuse` and `compose.stack` make one out of adapters that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import nn

from adapters.architectures import Site
from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.frozen import Frozen
from adapters.fuse import Fuse, fuse_shapes
from adapters.points import Place, Point, is_in_ffn
from adapters.shape import Shape
from adapters.stack import Stack

if TYPE_CHECKING:
    from adapters.adapter import Adapter

_FROZEN = ".frozen."


class Row(Protocol):
    """What of a row of `methods.METHODS` is needed here."""

    @property
    def places(self) -> Callable[[AdapterConfig, Shape], tuple[Place, ...]]: ...
    @property
    def make(self) -> Callable[[AdapterConfig, Shape, Place, nn.Module | None], nn.Module]: ...
    @property
    def shapes(self) -> Callable[[AdapterConfig, Shape, Place], dict[str, list[int]]]: ...
    @property
    def fill(self) -> Callable[[AdapterConfig, nn.Module, torch.Generator], None]: ...


class Meeting(NamedTuple):
    """One place of a composition, and whose modules act there.

    Args:
        place: where; its key is the name of their module in the composition.
        frozen: number of a part, and its own place, from the bottom up.
        own: the place of the trained adapter of a stack, or None.
    """

    place: Place
    frozen: tuple[tuple[int, Place], ...] = ()
    own: Place | None = None


class Composition:
    """The functions of the rows `fuse` and `stack`, over those of the methods that they are made of.

    Args:
        rows: every method that a part may have.
    """

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._last: tuple[AdapterConfig, Shape, dict[Place, Meeting]] | None = None

    def meetings(self, config: AdapterConfig, shape: Shape) -> tuple[Meeting, ...]:
        """The places of a composition, from the bottom up.

        Raises:
            AdapterError: two parts wire the same sublayer differently, or no two parts of a fusion meet.
        """
        found: dict[object, Meeting] = {}
        for number, part in enumerate(config.parts):
            for place in self._rows[part.config.method].places(part.config, shape):
                meeting = found.get(_spot(place), Meeting(place))
                found[_spot(place)] = meeting._replace(frozen=(*meeting.frozen, (number, place)))
        if config.own is not None:
            for place in self._rows[config.own.method].places(config.own, shape):
                found[_spot(place)] = found.get(_spot(place), Meeting(place))._replace(own=place)
        meetings = sorted(found.values(), key=lambda one: (one.place.layer, is_in_ffn(one.place)))
        meetings = _with_own_keys(meetings)
        _check_keys(meetings)
        if config.method == "fuse" and all(len(one.frozen) == 1 for one in meetings):
            raise AdapterError("no two of the adapters share a site: there is nothing to fuse", "adapters")
        return tuple(meetings)

    def places(self, config: AdapterConfig, shape: Shape) -> tuple[Place, ...]:
        """Where the modules of a composition act, from the bottom up."""
        return tuple(meeting.place for meeting in self.meetings(config, shape))

    def make(self, config: AdapterConfig, shape: Shape, place: Place, shared: nn.Module | None) -> nn.Module:
        """The module of one place, all zero."""
        meeting = self._at(config, shape, place)
        frozen = Frozen(
            {number: self._make(config.parts[number].config, shape, own) for number, own in meeting.frozen}
        )
        if config.method == "fuse":
            options = (config.value_matrix, config.temperature, config.dropout)
            return Fuse(shape.hidden_size, frozen, *options)
        own = None
        if config.own is not None and meeting.own is not None:
            own = self._make(config.own, shape, meeting.own)
        return Stack(frozen, own, not (isinstance(place, Site) and place.wiring == "parallel"))

    def _make(self, config: AdapterConfig, shape: Shape, place: Place) -> nn.Module:
        return self._rows[config.method].make(config, shape, place, None)

    def shapes(self, config: AdapterConfig, shape: Shape, place: Place) -> dict[str, list[int]]:
        """The shape of each tensor of that module."""
        meeting = self._at(config, shape, place)
        found: dict[str, list[int]] = {}
        for number, own in meeting.frozen:
            part = config.parts[number].config
            sizes = self._rows[part.method].shapes(part, shape, own)
            found |= {f"{_FROZEN[1:]}{number}.{name}": size for name, size in sizes.items()}
        if config.method == "fuse":
            return found | fuse_shapes(shape.hidden_size, len(meeting.frozen) > 1, config.value_matrix)
        if config.own is not None and meeting.own is not None:
            sizes = self._rows[config.own.method].shapes(config.own, shape, meeting.own)
            found |= {f"own.{name}": size for name, size in sizes.items()}
        return found

    def fill(self, config: AdapterConfig, module: nn.Module, generator: torch.Generator) -> None:
        """Give what is trained of a module its initial weights."""
        if isinstance(module, Fuse):
            module.fill(generator)
            return
        assert isinstance(module, Stack)
        if module.own is not None and config.own is not None:
            self._rows[config.own.method].fill(config.own, module.own, generator)

    def take(self, adapter: Adapter, parts: Sequence[Adapter]) -> None:
        """Copy the weights of the parts into a composition of them."""
        for meeting in self.meetings(adapter.config, adapter.shape):
            for number, place in meeting.frozen:
                source = parts[number].get_submodule(place.key)
                target = adapter.get_submodule(f"{meeting.place.key}{_FROZEN}{number}")
                target.load_state_dict(source.state_dict())

    def _at(self, config: AdapterConfig, shape: Shape, place: Place) -> Meeting:
        # Asked for every place of the same adapter, one after the other.
        last = self._last
        if last is None or last[0] is not config or last[1] is not shape:
            last = self._last = (config, shape, {one.place: one for one in self.meetings(config, shape)})
        return last[2][place]


def _spot(place: Place) -> object:
    """What two places have in common that are one: the same hook on the same module."""
    return place if isinstance(place, Site) else (place.layer, place.path, place.hook)


def _with_own_keys(meetings: Sequence[Meeting]) -> list[Meeting]:
    """What acts on the inputs of a linear is called so where something else acts on its outputs."""
    outputs = {
        one.place.key for one in meetings if isinstance(one.place, Point) and one.place.hook == "change"
    }

    def named(place: Place) -> Place:
        if isinstance(place, Point) and place.hook == "input" and place.key in outputs:
            return place._replace(name=f"{place.name}_input")
        return place

    return [one._replace(place=named(one.place)) for one in meetings]


def _check_keys(meetings: Sequence[Meeting]) -> None:
    seen: dict[str, Place] = {}
    for meeting in meetings:
        other = seen.setdefault(meeting.place.key, meeting.place)
        if other is not meeting.place:
            assert isinstance(other, Site) and isinstance(meeting.place, Site)
            raise AdapterError(
                f"the adapters wire the {other.sublayer} of layer {other.layer} differently ({other.wiring} "
                f"and {meeting.place.wiring}): compose adapters whose placements agree where they meet",
                "placement",
            )


def is_frozen(name: str) -> bool:
    """Whether a tensor of an adapter, by its name, belongs to a frozen part."""
    return _FROZEN in name


def parts_of(
    config: AdapterConfig,
    shape: Shape,
    given: Mapping[str, Adapter],
    draw: Callable[[AdapterConfig], Adapter],
) -> list[Adapter]:
    """The frozen adapters of a composition: those that are given, and drawn ones for those without weights.

    Args:
        given: by the digest of their weights.
        draw: builds one.

    Raises:
        AdapterError: one is missing, or is another than the configuration says.
    """
    found = []
    for part in config.parts:
        if part.weights is None:
            found.append(draw(part.config))
            continue
        adapter = given.get(part.weights)
        if adapter is None:
            raise AdapterError(
                f"the frozen adapter with the weights {part.weights[:12]}… is not given", "adapters"
            )
        if adapter.config != part.config:
            raise AdapterError(
                f"the frozen adapter {part.weights[:12]}… is not what was configured", "adapters"
            )
        check_part(adapter, shape)
        found.append(adapter)
    return found


def check_part(adapter: Adapter, shape: Shape) -> None:
    """Raise AdapterError unless an adapter is for the backbone that a composition is for."""
    made_for = (adapter.model_type, adapter.layer_count, adapter.hidden_size)
    found = (shape.model_type, shape.num_hidden_layers, shape.hidden_size)
    if made_for == found and adapter.shape.linears and adapter.shape != shape:
        raise AdapterError(
            "a frozen adapter is for a backbone whose linears or biases have other sizes", "adapters"
        )
    if made_for != found:
        told = "a {} of {} layers and hidden size {}"
        raise AdapterError(
            f"a frozen adapter is for {told.format(*made_for)}; the composition for {told.format(*found)}",
            "adapters",
        )
