"""What is known of a configuration before it is trained, and by how much that is past its study's limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.architectures import hidden_size
from adapters.config import AdapterConfig
from adapters.count import parameters_in
from adapters.flops import flops_per_token
from sweeper import space
from sweeper.study import Study


@dataclass(frozen=True)
class Limits:
    """The limits of a study, over one backbone.

    Args:
        backbone_config: of the backbone.
        outputs: width of the heads.
    """

    study: Study
    backbone_config: Any
    outputs: int

    @property
    def head_parameters(self) -> int:
        return (hidden_size(self.backbone_config) + 1) * self.outputs

    def known_before(self, adapter: AdapterConfig | None, names: Collection[str]) -> dict[str, int]:
        """What is known of a configuration before it is trained; of names of anything else, nothing."""
        found: dict[str, int] = {}
        if "trainable_parameters" in names:
            own = 0 if adapter is None else parameters_in(adapter, self.backbone_config)
            found["trainable_parameters"] = own + self.head_parameters
        if "flops_per_token" in names:
            found["flops_per_token"] = flops_per_token(adapter, self.backbone_config)
        return found

    def within(self, adapter: AdapterConfig) -> bool:
        """Whether an adapter is past none of the limits on what is known of it."""
        limits = self.study.limits.given
        known = self.known_before(adapter, tuple(limits))
        return all(known[name] <= limit for name, limit in limits.items())

    def excess(self, params: Mapping[str, Any], adapter: AdapterConfig) -> dict[str, int]:
        """By how much a configuration is past each limit of its study; 0 or less is within.

        Of a bit a layer, one that lacks a layer is past a limit, too: without a module it is no adapter, and
        the head alone is trained as a reference in any case.
        """
        limits = self.study.limits.given
        known = self.known_before(adapter, tuple(limits))
        excess = {name: known[name] - limit for name, limit in limits.items()}
        missing = space.layers_missing(self.study, params)
        return excess if missing is None else {**excess, space.NO_LAYER: missing}

    def allow(self, params: Mapping[str, Any]) -> bool:
        """Whether a point of the space is within all limits."""
        if not self.study.limits.given:
            return (space.layers_missing(self.study, params) or 0) <= 0
        adapter = space.configuration(self.study, params).adapter
        return all(by <= 0 for by in self.excess(params, adapter).values())
