"""What is done to MLflow and to disks, each a function: the tests run it a few times, the soak many."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from multiprocessing.context import ForkServerContext
from pathlib import Path

from sweeper.engine.showing import Showing
from sweeper.session import Session
from sweeper.tracking import Tracker
from tests.faults.processes import begin, digests, ended, results, start, wait_until
from tests.faults.scenarios import ALONE, Store, short_study
from tests.faults.servers import Postgres, Proxy, mlflow_behind_proxy
from tests.faults.tally import Tally, tally
from tests.mlflow_server import picture_of


def mlflow_away(server: ForkServerContext, folder: Path, trials: int, kills: int = 1) -> Tally:
    """MLflow is down, answers with errors, is slow, is well, while workers train and one is killed."""
    (folder / "server").mkdir()
    with mlflow_behind_proxy(folder / "server") as (proxy, address, real):
        overrides = {"train": {"epochs": 4, "batch_size": 2}}
        session = begin(short_study(folder, trials, **overrides), folder / "away", tracking=address)
        tracker = Tracker(session.home, session.name, session.ledger)
        failures = 0

        def show() -> None:
            nonlocal failures
            try:
                tracker.show()
            except Exception:
                failures += 1
                raise

        with Showing(show, every_seconds=0.2) as showing:
            for number in range(kills):
                crash_at = f"after_evaluation:{2 + number}"
                assert ended(start(server, session, crash_at, *ALONE)) == -signal.SIGKILL
            worker = start(server, session, None, *ALONE)
            _go_through(proxy, session, trials)
            assert ended(worker) == 0
            proxy.set("pass")
        assert showing.error is None, showing.error
        missing, twice = compared(session, real)
    said = f"{failures} of the sender's turns failed; missing {missing}, twice {twice}, of all points"
    return tally(
        session, "MLflow down, answering 500, slow", "failed turn", failures, trials, missing + twice, said
    )


def _go_through(proxy: Proxy, session: Session, trials: int) -> None:
    """Each kind of outage for a quarter of the study."""
    for quarter, mode in enumerate(("down", "error", "slow")):
        proxy.set(mode)
        wanted = (quarter + 1) * trials // 4
        wait_until(lambda wanted=wanted: session.ledger.count(session.name, "complete") >= wanted)
        if mode != "slow":
            time.sleep(1.5)  # the sender has noticed
    proxy.set("pass")


def compared(session: Session, real: str) -> tuple[int, int]:
    """Points of the ledger that MLflow lacks, and those that it has twice."""
    drawn = picture_of(real, session.name)
    missing = twice = 0
    for view in session.ledger.trials(session.name):
        curves = drawn.get(view.name or "", {}).get("curves", {})
        wanted = {(row.key, row.evaluation): row.value for row in session.ledger.metric_rows(view.place_id)}
        found = Counter((key, step) for key, points in curves.items() for step, _, _ in points)
        values = {(key, step): value for key, points in curves.items() for step, value, _ in points}
        missing += sum(place not in found for place in wanted)
        missing += sum(
            values[key, step] != value
            for (key, step), value in wanted.items()
            if key == "objective" and (key, step) in values
        )
        twice += sum(count - 1 for place, count in found.items() if place in wanted)
    return missing, twice


def torn(server: ForkServerContext, folder: Path, store: Store, rounds: int) -> Tally:
    """The newest checkpoint of a killed trial cut short, or taken away, or all of them: to the same bits."""
    overrides = {"train": {"epochs": 4, "batch_size": 2}}
    short_study(folder, 1, **overrides)
    whole = begin(folder, folder / "whole")
    assert ended(start(server, whole, None, *ALONE)) == 0
    wrong = lost = 0
    for number in range(rounds):
        session = begin(folder, folder / f"torn-{number}", store if number == 0 else None)
        assert ended(start(server, session, "after_checkpoint:3", *ALONE)) == -signal.SIGKILL
        files = sorted(session.home.checkpoints.rglob("*.safetensors"))
        log = folder / f"torn-{number}.log"
        expected = _damage(files, number % 4)
        assert ended(start(server, session, None, *ALONE, log=log)) == 0
        wrong += expected not in log.read_text()
        wrong += results(session) != results(whole) or digests(session) != digests(whole)
        counted = tally(session, "", "", 0, 1)
        lost += counted.lost + counted.duplicates + counted.failed
    return Tally(
        "checkpoints torn or missing", "checkpoint", rounds, rounds, rounds - lost, lost, 0, 0, wrong
    )


def _damage(files: list[Path], how: int) -> str:
    """Do something to checkpoints; returns what the next worker is to say."""
    assert len(files) == 2
    newest = files[-1]
    if how == 0:
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
        return f"checkpoint {newest} is passed over: it is torn"
    if how == 1:
        newest.unlink()
        return ""
    if how == 2:
        content = bytearray(newest.read_bytes())
        content[-5] ^= 1  # one bit of a weight
        newest.write_bytes(content)
        return f"checkpoint {newest} is passed over: it is torn"
    shutil.rmtree(newest.parent)
    return ""


def disk_full(server: ForkServerContext, folder: Path, postgres: Postgres) -> Tally:
    """A disk with room for weights and none for checkpoints; for neither; and for both.

    Real files of a real process that cannot grow past a limit. The store is a server, whose files can.
    """
    trials = 3
    overrides = {
        "train": {"epochs": 3, "batch_size": 2},
        "search": {"bottleneck_dim": {"from": 6, "to": 8}, "learning_rate": {"from": 1e-4, "to": 1e-2}},
    }
    short_study(folder, trials, **overrides)
    whole = begin(folder, folder / "whole")
    assert ended(start(server, whole, None, *ALONE)) == 0
    largest = max(path.stat().st_size for path in whole.home.artifacts.rglob("*.safetensors"))
    options = (*ALONE, "--cache-bytes", "0")

    no_checkpoints = begin(folder, folder / "no-checkpoints", postgres.database())
    log = folder / "no-checkpoints.log"
    code = ended(start(server, no_checkpoints, None, *options, log=log, file_bytes=largest))
    wrong = int(code != 0) + ("no checkpoint of trial-0000: File too large" not in log.read_text())
    wrong += results(no_checkpoints) != results(whole) or digests(no_checkpoints) != digests(whole)

    full = begin(folder, folder / "full", postgres.database())
    log = folder / "full.log"
    code = ended(start(server, full, None, *options, log=log, file_bytes=largest // 2))
    said = log.read_text().splitlines()[-1]
    wrong += code != 4 or not said.startswith("error: the weights of ") or "Make room in" not in said
    wrong += any(view.state == "failed" for view in full.ledger.trials(full.name))
    wrong += ended(start(server, full, None, *options)) != 0
    wrong += results(full) != results(whole) or digests(full) != digests(whole)
    tally(no_checkpoints, "", "", 0, trials)
    return tally(full, "disk full", "study", 2, trials, wrong, said)
