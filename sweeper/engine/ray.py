"""A Ray cluster: where it is, what it has, and the actors that it places. The only file that knows Ray.

    with connected("auto") as cluster:
        actor = cluster.place("films", "worker-1", settings)
        answer = cluster.ask(actor, "look")

Actors are detached: they go on when the coordinator is killed, and leave once they are done and nobody asks
for them. Ray restarts them where they or their nodes die. Passwords reach them as arguments of a call, never
in a runtime environment, which Ray shows to everybody who can see its dashboard and its logs.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from sweeper.engine.supervisor import Report, Supervisor
from sweeper.errors import SweeperError, UnreachableError, UsageError
from sweeper.home import Home
from sweeper.ledger import store_file
from sweeper.study import RaySettings

FORGOTTEN_SECONDS = 60.0
"""An actor without a worker leaves when nobody has asked for it for so long."""
_REACH_SECONDS = 5.0
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})\Z")
_OBJECT_STORE_BYTES = 10**8
"""Nothing is kept in Ray's object store; its smallest size is three quarters of this."""

AWAY, GONE = "away", "gone"
"""What comes instead of a report: from an actor that is restarted or out of reach, and from a dead one."""


@dataclass(frozen=True)
class Failed:
    """An actor that could not even begin, and why."""

    reason: str


Answer = Report | Failed | str


class Actor(Supervisor):
    """A supervisor that Ray has placed, and that gives its place up when it is forgotten."""

    def __init__(self, forgotten_seconds: float) -> None:
        import ray

        super().__init__()
        self._forgotten_seconds = forgotten_seconds
        self._self = ray.get_runtime_context().current_actor
        threading.Thread(target=self._leave_when_forgotten, name="forgotten", daemon=True).start()

    def _leave_when_forgotten(self) -> None:
        import ray

        while True:
            time.sleep(self._forgotten_seconds / 4)
            forgotten = time.monotonic() - self.asked_at > self._forgotten_seconds
            if forgotten and not self.is_running():
                ray.kill(self._self)


class RayCluster:
    """A cluster that this process is connected to.

    Args:
        is_local: begun by this process, on this machine alone, and ended with it.
    """

    def __init__(self, ray: Any, is_local: bool) -> None:
        self._ray = ray
        self.is_local = is_local

    def settle(self, settings: RaySettings, home: Home) -> RaySettings:
        """The settings with their number of GPUs, checked against this cluster as far as can be known now.

        Raises:
            UsageError: a worker could never be placed, or could not reach the store.
        """
        has = self._ray.cluster_resources()
        if settings.num_gpus is None:
            settings = replace(settings, num_gpus=1.0 if has.get("GPU") else 0.0)
        asked = request(settings)
        if not asked:
            raise UsageError("ray.num_cpus is 0 and the cluster has no GPU: a worker would ask for nothing")
        for name, share in asked.items():
            if self.is_local and share > has.get(name, 0):
                raise UsageError(
                    f"a worker asks for {said(asked)}, and this machine has {has.get(name, 0):g} {name}: "
                    "change the section 'ray' of the study file, or name a cluster with --ray-address"
                )
        machines = {node["NodeManagerHostname"] for node in self._ray.nodes() if node["Alive"]}
        if store_file(home.store_url) is not None and machines - {socket.gethostname()}:
            raise UsageError(
                "the store is a SQLite file, which only one machine can use, and the Ray cluster has "
                f"{len(machines)}: set SWEEPER_STORE to a PostgreSQL that all nodes reach"
            )
        return settings

    def place(self, namespace: str, name: str, settings: RaySettings) -> Any:
        """An actor, as soon as a node has room; until then calls to it wait."""
        return (
            self._ray.remote(Actor)
            .options(
                num_cpus=settings.num_cpus,
                num_gpus=settings.num_gpus or 0,
                resources={key: share for key, share in settings.resources.items() if share},
                name=name,
                namespace=namespace,
                lifetime="detached",
                max_restarts=-1,
                max_task_retries=0,
            )
            .remote(FORGOTTEN_SECONDS)
        )

    def find(self, namespace: str) -> dict[str, Any]:
        """The actors that are there already, by name: of an earlier coordinator, or of another one."""
        found = {}
        for row in self._ray.util.list_named_actors(all_namespaces=True):
            if row["namespace"] == namespace:
                with suppress(ValueError):  # it has left since
                    found[row["name"]] = self._ray.get_actor(row["name"], namespace=namespace)
        return found

    def ask(self, actor: Any, method: str, *arguments: Any) -> Any:
        """Call a method of an actor; its answer is fetched with :meth:`answers`."""
        return getattr(actor, method).remote(*arguments)

    def answers(self, asked: Sequence[Any], seconds: float = 0.0) -> dict[Any, Answer]:
        """The answers that are there, after waiting so long for all of them."""
        if not asked:
            return {}
        done, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
        return {ref: self._answer(ref) for ref in done}

    def _answer(self, ref: Any) -> Answer:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except errors.ActorUnavailableError:
            return AWAY
        except errors.ActorDiedError as error:
            return Failed(_last_line(error)) if "creation task" in str(error) else GONE
        except errors.RayActorError:
            return AWAY
        except errors.RayTaskError as error:
            return Failed(_last_line(error))

    def remove(self, actor: Any) -> None:
        """End an actor for good; the worker of one that has any hands its trials back by itself."""
        with suppress(Exception):  # it is gone, or the cluster is
            self._ray.kill(actor)


@contextmanager
def connected(address: str | None) -> Iterator[RayCluster]:
    """A Ray cluster, as long as the context lasts.

    Args:
        address: ``HOST:PORT`` of its head or ``auto`` for the one that this machine is part of; None for what
            ``RAY_ADDRESS`` says, and without that for one of this machine alone, which ends with the context.

    Raises:
        UsageError: Ray is not installed, or this is no address.
        UnreachableError: nothing answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    is_local = address in (None, "local")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if is_local:
        # Ray listens on all interfaces otherwise, whose addresses a firewall may not even let itself reach.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--engine ray needs Ray, in the version that constraints.txt pins: "
            "pip install -c constraints.txt '.[ray]'"
        ) from None
    if address is not None and not is_local:
        _check_reachable(address)
    options: dict[str, Any] = {"address": "local" if is_local else address}
    if is_local:
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises what it likes: versions, tokens, ports, files
        where = "on this machine" if is_local else f"at {address}"
        kind = SweeperError if is_local else UnreachableError
        raise kind(f"Ray {where} cannot be used: {_last_line(error)}") from error
    try:
        yield RayCluster(ray, is_local)
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Whether anything listens at an address: Ray itself would try for a minute."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--ray-address {address}: Ray's client protocol is not supported; start `sweeper run` on a "
            "machine of the cluster, with --ray-address auto"
        )
    if address == "auto":
        return
    found = _ADDRESS.match(address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise UsageError(f"--ray-address is {address!r}: give HOST:PORT of the cluster's head, or auto")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), _REACH_SECONDS).close()
    except OSError as error:
        raise UnreachableError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): `ray status` on its head says "
            "where it is"
        ) from None


def request(settings: RaySettings) -> dict[str, float]:
    """What a worker asks for, by the names that Ray has for it; without what is 0."""
    asked = {"CPU": settings.num_cpus, "GPU": settings.num_gpus or 0.0, **settings.resources}
    return {name: share for name, share in asked.items() if share}


def said(asked: dict[str, float]) -> str:
    """``1 CPU and 0.5 GPU``."""
    return " and ".join(f"{share:g} {name}" for name, share in asked.items())


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
