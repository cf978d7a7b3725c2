"""A real Ray cluster of several nodes on this host, on loopback, whose nodes can be lost like machines."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
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
# A node that is gone is noticed in two seconds instead of twelve, and workers wait behind no other program.
SYSTEM = {
    "worker_niceness": 0,
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """The cluster: a head without room for workers, and nodes with one CPU core each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "node_ip_address": "127.0.0.1", "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": SYSTEM})
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
def _environment() -> Iterator[pytest.MonkeyPatch]:
    """The settings of a cluster that asks for a token, in this process's environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "RAY_AUTH_TOKEN": secrets.token_hex(32)}.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        yield patch


@contextmanager
def ray_cluster() -> Iterator[Nodes]:
    """A cluster, for as long as the context lasts; it asks for a token, which is in the environment."""
    with _environment():
        nodes = Nodes()
        try:
            yield nodes
        finally:
            nodes.end()


HEAD_ID = "f" * 51 + "00000"
"""What Ray's provider of nodes that are processes calls the head."""


class Autoscaled:
    """A cluster whose nodes, of one CPU core each, Ray's autoscaler starts and ends as it sees fit."""

    def __init__(self, address: str, folder: str) -> None:
        self.address = address
        self._folder = folder

    def processes(self, name: str) -> list[psutil.Process]:
        """The processes of the cluster whose command line has this name in it."""
        found = [process for process in psutil.process_iter() if self._folder in " ".join(_command(process))]
        below = [child for process in found for child in process.children(recursive=True)]
        return [one for one in {*found, *below} if any(name in word for word in _command(one)[:3])]


@contextmanager
def autoscaled_ray_cluster(most: int) -> Iterator[Autoscaled]:
    """A head without room for workers, and an autoscaler that adds up to ``most`` nodes."""
    folder = tempfile.mkdtemp(prefix="sweeper-ray-")  # short: the path of a socket has 107 bytes
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    provider = {"type": "fake_multinode", "gcs_address": address, "head_node_id": HEAD_ID}
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    settings = {
        **{f"{name}_commands": [] for name in commands},
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "cluster_name": "autoscaled",
        "max_workers": most,
        "idle_timeout_minutes": 0.2,
        "provider": {**provider, "use_node_id_as_ip": True, "disable_node_updaters": True},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "core": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
    }
    path = Path(folder) / "autoscaling.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    cluster = Autoscaled(address, folder)
    with _environment() as patch:
        patch.setenv("RAY_FAKE_CLUSTER", "1")
        patch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--num-cpus", "0"]
        command += ["--node-ip-address", "127.0.0.1", "--port", address.partition(":")[2]]
        command += ["--include-dashboard", "false", "--object-store-memory", "100000000"]
        command += ["--temp-dir", folder, "--autoscaling-config", str(path)]
        head = {**os.environ, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID}
        try:
            subprocess.run(command, env=head, check=True, stdout=subprocess.DEVNULL)
            yield cluster
        finally:
            for process in cluster.processes(""):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            shutil.rmtree(folder, ignore_errors=True)
