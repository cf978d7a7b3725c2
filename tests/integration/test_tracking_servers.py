"""A study on servers that several workers write and draw at the same time: all of it is there, and once."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sweeper.figures import FIGURES
from sweeper.ledger import Ledger
from sweeper.tracking import Tracker, charts, views
from tests.made_study import TRIALS, MadeStudy, home_in
from tests.mlflow_server import mlflow_server, picture_of
from tests.stores import postgresql_url


def test_what_several_workers_wrote_on_servers_is_all_there(postgresql: Path, tmp_path: Path) -> None:
    with mlflow_server(tmp_path) as address:
        url = postgresql_url(postgresql)
        home = home_in(tmp_path / "home", SWEEPER_STORE=url, MLFLOW_TRACKING_URI=address)
        study = MadeStudy(home)
        turns, start = threading.Lock(), threading.Barrier(3)

        def work(places: int) -> None:
            """A worker with connections of its own, which draws after each of its trials, as a run does."""
            mine = copy.copy(study)
            mine.ledger = Ledger(url)
            tracker = Tracker(home, study.name, mine.ledger)
            start.wait()
            for _ in range(places):
                with turns:  # the numbers of made-up trials are counted, not drawn
                    mine.run_next()
                tracker.show(wait_seconds=0.0)
            mine.ledger.close()

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, (3, 2, len(TRIALS) + 1 - 5)))
        study.ledger.end_if_done(study.name)
        study.confirm(finalists=2, seeds=2)
        Tracker(home, study.name, study.ledger).show()
        assert study.ledger.unshown_places(study.name) == []
        picture = picture_of(address)  # no run is there twice
    workers = {attempt.worker for attempt in study.ledger.attempts(study.name)}
    assert len(workers) > 2
    trials = {f"trial-{number:04d}" for number in range(len(TRIALS))}
    assert trials < set(picture) and picture["films"]["status"] == "FINISHED"
    files = set(picture["films"]["files"])
    assert {"report.html", "study.yaml"} < files
    assert {f"figures/{name}.json" for name in FIGURES} < files
    assert {views.TAG, charts.TAG, charts.FINALISTS_TAG} < set(picture["tags"])
    said = {name for name in picture if name.startswith("confirmed ")}
    assert len(said) == 4 and {"confirmed head alone", "confirmed full fine-tuning"} < said
