"""One worker's claims, and what follows from each event of their training."""

from __future__ import annotations

import contextlib
import threading
import time

from adapters.config import shares_step
from sweeper.asktell import Trials
from sweeper.checkpoint import CheckpointWriter, drop_checkpoints
from sweeper.console import to_stderr
from sweeper.crash import point
from sweeper.errors import SweeperError, UnreachableError
from sweeper.events import Evaluated, Event, Exhausted, Failed, Finished, HandedBack, Progress, Stepped
from sweeper.ledger import Claim, LeaseLost, Ledger, Result, WorkerIdentity
from sweeper.ledger.confirmation import CONFIRM
from sweeper.ledger.records import LOST, OUT_OF_MEMORY, RAISED, STOPPED
from sweeper.metrics import METRICS
from sweeper.pace import POLL_SECONDS, idle_seconds
from sweeper.pruning import Others, decides, should_prune
from sweeper.session import Session
from sweeper.slot import Job
from sweeper.train import HANDED_BACK, PRUNED
from sweeper.worker.begin import Beginner, Begun
from sweeper.worker.ending import Ending
from sweeper.worker.heartbeat import Heartbeat
from sweeper.worker.packsize import PackSize
from sweeper.worker.systemmetrics import SystemMetrics
from sweeper.worker.weights import write_weights

TAKEN = "taken"
"""The answer that takes a trial out of its slot since another worker has it."""


