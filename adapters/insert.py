"""Put adapters into a frozen Hugging Face model, take them out, switch between them.

The model stays what it was: no layer is subclassed or rewritten. Adapters act through forward hooks, and only
the sites of the active adapter carry one. While any adapter is in, the backbone (`model.base_model`) is
frozen and in eval mode, and holds the adapters as a submodule, so that `model.to(...)` moves them along. When
the last one leaves, everything is as it was before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from adapters.adapter import Adapter, build
from adapters.architectures import architecture_of, encoder_layer_count, hidden_size, layer_count
from adapters.config import AdapterConfig, shares_step
from adapters.errors import AdapterError
from adapters.inserted import Inserted, Route, Rungs, places_of
from adapters.methods import state_shapes
from adapters.shape import is_measured, measuring, shape_of

__all__ = ["Adapter", "activate", "active", "attach", "build", "get", "insert", "names", "remove", "route"]

_ATTRIBUTE = "sweeper_adapters"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


def insert(
    model: nn.Module, config: AdapterConfig, name: str = "default", *, generator: torch.Generator
) -> Adapter:
    """Build an adapter, put it into the model and make it the active one.

    Args:
        model: a Hugging Face model, with or without a head. Its backbone is frozen and put in eval mode.
        config: what the adapter is.
        name: letters, digits, "_" and "-"; free in this model.
        generator: a CPU generator that draws the initial weights.

    Raises:
        AdapterError: the configuration does not fit the model, or the name is taken or not allowed.
    """
    _check_new_name(model, name)
    return attach(model, build(config, _backbone(model).config, generator), name)


def attach(model: nn.Module, adapter: Adapter, name: str = "default") -> Adapter:
    """Put an adapter that was built or loaded into a model and make it the active one.

    Its modules move to the devices of their layers; its dtype and its training mode stay. On an error the
    model stays as it was.

    Raises:
        AdapterError: the adapter is for another family or size, or is in the model already, or the name
            is taken.
    """
    if not isinstance(adapter, Adapter):
        raise AdapterError(
            f"expected an Adapter, not {type(adapter).__name__}; `insert` takes a configuration"
        )
    _check_new_name(model, name)
    backbone = _backbone(model)
    _check_same_backbone(adapter, backbone)
    inserted = _inserted_of(model)
    if inserted is not None:
        _check_not_routed(inserted)
        for other, present in inserted.adapters.items():
            if present is adapter:
                raise AdapterError(f"this adapter is already in the model, as {other!r}")
    places = places_of(adapter, backbone)
    if inserted is None:
        inserted = Inserted(backbone)
        backbone.requires_grad_(False).eval()
        backbone.add_module(_ATTRIBUTE, inserted)
    inserted.put(name, adapter, places)
    try:
        activate(model, name)
    except BaseException:
        _take_out(backbone, inserted, name)
        raise
    return adapter


def remove(model: nn.Module, name: str = "default") -> Adapter:
    """Take an adapter out and return it. If it was the active one, none is active afterwards.

    With the last adapter, every hook, attribute and flag goes, and the backbone's `requires_grad` and
    training flags are what they were before the first one came.

    Raises:
        AdapterError: no adapter of that name, or it is called inside `route`.
    """
    adapter = get(model, name)
    backbone, inserted = _backbone(model), _inserted(model)
    _check_not_routed(inserted)
    if inserted.active == name:
        activate(model, None)
    _take_out(backbone, inserted, name)
    return adapter


def activate(model: nn.Module, name: str | None) -> None:
    """Make one of the model's adapters the active one, or none: then the model computes what it did alone.

    Raises:
        AdapterError: no adapter of that name, or it is called inside `route`.
    """
    inserted = _inserted_of(model)
    if inserted is None and name is None:
        return
    if name is not None:
        get(model, name)
    inserted = _inserted(model)
    _check_not_routed(inserted)
    if inserted.active != name:
        inserted.switch(name, _backbone(model))


@contextmanager
def route(
    model: nn.Module,
    routes: Sequence[Route],
    pooled: Mapping[str, tuple[int, int]] | None = None,
    alone: bool = False,
) -> Iterator[None]:
    """Within this context, each adapter acts on its own tokens of a flat input, instead of the active one.

    The tokens that no route covers see the backbone alone; gradients flow through all of them. A backward
    pass may run outside the context, unless it recomputes the forward pass (gradient checkpointing).

    Args:
        model: takes a flat input, with hidden states [1, tokens, d].
        routes: (name, start, stop) each: `name` acts on the tokens start:stop. They may not overlap, and may
            leave gaps. None at all means the backbone alone.
        pooled: where the FFN of the last layer sees other rows than the tokens: (start, stop) there, by name.
        alone: the query of the last layer's attention, and what follows it, see those rows too.

    Raises:
        AdapterError: an unknown name, a range that is empty, negative or overlaps another, a context inside
            another one; and by the forward pass: an input that is not flat, or shorter than the routes.
    """
    if not routes and _inserted_of(model) is None:
        yield
        return
    inserted = _inserted(model)
    _check_not_routed(inserted)
    if getattr(_backbone(model).config, "chunk_size_feed_forward", 0):
        raise AdapterError("routes need the whole sequence: set the backbone's chunk_size_feed_forward to 0")
    ordered = _checked_routes(inserted, routes)
    inserted.in_route = True
    try:
        inserted.hook_routes(ordered, pooled or {}, alone)
        yield
    finally:
        inserted.in_route = False
        inserted.hook_active(_backbone(model))


def names(model: nn.Module) -> tuple[str, ...]:
    """The names of the model's adapters, in the order they came."""
    inserted = _inserted_of(model)
    return () if inserted is None else tuple(inserted.adapters)


