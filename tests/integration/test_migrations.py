"""Stores of every released version, with a study in them, brought up to date."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, select

from sweeper.errors import SweeperError
from sweeper.ledger import Attached, Ledger, Result, this_worker
from sweeper.ledger.database import Database
from sweeper.ledger.migrate import upgrade
from tests.stores import SPEC, sqlite_url

TABLES = ("sweeper_studies", "places", "attempts", "metrics", "results")
# A study of three trials under version 0001: one is complete, one runs on a lost worker, one waits.
STUDY = {
    "name": "one", "spec": SPEC, "path": "/nowhere/study.yaml", "text": "study: one", "dtype": "float32",
    "backbone_fingerprint": "b", "backbone_parameters": 1000, "data_fingerprint": "d", "data_report": {},
    "label_names": ["no", "yes"], "versions": {"python": "3"}, "command": "sweeper run", "created_at": 1.5,
    "past_limits_in_a_row": 2,
}  # fmt: skip
PLACE = {"study": "one", "kind": "search", "told": False, "version": 3, "shown": 2}
ROWS: dict[str, list[dict[str, Any]]] = {
    "sweeper_studies": [STUDY],
    "places": [
        {**PLACE, "position": 0, "state": "complete", "attempt": 1, "token": "a", "trial_number": 0,
         "trial_id": 100, "params": {"bottleneck_dim": 2}, "fixed_params": {"bottleneck_dim": 2},
         "configuration": "c0", "adapter_parameters": 10, "head_parameters": 5},
        {**PLACE, "position": 1, "state": "running", "attempt": 1, "token": "b", "lease_expires": 9.0,
         "worker": "gone", "trial_number": 1, "trial_id": 101, "params": {"bottleneck_dim": 3}},
        {**PLACE, "position": 2, "state": "waiting", "attempt": 0},
    ],
    "attempts": [
        {"place_id": place, "attempt": 1, "token": token, "worker": "gone", "host": "elsewhere", "pid": 7,
         "process_started": 0.0, "device": "cpu", "trial_number": number, "started_at": 2.0, "seen_at": 5.0}
        for place, token, number in ((1, "a", 0), (2, "b", 1))
    ],
    "metrics": [
        {"place_id": 1, "attempt": 1, "evaluation": 1, "step": 10, "epoch": 1.0, "time": 4.0,
         "key": "objective", "value": 0.75, "shown": False},
    ],
    "results": [
        {"place_id": 1, "attempt": 1, "state": "complete", "objective": 0.75, "metrics": {"accuracy": 0.75},
         "seconds": 3.0, "device_seconds": 2.0, "files": {"a": "b"}, "recorded_at": 5.0},
    ],
}  # fmt: skip


def rows_of(database: Database, names: dict[str, list[str]] | None = None) -> dict[str, list[dict[str, Any]]]:
    """All rows, of the named columns; without names, of all there are."""
    tables = MetaData()
    tables.reflect(database.engine, only=TABLES)
    found = {}
    with database.engine.connect() as connection:
        for name in TABLES:
            table = tables.tables[name]
            columns = [table.c[key] for key in (names[name] if names else table.c.keys())]
            found[name] = [dict(row) for row in connection.execute(select(*columns)).mappings()]
    return found


def test_a_store_of_version_0001_keeps_all_it_has_and_goes_on(url: str) -> None:
    database = Database(url)
    upgrade(database, "0001")
    tables = MetaData()
    tables.reflect(database.engine, only=TABLES)
    with database.engine.begin() as connection:
        for name in TABLES:
            for row in ROWS[name]:
                connection.execute(tables.tables[name].insert(), row)
    before = rows_of(database)
    with pytest.raises(
        SweeperError, match="has tables of version 0001, this program of 0004: `sweeper migrate`"
    ):
        Ledger(url).studies()
    database.engine.dispose()

    ledger = Ledger(url)
    ledger.create()
    names = {name: list(rows[0]) for name, rows in before.items()}
    assert rows_of(ledger.database, names) == before
    row = ledger.study("one")
    assert row.control is None and row.spec == SPEC and row.label_names == ["no", "yes"]
    assert [(view.number, view.state, view.retry_of) for view in ledger.trials("one")] == [
        (0, "complete", None),
        (1, "waiting", None),
        (None, "waiting", None),
    ]
    # What was there is what the budget pays for; what is enqueued now comes beside and before it.
    assert ledger.set_budget("one", 3) == 0
    place = ledger.enqueue("one", {"bottleneck_dim": 64})
    claims = [ledger.reserve("one", this_worker("cpu")) for _ in range(3)]
    assert [(claim.place_id, claim.budgeted, claim.trial_number) for claim in claims if claim] == [
        (place, False, None),
        (2, True, 1),
        (3, True, None),
    ]
    for claim, number in zip(claims, (2, 1, 3), strict=True):
        assert claim is not None
        ledger.attach(claim, Attached(number, 100 + number, {"bottleneck_dim": 2}, f"c{number}", 10, 5))
        ledger.record_result(claim, Result("complete", 0.5))
    assert ledger.end_if_done("one") and ledger.study("one").ended_because == "all 4 trials are done"


def test_a_store_has_one_id_for_all_who_reach_it(url: str, tmp_path: Path) -> None:
    ledger = Ledger(url)
    ledger.create()
    found = ledger.store_id()
    ledger.create()
    assert re.fullmatch("[0-9a-f]{32}", found) and Ledger(url).store_id() == found
    other = Ledger(sqlite_url(tmp_path / "other"))
    other.create()
    assert other.store_id() != found
