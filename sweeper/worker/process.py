"""One worker as a process of its own.

The first SIGTERM or SIGINT hands the running trials back and ends the worker, the second ends it at once.
SIGUSR1 does what the first does, however often it comes: a coordinator that is told to end passes that on,
and may not be the only one who tells its workers. With ``--leashed`` so does the end of standard input.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import traceback
from types import FrameType

from sweeper.console import to_stderr
from sweeper.device import keep_freed_memory, set_threads
from sweeper.errors import SweeperError
from sweeper.home import Home
from sweeper.ledger import LEASE_SECONDS
from sweeper.session import PATIENCE_SECONDS, join_study
from sweeper.worker import Options, work

HAND_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What tells a worker to hand its trials back."""


def main(arguments: list[str] | None = None) -> int:
    """Run one worker, as a process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m sweeper.worker", description=__doc__)
    parser.add_argument("study", help="the name of a study in the store")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:0 (default: cpu)")
    parser.add_argument("--pack", type=int, default=None, help="trials at a time (default: as many as pay)")
    parser.add_argument("--threads", type=int, default=None, help="of the CPU (default: torch's)")
    parser.add_argument(
        "--cache-bytes", type=int, default=None, help="of frozen states (default: up to 8 GiB)"
    )
    parser.add_argument("--lease-seconds", type=float, default=LEASE_SECONDS, help="default: %(default)s")
    parser.add_argument("--leashed", action="store_true", help="hand back when standard input ends")
    parser.add_argument("--confirm", action="store_true", help="train what confirms its winners instead")
    given = parser.parse_args(arguments)
    stop = threading.Event()
    hand_back_on_signals(stop)
    if given.leashed:
        hand_back_at_end_of_input(stop)
    keep_freed_memory()
    try:
        if given.threads is not None:
            set_threads(given.threads)
        session = join_study(given.study, Home.from_environment(), PATIENCE_SECONDS)
        options = Options(given.device, given.pack, given.cache_bytes, given.lease_seconds, given.confirm)
        work(session, options, stop)
    except SweeperError as error:
        to_stderr(f"error: {error}")
        return error.exit_code
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def hand_back_on_signals(stop: threading.Event) -> None:
    """Set ``stop`` at the first SIGTERM or SIGINT, of which the second ends the process, and at SIGUSR1.

    Signals that were held back until now come now.
    """

    def first(number: int, frame: FrameType | None) -> None:
        stop.set()
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, first)
    signal.signal(signal.SIGUSR1, lambda number, frame: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HAND_BACK)


def hand_back_at_end_of_input(stop: threading.Event) -> None:
    """Set ``stop`` when whoever holds the other end of standard input closes it, or is gone."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        stop.set()

    threading.Thread(target=wait, name="leash", daemon=True).start()
