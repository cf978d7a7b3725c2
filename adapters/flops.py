"""What a token costs to train on, in closed form, before anything is built.

A product of ``[n, a]`` and ``[a, b]`` counts 2·n·a·b. With L layers of p weights in their linears, a
token costs 2·p·L through all layers, and 2·p a layer backward through those above the lowest module, with
what of that module's own layer lies behind it: a frozen weight has no gradient of its own. Each weight of the
adapter costs 6: forward, and two products backward; each of a frozen part of it 4, or 2 below the lowest
trained module. A compacter multiplies as a bottleneck of its size does, however few parameters its matrices
are made from. A layer that is passed several times, as ALBERT's are, costs that as often, with the adapter's
weights in it. The products of attention, which grow with the texts, the linears of a decoder's
cross-attention, LayerNorms, activations, the head and the optimizer are not counted, nor is what a cache
saves.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from adapters.architectures import architecture_of, layer_indices, layers_passed
from adapters.config import AdapterConfig
from adapters.count import frozen_parameters_in, module_parameters, parameters_in
from adapters.methods import places_in
from adapters.points import linears_behind
from adapters.shape import Shape, shape_of


def flops_per_token(adapter: AdapterConfig | None, backbone_config: Any) -> int:
    """Floating-point operations of a training step, a token of its texts.

    Args:
        adapter: None for a head alone, for which the backbone only runs forward.
        backbone_config: the Hugging Face configuration of the backbone.

    Raises:
        AdapterError: a layer index is out of range, or the family lacks what the method acts on.
    """
    shape = shape_of("lora", backbone_config)  # with the sizes of its linears
    a_layer = sum(prod(size) for size in shape.linears.values())
    passed = layers_passed(backbone_config)
    forward = 2 * len(passed) * a_layer
    if adapter is None:
        return forward
    places = places_in(adapter.own or adapter, shape)  # of a stack, those that ask for a gradient
    multiplied = parameters_in(adapter, shape)
    if adapter.method == "compacter":
        multiplied = len(places) * module_parameters(shape.hidden_size, adapter.bottleneck_dim)
    own = 6 * multiplied + 4 * frozen_parameters_in(adapter, shape)
    if adapter.method == "prompt":  # its vectors are read by the first layer
        return forward + 2 * len(passed) * a_layer + own
    if not places:  # a ladder reads the backbone and feeds nothing back
        return forward + own
    lowest = places[0].layer
    own -= 2 * _frozen_below(adapter, shape, lowest)
    own = own * len(passed) // shape.num_hidden_layers  # ALBERT passes each about equally often
    backward = 2 * (len(passed) - 1 - passed.index(lowest)) * a_layer
    row = architecture_of(shape).part(lowest, shape).row
    behind = {name for place in places if place.layer == lowest for name in linears_behind(place, row)}
    backward += 2 * sum(prod(shape.linears[name]) for name in behind)
    return forward + backward + own


def _frozen_below(adapter: AdapterConfig, shape: Shape, layer: int) -> int:
    """Parameters of the frozen parts of a composition in the layers below one."""
    found = 0
    for part in adapter.parts:
        used = layer_indices(part.config.layers, shape.num_hidden_layers)
        below = tuple(index for index in used if index < layer)
        if below:
            found += parameters_in(replace(part.config, layers=below), shape)
    return found
