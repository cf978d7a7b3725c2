"""What a user says of a study, in the ledger: the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import pytest
from sqlalchemy import text, update

from sweeper.errors import UsageError
from sweeper.ledger import Ledger, Result, StudyGone, this_worker
from sweeper.ledger import control as statements
from sweeper.ledger.schema import places
from tests.integration.test_ledger import ELSEWHERE, ME, attach, complete, reserve, states
from tests.lost_commits import lost_confirmation
from tests.stores import new_ledger, new_study, postgresql_url


def fail(ledger: Ledger, number: int) -> int:
    claim = reserve(ledger)
    attach(ledger, claim, number)
    ledger.record_result(claim, Result("failed", reason="RuntimeError: no"))
    return claim.place_id


def test_a_paused_study_begins_nothing_and_keeps_what_runs(url: str) -> None:
    ledger = new_ledger(url)
    claim = reserve(ledger)
    attach(ledger, claim, 0)
    assert ledger.control("one") is None and ledger.status("one")["state"] == "running"
    assert ledger.pause("one") and ledger.pause("one")
    assert ledger.control("one") == "paused" and ledger.study("one").is_paused
    assert ledger.status("one")["state"] == "paused"
    assert ledger.reserve("one", ELSEWHERE) is None
    assert ledger.heartbeat([claim]) == []
    ledger.record_metrics(claim, 1, 10, 1.0, {"objective": 0.5})
    ledger.release(claim)
    assert states(ledger) == ["waiting"] * 3
    assert ledger.reserve("one", ME) is None
    assert not ledger.end_if_done("one")
    assert ledger.resume("one") and not ledger.resume("one")
    assert ledger.status("one")["state"] == "waiting"
    assert reserve(ledger).trial_number == 0


def test_a_study_that_ends_while_it_is_paused_is_no_longer_paused(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    claim = reserve(ledger)
    attach(ledger, claim, 0)
    assert ledger.pause("one")
    ledger.record_result(claim, Result("complete", 0.5))
    assert ledger.end_if_done("one")
    assert ledger.control("one") is None and ledger.status("one")["state"] == "ended"
    assert not ledger.pause("one") and not ledger.resume("one") and not ledger.stop("one")
    assert ledger.status("one")["ended_because"] == "its one trial is done"


def test_a_stopped_study_has_ended_and_goes_on_when_told_to(url: str) -> None:
    ledger = new_ledger(url)
    complete(ledger, 0, 0.5)
    claim = reserve(ledger)
    assert ledger.stop("one") and not ledger.stop("one")
    row = ledger.study("one")
    assert row.is_stopped and row.ended_at is not None and row.ended_because == "its user stopped it"
    assert ledger.reserve("one", ELSEWHERE) is None and ledger.end_if_done("one")
    ledger.release(claim)
    assert not ledger.pause("one")
    assert ledger.status("one")["state"] == "ended"
    # A larger budget is taken over, but does not undo what the user said.
    ledger.replace_spec("one", new_study(trials=4).spec, "/here/study.yaml", "study: one")
    assert ledger.set_budget("one", 4) == 1
    assert ledger.study("one").is_stopped and ledger.study("one").ended_at is not None
    assert ledger.resume("one")
    row = ledger.study("one")
    assert (row.control, row.ended_at, row.ended_because) == (None, None, None)
    assert reserve(ledger).place_id == claim.place_id


def test_a_paused_study_can_be_stopped(url: str) -> None:
    ledger = new_ledger(url)
    assert ledger.pause("one") and ledger.stop("one")
    assert ledger.status("one")["state"] == "ended" and ledger.control("one") == "stopped"


def test_what_is_enqueued_comes_next_with_its_parameters_and_beside_the_budget(url: str) -> None:
    ledger = new_ledger(url, trials=2, references=True)
    place = ledger.enqueue("one", {"bottleneck_dim": 64})
    # The default configuration has its number before anything overtakes it.
    first = reserve(ledger)
    assert first.fixed_params == {"bottleneck_dim": 2} and first.budgeted
    assert ledger.reserve("one", ELSEWHERE) is None
    attach(ledger, first, 0)
    claim = reserve(ledger)
    assert (claim.place_id, claim.fixed_params, claim.budgeted) == (place, {"bottleneck_dim": 64}, False)
    assert reserve(ledger).label == "reference-head"
    assert ledger.status("one")["budget"]["trials"] == 3
    # The file's budget pays for its own trials only, whatever was enqueued.
    assert ledger.set_budget("one", 2) == 0 and ledger.set_budget("one", 3) == 1
    assert [view.params for view in ledger.trials("one") if view.place_id == place] == [
        {"bottleneck_dim": 64}
    ]


def test_what_was_enqueued_before_a_study_has_its_places_takes_the_place_of_none(url: str) -> None:
    """Whoever began it may have died between its row and its places."""
    ledger = Ledger(url)
    ledger.create()
    ledger.add_study(new_study(trials=2))
    place = ledger.enqueue("one", {"bottleneck_dim": 64})
    budget = ("one", 2, {"bottleneck_dim": 2}, [("reference-head", {"learning_rate": 0.001})])
    assert ledger.set_budget(*budget) == 3 and ledger.set_budget(*budget) == 0
    first = reserve(ledger)
    assert first.fixed_params == {"bottleneck_dim": 2} and first.budgeted
    attach(ledger, first, 0)
    enqueued, head, last = reserve(ledger), reserve(ledger), reserve(ledger)
    assert (enqueued.place_id, head.label, last.fixed_params) == (place, "reference-head", None)


def test_an_enqueued_trial_reopens_a_study_that_has_ended(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    complete(ledger, 0, 0.5)
    assert ledger.end_if_done("one") and ledger.study("one").ended_because == "its one trial is done"
    place = ledger.enqueue("one", {"bottleneck_dim": 64})
    assert ledger.study("one").ended_at is None and not ledger.end_if_done("one")
    claim = reserve(ledger)
    assert claim.place_id == place
    attach(ledger, claim, 1)
    ledger.record_result(claim, Result("complete", 0.6))
    assert ledger.end_if_done("one") and ledger.study("one").ended_because == "all 2 trials are done"


def test_what_is_beside_the_budget_is_trained_before_the_study_ends(url: str) -> None:
    ledger = new_ledger(url, trials=3, references=True)
    complete(ledger, 0, 0.5)
    place = ledger.enqueue("one", {"bottleneck_dim": 64})
    enqueued = ledger.reserve("one", ME, beside_budget=True)
    assert enqueued is not None and enqueued.place_id == place
    reference = ledger.reserve("one", ME, beside_budget=True)
    assert reference is not None and reference.label == "reference-head"
    assert ledger.reserve("one", ME, beside_budget=True) is None
    for claim, number in ((enqueued, 1), (reference, 0)):
        assert not ledger.end_over_budget("one", "enough") and ledger.study("one").ended_at is None
        attach(ledger, claim, number)
        ledger.record_result(claim, Result("complete", 0.6))
    assert ledger.end_over_budget("one", "enough") and not ledger.end_over_budget("one", "too much")
    assert ledger.study("one").ended_because == "enough"
    assert ledger.status("one")["trials"]["waiting"] == 2
    # What is enqueued now is trained as well, and what confirms the study holds nothing up.
    ledger.confirm("one", [("confirm", "a label", {})])
    assert not ledger.end_over_budget("one", "too much")
    ledger.enqueue("one", {"bottleneck_dim": 64})
    assert not ledger.end_over_budget("one", "enough")
    attach(ledger, claim := reserve(ledger), 2)
    ledger.record_result(claim, Result("complete", 0.6))
    assert ledger.end_over_budget("one", "enough")


def test_a_trial_that_was_interrupted_is_gone_on_with_though_the_budget_is_used_up(url: str) -> None:
    ledger = new_ledger(url, trials=4)
    complete(ledger, 0, 0.5)
    first, second = reserve(ledger), reserve(ledger)
    attach(ledger, first, 1)
    attach(ledger, second, 2)
    ledger.release(first)
    again = ledger.reserve("one", ELSEWHERE, beside_budget=True)
    assert again is not None and (again.place_id, again.trial_number) == (first.place_id, 1)
    assert ledger.reserve("one", ME, beside_budget=True) is None  # what has not begun
    # What runs is finished though the study has ended.
    assert ledger.end_over_budget("one", "enough") and ledger.end_if_done("one")
    ledger.record_result(again, Result("complete", 0.6))
    ledger.record_result(second, Result("complete", 0.6))
    assert states(ledger).count("complete") == 3 and states(ledger).count("waiting") == 1


def test_what_a_dead_worker_began_lasted_until_it_was_seen(url: str) -> None:
    """Else a machine that lost its power trains on in the timeline until somebody works on the study."""
    ledger = new_ledger(url, trials=4)
    claim = reserve(ledger)
    attach(ledger, claim, 0)
    [going] = ledger.attempts("one")
    assert going.outcome == "running"
    ledger.heartbeat([replace(claim, lease_seconds=-1.0)])
    [lost] = ledger.attempts("one")
    time.sleep(0.2)
    [later] = ledger.attempts("one")
    assert lost.outcome == later.outcome == "lost" and lost.ended_at == later.ended_at


@pytest.mark.parametrize("way", ["handed back", "raised", "expired", "reaped"])
def test_a_trial_that_is_interrupted_when_its_study_has_ended_is_finished(url: str, way: str) -> None:
    ledger = new_ledger(url, trials=4)
    complete(ledger, 0, 0.5)
    dead = replace(ME, process_started=1.0)
    begun = reserve(ledger, dead if way == "reaped" else ELSEWHERE)
    unbegun = reserve(ledger)
    attach(ledger, begun, 1)
    assert ledger.end_over_budget("one", "enough")
    ledger.release(unbegun)
    assert ledger.end_if_done("one") and ledger.reserve("one", ME) is None  # what has not begun is left
    if way == "handed back":
        ledger.release(begun)
    elif way == "raised":
        assert not ledger.fail(begun, "raised", "OSError: away")
    elif way == "expired":
        ledger.heartbeat([replace(begun, lease_seconds=-1.0)])
        assert ledger.expire("one") == 1
    else:
        assert ledger.reap_dead("one") == [dead.name]
    assert ledger.has_unfinished("one") and not ledger.end_if_done("one")
    again = reserve(ledger)
    assert (again.place_id, again.trial_number) == (begun.place_id, 1)
    assert ledger.reserve("one", ME) is None and ledger.end_if_done("one")
    ledger.record_result(again, Result("complete", 0.6))
    assert ledger.study("one").ended_because == "enough" and not ledger.has_unfinished("one")


def test_a_budget_that_is_used_up_does_not_undo_a_pause(url: str) -> None:
    ledger = new_ledger(url, trials=4)
    complete(ledger, 0, 0.5)
    attach(ledger, claim := reserve(ledger), 1)
    assert ledger.pause("one")
    ledger.release(claim)
    assert not ledger.end_over_budget("one", "enough") and ledger.reserve("one", ME) is None
    assert ledger.study("one").is_paused and ledger.resume("one") and ledger.end_over_budget("one", "enough")
    assert reserve(ledger).trial_number == 1


def test_of_a_study_that_has_ended_its_user_can_stop_what_still_runs(url: str) -> None:
    ledger = new_ledger(url, trials=4)
    complete(ledger, 0, 0.5)
    fails, running = reserve(ledger), reserve(ledger)
    attach(ledger, fails, 1)
    attach(ledger, running, 2)
    assert not ledger.fail(fails, "raised", "ValueError: wrong")
    assert ledger.end_over_budget("one", "enough")
    assert ledger.fail(reserve(ledger), "raised", "ValueError: wrong")  # for good
    assert ledger.end_if_done("one") and not ledger.pause("one")
    assert ledger.stop("one") and not ledger.stop("one") and ledger.control("one") == "stopped"
    ledger.release(running)
    assert ledger.reserve("one", ME) is None and ledger.end_if_done("one")
    assert ledger.study("one").ended_because == "enough"
    assert ledger.resume("one")
    again = reserve(ledger)
    assert again.trial_number == 2
    ledger.record_result(again, Result("complete", 0.6))
    assert ledger.end_over_budget("one", "enough") and not ledger.stop("one")  # nothing is left to stop


def test_an_enqueued_trial_does_not_reopen_a_study_that_was_stopped(url: str) -> None:
    ledger = new_ledger(url)
    assert ledger.stop("one")
    place = ledger.enqueue("one", {"bottleneck_dim": 64})
    assert ledger.study("one").is_stopped and ledger.reserve("one", ME) is None
    assert ledger.resume("one")
    attach(ledger, reserve(ledger), 0)
    assert reserve(ledger).place_id == place


def test_enqueueing_is_done_once_where_its_commit_was_not_confirmed(url: str) -> None:
    ledger = new_ledger(url)
    made = {
        ledger.database.write(statements.enqueue, "one", {"bottleneck_dim": 64}, "request") for _ in range(2)
    }
    assert len(made) == 1 and len(states(ledger)) == 4


def test_who_enqueues_by_hand_does_not_have_to_do_it_again(url: str) -> None:
    ledger = new_ledger(url)
    before = {view.place_id for view in ledger.trials("one")}
    with lost_confirmation(ledger.database.engine) as lost:
        place = ledger.enqueue("one", {"bottleneck_dim": 64})
    assert lost and ledger.database.patience_seconds == 0.0
    assert {view.place_id for view in ledger.trials("one")} - before == {place}


def test_a_budget_that_grew_meanwhile_is_not_found_used_up(url: str) -> None:
    ledger = new_ledger(url)
    before = ledger.study("one")
    grown = {**before.spec, "budget": {**before.spec["budget"], "hours": 9}}
    ledger.replace_spec("one", grown, before.path, "another text")
    assert not ledger.end_over_budget("one", "the 1-hour budget is used up", before.text)
    assert ledger.study("one").ended_at is None
    assert ledger.end_over_budget("one", "the 9-hour budget is used up", "another text")


def test_who_draws_all_anew_does_not_wait_for_a_heartbeat_that_waits_for_it(postgresql: Path) -> None:
    """Both lock the places of a study: in one order, whatever the order is in which the table has them."""
    ledger = new_ledger(postgresql_url(postgresql))
    first, second = sorted(view.place_id for view in ledger.trials("one"))[:2]
    moved = update(places).values(version=places.c.version + 1)
    other = Ledger(ledger.database.url.render_as_string(hide_password=False))
    waits = text("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = :on")
    raised: list[BaseException] = []

    def hide() -> None:
        try:
            other.hide_all("one")
        except Exception as error:
            raised.append(error)

    hiding = Thread(target=hide)
    with ledger.database.engine.connect() as watching, ledger.database.engine.connect() as beating:
        beating.execute(moved.where(places.c.id == first))  # behind the second, as the table has them
        beating.commit()
        beating.execute(moved.where(places.c.id == first))
        hiding.start()
        while watching.execute(waits, {"on": "transactionid"}).first() is None:
            watching.rollback()
            time.sleep(0.01)
        beating.execute(moved.where(places.c.id == second))
        beating.commit()
    hiding.join()
    assert raised == []


def test_many_enqueue_at_once_and_each_has_its_place(url: str) -> None:
    new_ledger(url, trials=1).close()
    barrier, made = Barrier(6), []

    def enqueue(number: int) -> None:
        ledger = Ledger(url)
        barrier.wait()
        made.extend(ledger.enqueue("one", {"bottleneck_dim": number}) for _ in range(3))
        ledger.close()

    threads = [Thread(target=enqueue, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    positions = [view.position for view in Ledger(url).trials("one")]
    assert len(set(made)) == 18 and sorted(positions) == list(range(19))


def test_a_retry_has_the_same_parameters_and_a_link(url: str) -> None:
    ledger = new_ledger(url, trials=2, failures=1)
    place = fail(ledger, 0)
    complete(ledger, 1, 0.5)
    assert ledger.end_if_done("one") and ledger.count("one", "failed") == 1
    [(old, new)] = ledger.retry("one", [place]).items()
    assert old == place and ledger.study("one").ended_at is None
    # What is tried again no longer counts as a failure: the study would end at once for it.
    assert ledger.count("one", "failed") == 0
    assert ledger.retry("one", [place]) == {}
    claim = reserve(ledger)
    assert (claim.place_id, claim.fixed_params) == (new, {"bottleneck_dim": 2})
    attach(ledger, claim, 2)
    view = next(view for view in ledger.trials("one") if view.place_id == new)
    assert view.retry_of == 0 and view.to_json()["retry_of"] == 0
    ledger.record_result(claim, Result("failed", reason="again"))
    assert ledger.count("one", "failed") == 1
    assert list(ledger.retry("one", [place, new])) == [new]


def test_only_what_failed_is_retried(url: str) -> None:
    ledger = new_ledger(url, trials=3, references=True)
    done = complete(ledger, 0, 0.5).place_id
    ids = [view.place_id for view in ledger.trials("one")]
    assert done in ids and ledger.retry("one", ids) == {}
    assert len(states(ledger)) == 4 and "retry_of" not in ledger.trials("one")[0].to_json()


def test_a_study_whose_trials_run_is_not_deleted(url: str) -> None:
    ledger = new_ledger(url)
    claim = reserve(ledger)
    attach(ledger, claim, 0)
    assert ledger.close_study("one") == 1 and ledger.control("one") is None
    assert ledger.delete_study("one") == 1
    ledger.record_metrics(claim, 1, 10, 1.0, {"objective": 0.5})
    ledger.release(claim)
    assert ledger.close_study("one") == 0
    assert ledger.reserve("one", ME) is None
    assert ledger.study("one").ended_because == "its user stopped it"


@pytest.mark.parametrize(
    "call",
    [
        lambda ledger: ledger.enqueue("one", {}),
        lambda ledger: ledger.set_budget("one", 3),
        lambda ledger: ledger.confirm("one", [("confirm", "confirm-0", {})]),
        lambda ledger: ledger.end_over_budget("one", "because"),
        lambda ledger: ledger.end_if_done("one"),
        lambda ledger: ledger.past_limits_in_a_row("one"),
        lambda ledger: ledger.close_study("one"),
        lambda ledger: ledger.control("one"),
        lambda ledger: ledger.status("one"),
        lambda ledger: ledger.trial("one", 1),
        lambda ledger: ledger.best("one"),
    ],
)
def test_whoever_is_about_to_do_something_to_a_study_is_told_that_it_was_deleted(
    url: str, call: Callable[[Ledger], object]
) -> None:
    ledger = new_ledger(url)
    assert ledger.delete_study("one") == 0
    with pytest.raises(StudyGone, match="no study 'one', or no longer"):
        call(ledger)


def test_what_is_measured_of_a_result_that_was_deleted_is_dropped(url: str) -> None:
    ledger = new_ledger(url, trials=1)
    complete(ledger, 0, 0.5)
    [view] = ledger.trials("one")
    assert ledger.delete_study("one") == 0
    ledger.note_measured(view.place_id, {"test_accuracy": 0.5})
    assert ledger.studies() == []


def test_deleting_takes_all_of_one_study_and_nothing_of_another(url: str) -> None:
    ledger = new_ledger(url, trials=2)
    ledger.add_study(new_study("two"))
    ledger.set_budget("two", 1)
    kept = ledger.reserve("two", ME)
    assert kept is not None
    attach(ledger, kept, 0)
    ledger.record_metrics(kept, 1, 10, 1.0, {"objective": 0.5})
    gone = complete(ledger, 0, 0.5)
    assert reserve(ledger, ELSEWHERE, lease_seconds=-1.0) is not None  # its worker is lost
    assert ledger.close_study("one") == 0 and ledger.delete_study("one") == 0
    assert ledger.studies() == ["two"] and ledger.find_study("one") is None
    with ledger.database.engine.connect() as connection:
        for table in ("places", "attempts", "metrics", "results"):
            key = "id" if table == "places" else "place_id"
            rows = connection.exec_driver_sql(f"SELECT {key} FROM {table}").scalars().all()
            assert set(rows) <= {kept.place_id}, table
    assert len(ledger.metric_rows(kept.place_id)) == 1 and ledger.metric_rows(gone.place_id) == []
    assert ledger.delete_study("one") == 0
    for read in (ledger.control, ledger.end_if_done, ledger.status, ledger.study, ledger.close_study):
        with pytest.raises(StudyGone, match="the store has no study 'one', or no longer") as caught:
            read("one")
        assert isinstance(caught.value, UsageError)
    # Its name is free again.
    ledger.add_study(new_study(trials=1))
    assert ledger.set_budget("one", 1) == 1
    assert ledger.reserve("one", this_worker("cpu")) is not None
