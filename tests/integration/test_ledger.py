"""The contract of the ledger, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import psutil
import pytest
from sqlalchemy import Connection, event, text

from sweeper.errors import UsageError
from sweeper.ledger import (
    Attached,
    Claim,
    LeaseLost,
    Ledger,
    Result,
    WorkerIdentity,
    control,
    places,
    this_worker,
)
from sweeper.ledger.failing import RETRIES
from sweeper.ledger.processes import is_gone
from tests.stores import new_ledger, new_study, postgresql_url, sqlite_url

ME = this_worker("cpu")
# On another host, so that nobody here can see that it is dead.
ELSEWHERE = WorkerIdentity("elsewhere:1:ab", "elsewhere", 1, 0.0, "cuda:0")


def reserve(ledger: Ledger, worker: WorkerIdentity = ME, lease_seconds: float = 60.0) -> Claim:
    claim = ledger.reserve("one", worker, lease_seconds)
    assert claim is not None
    return claim


def attach(ledger: Ledger, claim: Claim, number: int, configuration: str = "", parameters: int = 10) -> None:
    trial_id = None if claim.kind == "reference" else 100 + number
    shown = None if claim.kind == "reference" else number
    params = {"bottleneck_dim": number + 2}
    ledger.attach(claim, Attached(shown, trial_id, params, configuration or f"c{number}", parameters, 5))


def complete(ledger: Ledger, number: int, objective: float, configuration: str = "") -> Claim:
    claim = reserve(ledger)
    attach(ledger, claim, number, configuration)
    ledger.record_metrics(claim, 1, 10, 1.0, {"objective": objective, "accuracy": objective})
    ledger.record_result(claim, Result("complete", objective, {"accuracy": objective}, 2.0))
    return claim


def states(ledger: Ledger) -> list[str]:
    return [view.state for view in ledger.trials("one")]


def test_places_of_a_budget_and_of_a_grown_one(url: str) -> None:
    ledger = new_ledger(url, trials=3, references=True)
    assert [(v.position, v.kind, v.label) for v in ledger.trials("one")] == [
        (1, "reference", "reference-head"),
        (0, "search", None),
        (2, "search", None),
        (3, "search", None),
    ]
    assert ledger.set_budget("one", 3) == 0
    assert ledger.set_budget("one", 2) == 0
    assert ledger.set_budget("one", 5) == 2
    assert [v.position for v in ledger.trials("one")] == [1, 0, 2, 3, 4, 5]


def test_the_places_of_a_grid_are_points_that_have_none_yet(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    first, *others = ({"bottleneck_dim": size} for size in (2, 4, 8, 16))
    # An earlier version gave a place to a point that is none of the grid any more.
    assert ledger.set_budget("one", 2, first, points=[first, {"bottleneck_dim": 512}]) == 1
    assert ledger.set_budget("one", 3, first, points=[first, *others]) == 1
    assert ledger.set_budget("one", 3, first, points=[first, *others]) == 0
    assert ledger.set_budget("one", 9, first, points=[first, *others]) == 2
    sizes = [view.params["bottleneck_dim"] for view in ledger.trials("one")]
    assert sizes == [2, 512, 4, 8, 16]


def test_claims_come_in_order_and_end(url: str) -> None:
    ledger = new_ledger(url, trials=2, references=True)
    first = reserve(ledger)
    assert (first.kind, first.attempt, first.fixed_params) == ("search", 1, {"bottleneck_dim": 2})
    attach(ledger, first, 0)
    head, second = reserve(ledger), reserve(ledger)
    assert (head.label, head.fixed_params) == ("reference-head", {"learning_rate": 0.001})
    assert (second.kind, second.fixed_params) == ("search", None)
    assert ledger.reserve("one", ME) is None
    assert len({first.token, head.token, second.token}) == 3


def test_nobody_overtakes_the_first_place_on_its_way_to_a_number(url: str) -> None:
    ledger = new_ledger(url)
    first = reserve(ledger)
    assert ledger.reserve("one", ELSEWHERE) is None
    attach(ledger, first, 0)
    assert ledger.reserve("one", ELSEWHERE) is not None


def test_nobody_overtakes_the_first_place_that_is_just_being_taken(postgresql: Path) -> None:
    url = postgresql_url(postgresql)
    ledger = new_ledger(url, references=True)
    found: list[Claim | None] = []
    with beside(ledger) as connection:
        first = places.reserve(connection, "one", ME, 60.0, places.new_token())
        others = [
            Thread(target=lambda: found.append(Ledger(url).reserve("one", ELSEWHERE))) for _ in range(2)
        ]
        start_and_wait_for_locks(ledger, others)
    for thread in others:
        thread.join()
    assert first is not None and first.kind == "search" and found == [None, None]


def test_a_study_to_which_somebody_is_adding_does_not_end(postgresql: Path) -> None:
    url = postgresql_url(postgresql)
    ledger = new_ledger(url, trials=1)
    complete(ledger, 0, 0.5)
    ended: list[bool] = []
    thread = Thread(target=lambda: ended.append(Ledger(url).end_if_done("one")))
    with beside(ledger) as connection:
        control.enqueue(connection, "one", {"bottleneck_dim": 4}, "request")
        start_and_wait_for_locks(ledger, [thread])
    thread.join()
    assert ended == [False] and ledger.reserve("one", ME) is not None


@contextmanager
def beside(ledger: Ledger) -> Iterator[Connection]:
    """A transaction of another process, which is committed at the end."""
    with ledger.database.engine.connect() as connection, connection.begin():
        yield connection


def start_and_wait_for_locks(ledger: Ledger, threads: list[Thread]) -> None:
    """Start threads, and go on once each waits for a lock in the database, or is through."""
    for thread in threads:
        thread.start()
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    end = time.monotonic() + 30.0
    with ledger.database.engine.connect() as connection:
        while connection.execute(waiting).scalar_one() < sum(thread.is_alive() for thread in threads):
            connection.rollback()
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_lease_that_ran_out_is_taken_over_and_its_token_is_worthless(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    stale = reserve(ledger, ELSEWHERE, lease_seconds=-1.0)
    attach(ledger, stale, 0)
    assert states(ledger) == ["waiting"]
    claim = reserve(ledger)
    assert (claim.place_id, claim.attempt, claim.trial_number) == (stale.place_id, 2, 0)
    assert claim.params == {"bottleneck_dim": 2}
    for write in (
        lambda: attach(ledger, stale, 0),
        lambda: ledger.record_metrics(stale, 1, 1, 1.0, {"objective": 0.1}),
        lambda: ledger.record_result(stale, Result("complete", 0.1)),
        lambda: ledger.release(stale),
    ):
        with pytest.raises(LeaseLost, match="was taken from this worker"):
            write()
    assert ledger.heartbeat([stale, claim]) == [stale]
    ledger.record_result(claim, Result("complete", 0.5))
    with pytest.raises(LeaseLost):
        ledger.record_result(stale, Result("complete", 0.1))
    assert ledger.trials("one")[0].objective == 0.5


def test_a_heartbeat_keeps_a_lease_and_the_steps(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    claim = reserve(ledger, lease_seconds=-1.0)
    attach(ledger, claim, 0)
    longer = replace(claim, lease_seconds=60.0)
    assert ledger.heartbeat([longer], {claim.place_id: (3, 9)}) == []
    assert states(ledger) == ["running"]
    assert ledger.reserve("one", ELSEWHERE) is None
    assert ledger.steps("one") == {"trial-0000": (3, 9)}


def test_a_result_is_recorded_once(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    claim = complete(ledger, 0, 0.75)
    ledger.record_result(claim, Result("failed", reason="said twice"))
    [view] = ledger.trials("one")
    assert (view.state, view.objective, view.reason, view.device_seconds) == ("complete", 0.75, None, 2.0)
    assert view.seconds is not None and view.seconds >= 0
    with pytest.raises(LeaseLost):
        ledger.record_metrics(claim, 2, 20, 2.0, {"objective": 0.9})
    with pytest.raises(LeaseLost):
        ledger.release(claim)


def test_an_evaluation_is_recorded_once_and_is_finite(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    claim = reserve(ledger)
    attach(ledger, claim, 0)
    for value in (0.5, 0.6):
        ledger.record_metrics(claim, 1, 10, 1.0, {"objective": value, "accuracy": value, "train/loss": 2.0})
    assert ledger.curves("one") == {claim.place_id: [0.5]}
    with pytest.raises(ValueError, match="accuracy is not finite"):
        ledger.record_metrics(claim, 2, 20, 2.0, {"objective": 0.5, "accuracy": math.nan})
    assert [(r.key, r.value) for r in ledger.metric_rows(claim.place_id)] == [
        ("objective", 0.5),
        ("accuracy", 0.5),
        ("train/loss", 2.0),
    ]
    [view] = ledger.trials("one")
    assert (view.state, view.objective, view.metrics) == ("running", 0.5, {"accuracy": 0.5})


def test_curves_are_those_of_the_attempt_that_counts(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    stale = reserve(ledger, ELSEWHERE, lease_seconds=60.0)
    attach(ledger, stale, 0)
    ledger.record_metrics(stale, 1, 10, 1.0, {"objective": 0.9})
    ledger.release(stale)
    claim = reserve(ledger)
    assert ledger.curves("one") == {}
    ledger.record_metrics(claim, 1, 10, 1.0, {"objective": 0.4})
    ledger.record_metrics(claim, 2, 20, 2.0, {"objective": 0.5})
    assert ledger.curves("one") == {claim.place_id: [0.4, 0.5]}
    assert [row.attempt for row in ledger.metric_rows(claim.place_id)] == [1, 2, 2]


def interrupted(ledger: Ledger) -> tuple[Claim, Claim]:
    """A claim that recorded three evaluations and was handed back, and the one that has its place now."""
    first = reserve(ledger)
    attach(ledger, first, 0)
    for number in (1, 2, 3):
        value = number / 10
        ledger.record_metrics(
            first, number, 10 * number, float(number), {"objective": value, "accuracy": value}
        )
    ledger.release(first)
    return first, reserve(ledger)


def test_an_attempt_that_goes_on_has_the_evaluations_before_it(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    first, claim = interrupted(ledger)
    assert ledger.curves("one") == {}
    for _ in range(2):  # the second time changes nothing
        ledger.adopt_metrics(claim, first.attempt, 2)
        rows = ledger.metric_rows(claim.place_id)
        theirs, ours = ([row for row in rows if row.attempt == attempt] for attempt in (1, 2))
        assert len(theirs) == 6 and len(ours) == 4 and {row.evaluation for row in ours} == {1, 2}
        assert [replace(row, id=0, attempt=1) for row in ours] == [replace(row, id=0) for row in theirs[:4]]
    ledger.record_metrics(claim, 3, 30, 3.0, {"objective": 0.9})
    assert ledger.curves("one") == {claim.place_id: [0.1, 0.2, 0.9]}


def test_evaluations_are_adopted_with_what_is_shown_of_them(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    first, claim = interrupted(ledger)
    place = claim.place_id
    shown = [row.id for row in ledger.unshown_metrics(place) if row.evaluation == 1]
    ledger.mark_metrics_shown(shown)
    ledger.adopt_metrics(claim, first.attempt, 3)
    unshown = [
        (row.attempt, row.evaluation) for row in ledger.unshown_metrics(place) if row.key == "accuracy"
    ]
    assert unshown == [(1, 2), (1, 3)]  # what the second attempt took over is drawn once


def test_nothing_is_adopted_of_no_evaluation_or_by_who_lost_the_place(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    first, claim = interrupted(ledger)
    ledger.adopt_metrics(claim, first.attempt, 0)
    with pytest.raises(LeaseLost, match="was taken from this worker"):
        ledger.adopt_metrics(first, first.attempt, 2)
    assert [row.attempt for row in ledger.metric_rows(claim.place_id)] == [1] * 6
    ledger.record_result(claim, Result("complete", 0.5))
    with pytest.raises(LeaseLost):
        ledger.adopt_metrics(claim, first.attempt, 2)


def test_a_place_whose_workers_are_lost_too_often_fails(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    for attempt in range(1, RETRIES["lost"] + 2):
        claim = reserve(ledger, ELSEWHERE, lease_seconds=-1.0)
        assert claim.attempt == attempt
        if attempt == 1:
            attach(ledger, claim, 0)
    assert ledger.reserve("one", ME) is None
    [view] = ledger.trials("one")
    assert view.state == "failed" and view.attempts == RETRIES["lost"] + 1
    assert view.reason == "lost: 4 workers died or hung while they trained it"
    assert [(told.trial_id, told.state) for told in ledger.untold("one")] == [(100, "failed")]
    assert ledger.end_if_done("one")


def test_what_is_handed_back_does_not_count_as_lost(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    for attempt in range(1, 8):
        claim = reserve(ledger)
        assert claim.attempt == attempt
        ledger.release(claim)
    assert states(ledger) == ["waiting"]


def test_past_the_limits_frees_the_place_for_another_configuration(url: str) -> None:
    ledger = new_ledger(url, trials=2)
    for drawn in (1, 2):
        claim = reserve(ledger)
        assert claim.fixed_params == ({"bottleneck_dim": 2} if drawn == 1 else None)
        ledger.release(claim, "past_limits", "7 too many")
        assert ledger.past_limits_in_a_row("one") == drawn
    claim = reserve(ledger)
    attach(ledger, claim, 5)
    assert ledger.past_limits_in_a_row("one") == 0
    view = next(view for view in ledger.trials("one") if view.number == 5)
    assert view.attempts == 1 and view.attempt == 3


def test_equal_configurations_are_recorded_as_repeats(url: str) -> None:
    ledger = new_ledger(url, trials=3)
    source = complete(ledger, 0, 0.75, "same")
    claim = reserve(ledger)
    attach(ledger, claim, 1, "same")
    assert ledger.record_repeat(claim, "other") is None
    assert ledger.record_repeat(claim, "same") == 0
    view = ledger.trial("one", claim.place_id)
    assert (view.state, view.objective, view.reason) == ("complete", 0.75, "repeat of trial 0")
    assert view.device_seconds == 0.0 and view.metrics == {"accuracy": 0.75}
    assert ledger.curves("one") == {source.place_id: [0.75], claim.place_id: [0.75]}


def test_a_repeat_that_was_interrupted_before_has_the_whole_curve(url: str) -> None:
    ledger = new_ledger(url, trials=3)
    source = complete(ledger, 0, 0.75, "same")
    claim = reserve(ledger)
    attach(ledger, claim, 1, "same")
    ledger.record_metrics(claim, 1, 10, 1.0, {"objective": 0.5})
    ledger.release(claim)
    again = reserve(ledger)
    assert again.place_id == claim.place_id
    assert ledger.record_repeat(again, "same") == 0
    assert ledger.curves("one")[claim.place_id] == ledger.curves("one")[source.place_id]


def test_what_is_to_be_whole_is_no_repeat_of_one_that_was_pruned(url: str) -> None:
    ledger = new_ledger(url, trials=2)
    first = reserve(ledger)
    attach(ledger, first, 0, "same")
    ledger.release(first)
    ledger.enqueue("one", {"bottleneck_dim": 64})
    twin = reserve(ledger)
    attach(ledger, twin, 1, "same")
    ledger.record_result(twin, Result("pruned", 0.4, reason="pruner"))
    again = reserve(ledger)
    assert again.trial_number == 0 and ledger.record_repeat(again, "same", states=("complete",)) is None
    other = reserve(ledger)
    attach(ledger, other, 2, "same")
    assert ledger.record_repeat(other, "same") == 1


def test_what_is_being_trained_alike_is_waited_for(url: str) -> None:
    ledger = new_ledger(url, trials=4)
    first = reserve(ledger)
    attach(ledger, first, 0, "same")
    assert ledger.record_repeat(first, "same") is None
    second = reserve(ledger)
    attach(ledger, second, 1, "same")
    assert ledger.record_repeat(second, "same") == 0
    assert ledger.trial("one", second.place_id).state == "waiting"
    with pytest.raises(LeaseLost):
        ledger.record_repeat(second, "same")
    # It is not given away before that one has its result; others are.
    third = reserve(ledger)
    attach(ledger, third, 2, "other")
    assert third.place_id != second.place_id and ledger.record_repeat(third, "other") is None
    fourth = reserve(ledger)
    attach(ledger, fourth, 3, "same")
    assert ledger.record_repeat(fourth, "same") == 0
    assert ledger.reserve("one", ELSEWHERE) is None and not ledger.end_if_done("one")
    ledger.record_metrics(first, 1, 10, 1.0, {"objective": 0.75})
    ledger.record_result(first, Result("complete", 0.75, {"accuracy": 0.75}, 2.0))
    for number in (1, 3):
        claim = reserve(ledger)
        assert (claim.trial_number, claim.attempt) == (number, 2)
        assert ledger.record_repeat(claim, "same") == 0
    views = {view.number: view for view in ledger.trials("one")}
    assert [views[number].reason for number in (1, 3)] == ["repeat of trial 0"] * 2
    assert ledger.curves("one")[second.place_id] == [0.75]


def test_one_that_waited_is_trained_if_the_other_fails(url: str) -> None:
    ledger = new_ledger(url, trials=2)
    first = reserve(ledger)
    attach(ledger, first, 0, "same")
    second = reserve(ledger)
    attach(ledger, second, 1, "same")
    assert ledger.record_repeat(second, "same") == 0
    while not ledger.fail(first, "raised", "boom"):
        first = reserve(ledger)
        assert first.trial_number == 0
    again = reserve(ledger)
    assert again.trial_number == 1 and ledger.record_repeat(again, "same") is None


def test_where_repeats_are_wanted_none_waits_for_another(url: str) -> None:
    ledger = new_ledger(url, trials=2)
    row = ledger.study("one")
    spec = {**row.spec, "budget": {**row.spec["budget"], "repeats": True}}
    ledger.replace_spec("one", spec, row.path, row.text)
    claims = []
    for number in (0, 1):
        claims.append(reserve(ledger))
        attach(ledger, claims[number], number, "same")
    ledger.release(claims[1])
    assert reserve(ledger).trial_number == 1


def test_of_workers_that_draw_the_same_at_once_one_trains_it(url: str) -> None:
    count = 4
    ledger = new_ledger(url, trials=count)
    first = reserve(ledger)
    attach(ledger, first, 0, "other")
    claims = [reserve(ledger) for _ in range(count - 1)]
    barrier, answers = Barrier(len(claims)), []

    def draw(number: int, claim: Claim) -> None:
        own = Ledger(url)
        barrier.wait()
        attach(own, claim, number, "same")
        answers.append(own.record_repeat(claim, "same"))

    threads = [Thread(target=draw, args=each) for each in enumerate(claims, start=1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(answer is None for answer in answers) == 1
    assert sorted(states(ledger)) == ["running", "running", "waiting", "waiting"]


def test_results_are_told_once(url: str) -> None:
    ledger = new_ledger(url, trials=2, references=True)
    complete(ledger, 0, 0.5)
    head = reserve(ledger)
    attach(ledger, head, 0)
    ledger.record_result(head, Result("complete", 0.4))
    [untold] = ledger.untold("one")
    assert (untold.trial_id, untold.state, untold.objective, untold.curve) == (100, "complete", 0.5, (0.5,))
    ledger.mark_told(untold.place_id)
    assert ledger.untold("one") == []


def test_a_study_ends_when_every_place_has_its_result(url: str) -> None:
    ledger = new_ledger(url, trials=2, references=True)
    complete(ledger, 0, 0.5)
    head = reserve(ledger)
    attach(ledger, head, 0)
    complete(ledger, 1, 0.6)
    assert not ledger.end_if_done("one")
    ledger.record_result(head, Result("complete", 0.4))
    assert ledger.end_if_done("one") and ledger.end_if_done("one")
    assert ledger.study("one").ended_because == "all 2 trials are done"
    status = ledger.status("one")
    assert status["state"] == "ended" and status["trials"]["complete"] == 2
    assert status["best"]["number"] == 1


def test_an_ended_study_begins_nothing_until_its_budget_grows(url: str) -> None:
    ledger = new_ledger(url, trials=2)
    assert ledger.end_over_budget("one", "5 trials failed")
    assert not ledger.end_over_budget("one", "something else")
    assert ledger.reserve("one", ME) is None
    assert ledger.status("one")["ended_because"] == "5 trials failed"
    grown = new_study(trials=4)
    ledger.replace_spec("one", grown.spec, grown.path, "text")
    assert ledger.set_budget("one", 4) == 2
    assert ledger.reserve("one", ME) is not None


def test_a_study_that_was_ended_before_its_places_were_there_goes_on_once_they_are(url: str) -> None:
    """Whoever grew its budget died in between, and a worker looked."""
    ledger = new_ledger(url, trials=1)
    complete(ledger, 0, 0.5)
    assert ledger.end_if_done("one")
    grown = new_study(trials=2)
    ledger.replace_spec("one", grown.spec, grown.path, "text")
    assert ledger.end_if_done("one")
    assert ledger.set_budget("one", 2) == 1
    assert ledger.study("one").ended_at is None and ledger.reserve("one", ME) is not None
    ledger.stop("one")
    assert ledger.set_budget("one", 3) == 1
    assert ledger.study("one").is_stopped and ledger.study("one").ended_at is not None


def test_the_best_is_complete_and_the_first_of_equals(url: str) -> None:
    ledger = new_ledger(url, trials=4)
    for number, objective in enumerate((0.5, 0.7, 0.7)):
        complete(ledger, number, objective)
    claim = reserve(ledger)
    attach(ledger, claim, 3)
    ledger.record_result(claim, Result("pruned", 0.9))
    assert [view.number for view in ledger.best("one", 3)] == [1, 2, 0]
    json = ledger.best("one")[0].to_json()
    assert ledger.status("one")["best"] == json
    assert json["number"] == 1 and json["trainable_parameters"] == 15 and json["trainable_percent"] == 1.5
    assert "label" not in json


def test_a_configuration_is_listed_among_the_best_once(url: str) -> None:
    ledger = new_ledger(url, trials=4)
    for number, (objective, configuration) in enumerate([(0.5, "a"), (0.7, "b"), (0.7, "b"), (0.6, "a")]):
        complete(ledger, number, objective, configuration)
    assert [view.number for view in ledger.best("one", 3)] == [1, 3]
    assert [view.number for view in ledger.best("one", 1)] == [1]


def test_the_dead_of_this_host_are_reaped_at_once(url: str) -> None:
    ledger = new_ledger(url, trials=4)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    from sweeper.ledger.processes import host_id, started

    other = WorkerIdentity("here:2", host_id(), process.pid, started(process.pid), "cpu")
    reused = replace(ME, name="here:3", process_started=ME.process_started - 100.0)
    claims = [reserve(ledger, other)]
    attach(ledger, claims[0], 0)
    elsewhere = replace(reused, name="there:3", host="elsewhere")
    claims += [reserve(ledger, reused), reserve(ledger, ME), reserve(ledger, elsewhere)]
    assert ledger.reap_dead("one") == ["here:3"]
    process.kill()
    # Not waited for, it is a zombie: dead, with its number still taken.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ledger.reap_dead("one") == ["here:2"]
    process.wait()
    assert ledger.reap_dead("one") == []
    assert ledger.heartbeat(claims) == claims[:2]


@pytest.mark.parametrize(("error", "gone"), [(PermissionError, False), (ProcessLookupError, True)])
def test_a_process_that_proc_hides_is_not_gone(
    error: type[OSError], gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounted with ``hidepid``, ``/proc`` shows no process of another user."""

    def hidden(pid: int) -> psutil.Process:
        raise psutil.NoSuchProcess(pid)

    def kill(pid: int, number: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(psutil, "Process", hidden)
        patch.setattr(os, "kill", kill)
        assert is_gone(ME) is gone


@pytest.mark.parametrize("failure", ["raised", "out_of_memory"])
def test_each_class_of_failure_has_its_own_retries(url: str, failure: str) -> None:
    ledger = new_ledger(url, trials=1)
    # Of another class, and on purpose: neither is counted.
    reserve(ledger, ELSEWHERE, lease_seconds=-1.0)
    claim = reserve(ledger)
    ledger.release(claim)
    for _ in range(RETRIES[failure]):
        claim = reserve(ledger)
        attach(ledger, claim, 0)
        assert ledger.fail(claim, failure, "ValueError: wrong") is False
        with pytest.raises(LeaseLost):
            ledger.fail(claim, failure, "ValueError: wrong")
    claim = reserve(ledger)
    assert ledger.fail(claim, failure, "ValueError: wrong") is True
    assert ledger.fail(claim, failure, "ValueError: wrong") is True
    [view] = ledger.trials("one")
    assert (view.state, view.reason) == ("failed", "ValueError: wrong")
    assert [(told.trial_id, told.state) for told in ledger.untold("one")] == [(100, "failed")]


def test_hours_are_those_that_somebody_worked(url: str) -> None:
    ledger = new_ledger(url, trials=3)
    assert ledger.hours_used("one") == 0.0
    complete(ledger, 0, 0.5)
    used = ledger.hours_used("one")
    assert 0.0 < used < 1.0
    assert ledger.hours_used("one") == used


def test_the_hours_of_a_dead_worker_end_when_it_was_last_seen(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    claim = reserve(ledger, ELSEWHERE, lease_seconds=-1.0)
    with ledger.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE attempts SET started_at = started_at - 10800, seen_at = seen_at - 7200"
        )
    assert ledger.hours_used("one") == pytest.approx(1.0, abs=0.01)
    assert reserve(ledger).place_id == claim.place_id  # somebody noticed
    assert ledger.hours_used("one") == pytest.approx(1.0, abs=0.01)


def test_one_sender_draws(url: str) -> None:
    ledger = new_ledger(url)
    assert ledger.hold_sender("one", "a", 60.0)
    assert ledger.hold_sender("one", "a", 60.0)
    assert not ledger.hold_sender("one", "b", 60.0)
    ledger.drop_sender("one", "b")
    assert not ledger.hold_sender("one", "b", 60.0)
    ledger.drop_sender("one", "a")
    assert ledger.hold_sender("one", "b", -1.0)
    assert ledger.hold_sender("one", "a", 60.0)


def test_indexes_lead_to_the_objective_and_to_what_is_not_shown(tmp_path: Path) -> None:
    """Of many evaluations with many keys each, what is asked most is read without the others."""
    ledger = new_ledger(sqlite_url(tmp_path))
    claim = complete(ledger, 0, 0.5)
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(ledger.database.engine, "before_cursor_execute", note)
    assert ledger.curves("one") == {claim.place_id: [0.5]}
    assert len(ledger.unshown_metrics(claim.place_id)) == 2
    event.remove(ledger.database.engine, "before_cursor_execute", note)
    plans = []
    with ledger.database.engine.connect() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.append(" ".join(row.detail for row in plan))
    assert "ix_metrics_objective" in plans[0] and "ix_metrics_unshown" in plans[1]


def test_of_what_runs_the_last_evaluation_is_told(url: str) -> None:
    ledger = new_ledger(url, trials=2)
    for number in range(2):
        claim = reserve(ledger)
        attach(ledger, claim, number, f"c{number}")
        for evaluation in range(1, 3 + number):
            ledger.record_metrics(claim, evaluation, 10, 1.0, {"objective": evaluation / 10, "loss": number})
    assert [view.objective for view in ledger.trials("one")] == [0.2, 0.3]
    assert ledger.trial("one", claim.place_id).metrics["loss"] == 1


def test_what_is_shown_is_remembered(url: str) -> None:
    ledger = new_ledger(url, trials=2)
    assert ledger.unshown_places("one") == []
    claim = complete(ledger, 0, 0.5)
    assert ledger.unshown_places("one") == [claim.place_id]
    rows = ledger.unshown_metrics(claim.place_id)
    assert [row.key for row in rows] == ["objective", "accuracy"]
    ledger.mark_metrics_shown([rows[0].id])
    assert [row.key for row in ledger.unshown_metrics(claim.place_id)] == ["accuracy"]
    version = ledger.trial("one", claim.place_id).version
    ledger.mark_place_shown(claim.place_id, version - 1)
    assert ledger.unshown_places("one") == [claim.place_id]
    ledger.mark_place_shown(claim.place_id, version)
    assert ledger.unshown_places("one") == []
    ledger.note_run(claim.place_id, "run")
    ledger.note_drawn("one", "1", "parent")
    assert ledger.trial("one", claim.place_id).mlflow_run_id == "run"
    assert ledger.study("one").run_id == "parent"
    ledger.hide_all("one")
    assert (
        ledger.unshown_places("one") == [claim.place_id] and len(ledger.unshown_metrics(claim.place_id)) == 2
    )


def test_studies_are_apart(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    ledger.add_study(new_study("two"))
    ledger.add_study(new_study("two", trials=99))
    ledger.set_budget("two", 1)
    assert ledger.studies() == ["one", "two"]
    assert ledger.study("two").spec["budget"]["trials"] == 3
    claim = reserve(ledger)
    attach(ledger, claim, 0)
    other = ledger.reserve("two", ME)
    assert other is not None and other.place_id != claim.place_id
    ledger.attach(other, Attached(0, 1, {}, "c0", 1, 1))
    assert ledger.reserve("one", ME) is None
    assert ledger.find_study("three") is None
    with pytest.raises(KeyError):
        ledger.study("three")


def test_a_reservation_that_was_not_confirmed_is_found_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit arrived, its answer did not: the same call, run again, must not take a second place."""
    ledger = new_ledger(url, trials=3)
    write = ledger.database.write
    monkeypatch.setattr(
        ledger.database, "write", lambda *arguments: (write(*arguments), write(*arguments))[1]
    )
    reserve(ledger)
    assert states(ledger).count("running") == 1


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_racing_for_places_take_each_once(url: str, workers: int) -> None:
    trials = 24
    new_ledger(url, trials=trials, references=True).close()
    barrier = Barrier(workers)
    taken: list[list[int]] = [[] for _ in range(workers)]
    errors: list[BaseException] = []

    def run(index: int) -> None:
        ledger = Ledger(url)
        try:
            barrier.wait()
            while not ledger.end_if_done("one"):
                claim = ledger.reserve("one", ME)
                if claim is None:
                    continue
                attach(ledger, claim, claim.place_id)
                ledger.record_metrics(claim, 1, 1, 1.0, {"objective": 0.5})
                ledger.record_result(claim, Result("complete", 0.5))
                taken[index].append(claim.place_id)
        except BaseException as error:
            errors.append(error)
        finally:
            ledger.close()

    threads = [Thread(target=run, args=(index,)) for index in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    together = [place for places in taken for place in places]
    assert len(together) == len(set(together)) == trials + 1
    assert states(Ledger(url)) == ["complete"] * (trials + 1)


def test_a_store_without_a_study_is_named(url: str) -> None:
    with pytest.raises(UsageError, match="holds no study yet"):
        Ledger(url).studies()