class Rounds:
    """One worker's claims, and what follows from each event of their training."""

    def __init__(
        self,
        session: Session,
        identity: WorkerIdentity,
        trials: Trials,
        beginner: Beginner,
        heartbeat: Heartbeat,
        checkpoints: CheckpointWriter,
        size: PackSize,
        system: SystemMetrics,
        stop: threading.Event,
        lease_seconds: float,
        confirm: bool = False,
    ) -> None:
        self._session = session
        self._identity = identity
        self._trials = trials
        self._beginner = beginner
        self._heartbeat = heartbeat
        self._checkpoints = checkpoints
        self._size = size
        self._system = system
        self._stop = stop
        self._lease_seconds = lease_seconds
        self._ending = Ending(session, trials)
        self._confirm = confirm
        # By place and attempt: a place that was lost here may come back before its slot is empty.
        self._claims: dict[tuple[int, int], Claim] = {}
        # How many evaluations an earlier attempt has left to each that goes on from a checkpoint.
        self._adopted: dict[tuple[int, int], int] = {}
        self._alone: Claim | None = None
        # A trial that cannot share a step: begun, and trained when the pack is empty.
        self._waiting: Begun | None = None
        self._idle_since: float | None = None
        self._ask_again = 0.0

    @property
    def _ledger(self) -> Ledger:
        return self._session.ledger

    @property
    def _name(self) -> str:
        return self._session.name

    def is_done(self) -> bool:
        """Whether there is nothing left to do here; waits a little if there was nothing to do before."""
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        else:
            self._stop.wait(idle_seconds(time.monotonic() - self._idle_since))
        if self._stop.is_set():
            return True
        self._session.check_there()
        if self._confirm:
            return self._ledger.is_through(self._name, CONFIRM)
        self._tell_results()
        if self._ledger.end_if_done(self._name):
            self._trials.hide_if_left_over(self._ledger)
            return True
        return False

    def next_job(self) -> Job | None:
        """The next trial to train; None if there is none now, or none may begin any more."""
        if self._waiting is not None:
            return self._waited()
        if len(self._claims) >= (1 if self._alone is not None else self._size.limit):
            return None
        # A free slot asks at every step; others of the pack train meanwhile, and the store has better to do.
        if self._claims and time.monotonic() < self._ask_again:
            return None
        while not self._stop.is_set():
            self._ledger.reap_dead(self._name)
            with self._heartbeat.busy():
                claim = self._reserve()
            if claim is None:
                self._ask_again = time.monotonic() + POLL_SECONDS
                return None
            point("after_reserve")
            self._idle_since = None
            if self._is_to_wait(claim):
                return None
            self._heartbeat.add(claim)
            try:
                with self._heartbeat.busy():
                    begun = self._beginner.begin(claim)
            except LeaseLost:
                begun = None
            if begun is not None:
                if not shares_step(begun.job.adapter):
                    self._waiting = begun
                    return self._waited()
                return self._taken_up(begun)
            self._drop(claim)
            self._tell_results()
        return None

    def _waited(self) -> Job | None:
        """The trial that waits for an empty pack, once it is empty; until then nothing else begins.

        It is given back if it may not begin any more, and forgotten if another worker has it.
        """
        assert self._waiting is not None
        begun, claim = self._waiting, self._waiting.claim
        if self._heartbeat.is_lost(claim):
            self._waiting = None
            self._heartbeat.drop(claim)
        elif self._stop.is_set() or (self._heartbeat.control is not None and not self._confirm):
            self._waiting = None
            with contextlib.suppress(LeaseLost):
                self._ledger.release(claim)
            self._heartbeat.drop(claim)
        elif not self._claims:
            self._waiting = None
            self._alone = claim
            return self._taken_up(begun)
        return None

    def _taken_up(self, begun: Begun) -> Job:
        key, state = (begun.job.place_id, begun.job.attempt), begun.job.state
        self._claims[key] = begun.claim
        self._adopted[key] = 0 if state is None else state.numbers["evaluation"]
        return begun.job

    def _is_to_wait(self, claim: Claim) -> bool:
        """Whether a claim is given back until this worker's pack is empty.

        A trial over which a worker died may be what killed it: it is trained alone, so that it takes no
        others along.
        """
        if claim.attempt == 1 or not self._ledger.times_lost(claim.place_id):
            return False
        self._alone = claim
        if not self._claims:
            return False
        with contextlib.suppress(LeaseLost):
            self._ledger.release(claim)
        return True

    def _reserve(self) -> Claim | None:
        """The next place to train; None if there is none now.

        Once the budget is used up, the places beside it are left, and then the study ends.
        """
        ledger, who = self._ledger, (self._name, self._identity, self._lease_seconds)
        if self._confirm:  # the study's budget is for the study
            self._session.check_there()
            return ledger.reserve(*who, CONFIRM)
        study = self._session.current()
        why = self._ending.why(study)
        claim = ledger.reserve(*who, beside_budget=why is not None)
        if claim is None and why is not None:
            ledger.end_over_budget(self._name, why, study.text)
        return claim

    def handle(self, event: Event) -> None:
        """Write down what happened, and answer."""
        self._heartbeat.advance()
        if isinstance(event, Stepped):
            self._size.observe(event)
            stopped = self._heartbeat.control == STOPPED and not self._confirm
            event.stop = self._stop.is_set() or stopped
        elif isinstance(event, Exhausted):
            self._exhausted(event)
        else:
            claim = self._claims[event.job.place_id, event.job.attempt]
            try:
                self._trial_event(event, claim)
            except LeaseLost:
                if isinstance(event, Progress | Evaluated):
                    event.stop = TAKEN
                self._drop(claim)

    def _trial_event(
        self, event: Progress | Evaluated | HandedBack | Finished | Failed, claim: Claim
    ) -> None:
        if isinstance(event, Progress):
            self._heartbeat.step(claim, event.step, event.steps)
            self._answer(event, claim)
        elif isinstance(event, Evaluated):
            self._evaluated(event, claim)
        elif isinstance(event, HandedBack):
            with self._heartbeat.busy():
                self._checkpoints.write(claim, event.job, event.state)
                self._checkpoints.flush()
            self._ledger.release(claim)
            self._drop(claim)
        else:
            self._ended(event, claim)

    def _answer(self, event: Progress | Evaluated, claim: Claim) -> None:
        """Take the trial out of its slot if another worker has it."""
        if self._heartbeat.is_lost(claim):
            event.stop = TAKEN
            self._drop(claim)

    def _evaluated(self, event: Evaluated, claim: Claim) -> None:
        objectives = self._session.study.objectives
        values = {
            **event.metrics, "objective": event.metrics[objectives[0].metric], **self._system.sample()
        }  # fmt: skip
        if len(objectives) > 1:
            known = event.metrics | self._known_before(event.job)
            values |= {f"objective/{each.metric}": float(known[each.metric]) for each in objectives}
        # Its checkpoint may have been of no use here: then it has begun again, and so does its curve.
        if event.evaluation <= self._adopted.pop((claim.place_id, claim.attempt), 0):
            self._ledger.forget_metrics(claim)
        self._ledger.record_metrics(claim, event.evaluation, event.step, event.epoch, values)
        point("after_evaluation")
        last = event.evaluation == event.job.train.evaluations
        if not last and self._may_be_pruned(event, claim) and self._is_pruned(claim.place_id):
            event.stop = PRUNED
            return
        if not last:
            self._checkpoints.write(claim, event.job, event.state())
            if (
                not self._confirm and self._ledger.control(self._name) is not None
            ):  # paused, or stopped since the last heartbeat
                event.stop = HANDED_BACK
        self._answer(event, claim)

    def _may_be_pruned(self, event: Evaluated, claim: Claim) -> bool:
        """Whether to ask the pruner, which reads what the whole study has reported."""
        study, number = self._session.study, event.job.number
        if claim.kind != "search" or number is None or self._beginner.is_default(claim):
            return False
        return decides(study.pruner, event.evaluation, study.name, number)

    def _is_pruned(self, place_id: int) -> bool:
        """Whether the pruner ends a trial at the evaluation that was just recorded.

        Another worker may have the place by now, with no evaluation yet: the next write says so.
        """
        study, ledger, name = self._session.study, self._ledger, self._name
        numbers = ledger.numbers(name)
        others = Others(
            study.name,
            {place: number for place, (number, _) in numbers.items()},
            {place for place, (_, state) in numbers.items() if state == "complete"},
        )
        if len(study.objectives) == 1:
            curves, direction = ledger.curves(name), study.objective.direction
            return place_id in curves and should_prune(study.pruner, direction, curves, place_id, others)
        keys = [f"objective/{each.metric}" for each in study.objectives]
        directions = [each.direction for each in study.objectives]
        points = ledger.points(name, keys)
        return place_id in points and should_prune(study.pruner, directions, points, place_id, others)

    def _known_before(self, job: Job) -> dict[str, float]:
        """Those objectives of a trial that were known before it was trained."""
        names = [each.metric for each in self._session.study.objectives]
        return {
            name: float(value)
            for name, value in self._beginner.limits.known_before(job.adapter, names).items()
        }

    def _exhausted(self, event: Exhausted) -> None:
        """Hand the trials of a pack back that was too large; they go on from their checkpoints.

        A device that failed took this worker with it: each of them is trained alone then, and fails alone.
        """
        to_stderr(f"a pack of {len(event.jobs)} did not do: {event.reason}")
        if not event.device_lost:
            self._size.shrink()
        self._checkpoints.flush()
        for job in event.jobs:
            claim = self._claims[job.place_id, job.attempt]
            with contextlib.suppress(LeaseLost):
                outcome = LOST if event.device_lost else "handed_back"
                self._ledger.release(claim, outcome, f"in a pack: {event.reason}")
            self._drop(claim)
        if event.device_lost:
            raise SweeperError(f"the device failed: {event.reason}")

    def _ended(self, event: Finished | Failed, claim: Claim) -> None:
        point("after_training")
        if isinstance(event, Failed):
            to_stderr(f"trial {event.job.number} failed:\n{event.traceback_text}")
            ended = self._ledger.fail(claim, OUT_OF_MEMORY if event.out_of_memory else RAISED, event.reason)
        else:
            result = self._result(event, claim)
            point("after_files")
            self._ledger.record_result(claim, result)
            ended = True
        point("after_record")
        self._drop(claim)
        if not ended:  # it is tried again, from its last checkpoint
            self._checkpoints.flush()
            return
        self._checkpoints.flush()
        drop_checkpoints(self._session.home.checkpoints, claim)
        self._tell_results()

    def _result(self, event: Finished, claim: Claim) -> Result:
        study = self._session.study
        metrics = {key: event.metrics[key] for key in METRICS[study.task.kind] if key in event.metrics}
        objective = metrics.get(study.objective.metric)
        known = self._known_before(event.job)
        if metrics and "flops_per_token" in known:
            metrics["flops_per_token"] = known["flops_per_token"]
        files: dict[str, str] = {}
        # The weights of a trial that diverged are none that anybody could use.
        if event.reason != "diverged":
            try:
                files = write_weights(self._session.home.artifacts, claim, event.adapter, event.head)
            except OSError as error:
                raise self._no_room(claim, error) from error
        return Result(event.outcome, objective, metrics, event.device_seconds, files, event.reason)

    def _no_room(self, claim: Claim, error: OSError) -> UnreachableError:
        """Hand everything back: in a full artifact folder, every trial would be trained for nothing."""
        why = f"the weights of {claim.name} could not be written: {error.strerror or error}"
        self._checkpoints.flush()
        for held in list(self._claims.values()):
            with contextlib.suppress(LeaseLost):
                self._ledger.release(held, "handed_back", why)
            self._drop(held)
        return UnreachableError(
            f"{why}. Make room in {self._session.home.artifacts}, or make it writable, then run the same "
            "command again: it goes on"
        )

    def _tell_results(self) -> None:
        """Tell Optuna what the ledger has and Optuna has not, whoever recorded it."""
        for untold in self._ledger.untold(self._name):
            self._trials.tell(untold)
            point("after_tell")
            self._ledger.mark_told(untold.place_id)
            point("after_told")

    def _drop(self, claim: Claim) -> None:
        self._heartbeat.drop(claim)
        self._claims.pop((claim.place_id, claim.attempt), None)
        self._adopted.pop((claim.place_id, claim.attempt), None)
        if not self._claims:
            self._alone = None
