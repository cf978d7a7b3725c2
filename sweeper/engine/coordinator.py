"""What coordinators of any kind share: when a study is over, what is told of it meanwhile, and signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from sweeper.errors import NothingSucceededError, UnreachableError, UsageError
from sweeper.ledger import TrialView
from sweeper.ledger.confirmation import CONFIRM
from sweeper.ledger.schema import ENDED
from sweeper.session import Session

POLL_SECONDS = 0.5
RESTARTS = 3
"""How often in a row workers are started again that die before any trial ends."""
ERRORS = {error.exit_code: error for error in (UsageError, UnreachableError, NothingSucceededError)}


@dataclass(frozen=True)
class Moment:
    """A study at one moment.

    Args:
        trials: as ``Ledger.trials`` has them.
        steps: steps done and steps in all of each running trial, by its name.
        workers: how many of this coordinator's are alive.
        stopping: the running trials are being handed back.
    """

    trials: list[TrialView]
    steps: dict[str, tuple[int, int]]
    workers: int
    stopping: bool


@dataclass(frozen=True)
class Ending:
    """How a run ended; what became of the study is in the ledger.

    Args:
        interrupted: by SIGINT or SIGTERM.
        not_shown: why MLflow lacks some of it, if it does.
    """

    interrupted: bool
    not_shown: str | None


def places_of(session: Session, confirm: bool) -> list[TrialView]:
    """What the workers train: the study, or what confirms it."""
    ledger, name = session.ledger, session.name
    return [v for v in ledger.confirmations(name) if v.kind == CONFIRM] if confirm else ledger.trials(name)


def trials_left(session: Session, confirm: bool = False) -> int:
    """Trials and references that have not ended; or what confirms them and has not.

    Once a study has ended, only those that had begun before.
    """
    left = [view for view in places_of(session, confirm) if view.state not in ENDED]
    if confirm or session.row.ended_at is None:
        return len(left)
    return sum(view.number is not None for view in left)


def is_over(session: Session, confirm: bool = False) -> bool:
    """Whether no worker has anything to do."""
    ledger, name = session.ledger, session.name
    if confirm:
        return ledger.is_through(name, CONFIRM)
    return session.row.ended_at is not None and not ledger.untold(name) and not ledger.has_unfinished(name)


def others_end(session: Session, signals: Signals, poll_seconds: float) -> Generator[Moment, None, bool]:
    """Wait for what workers of others still train of a study that has ended: nobody else draws it.

    Those that died are waited for until their leases have run out.

    Returns:
        whether there is something to do: they left a trial that is to be finished, or the study goes on.
    """
    ledger, name = session.ledger, session.name
    had_ended = session.row.ended_at is not None
    while session.row.ended_at is not None and not signals.count:
        ledger.reap_dead(name)
        moment = moment_of(session, 0, False)
        if all(trial.state != "running" for trial in moment.trials):
            ledger.expire(name)  # so that MLflow is shown what became of those that died
            return ledger.has_unfinished(name)
        yield moment
        signals.wait(poll_seconds)
    return had_ended and not signals.count


def moment_of(session: Session, workers: int, stopping: bool, confirm: bool = False) -> Moment:
    """The study as it is now."""
    return Moment(places_of(session, confirm), session.ledger.steps(session.name), workers, stopping)


class Signals:
    """Counts SIGINT and SIGTERM, and wakes who waits."""

    def __init__(self, session: Session) -> None:
        self.count = 0
        self._database = session.ledger.database
        self._woken = threading.Event()

    def wait(self, seconds: float) -> None:
        """Return after some time, or at the next signal."""
        if self._woken.wait(seconds):
            self._woken.clear()

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Count signals inside; elsewhere than in the main thread nothing is caught."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(number: int, frame: FrameType | None) -> None:
            self.count += 1
            self._database.patience_seconds = 0.0  # nobody who wants to end waits for a store that is gone
            self._woken.set()

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
