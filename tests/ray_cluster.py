"""A real Ray cluster of several nodes on this host, on loopback, whose nodes can be lost like machines."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # with this name Ray keeps to loopback
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
}
# A node that is gone is noticed in two seconds instead of twelve.
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """The cluster: a head without room for workers, and nodes with one CPU core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": HEALTH})
        self.address: str = self._cluster.address

    def written(self) -> Iterator[bytes]:
        """What is in the files of the cluster: its logs above all."""
        for path in Path(self._cluster.head_node.get_session_dir_path()).rglob("*"):
            if path.is_file():
                yield path.read_bytes()

    def add(self) -> Any:
        """A node with a core."""
        return self._cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")

    def workers(self, node: Any) -> list[psutil.Process]:
        """The processes of ``sweeper.worker`` on a node."""
        return [process for process in _below(node) if "sweeper.worker" in _command(process)]

    def lose(self, node: Any) -> None:
        """Everything on a node is killed at once, as if its machine had lost its power."""
        for process in [*_below(node), psutil.Process(_raylet(node))]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self.remove(node)

    def remove(self, node: Any) -> None:
        """Take a node out."""
        self._cluster.remove_node(node, allow_graceful=False)

    def remove_all(self) -> None:
        """Take out every node but the head."""
        for node in list(self._cluster.worker_nodes):
            self.remove(node)

    def end(self) -> None:
        """End it all."""
        self._cluster.shutdown()


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _below(node: Any) -> list[psutil.Process]:
    try:
        return psutil.Process(_raylet(node)).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def ray_cluster() -> Iterator[Nodes]:
    """A cluster, for as long as the context lasts; it asks for a token, which is in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "RAY_AUTH_TOKEN": secrets.token_hex(32)}.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        nodes = Nodes()
        try:
            yield nodes
        finally:
            nodes.end()
