"""``sweeper worker``: this process joins a study as one worker, and says what it trains."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sweeper.console import InterruptedByUser, Output, one_line
from sweeper.live import ENDED, end_line, start_line
from sweeper.lookup import open_ledger, study_name

if TYPE_CHECKING:
    from sweeper.events import Event
    from sweeper.ledger import TrialView
    from sweeper.session import Session
    from sweeper.slot import Job


def join_as_worker(
    out: Output,
    name: str,
    device: str | None = None,
    pack: int | None = None,
    cache_bytes: int | None = None,
    lease_seconds: float = 60.0,
) -> None:
    """Train trials of a study until it has ended, or a signal says that this worker is to end.

    The first SIGTERM or SIGINT hands the running trials back, the second ends the process at once.

    Args:
        device: ``cpu`` or ``cuda:0``; None for the first that this machine has.
        pack: how many trials it trains together; None to find the number with which it gets most done.
        cache_bytes: how much of the frozen states may be kept; 0 for nothing, None for a share of the disk.
        lease_seconds: how long a trial stays with a worker that shows no sign of life.

    Raises:
        UsageError: the store has no such study, or it keeps its weights elsewhere; the device is not there,
            or cannot compute in the study's dtype; the data or the backbone is not what the study began with.
        SweeperError: the store has tables of another version.
        UnreachableError: the store cannot be reached.
        InterruptedByUser: by a signal; what ran was handed back.
    """
    ledger = open_ledger()
    name = study_name(ledger, name)

    from sweeper.device import choose, keep_freed_memory
    from sweeper.engine.coordinator import is_over
    from sweeper.home import Home
    from sweeper.owner import refuse_elsewhere
    from sweeper.session import PATIENCE_SECONDS, join_study
    from sweeper.worker import Options, work
    from sweeper.worker.process import hand_back_on_signals

    chosen = choose(device)
    session = join_study(name, Home.from_environment(), PATIENCE_SECONDS)
    refuse_elsewhere(session.home, name, session.ledger.store_id())
    session.ledger.reap_dead(name)
    session.ledger.expire(name)
    if is_over(session):
        out.note(_ended(session))
        return
    keep_freed_memory()
    stop = threading.Event()
    hand_back_on_signals(stop)
    out.note(f"study {name}: reading the data and the backbone for {chosen}")
    teller = _Teller(out, session, stop)
    teller.look_for_a_pause()
    options = Options(chosen, pack, cache_bytes, lease_seconds)
    work(session, options, stop, on_begin=teller.begun, on_event=teller.told)
    if stop.is_set():
        raise InterruptedByUser("interrupted: what ran was handed back, and any worker can go on with it")
    out.note(_ended(session))


def _ended(session: Session) -> str:
    row = session.row
    if row.is_stopped:
        return f"{row.name} is stopped: `sweeper resume {row.name}` lets it go on"
    return f"{row.name} has ended: {one_line(row.ended_because)}"


class _Teller:
    """Says on stderr which trials begin and end here, a line each."""

    def __init__(self, out: Output, session: Session, stop: threading.Event) -> None:
        self._out = out
        self._session = session
        self._stop = stop

    def begun(self, job: Job) -> None:
        trial = self._trial(job)
        self._say(start_line(trial.to_json()), trial, "running")

    def told(self, event: Event) -> None:
        from sweeper.events import Evaluated, Failed, Finished, HandedBack, Progress
        from sweeper.worker import TAKEN

        if isinstance(event, HandedBack):
            trial = self._trial(event.job)
            self._say(f"{trial.name} handed back: {self._why()}", trial, "handed_back")
            self.look_for_a_pause()
        elif isinstance(event, Finished | Failed):
            trial = self._trial(event.job)
            self._ended(trial) if trial.state in ENDED else self._lost(trial)
        elif isinstance(event, Progress | Evaluated) and event.stop == TAKEN:
            self._lost(self._trial(event.job))

    def _ended(self, trial: TrialView) -> None:
        best = next(iter(self._session.ledger.best(self._session.name)), None)
        is_best = best is not None and best.place_id == trial.place_id
        line = end_line(self._session.study.objective.metric, trial.to_json(), is_best)
        self._say(line, trial, trial.state)

    def _lost(self, trial: TrialView) -> None:
        self._say(f"{trial.name} lost: another worker has it, since its lease ran out here", trial, "lost")

    def look_for_a_pause(self) -> None:
        name = self._session.name
        if self._session.row.is_paused and not self._stop.is_set():
            self._out.note(
                f"{name} is paused: `sweeper resume {name}` lets it go on", study=name, state="paused"
            )

    def _why(self) -> str:
        control = self._session.ledger.control(self._session.name)
        return "interrupted" if control is None or self._stop.is_set() else f"the study is {control}"

    def _trial(self, job: Job) -> TrialView:
        return self._session.ledger.trial(self._session.name, job.place_id)

    def _say(self, line: str, trial: TrialView, state: str) -> None:
        fields: dict[str, Any] = {"trial": trial.name, "state": state}
        if state in ENDED:
            fields["objective"] = trial.objective
        self._out.note(line, **fields)
