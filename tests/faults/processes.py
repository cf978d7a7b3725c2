"""Workers as real processes, forked from a server that has imported what they import; and how they end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from sweeper.home import Home
from sweeper.session import Session, open_study
from sweeper.study import load_study
from tests.fork_server import say_into

PATIENCE_SECONDS = 120


def begin(folder: Path, root: Path, store: str | None = None, tracking: str | None = None) -> Session:
    """The study in a folder, begun in a home of its own."""
    given = {"SWEEPER_HOME": str(root), "SWEEPER_STORE": store, "MLFLOW_TRACKING_URI": tracking}
    variables = {key: value for key, value in given.items() if value is not None}
    return open_study(load_study(folder / "study.yaml"), Home.from_environment(variables))


def start(
    server: ForkServerContext, session: Session, crash_at: str | None = None, *options: str, **child: Any
) -> ForkServerProcess:
    """Start a worker process that kills itself at a point.

    Args:
        child: what is done to the process before it works; see ``_prepare``.
    """
    # One thread, as the others of a machine with few cores have.
    arguments = [session.name, "--threads", "1", *options]
    process = server.Process(target=_work, args=(arguments, session.home.environment(), crash_at, child))
    process.start()
    return process


def start_command(
    server: ForkServerContext, arguments: list[str], home: Home, log: Path, **child: Any
) -> ForkServerProcess:
    """Start ``sweeper ARGUMENTS`` as a process; what it says goes into a file."""
    process = server.Process(target=_command, args=(arguments, home.environment(), log, child))
    process.start()
    return process


def ended(process: ForkServerProcess) -> int | None:
    process.join(PATIENCE_SECONDS)
    return process.exitcode


def wait_until(holds: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What ``holds`` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
    return found


def results(session: Session) -> list[tuple[Any, ...]]:
    return [
        (view.label, view.number, view.state, view.params, view.objective, view.metrics, view.reason)
        for view in session.ledger.trials(session.name)
    ]


def digests(session: Session) -> list[list[str]]:
    """Of all weights."""
    return [sorted(view.files.values()) for view in session.ledger.trials(session.name)]


def _prepare(
    log: Path | None = None,
    clock_off: float = 0.0,
    file_bytes: int | None = None,
    patience_seconds: float | None = None,
    barrier: Any = None,
) -> None:
    """Change this process before it works.

    Args:
        log: where what it says goes.
        clock_off: how many seconds its clock is ahead.
        file_bytes: no file can grow past this, as on a disk that is full.
        patience_seconds: how long it waits for a store that is gone.
        barrier: goes on when all others are here, too.
    """
    if log is not None:
        say_into(log, log)
    if clock_off:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + clock_off
        time.time_ns = lambda: now_ns() + round(clock_off * 1e9)
    if file_bytes is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if patience_seconds is not None:
        import sweeper.worker.process

        sweeper.worker.process.PATIENCE_SECONDS = patience_seconds
    if barrier is not None:
        barrier.wait()


def _work(
    arguments: list[str], environment: Mapping[str, str], crash_at: str | None, child: Mapping[str, Any]
) -> None:
    """The worker process: the entry that ``python -m sweeper.worker`` has."""
    os.environ.update(environment)
    if crash_at is not None:
        os.environ["SWEEPER_CRASH_AT"] = crash_at
    _prepare(**child)
    from sweeper.worker.process import main

    raise SystemExit(main(arguments))


def _command(
    arguments: list[str], environment: Mapping[str, str], log: Path, child: Mapping[str, Any]
) -> None:
    os.environ.update(environment)
    _prepare(log, **child)
    sys.argv = ["sweeper", *arguments]
    from sweeper.cli import main

    main()
