"""Drawing rows with the study's seed: a subset, and fractions that keep the shares of the labels."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def draw_subset(count: int, wanted: int, seed: int, purpose: str) -> list[int]:
    """``wanted`` of ``count`` places, in ascending order.

    Args:
        purpose: such as the name of the split; each purpose has draws of its own.
    """
    import torch

    return sorted(torch.randperm(count, generator=_generator(seed, purpose))[:wanted].tolist())


def draw_fractions(
    count: int, groups: Sequence[Hashable] | None, fractions: Mapping[str, float], seed: int
) -> dict[str, list[int]]:
    """Disjoint sets of places out of ``count``, ascending, each a fraction of the whole.

    With groups (labels), every set has its share of each, to the nearest row, and one row at least of every
    group is left over. A set does not depend on the fractions named after it: whoever adds a test split keeps
    the validation split.

    Args:
        groups: the group of each place, or None to draw from all alike.
        fractions: of each set, in the order in which the sets are drawn.
    """
    import torch

    members: dict[Hashable, list[int]] = {}
    for place in range(count):
        members.setdefault(None if groups is None else groups[place], []).append(place)
    generator = _generator(seed, "fractions")
    shuffled = {
        group: [places[i] for i in torch.randperm(len(places), generator=generator).tolist()]
        for group, places in members.items()
    }
    sizes = {group: len(places) for group, places in shuffled.items()}
    drawn: dict[str, list[int]] = {}
    for name, fraction in fractions.items():
        quotas = _quotas(sizes, {group: len(places) - 1 for group, places in shuffled.items()}, fraction)
        taken = [place for group, quota in quotas.items() for place in shuffled[group][:quota]]
        for group, quota in quotas.items():
            del shuffled[group][:quota]
        drawn[name] = sorted(taken)
    return drawn


def _quotas(
    sizes: Mapping[Hashable, int], available: Mapping[Hashable, int], fraction: float
) -> Counter[Hashable]:
    """How many of each group: largest remainders, so that the total is the nearest to the fraction."""
    exact = {group: fraction * size for group, size in sizes.items()}
    quotas = Counter({group: min(math.floor(share), available[group]) for group, share in exact.items()})
    missing = math.floor(fraction * sum(sizes.values()) + 0.5) - quotas.total()
    by_remainder = sorted(exact, key=lambda group: math.floor(exact[group]) - exact[group])
    for group in by_remainder:
        if missing > 0 and quotas[group] < available[group]:
            quotas[group] += 1
            missing -= 1
    return quotas


def _generator(seed: int, purpose: str) -> torch.Generator:
    import torch

    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
