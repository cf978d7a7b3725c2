"""The thread that keeps a worker's leases alive, only while its training advances."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from sweeper.errors import UnreachableError
from sweeper.ledger import Claim, Ledger, StudyGone
from sweeper.pace import BEATS_A_LEASE

BUSY_SECONDS = 1800.0


class Heartbeat:
    """Renews the leases of claims from a thread, as long as ``advance`` is called, or it is ``busy``.

    A worker that hangs does not call it, and loses its trials. Use it as a context manager.

    Args:
        ledger: where the leases are.
        lease_seconds: their length.
    """

    def __init__(self, ledger: Ledger, lease_seconds: float) -> None:
        self._ledger = ledger
        self._interval = lease_seconds / BEATS_A_LEASE
        self._lock = threading.Lock()
        self._claims: dict[str, Claim] = {}
        self._steps: dict[str, tuple[int, int | None]] = {}
        self._lost: set[str] = set()
        self._advanced = 0
        self._busy_until = 0.0
        self.control: str | None = None
        """What a user has said of the study, as of the last beat: ``paused``, ``stopped`` or None."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if isinstance(error, UnreachableError):
            # Who trains has waited long enough; so has this thread.
            self._ledger.database.patience_seconds = 0.0
        self._thread.join()

    def advance(self) -> None:
        """Something was computed."""
        self._advanced += 1

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the claims alive inside, though nothing is trained: a draw over many trials takes long.

        For ``BUSY_SECONDS`` at most: what takes longer hangs.
        """
        self._busy_until = time.monotonic() + BUSY_SECONDS
        try:
            yield
        finally:
            self._busy_until = 0.0
            self.advance()

    def add(self, claim: Claim) -> None:
        """Keep a claim alive from now on."""
        with self._lock:
            self._claims[claim.token] = claim
            self.control = None  # it could be begun

    def drop(self, claim: Claim) -> None:
        """A claim has ended."""
        with self._lock:
            self._claims.pop(claim.token, None)
            self._steps.pop(claim.token, None)

    def step(self, claim: Claim, done: int, total: int) -> None:
        """How far the training of a claim is."""
        with self._lock:
            self._steps[claim.token] = (done, total)

    def is_lost(self, claim: Claim) -> bool:
        """Whether the place was taken from this worker."""
        return claim.token in self._lost

    def _run(self) -> None:
        seen = -1
        while not self._stop.wait(self._interval):
            advanced = self._advanced
            with self._lock:
                claims = list(self._claims.values())
                steps = {
                    claim.place_id: self._steps[token]
                    for token, claim in self._claims.items()
                    if token in self._steps
                }
            if not claims or (advanced == seen and time.monotonic() > self._busy_until):
                continue
            try:
                gone = self._ledger.heartbeat(claims, steps)
            except UnreachableError:
                continue  # the store may be back before the lease runs out; who writes will say so otherwise
            seen = advanced
            # A claim that ended while its lease was renewed is not lost.
            with self._lock:
                self._lost |= {claim.token for claim in gone if claim.token in self._claims}
            # Of a study that was deleted, every claim is lost.
            with suppress(UnreachableError, StudyGone):
                self.control = self._ledger.control(claims[0].study)
