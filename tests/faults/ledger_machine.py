"""A model of the ledger, and a machine that drives both through the same calls and compares them.

The model knows nothing of SQL: places in a list, and who holds which. What the ledger does and says is
compared with it at every step, and so are the tables.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select, update

from sweeper.ledger import Attached, Claim, LeaseLost, Ledger, Result, this_worker
from sweeper.ledger.failing import RETRIES
from sweeper.ledger.schema import attempts, metrics, places, results, studies
from tests.stores import new_study

HERE = this_worker("cpu")
DEAD = replace(HERE, name="dead", process_started=HERE.process_started - 1000.0)
"""A worker of this host whose process number is another process by now."""
SELDOM = st.sampled_from([False, False, False, True])
ENDED = ("complete", "pruned", "failed")


@dataclass
class Place:
    """What the model knows of a place. ``holder`` is the claim that has it; ``late`` if its lease ran out."""

    id: int
    position: int
    budgeted: bool = True
    fixed: bool = False
    retry_of: int | None = None
    state: str = "waiting"
    number: int | None = None
    attempt: int = 0
    holder: Claim | None = None
    late: bool = False
    dead: bool = False
    failures: dict[str, int] = field(default_factory=dict)
    ended_by: int | None = None
    told: bool = False
    evaluations: dict[int, dict[int, float]] = field(default_factory=dict)
    """The objective by evaluation, by attempt."""

    def free(self) -> None:
        self.state, self.holder, self.late, self.dead = "waiting", None, False, False

    def end(self, state: str, attempt: int) -> None:
        self.free()
        self.state, self.ended_by, self.told = state, attempt, self.number is None

    def failed(self, failure: str) -> None:
        """An attempt failed: the place waits again, or has had enough."""
        self.failures[failure] = self.failures.get(failure, 0) + 1
        attempt = self.attempt
        self.free()
        if self.failures[failure] > RETRIES[failure]:
            self.end("failed", attempt)


class LedgerMachine(RuleBasedStateMachine):
    """Calls in any order, from workers that do not know what the others did."""

    ledger: ClassVar[Ledger]
    """In whose store each run begins a study of its own."""
    _runs = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.name = f"machine-{next(self._runs)}-{secrets.token_hex(3)}"
        self.places: list[Place] = []
        self.claims: list[Claim] = []
        self.numbers = itertools.count()
        self.control: str | None = None
        self.ended = False
        self.budget = 0

    # What the model says

    def place(self, claim: Claim) -> Place:
        return next(place for place in self.places if place.id == claim.place_id)

    def is_good(self, claim: Claim) -> bool:
        holder = self.place(claim).holder
        return holder is not None and holder.token == claim.token

    def next_place(self, beside_budget: bool) -> Place | None:
        if self.control is not None:
            return None
        first = next((place for place in self.places if place.position == 0), None)
        waiting = [place for place in self.places if place.state == "waiting"]
        waiting.sort(key=lambda place: (place.budgeted, place.position))
        for place in waiting:
            # Nobody overtakes the first place on its way to a number.
            unnumbered = first is not None and first.number is None
            blocked = unnumbered and (
                first.state == "running" or (first.state == "waiting" and not place.budgeted)
            )
            if blocked or (beside_budget and not self.is_beside_budget(place)):
                continue
            # What had begun is finished, also after the end.
            if not self.ended or place.number is not None:
                return place
        return None

    def refresh(self) -> None:
        """Places that the ledger added."""
        known = {place.id for place in self.places}
        for view in self.ledger.trials(self.name):
            if view.place_id not in known:
                self.places.append(Place(view.place_id, view.position))
        self.places.sort(key=lambda place: place.position)

    def reopen(self) -> None:
        if self.control != "stopped":
            self.ended = False

    def has_unfinished(self) -> bool:
        waiting = any(place.state == "waiting" and place.number is not None for place in self.places)
        return waiting and self.control != "stopped"

    def is_beside_budget(self, place: Place) -> bool:
        """Whether a place is left once the budget is used up."""
        return not place.budgeted or place.number is not None

    # What may happen

    @initialize(trials=st.integers(1, 4))
    def begin(self, trials: int) -> None:
        self.ledger.add_study(new_study(self.name, trials))
        assert self.ledger.set_budget(self.name, trials, {"bottleneck_dim": 2}) == trials
        self.budget = trials
        self.refresh()

    @precondition(lambda self: self.budget < 6)
    @rule(more=st.integers(0, 2))
    def grow(self, more: int) -> None:
        assert self.ledger.set_budget(self.name, self.budget + more, {"bottleneck_dim": 2}) == more
        self.budget += more
        self.refresh()
        if more:
            self.reopen()

    @rule(dead=st.booleans(), beside_budget=SELDOM, killed=SELDOM)
    def reserve(self, dead: bool, beside_budget: bool, killed: bool) -> None:
        """A worker takes a place and attaches its trial, unless it is killed in between."""
        for place in self.places:
            if place.late:
                place.failed("lost")
        expected = self.next_place(beside_budget)
        claim = self.ledger.reserve(self.name, DEAD if dead else HERE, beside_budget=beside_budget)
        if expected is None:
            assert claim is None
            return
        assert claim is not None and claim.place_id == expected.id
        expected.attempt += 1
        assert (claim.attempt, claim.trial_number) == (expected.attempt, expected.number)
        expected.state, expected.holder, expected.late, expected.dead = "running", claim, False, dead
        self.claims.append(claim)
        if not killed:
            self.attached(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def attach(self, data: st.DataObject) -> None:
        self.attached(self.pick(data))

    def attached(self, claim: Claim) -> None:
        place = self.place(claim)
        good = self.is_good(claim)
        number = place.number if place.number is not None else next(self.numbers)
        with _refused(not good):
            self.ledger.attach(claim, Attached(number, 100 + number, {"n": number}, f"c{number}", 1, 1))
        if good:
            place.number = number

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        claims = {claim.token: claim for claim in (self.pick(data), self.pick(data))}
        gone = self.ledger.heartbeat(list(claims.values()))
        assert {c.token for c in gone} == {t for t, c in claims.items() if not self.is_good(c)}
        for claim in claims.values():
            if self.is_good(claim):
                self.place(claim).late = False

    @precondition(lambda self: any(place.state == "running" for place in self.places))
    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from([place for place in self.places if place.state == "running"]))
        with self.ledger.database.engine.begin() as connection:
            connection.execute(update(places).where(places.c.id == place.id).values(lease_expires=1.0))
        place.late = True

    @precondition(lambda self: any(place.dead for place in self.places))
    @rule()
    def reap(self) -> None:
        self.ledger.reap_dead(self.name)
        for place in self.places:
            if place.dead:
                place.failed("lost")

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), evaluation=st.integers(1, 3), value=st.integers(0, 100))
    def record(self, data: st.DataObject, evaluation: int, value: int) -> None:
        claim = self.pick(data)
        good = self.is_good(claim)
        with _refused(not good):
            self.ledger.record_metrics(claim, evaluation, evaluation, 1.0, {"objective": value / 100})
        if good:
            self.place(claim).evaluations.setdefault(claim.attempt, {}).setdefault(evaluation, value / 100)

    @precondition(lambda self: any(claim.attempt > 1 for claim in self.claims))
    @rule(data=st.data(), evaluations=st.integers(0, 3))
    def adopt(self, data: st.DataObject, evaluations: int) -> None:
        claim = data.draw(st.sampled_from([claim for claim in self.claims if claim.attempt > 1]))
        good, place = self.is_good(claim), self.place(claim)
        old = data.draw(st.integers(1, claim.attempt - 1))
        with _refused(not good):
            self.ledger.adopt_metrics(claim, old, evaluations)
        if good and not place.evaluations.get(claim.attempt):
            before = place.evaluations.get(old, {})
            place.evaluations[claim.attempt] = {n: v for n, v in before.items() if n <= evaluations}

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from(ENDED))
    def result(self, data: st.DataObject, state: str) -> None:
        claim = self.pick(data)
        good, place = self.is_good(claim), self.place(claim)
        # Whoever ended the place may say so again, should the answer have been lost.
        said_before = place.holder is None and place.ended_by == claim.attempt and claim in self.enders
        with _refused(not good and not said_before):
            self.ledger.record_result(claim, Result(state, 0.5))
        if good:
            place.end(state, claim.attempt)
            self.enders.append(claim)

    @property
    def enders(self) -> list[Claim]:
        """Claims that ended their place with a result of their own."""
        return self.__dict__.setdefault("_enders", [])

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), failure=st.sampled_from(["raised", "out_of_memory"]))
    def fail(self, data: st.DataObject, failure: str) -> None:
        claim = self.pick(data)
        good, place = self.is_good(claim), self.place(claim)
        said_before = place.state in ENDED and place.ended_by == claim.attempt
        with _refused(not good and not said_before):
            ended = self.ledger.fail(claim, failure, "ValueError: wrong")
            if good:
                place.failed(failure)
            assert ended == (place.state in ENDED)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        claim = self.pick(data)
        good = self.is_good(claim)
        with _refused(not good):
            self.ledger.release(claim)
        if good:
            self.place(claim).free()

    @rule(word=st.sampled_from(["pause", "stop", "resume", "resume"]))
    def user_says(self, word: str) -> None:
        if word == "pause":
            assert self.ledger.pause(self.name) == (not self.ended)
            self.control = self.control if self.ended else "paused"
        elif word == "stop":
            begun = any(p.state in ("waiting", "running") and p.number is not None for p in self.places)
            possible = self.control != "stopped" and (not self.ended or begun)
            assert self.ledger.stop(self.name) == possible
            if possible:
                self.control, self.ended = "stopped", True
        else:
            assert self.ledger.resume(self.name) == (self.control is not None)
            if self.control is not None:
                self.control, self.ended = None, False

    @precondition(lambda self: all(place.budgeted or place.state in ENDED for place in self.places))
    @rule()
    def enqueue(self) -> None:
        place_id = self.ledger.enqueue(self.name, {"bottleneck_dim": 8})
        self.places.append(Place(place_id, len(self.places), budgeted=False, fixed=True))
        self.reopen()

    @precondition(lambda self: any(place.state == "failed" for place in self.places))
    @rule()
    def retry(self) -> None:
        retried = {place.retry_of for place in self.places}
        expected = [p.id for p in self.places if p.state == "failed" and p.id not in retried]
        made = self.ledger.retry(self.name, [place.id for place in self.places])
        assert list(made) == expected
        for old, new in made.items():
            self.places.append(Place(new, len(self.places), budgeted=False, fixed=True, retry_of=old))
        if made:
            self.reopen()

    @rule()
    def end_if_done(self) -> None:
        done = all(place.state in ENDED for place in self.places)
        over = done or (self.ended and not self.has_unfinished())
        assert self.ledger.end_if_done(self.name) == over
        assert self.ledger.has_unfinished(self.name) == self.has_unfinished()
        if done and not self.ended:
            self.ended, self.control = True, None

    # While a trial runs: an end before anything happened would leave nothing that could happen.
    @precondition(lambda self: any(p.state == "running" and p.number is not None for p in self.places))
    @rule()
    def end_over_budget(self) -> None:
        left = any(not place.budgeted and place.state not in ENDED for place in self.places)
        ends = not left and not self.ended and self.control != "paused"
        assert self.ledger.end_over_budget(self.name, "enough") == ends
        if ends:
            self.ended, self.control = True, None

    @precondition(lambda self: any(place.state in ENDED and not place.told for place in self.places))
    @rule()
    def tell(self) -> None:
        untold = self.ledger.untold(self.name)
        wanted = {p.id: p for p in self.places if p.state in ENDED and not p.told and p.number is not None}
        assert {told.place_id: told.state for told in untold} == {i: p.state for i, p in wanted.items()}
        for told in untold:
            place = wanted[told.place_id]
            assert told.trial_id == 100 + (place.number or 0)
            self.ledger.mark_told(told.place_id)
            place.told = True

    def pick(self, data: st.DataObject) -> Claim:
        good = [claim for claim in self.claims if self.is_good(claim)]
        return data.draw(st.sampled_from(good + self.claims))

    # What must hold

    @invariant()
    def the_tables_are_those_of_the_model(self) -> None:
        mine = select(places.c.id).where(places.c.study == self.name)
        with self.ledger.database.engine.connect() as connection:
            rows = connection.execute(_PLACES.where(places.c.study == self.name)).all()
            ended = connection.execute(select(results).where(results.c.place_id.in_(mine))).all()
            curves = connection.execute(select(metrics).where(metrics.c.place_id.in_(mine))).all()
            study = connection.execute(select(studies).where(studies.c.name == self.name)).one()
            begun = connection.execute(
                select(func.count()).select_from(attempts).where(attempts.c.place_id.in_(mine))
            ).scalar_one()
        self.check_places(rows)
        assert (study.ended_at is not None, study.control) == (self.ended, self.control)
        # One result for each place that ended, and none elsewhere.
        assert {row.place_id: (row.state, row.attempt) for row in ended} == {
            place.id: (place.state, place.ended_by) for place in self.places if place.state in ENDED
        }
        assert begun == len(self.claims) == sum(place.attempt for place in self.places)
        # Every evaluation that was recorded, once.
        found = {(row.place_id, row.attempt, row.evaluation): row.value for row in curves}
        assert len(found) == len(curves)
        assert found == {
            (place.id, attempt, evaluation): value
            for place in self.places
            for attempt, curve in place.evaluations.items()
            for evaluation, value in curve.items()
        }

    def check_places(self, rows: Any) -> None:
        for place, row in zip(self.places, rows, strict=True):
            assert (row.id, row.position, row.state) == (place.id, place.position, place.state)
            assert (row.attempt, row.trial_number, row.retry_of) == (
                place.attempt,
                place.number,
                place.retry_of,
            )
            assert (row.lease_expires is None) == (row.state != "running")
            # Who ended a place may say so once more, so its token stays.
            if row.state not in ENDED:
                assert row.token == (place.holder.token if place.holder is not None else None)


_PLACES = select(places).order_by(places.c.position)


@contextmanager
def _refused(expected: bool) -> Iterator[None]:
    """What a claim that is not good must run into, and no other."""
    try:
        yield
    except LeaseLost:
        assert expected, "a claim that is good was refused"
    else:
        assert not expected, "a claim that is not good was not refused"
