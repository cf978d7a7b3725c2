"""One adapter as a module of its own, apart from any model: a bottleneck a site, or a ladder."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from adapters.architectures import Site, architecture_of, check_fits, hidden_size, layer_count
from adapters.bottleneck import Bottleneck
from adapters.config import AdapterConfig
from adapters.depth import reads
from adapters.errors import AdapterError
from adapters.initialize import initialize, initialize_ladder
from adapters.ladder import Ladder


class Adapter(nn.Module):
    """The modules of one adapter, all zero: `build` makes one that is ready to train.

    It computes nothing by itself: `insert.attach` puts it into a model. Its parameters are those to train;
    the keys of its state dict read "layer_0_ffn.down.weight", or "side.rungs.layer_0.down.weight".

    Args:
        config: what the adapter is.
        backbone_config: the Hugging Face configuration of the backbone it is for; no model is needed.

    Attributes:
        config, model_type, hidden_size, layer_count: what it is, and the backbone that it fits.
        sites: its sites, from the bottom up; none if it is a ladder.
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
        self.sites: tuple[Site, ...] = check_fits(config, backbone_config)
        self.model_type = architecture_of(backbone_config).model_type
        self.hidden_size = hidden_size(backbone_config)
        self.layer_count = layer_count(backbone_config)
        self.generator: torch.Generator | None = None
        self.side = self._ladder(backbone_config) if config.method == "ladder" else None
        for site in self.sites:
            module = Bottleneck(
                self.hidden_size, config.bottleneck_dim, config.activation, config.scaling, config.dropout
            )
            self.add_module(site.key, module)

    def _ladder(self, backbone_config: Any) -> Ladder:
        config = self.config
        return Ladder(
            self.hidden_size,
            config.bottleneck_dim,
            [depth.key for depth in reads(config, backbone_config)],
            config.activation,
            config.scaling,
            config.dropout,
            architecture_of(backbone_config).normalises_first,
        )

    @property
    def modules_by_site(self) -> dict[str, Bottleneck]:
        """Site key, e.g. "layer_0_ffn", to the module there, from the bottom up."""
        return {key: module for key, module in self._modules.items() if isinstance(module, Bottleneck)}

    def extra_repr(self) -> str:
        return f"{self.config}, model_type={self.model_type!r}"


def build(config: AdapterConfig, backbone_config: Any, generator: torch.Generator) -> Adapter:
    """An adapter with its initial weights: fp32, on the CPU, drawn site by site from the bottom up.

    Args:
        config: what the adapter is.
        backbone_config: the Hugging Face configuration of the backbone; no model is needed.
        generator: a CPU generator, so that the weights depend on no device. The global one is not touched.

    Raises:
        AdapterError: the configuration does not fit the backbone, or the generator is none of the CPU.
    """
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        # Given None, torch would draw from the global generator without a word.
        raise AdapterError("initial weights are drawn from a torch.Generator on the CPU: pass one")
    adapter = Adapter(config, backbone_config)
    for module in adapter.modules_by_site.values():
        initialize(config.initialization, module.down, module.up, generator)
    if adapter.side is not None:
        initialize_ladder(config.initialization, adapter.side, generator)
    return adapter
