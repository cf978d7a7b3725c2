"""One adapter as a module of its own, apart from any model: a module a place, or a ladder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from adapters.architectures import architecture_of
from adapters.composition import parts_of
from adapters.config import AdapterConfig
from adapters.depth import reads
from adapters.errors import AdapterError
from adapters.initialize import initialize_ladder
from adapters.ladder import Ladder
from adapters.methods import COMPOSITION, METHODS, check, places_in, shared_module
from adapters.points import Place
from adapters.prompt import Prompt
from adapters.shape import Shape


class Adapter(nn.Module):
    """The modules of one adapter, all zero: `build` makes one that is ready to train.

    It computes nothing by itself: `insert.attach` puts it into a model. Its parameters are those to train
    (the weights of a composition's frozen parts are buffers);
    the keys of its state dict read "layer_0_ffn.down.weight", or "side.rungs.layer_0.down.weight".

    Args:
        config: what the adapter is.
        backbone_config: the Hugging Face configuration of the backbone it is for, or its `Shape`; no model is
            needed.

    Attributes:
        config, model_type, hidden_size, layer_count: what it is, and the backbone that it fits.
        shape: the sizes of that backbone, as far as the method needs them.
        sites: where its modules act, from the bottom up; none if it is a ladder, a prompt or a head alone.
        side: the ladder, if it is one, else None.
        generator: draws the dropout masks in training; None until it is set. No part of the state dict.

    Raises:
        AdapterError: the configuration does not fit the backbone; see `architectures.check_fits`.
    """

    def __init__(self, config: AdapterConfig, backbone_config: Any) -> None:
        super().__init__()
        if not isinstance(config, AdapterConfig):
            raise AdapterError(f"expected an AdapterConfig, not {type(config).__name__}")
        self.config = config
        self.shape = check(config, backbone_config)
        self.sites: tuple[Place, ...] = places_in(config, self.shape)
        self.model_type = self.shape.model_type
        self.hidden_size = self.shape.hidden_size
        self.layer_count = self.shape.num_hidden_layers
        self.generator: torch.Generator | None = None
        self.side = self._ladder(self.shape) if config.method == "ladder" else None
        named = shared_module(config, self.shape)
        if named is not None:
            self.add_module(*named)
        self._shared = None if named is None else named[0]
        make = METHODS[config.method].make
        for site in self.sites:
            self.add_module(site.key, make(config, self.shape, site, self.shared))

    def _ladder(self, shape: Shape) -> Ladder:
        config = self.config
        return Ladder(
            self.hidden_size,
            config.bottleneck_dim,
            [depth.key for depth in reads(config, shape)],
            config.activation,
            config.scaling,
            config.dropout,
            architecture_of(shape).normalises_first,
        )

    @property
    def modules_by_site(self) -> dict[str, nn.Module]:
        """Key of a place, e.g. "layer_0_ffn" or "layer_0_query", to the module there, from the bottom up."""
        return {site.key: self.get_submodule(site.key) for site in self.sites}

    @property
    def shared(self) -> nn.Module | None:
        """What its modules share, or a prompt; None if there is no such thing."""
        return None if self._shared is None else self.get_submodule(self._shared)

    @property
    def prompt(self) -> Prompt | None:
        """The prompt, if it is one."""
        return self.shared if isinstance(self.shared, Prompt) else None

    def extra_repr(self) -> str:
        return f"{self.config}, model_type={self.model_type!r}"


def build(
    config: AdapterConfig,
    backbone_config: Any,
    generator: torch.Generator,
    parts: Mapping[str, Adapter] | None = None,
) -> Adapter:
    """An adapter with its initial weights: fp32, on the CPU, drawn site by site from the bottom up.

    Args:
        config: what the adapter is.
        backbone_config: the Hugging Face configuration of the backbone; no model is needed.
        generator: a CPU generator, so that the weights depend on no device. The global one is not touched.
        parts: of a composition, the frozen adapters by the digest of their weights; they are copied. Those of
            fp64 make it one of fp64.

    Raises:
        AdapterError: the configuration does not fit the backbone, the generator is none of the CPU, or a
            frozen adapter is missing or another than the configuration says.
    """
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        # Given None, torch would draw from the global generator without a word.
        raise AdapterError("initial weights are drawn from a torch.Generator on the CPU: pass one")
    adapter = Adapter(config, backbone_config)
    fill = METHODS[config.method].fill
    for module in (*filter(None, [adapter.shared]), *adapter.modules_by_site.values()):
        fill(config, module, generator)
    if adapter.side is not None:
        initialize_ladder(config.initialization, adapter.side, generator)
    if config.parts:
        shape = adapter.shape
        frozen = parts_of(config, shape, parts or {}, lambda part: build(part, shape, generator))
        if any(tensor.dtype == torch.float64 for part in frozen for tensor in part.state_dict().values()):
            adapter.double()
        COMPOSITION.take(adapter, frozen)
    return adapter
