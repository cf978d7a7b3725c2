"""``sweeper ui``: MLflow's own pages over what was drawn, and the link that opens a study on its view.

The server is a process group of its own, and ends with us. It listens on this machine only, unless a password
is set: MLflow's pages can change and delete everything that they show. A password guards loopback, too.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweeper.errors import SweeperError, UnreachableError, UsageError
from sweeper.home import Home
from sweeper.ledger import Ledger
from sweeper.tracking import Tracker
from sweeper.tracking.address import shown_uri
from sweeper.tracking.links import links_of
from sweeper.tracking.views import link

START_SECONDS = 90.0
"""How long the server may take to answer."""
END_SECONDS = 5.0
PASSWORD_VARIABLE, SHORTEST_PASSWORD = "SWEEPER_UI_PASSWORD", 12
USER = "admin"
# Settings of another MLflow server in this environment, that would change what ours serves, and where.
_SERVERS_OWN = (
    "MLFLOW_STATIC_PREFIX", "MLFLOW_ARTIFACTS_ONLY", "MLFLOW_UVICORN_OPTS", "MLFLOW_GUNICORN_OPTS",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI",
)  # fmt: skip


def serve(home: Home, host: str = "127.0.0.1", port: int = 5000, study: str | None = None) -> None:
    """Show the studies in MLflow's pages until Ctrl-C or SIGTERM; prints their links on stdout.

    If ``MLFLOW_TRACKING_URI`` is a server, its links are printed and nothing is started.

    Args:
        host: the address to listen on; one that others can reach needs a password of 12 characters or more in
            ``SWEEPER_UI_PASSWORD`` (the user is ``admin``). Where it is set, loopback asks for it as well:
            every user of this machine reaches that.
        port: 0 takes a free one.
        study: whose link is printed; None for all.

    Raises:
        UsageError: the port is taken, or the address needs a password.
        UnreachableError: the tracking server does not answer.
        SweeperError: the server did not start, or ended by itself.
    """
    ledger = Ledger(home.store_url)
    names = [study] if study is not None else ledger.studies()
    if home.tracking_uri.startswith(("http://", "https://")):
        _draw(home, ledger, names)
        _print_links(shown_uri(home.tracking_uri), ledger, names)
        return
    environment = _environment(home, host)
    port = _free_port(host, port)
    _draw(home, ledger, names)
    home.logs.mkdir(parents=True, exist_ok=True)
    log = home.logs / "mlflow-server.log"
    with tempfile.TemporaryDirectory() as folder, _told_to_stop() as stop:
        environment |= _login(Path(folder))
        server = _start(_command(home, host, port, environment), environment, log)
        try:
            if _wait_until_up(server, host, port, stop, log):
                _print_links(f"http://{_address(_reached_at(host))}:{port}", ledger, names)
                others = "" if _reached_at(host) == host else " Others reach it by this machine's name."
                print(f"Ctrl-C ends it.{others}", file=sys.stderr, flush=True)
                _wait_until_stopped(server, stop, log)
        finally:
            _end(server)


def _draw(home: Home, ledger: Ledger, names: Sequence[str]) -> None:
    """Whatever MLflow lacks is drawn now: it may have been down, or lost, while the studies ran."""
    for name in names:
        Tracker(home, name, ledger).show()


def _print_links(server: str, ledger: Ledger, names: Sequence[str]) -> None:
    for name in names:
        experiment_id = ledger.study(name).experiment_id
        if experiment_id is None:
            raise UnreachableError(f"another process draws {name} in MLflow now: try again in a moment")
        print(f"{name}: {link(server, experiment_id)}")
        for what, address in links_of(ledger, name, server, with_table=False).items():
            print(f"{name}, {what}: {address}")
    if not names:
        print(server)
    sys.stdout.flush()


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _environment(home: Home, host: str) -> dict[str, str]:
    """The server's environment: what is secret is handed over in it, since command lines are public."""
    if os.environ.get(PASSWORD_VARIABLE) or not is_loopback(host):
        _check_password(host)
    kept = {key: value for key, value in os.environ.items() if key not in (PASSWORD_VARIABLE, *_SERVERS_OWN)}
    return {
        **kept,
        "MLFLOW_BACKEND_STORE_URI": home.tracking_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _check_password(host: str) -> None:
    if len(os.environ.get(PASSWORD_VARIABLE, "")) >= SHORTEST_PASSWORD:
        return
    enough = f"a password of {SHORTEST_PASSWORD} characters or more (the user is {USER})"
    wanted = f"set {PASSWORD_VARIABLE} to {enough}"
    if is_loopback(host):
        raise UsageError(f"{PASSWORD_VARIABLE} is too short: {wanted}, or unset it")
    raise UsageError(
        f"others can reach --host {host}, and whoever opens MLflow's pages can change and delete what "
        f"they show: {wanted}, or stay with --host 127.0.0.1"
    )


def _login(folder: Path) -> dict[str, str]:
    """MLflow's login with our one user, kept for as long as the server runs; nothing without a password."""
    password = os.environ.get(PASSWORD_VARIABLE)
    if not password:
        return {}
    settings = folder / "auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\nadmin_username = {USER}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
    }


def _command(home: Home, host: str, port: int, environment: Mapping[str, str]) -> list[str]:
    arguments = ["--host", host, "--port", str(port), "--workers", "1"]
    arguments += ["--serve-artifacts", "--artifacts-destination", str(home.mlflow_artifacts)]
    if "MLFLOW_AUTH_CONFIG_PATH" in environment:
        arguments += ["--app-name", "basic-auth"]
    if not is_loopback(host):
        # The names under which others know this machine are not known here; the password guards it instead.
        arguments += ["--allowed-hosts", "*"]
    else:
        names = dict.fromkeys((host, "127.0.0.1", "localhost"))
        arguments += ["--allowed-hosts", ",".join(f"{_address(name)}:{port}" for name in names)]
    return [sys.executable, "-m", "mlflow", "server", *arguments]


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:  # the latter: no name of a machine can be like that
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"--host {host} is no address of this machine ({why})") from None
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(f"--host {host} is no address of this machine") from None
            raise UsageError(
                f"port {port} of {host} cannot be used ({error.strerror}): choose another with --port, such "
                f"as --port {port + 1 if port < 65535 else port - 1}"
            ) from None
        return int(probe.getsockname()[1])


def _start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        return subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_up(
    server: subprocess.Popen[bytes], host: str, port: int, stop: threading.Event, log: Path
) -> bool:
    """Wait for the server's first answer; False if we are told to stop before it."""
    health = f"http://{_address(_reached_at(host))}:{port}/health"
    deadline = time.monotonic() + START_SECONDS
    directly = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # no proxy reaches this machine's own
    while not stop.is_set():
        if server.poll() is not None or time.monotonic() > deadline:
            raise SweeperError(
                f"the MLflow server did not start: {_last_line(log)} (all it said is in {log})"
            )
        try:
            with directly.open(health, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            stop.wait(0.2)
    return False


def _wait_until_stopped(server: subprocess.Popen[bytes], stop: threading.Event, log: Path) -> None:
    while not stop.wait(0.5):
        if server.poll() is not None:
            raise SweeperError(
                f"the MLflow server has ended by itself: {_last_line(log)} (all it said is in {log})"
            )


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(END_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    server.wait()


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that is set by Ctrl-C, by SIGTERM, and when the terminal is closed."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reached_at(host: str) -> str:
    """An address under which this machine reaches a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
