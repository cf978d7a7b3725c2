"""The ledger: places, leases, attempts, metrics, results. From it everything else can be replayed.

    ledger = Ledger("sqlite:////home/me/sweeps/store.db")
    ledger.trials("sst2")[0].objective

Each method is one transaction. Those that write for a claim show its token and raise ``LeaseLost`` if it is
no longer the place's. Every method raises ``UnreachableError`` if the database fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.front import objectives_of
from sweeper.ledger import (
    confirmation,
    control,
    failing,
    history,
    migrate,
    outcomes,
    places,
    studyrows,
    trialview,
)
from sweeper.ledger.database import Database
from sweeper.ledger.processes import host_id, is_gone
from sweeper.ledger.records import (
    LOST,
    Attached,
    Claim,
    MetricRow,
    NewStudy,
    Result,
    StudyGone,
    StudyRow,
    TrialView,
    Untold,
    WorkerIdentity,
)
from sweeper.ledger.schema import VERSION

LEASE_SECONDS = 60.0
CONFIRMED_SECONDS = 10.0
"""How long what must not be done twice is repeated under its token, where its commit was not confirmed."""


class Ledger:
    """The ledger in one store. Making it connects to nothing and creates nothing.

    Args:
        url: SQLAlchemy URL of the store.
        patience_seconds: how long a server that cannot be reached is tried again.

    Raises:
        UsageError: the URL is none of a supported database.
    """

    def __init__(self, url: str, patience_seconds: float = 0.0) -> None:
        self._database = Database(url, patience_seconds)

    @property
    def database(self) -> Database:
        return self._database

    def create(self) -> None:
        """Make the tables, or bring older ones up to date. One process at a time (see ``session``)."""
        migrate.upgrade(self._database)

    def version(self) -> str:
        """The version of the tables, which is that of this program; errors as for every other call."""
        self._database.check_version()
        return VERSION

    def store_id(self) -> str:
        """The id of the store, 32 hex digits: the same for all who reach it."""
        return self._database.read(studyrows.store_id)

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        self._database.engine.dispose()

    # Studies

    def add_study(self, study: NewStudy) -> None:
        """Write a study down; does nothing if there is one of that name."""
        self._database.write(studyrows.add, study)

    def find_study(self, name: str) -> StudyRow | None:
        """A study, or None if there is none of that name."""
        return self._database.read(studyrows.find, name)

    def study(self, name: str) -> StudyRow:
        """A study. Raises StudyGone if there is none of that name."""
        row = self.find_study(name)
        if row is None:
            raise StudyGone(name)
        return row

    def studies(self) -> list[str]:
        """The names of all studies, oldest first."""
        return self._database.read(studyrows.names)

    def replace_spec(self, name: str, spec: Mapping[str, Any], path: str, text: str) -> None:
        """Take over a study file whose budget grew; a study that had ended goes on, one stopped does not."""
        self._database.write(studyrows.replace_spec, name, spec, path, text)

    def move_study(self, name: str, path: str) -> None:
        """The study file, and the files that it names, are elsewhere now."""
        self._database.write(studyrows.move, name, path)

    def set_budget(
        self,
        name: str,
        trials: int,
        first_params: Mapping[str, Any] | None = None,
        references: Sequence[tuple[str, Mapping[str, Any]]] = (),
        points: Sequence[Mapping[str, Any]] | None = None,
    ) -> int:
        """Add the places that are missing of so many trials; returns how many were added.

        The first place has ``first_params``; behind it come the references, as (label, params). With
        ``points`` each place has its own parameters fixed, in their order.
        """
        return self._database.write(studyrows.add_places, name, trials, first_params, references, points)

    def end_over_budget(self, name: str, because: str, text: str | None = None) -> bool:
        """End a study whose budget is used up; returns whether it ended now.

        Not while it is paused, or a reference, or what was enqueued or is a retry, waits or runs; nor if the
        study has another file than that of ``text``, by which somebody found its budget used up.
        """
        return self._database.write(studyrows.end_over_budget, name, because, text)

    def end_if_done(self, name: str) -> bool:
        """End a study whose places all have results.

        Returns:
            whether it has ended, now or before, and no trial of it waits to be finished.
        """
        return self._database.write(studyrows.end_if_done, name)

    def has_unfinished(self, name: str) -> bool:
        """Whether a trial waits that had begun: it is finished also when the study has ended meanwhile."""
        return self._database.read(studyrows.has_unfinished, name)

    def past_limits_in_a_row(self, name: str) -> int:
        """How many configurations past the limits were drawn since one that was not. Raises StudyGone."""
        return self._database.read(studyrows.past_limits_in_a_row, name)

    # What a user says of it

    def control(self, name: str) -> str | None:
        """``paused``, ``stopped``, or None while a study goes on. Raises StudyGone."""
        return self._database.read(control.control, name)

    def pause(self, name: str) -> bool:
        """Begin no more trials, hand those that run back at their next evaluation; False if it has ended."""
        return self._database.write(control.pause, name)

    def stop(self, name: str) -> bool:
        """End a study, hand the trials that run back; False if nothing was left to stop."""
        return self._database.write(control.stop, name)

    def resume(self, name: str) -> bool:
        """Let a study go on that is paused or stopped; False if it is neither."""
        return self._database.write(control.resume, name)

    def enqueue(self, name: str, params: Mapping[str, Any]) -> int:
        """Add a place with some parameters fixed, beside the budget and before it; returns its id.

        Where a connection is lost before its commit is confirmed, the call is repeated: who was told to do so
        would add another one.
        """
        with self._database.patient(CONFIRMED_SECONDS):
            return self._database.write(control.enqueue, name, params, places.new_token())

    def retry(self, name: str, place_ids: Sequence[int]) -> dict[int, int]:
        """Add a place for each that failed or was cancelled and has no retry yet; the new ones by the old."""
        return self._database.write(control.retry, name, place_ids)

    def close_study(self, name: str) -> int:
        """Stop a study for good, unless trials of it run; returns how many do. Raises StudyGone."""
        return self._database.write(control.close, name)

    def delete_study(self, name: str) -> int:
        """Delete all that the ledger has of a study, unless trials of it run; returns how many do."""
        return self._database.write(control.remove, name)

    # Claims

    def reserve(
        self,
        name: str,
        worker: WorkerIdentity,
        lease_seconds: float = LEASE_SECONDS,
        kind: str | None = None,
        *,
        beside_budget: bool = False,
    ) -> Claim | None:
        """Take the first free place, or one whose lease ran out; None if none is left to take.

        Args:
            kind: ``confirm`` or ``full`` for places beside the study; None for those of the study.
            beside_budget: of the study, only references, and what was enqueued or is a retry.
        """
        token = places.new_token()

        def take(connection: Any) -> Claim | None:
            # Where the call runs again because its commit was not confirmed, it may hold the place already.
            mine = places.held(connection, name, token, lease_seconds)
            return mine or places.reserve(connection, name, worker, lease_seconds, token, kind, beside_budget)

        return self._database.write(take)

    def attach(self, claim: Claim, attached: Attached) -> None:
        """Write down which trial a claim became."""
        self._database.write(places.attach, claim, attached)

    def heartbeat(
        self, claims: Sequence[Claim], steps: Mapping[int, tuple[int, int | None]] | None = None
    ) -> list[Claim]:
        """Renew leases, with (steps done, steps in all) by place; returns the claims that are lost."""
        return self._database.write(places.heartbeat, claims, steps or {})

    def times_lost(self, place_id: int) -> int:
        """How many workers were lost over a place."""
        return self._database.read(failing.times, place_id, LOST)

    def release(self, claim: Claim, outcome: str = "handed_back", reason: str | None = None) -> None:
        """Free a place: ``handed_back``, ``lost`` with its device, or ``past_limits``, for another draw."""
        self._database.write(places.release, claim, outcome, reason)

    def fail(self, claim: Claim, failure: str, reason: str) -> bool:
        """An attempt raised, or did not fit: free its place, or end it once its retries are used up.

        Args:
            failure: ``raised`` or ``out_of_memory``; ``failing.RETRIES`` says how often each is tried again.

        Returns:
            whether the place has ended.
        """
        return self._database.write(failing.fail, claim, failure, reason)

    def expire(self, name: str) -> int:
        """Free the places whose lease ran out; returns how many. `reserve` does so, too."""
        return self._database.write(failing.expire, name)

    def reap_dead(self, name: str, outcome: str = "lost") -> list[str]:
        """Free at once the places of workers of this host that are dead; returns the workers' names.

        Args:
            outcome: ``handed_back`` if somebody ended them on purpose: that does not count as a loss.
        """
        gone = [row for row in self._database.read(places.running, name, host_id()) if is_gone(row)]
        for row in gone:
            self._database.write(failing.lose, row.place_id, row.token, outcome)
        return sorted({row.worker for row in gone})

    # Outcomes

    def record_metrics(
        self, claim: Claim, evaluation: int, step: int, epoch: float, values: Mapping[str, float]
    ) -> None:
        """Write down an evaluation, counted from 1. Pruners look at ``objective`` among the values."""
        self._database.write(outcomes.record_metrics, claim, evaluation, step, epoch, values)

    def record_result(self, claim: Claim, result: Result) -> None:
        """End a place; does nothing if this claim did so before."""
        self._database.write(outcomes.record_result, claim, result)

    def curves(self, name: str) -> dict[int, list[float]]:
        """The objective of every evaluation, by the place of each trial of the search."""
        return self._database.read(outcomes.curves, name)

    def points(self, name: str, keys: Sequence[str]) -> dict[int, list[tuple[float, ...]]]:
        """Several values of every evaluation, by the place of each trial of the search."""
        return self._database.read(outcomes.points, name, keys)

    def numbers(self, name: str) -> dict[int, tuple[int, str]]:
        """Number and state of every trial of the search that has a number, by place."""
        return self._database.read(outcomes.numbers, name)

    def record_repeat(
        self, claim: Claim, configuration: str, states: Sequence[str] = ("complete", "pruned")
    ) -> int | None:
        """End a place as the trial that was trained with the same configuration, or free it to wait for one
        that is being trained with it; returns the number of that trial.

        None, and nothing done, if there is no such trial.

        Args:
            states: how one that was trained has ended: of a trial that is to be whole, only ``complete``.
        """
        return self._database.write(outcomes.record_repeat, claim, configuration, states)

    def adopt_metrics(self, claim: Claim, attempt: int, evaluations: int) -> None:
        """Take over the first evaluations of an earlier attempt, which this one goes on from."""
        self._database.write(outcomes.adopt_metrics, claim, attempt, evaluations)

    def forget_metrics(self, claim: Claim) -> None:
        """Delete the evaluations of a claim's attempt: its trial could not go on, and has begun again."""
        self._database.write(outcomes.forget_metrics, claim)

    def untold(self, name: str) -> list[Untold]:
        """Results that Optuna is still to be told."""
        return self._database.read(outcomes.untold, name)

    def mark_told(self, place_id: int) -> None:
        """Optuna knows a result."""
        self._database.write(outcomes.mark_told, place_id)

    def count(self, name: str, state: str) -> int:
        """How many trials of the search ended as ``complete``, ``pruned``, ``failed`` or ``cancelled``.

        One that is tried once more is not counted: its retry is.
        """
        return self._database.read(outcomes.count, name, state)

    # Views

    def trials(self, name: str) -> list[TrialView]:
        """References first, then the trials by number, then the places that wait for one."""
        return self._database.read(trialview.trials, name)

    def trial(self, name: str, place_id: int) -> TrialView:
        """One place of a study. Raises StudyGone if it went with its study."""
        views = self._database.read(trialview.trials, name, place_id)
        if not views:
            raise StudyGone(name)
        return views[0]

    def best(self, name: str, count: int | None = 1) -> list[TrialView]:
        """The best complete trials of the search, best first; of equals the smaller one, then the earlier.

        With several objectives those of the front come first, in the order of the first objective. A count of
        None is all of them.
        """
        return trialview.best(self.trials(name), objectives_of(self.study(name).spec), count)

    def front(self, name: str) -> list[TrialView]:
        """The complete trials that none dominates, in the order of the first objective."""
        return trialview.front(self.trials(name), objectives_of(self.study(name).spec))

    def confirmations(self, name: str) -> list[TrialView]:
        """The places that confirm what came of a study, in the order in which they were asked for."""
        kinds = (confirmation.CONFIRM, confirmation.FULL)
        return self._database.read(trialview.trials, name, None, kinds)

    def confirm(self, name: str, wanted: Sequence[tuple[str, str, Mapping[str, Any]]]) -> int:
        """Add the places (kind, label, params) whose labels are not there yet; returns how many."""
        return self._database.write(confirmation.add, name, wanted)

    def is_through(self, name: str, kind: str) -> bool:
        """Whether no place of a kind waits or runs."""
        return self._database.read(confirmation.is_through, name, kind)

    def note_measured(self, place_id: int, measured: Mapping[str, float]) -> None:
        """Add what was measured of a result afterwards to its metrics; what is there already stays."""
        self._database.write(confirmation.note, place_id, measured)

    def status(self, name: str) -> dict[str, Any]:
        """What ``status --json`` prints. References are in none of its counts."""
        return self._database.read(trialview.status, name)

    def steps(self, name: str) -> dict[str, tuple[int, int]]:
        """Steps done and steps in all of every running trial, by its name."""
        return self._database.read(trialview.steps, name)

    def hours_used(self, name: str) -> float:
        """How long anybody has worked on a study, without the pauses."""
        return self._database.read(trialview.hours_used, name)

    def metric_rows(self, place_id: int) -> list[MetricRow]:
        """Every metric row of a place, of all its attempts, oldest first."""
        return self._database.read(outcomes.metric_rows, place_id)

    def attempts(self, name: str) -> list[history.AttemptRow]:
        """Every attempt of a study, oldest first: who worked on what, from when to when."""
        return self._database.read(history.attempt_rows, name)

    def evaluations(self, name: str) -> list[history.Evaluation]:
        """The objective of every evaluation of a study, of the attempts that count."""
        return self._database.read(history.evaluations, name)

    # What MLflow shows

    def hold_sender(self, name: str, sender: str, seconds: float) -> bool:
        """Become, or stay, the one who draws a study in MLflow; False if it is somebody else."""
        return self._database.write(studyrows.hold_sender, name, sender, seconds)

    def drop_sender(self, name: str, sender: str) -> None:
        """Let somebody else draw."""
        self._database.write(studyrows.drop_sender, name, sender)

    def unshown_places(self, name: str) -> list[int]:
        """Places that changed since they were last shown; see ``trial`` for each."""
        return self._database.read(outcomes.unshown_places, name)

    def mark_place_shown(self, place_id: int, version: int) -> None:
        """A place is shown as it was at a version (``TrialView.version``)."""
        self._database.write(outcomes.mark_place_shown, place_id, version)

    def unshown_metrics(self, place_id: int) -> list[MetricRow]:
        """Metric rows of a place that are not shown yet, oldest first."""
        return self._database.read(outcomes.unshown_metrics, place_id)

    def mark_metrics_shown(self, ids: Sequence[int]) -> None:
        """Metric rows are shown."""
        self._database.write(outcomes.mark_metrics_shown, ids)

    def note_drawn(self, name: str, experiment_id: str | None, run_id: str | None) -> None:
        """Which experiment and parent run MLflow draws a study in."""
        self._database.write(studyrows.note_drawn, name, experiment_id, run_id)

    def note_run(self, place_id: int, run_id: str | None) -> None:
        """Which run MLflow draws a place in."""
        self._database.write(studyrows.note_run, place_id, run_id)

    def hide_all(self, name: str) -> None:
        """Forget what is shown, so that all of it is drawn anew."""
        self._database.write(outcomes.hide_all, name)