def active(model: nn.Module) -> str | None:
    """The name of the active adapter, or None."""
    inserted = _inserted_of(model)
    return None if inserted is None else inserted.active


def get(model: nn.Module, name: str = "default") -> Adapter:
    """The adapter of that name; AdapterError if there is none."""
    present = names(model)
    if name not in present:
        raise _unknown(name, present)
    adapter = _inserted(model).adapters[name]
    assert isinstance(adapter, Adapter)
    return adapter


def _backbone(model: nn.Module) -> Any:
    backbone = getattr(model, "base_model", None)
    if not isinstance(backbone, nn.Module) or not hasattr(backbone, "config"):
        raise AdapterError(f"expected a Hugging Face model, not {type(model).__name__}")
    return backbone


def _inserted_of(model: nn.Module) -> Inserted | None:
    return getattr(_backbone(model), _ATTRIBUTE, None)


def _inserted(model: nn.Module) -> Inserted:
    inserted = _inserted_of(model)
    if inserted is None:
        raise AdapterError("the model has no adapter; `insert` or `attach` one first")
    return inserted


def _take_out(backbone: nn.Module, inserted: Inserted, name: str) -> None:
    """Forget an adapter that is not active; with the last one, leave the backbone as it was before."""
    inserted.drop(name)
    if not inserted.adapters:
        delattr(backbone, _ATTRIBUTE)
        inserted.restore(backbone)


def _check_new_name(model: nn.Module, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or hasattr(nn.ModuleDict(), name):
        message = (
            f"{name!r} cannot name an adapter; use letters, digits, '_' and '-', and no attribute's name"
        )
        raise AdapterError(message)
    if name in names(model):
        raise AdapterError(
            f"the model already has an adapter named {name!r}; remove it or choose another name"
        )


def _check_same_backbone(adapter: Adapter, backbone: Any) -> None:
    made_for = (adapter.model_type, adapter.layer_count, adapter.hidden_size)
    config = backbone.config
    found = (architecture_of(config).model_type, layer_count(config), hidden_size(config))
    if made_for != found:
        shape = "a {} of {} layers and hidden size {}"
        raise AdapterError(
            f"the adapter is for {shape.format(*made_for)}; the model is {shape.format(*found)}"
        )
    known, there = adapter.shape.encoder_layers, encoder_layer_count(config)
    if known not in (0, there):  # 0: no encoder-decoder, or a file of before that does not say
        total = adapter.layer_count
        raise AdapterError(
            f"the adapter is for a {adapter.model_type} of {known} + {total - known} layers, those of the "
            f"encoder first; the model is one of {there} + {total - there}"
        )
    if is_measured(measuring(adapter.config)):
        _check_same_sizes(adapter, config)


def _check_same_sizes(adapter: Adapter, backbone_config: Any) -> None:
    """Raise AdapterError unless the linears, keys or biases that an adapter acts on have its sizes."""
    shape = shape_of(measuring(adapter.config), backbone_config)
    fitting = state_shapes(adapter.config, shape)
    for key, size in state_shapes(adapter.config, adapter.shape).items():
        if fitting.get(key) != size:
            raise AdapterError(
                f"the adapter is for a {adapter.model_type} of other sizes: its {key} is {size}, and the "
                f"model takes {fitting.get(key, 'none')}"
            )


def _check_not_routed(inserted: Inserted) -> None:
    if inserted.in_route:
        raise AdapterError("adapters cannot be changed inside `route`; leave its context first")


def _checked_routes(inserted: Inserted, routes: Sequence[Route]) -> list[Route]:
    ordered = sorted(routes, key=lambda entry: entry[1])
    reached = 0
    for name, start, stop in ordered:
        if name not in inserted.adapters:
            raise _unknown(name, tuple(inserted.adapters))
        if isinstance(inserted.places[name], Rungs):
            raise AdapterError(f"route of {name!r}: a ladder has no sites in the backbone; use `activate`")
        config = inserted.config(name)
        if not shares_step(config):
            raise AdapterError(
                f"route of {name!r}: a {config.method} acts on all tokens of a run; use `activate`"
            )
        if type(start) is not int or type(stop) is not int or not 0 <= start < stop:
            raise AdapterError(f"route of {name!r}: tokens {start}:{stop} are no range")
        if start < reached:
            raise AdapterError(f"route of {name!r}: tokens {start}:{stop} overlap those of another route")
        reached = stop
    return ordered


def _unknown(name: object, present: tuple[str, ...]) -> AdapterError:
    listed = f"known: {', '.join(present)}" if present else "the model has none"
    return AdapterError(f"no adapter named {name!r}; {listed}")
