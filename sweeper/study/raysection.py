"""The section ``ray`` of a study file: what each worker asks a cluster for; no part of what the study is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeper.study.node import SECTIONS, Node
from sweeper.words import short

SMALLEST_SHARE = 0.0001
"""Ray counts no smaller part of anything."""
_RESOURCE = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}\Z")
_RAYS_OWN = ("cpu", "gpu", "memory", "object_store_memory")


@dataclass(frozen=True)
class RaySettings:
    """What one worker takes of a Ray cluster, and how many there are at most.

    Args:
        num_gpus: the part of a GPU, or the whole; None for one where the cluster has GPUs, else none.
        num_cpus: CPU cores; a worker on a CPU has as many threads.
        resources: what else a node must have, by the names that the cluster was given them under.
        max_workers: at the same time; None for as many as there are trials to train.
    """

    num_gpus: float | None = None
    num_cpus: float = 1.0
    resources: Mapping[str, float] = field(default_factory=dict)
    max_workers: int | None = None


def read_ray(node: Node | None) -> RaySettings:
    """The section ``ray``, which may be absent."""
    if node is None:
        return RaySettings()
    node.mapping(SECTIONS["ray"])
    gpus_node, cpus_node, resources, most = (node.optional(key) for key in SECTIONS["ray"])
    gpus = _share(gpus_node) if gpus_node else None
    if gpus_node is not None and gpus is not None and gpus > 1:
        gpus_node.fail(f"must be from 0 to 1, not {short(gpus_node.value)}: a worker trains on one GPU")
    settings = RaySettings(
        gpus,
        _share(cpus_node) if cpus_node else 1.0,
        _resources(resources) if resources else {},
        most.integer(minimum=1) if most else None,
    )
    if settings.num_cpus == 0 and gpus == 0 and not any(settings.resources.values()):
        node.fail("asks for nothing, so that all workers would be placed at once; set num_cpus or num_gpus")
    return settings


def _resources(node: Node) -> Mapping[str, float]:
    if not isinstance(node.value, dict):
        node.fail(f"must be a mapping from names to numbers, such as {{a100: 1}}, not {node.described()}")
    found = {}
    for name in node.value:
        at = node.child(name)
        if not isinstance(name, str) or not _RESOURCE.match(name):
            node.fail(f"{short(name)} cannot be the name of a resource; use letters, digits and _ . : -")
        if name.lower() in _RAYS_OWN:
            at.fail("is no custom resource; num_cpus and num_gpus stand beside 'resources'")
        found[name] = _share(at)
    return found


def _share(node: Node) -> float:
    """A number from 0 on that Ray can count."""
    share = node.number()
    if share < 0:
        node.fail(f"must be 0 or more, not {short(node.value)}")
    if 0 < share < SMALLEST_SHARE:
        node.fail(f"{short(node.value)} is too small; Ray counts parts of {SMALLEST_SHARE}")
    if share > 1 and not share.is_integer():
        node.fail(f"must be a whole number above 1, not {short(node.value)}")
    return share
