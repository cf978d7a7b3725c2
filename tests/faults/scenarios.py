"""What is done to workers and stores, each a function: the tests run it a few times, the soak many."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import func, select

from sweeper.crash import POINTS
from sweeper.ledger import store_file
from sweeper.ledger.failing import RETRIES
from sweeper.ledger.schema import attempts, metrics, places
from sweeper.session import Session
from tests.faults.processes import begin, digests, ended, results, start, start_command, wait_until
from tests.faults.servers import Postgres, postgres_proxy
from tests.faults.tally import Tally, tally
from tests.tiny_folder import make_data, write_study

Store = str | None
"""The URL of an empty store, or None for a file in the study's home."""
SHORT: dict[str, Any] = {
    "sampler": "random",
    "pruner": "none",
    "train": {"epochs": 2, "batch_size": 8},
    # So many that no trial repeats another.
    "search": {
        "bottleneck_dim": {"from": 2, "to": 8},
        "learning_rate": {"from": 1e-4, "to": 1e-2, "log": True},
    },
}
ALONE = ("--pack", "1")


def short_study(folder: Path, trials: int, **overrides: Any) -> Path:
    """A folder with a study whose trials take a few steps each."""
    if not (folder / "data").exists():
        make_data(folder / "data", (16, 8, 8))
    write_study(folder, **{**SHORT, "budget": {"trials": trials}, **overrides})
    return folder


def killed(
    server: ForkServerContext, folder: Path, store: Store, trials: int, kills: int, seed: int = 0
) -> Tally:
    """Workers that kill themselves at random points, until so many have; then some that do not."""
    session = begin(short_study(folder, trials), folder / f"killed-{seed}", store)
    draw, crew, dead = random.Random(seed), [], 0
    while session.row.ended_at is None:
        while len(crew) < 2:
            crash_at = f"{draw.choice(POINTS)}:{draw.randint(1, 2)}" if dead < kills else None
            crew.append(start(server, session, crash_at, *ALONE))
        for process in list(_gone(crew, 1.0)):
            assert process.exitcode in (0, -signal.SIGKILL)
            dead += process.exitcode == -signal.SIGKILL
    _end_all(crew)
    # Whoever was killed after the end of the study may have left something to tell.
    assert ended(start(server, session, None, *ALONE)) == 0
    found = tally(session, f"kill -9 at crash points, {_kind(session)}", "kill", dead, trials)
    # So many kills over so few trials hit some of them more often than a trial is tried: that is the rule.
    given_up = sum(
        view.state == "failed" and str(view.reason).startswith("lost: ")
        for view in session.ledger.trials(session.name)
    )
    said = f"{given_up} given up after {RETRIES['lost'] + 1} deaths"
    return replace(found, failed=found.failed - given_up, said=said)


def _gone(crew: list[ForkServerProcess], seconds: float) -> Iterator[ForkServerProcess]:
    """Those of a crew that have ended, taken out of it; waits a little for one."""
    crew[0].join(seconds)
    for process in [process for process in crew if process.exitcode is not None]:
        crew.remove(process)
        yield process


def _end_all(crew: list[ForkServerProcess]) -> None:
    assert {ended(process) for process in crew} <= {0, -signal.SIGKILL}


def stalled(server: ForkServerContext, folder: Path, store: Store, rounds: int, trials: int) -> Tally:
    """A worker stopped with SIGSTOP while it trains, until another has its trial; then let go on.

    Of few trials some end between two stops: there may be fewer stops than ``rounds``.
    """
    lease, epochs = 1.0, 12
    overrides = {"train": {"epochs": epochs, "batch_size": 2}}
    session = begin(short_study(folder, trials, **overrides), folder / "stalled", store)
    first = start(server, session, None, *ALONE, "--lease-seconds", str(lease))
    stale = stops = 0
    while stops < rounds and session.row.ended_at is None:
        held = wait_until(lambda: session.row.ended_at or _held_by(session, first.pid))
        _stop(first.pid or 0)
        held = None if _is_write_locked(session) else _held_by(session, first.pid)
        if held is None:  # it had just ended that trial, or holds the file for the moment
            os.kill(first.pid or 0, signal.SIGCONT)
            continue
        place_id, token, attempt = held
        before = _rows(session, place_id, attempt)
        other = start(server, session, None, *ALONE, "--lease-seconds", str(lease))
        wait_until(lambda place=place_id, old=token: _token(session, place) != old)
        os.kill(first.pid or 0, signal.SIGCONT)
        stops += 1
        wait_until(lambda place=place_id, old=attempt: _ended_after(session, place, old))
        time.sleep(lease)  # whatever the one that was stopped still had to say, it has said by now
        stale += _rows(session, place_id, attempt) - before
        with suppress(ProcessLookupError):  # it may have seen the study end
            os.kill(other.pid or 0, signal.SIGTERM)
        assert ended(other) == 0
    assert ended(first) == 0
    if session.row.ended_at is None:
        assert ended(start(server, session, None, *ALONE)) == 0
    return tally(session, f"SIGSTOP past the lease, {_kind(session)}", "stop", stops, trials, stale)


def _stop(pid: int) -> None:
    """Stop a process, and return once all of its threads stand still."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")

    def still() -> bool:
        try:
            states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]
        except OSError:  # a thread, or all of it, ended
            return not tasks.exists()
        return set(states) <= {"T", "Z", "X"}

    wait_until(still)


def _held_by(session: Session, pid: int | None) -> tuple[int, str, int] | None:
    """Place, token and attempt of what a process trains now, once it has evaluated something."""
    query = (
        select(places.c.id, places.c.token, places.c.attempt)
        .join(attempts, attempts.c.token == places.c.token)
        .where(places.c.state == "running", attempts.c.pid == pid, places.c.kind == "search")
        .where(select(metrics.c.id).where(metrics.c.place_id == places.c.id).exists())
    )
    with session.ledger.database.engine.connect() as connection:
        row = connection.execute(query).first()
    return None if row is None else tuple(row)


def _is_write_locked(session: Session) -> bool:
    """Whether a transaction holds the SQLite file: that of one who was stopped does until it goes on."""
    file = store_file(session.home.store_url)
    if file is None:
        return False
    try:
        with sqlite3.connect(file, timeout=0.5, isolation_level=None) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    return False


def _token(session: Session, place_id: int) -> str | None:
    with session.ledger.database.engine.connect() as connection:
        return connection.execute(select(places.c.token).where(places.c.id == place_id)).scalar()


def _ended_after(session: Session, place_id: int, attempt: int) -> bool:
    view = session.ledger.trial(session.name, place_id)
    return view.attempt > attempt and view.ended_at is not None


def _rows(session: Session, place_id: int, attempt: int) -> int:
    return sum(row.attempt == attempt for row in session.ledger.metric_rows(place_id))


def raced(server: ForkServerContext, folder: Path, store: Store, trials: int, workers: int) -> Tally:
    """Workers that begin at the same moment."""
    session = begin(short_study(folder, trials), folder / f"raced-{workers}", store)
    with server.Manager() as manager:
        barrier = manager.Barrier(workers)
        crew = [start(server, session, None, *ALONE, barrier=barrier) for _ in range(workers)]
        assert [ended(process) for process in crew] == [0] * workers
    with session.ledger.database.engine.connect() as connection:
        begun = connection.execute(select(func.count()).select_from(attempts)).scalar_one()
    # Each trial and the reference, once each.
    wrong = begun - (trials + 1)
    crew_said = "1 worker" if workers == 1 else f"{workers} workers race"
    return tally(session, f"{crew_said}, {_kind(session)}", "trial", trials, trials, wrong)


def clock_off(server: ForkServerContext, folder: Path, store: Store, trials: int) -> Tally:
    """Three workers, one with a clock an hour ahead, one with a clock an hour behind."""
    overrides = {"train": {"epochs": 6, "batch_size": 2}}
    session = begin(short_study(folder, trials, **overrides), folder / "clock", store)
    began = time.time()
    crew = [
        start(server, session, None, *ALONE, "--lease-seconds", "10", clock_off=off)
        for off in (0.0, 3600.0, -3600.0)
    ]
    assert [ended(process) for process in crew] == [0] * 3
    with session.ledger.database.engine.connect() as connection:
        rows = connection.execute(select(attempts)).all()
        times = connection.execute(select(metrics.c.time)).scalars().all()
    taken = sum(row.outcome != "complete" for row in rows)
    shifted = sum(not began - 5 < moment < time.time() + 5 for moment in times)
    said = f"{len({row.pid for row in rows})} workers trained"
    name = f"clocks an hour off, {_kind(session)}"
    return tally(session, name, "trial", trials, trials, taken + shifted, said)


def interrupted(
    server: ForkServerContext, folder: Path, store: Store, interruptions: int, trials: int = 3, seed: int = 0
) -> Tally:
    """SIGTERM or SIGINT at random moments, and the next worker goes on: to the same bits."""
    overrides = {"train": {"epochs": 12, "batch_size": 2}}
    short_study(folder, trials, **overrides)
    whole = begin(folder, folder / "whole")
    assert ended(start(server, whole, None, *ALONE)) == 0
    draw, done, wrong, lost, moments = random.Random(seed), 0, 0, 0, []
    while done < interruptions:
        session = begin(folder, folder / f"interrupted-{done}", store if done == 0 else None)
        while session.row.ended_at is None:
            process = start(server, session, None, *ALONE)
            wait_until(lambda p=process, s=session: p.exitcode is not None or _held_by(s, p.pid))
            process.join(draw.uniform(0.0, 0.4))
            if process.exitcode is None and done < interruptions:
                with suppress(ProcessLookupError):
                    os.kill(process.pid or 0, draw.choice((signal.SIGTERM, signal.SIGINT)))
                done += 1
                moments.append(sum(1 for _ in session.home.checkpoints.rglob("*.safetensors")))
            assert ended(process) == 0
        wrong += results(session) != results(whole)
        wrong += digests(session) != digests(whole)
        counted = tally(session, "", "", 0, trials)
        lost += counted.lost + counted.duplicates + counted.failed
    return Tally(
        "SIGTERM or SIGINT, and resume", "interruption", done, trials, trials - lost, lost, 0, 0, wrong
    )


def coordinators(server: ForkServerContext, folder: Path, store: Store, trials: int) -> Tally:
    """Two `sweeper run` that begin at once; both and all workers killed in the middle; and one more run."""
    overrides = {"train": {"epochs": 8, "batch_size": 2}}
    path = short_study(folder, trials, **overrides) / "study.yaml"
    home = _home(folder / "coordinators", store)
    arguments = ["run", str(path), "--device", "cpu", "--workers", "1", "--pack", "1"]
    with server.Manager() as manager:
        barrier = manager.Barrier(2)
        both = [
            start_command(server, arguments, home, folder / f"run-{n}.log", barrier=barrier) for n in (1, 2)
        ]
        session = wait_until(lambda: _joined(home, both))
        wait_until(lambda: session.ledger.count(session.name, "complete") >= 1)
        children = [
            child for process in both for child in psutil.Process(process.pid).children(recursive=True)
        ]
        workers = [child for child in children if child.name() == "sweeper.worker"]
        for process in both:
            os.kill(process.pid or 0, signal.SIGKILL)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        for process in both:
            ended(process)
    before = session.ledger.count(session.name, "complete")
    assert before < trials and workers
    again = start_command(server, arguments, home, folder / "run-3.log")
    assert ended(again) == 0, (folder / "run-3.log").read_text()
    said = f"{before} of {trials} trials were done at the kill, of {len(workers)} workers and 2 coordinators"
    return tally(
        session, f"two runs at once, all killed, run again, {_kind(session)}", "crash", 1, trials, 0, said
    )


def repeated(run: Callable[[Path], Tally], folder: Path, times: int) -> Tally:
    """The same again and again, in folders of their own: the figures of all of it."""
    found = []
    for number in range(times):
        (folder / str(number)).mkdir()
        found.append(run(folder / str(number)))
    names = ("tries", "wanted", "results", "lost", "duplicates", "failed", "wrong")
    return replace(found[-1], **{name: sum(getattr(one, name) for one in found) for name in names})


def _joined(home: Any, both: list[ForkServerProcess]) -> Session | None:
    from sweeper.errors import SweeperError
    from sweeper.session import join_study

    assert all(process.exitcode is None for process in both)
    try:
        return join_study("tiny", home)
    except SweeperError:
        return None


def _home(root: Path, store: Store) -> Any:
    from sweeper.home import Home

    return Home.from_environment(
        {"SWEEPER_HOME": str(root)} | ({} if store is None else {"SWEEPER_STORE": store})
    )


def restarted(server: ForkServerContext, folder: Path, postgres: Postgres, trials: int, times: int) -> Tally:
    """PostgreSQL stopped without a word and started again; then all connections cut, as often."""
    with postgres_proxy(postgres.database()) as (proxy, url):
        overrides = {"train": {"epochs": 4, "batch_size": 2}}
        session = begin(short_study(folder, trials, **overrides), folder / "restarted", url)
        crew = [start(server, session, None, *ALONE, "--lease-seconds", "30") for _ in range(2)]
        wait_until(lambda: _is_at_work(session))
        done = 0
        for number in range(times):
            if session.row.ended_at is not None:
                break
            postgres.stop()
            time.sleep(0.3 * (number % 3))
            postgres.start()
            done += 1
            seen = len(session.ledger.trials(session.name)) and session.ledger.count(session.name, "complete")
            wait_until(lambda seen=seen: _has_moved(session, seen))
            proxy.cut()
            wait_until(lambda seen=seen: _has_moved(session, seen + 1))
        codes = [ended(process) for process in crew]
        died = sum(code != 0 for code in codes)
        said = f"{proxy.cuts} connections cut, {len(codes) - died} of {len(codes)} workers lived"
        return tally(session, "PostgreSQL stopped and connections cut", "stop", done, trials, died, said)


def _is_at_work(session: Session) -> bool:
    return any(view.state == "running" for view in session.ledger.trials(session.name))


def _has_moved(session: Session, seen: int) -> bool:
    return session.row.ended_at is not None or session.ledger.count(session.name, "complete") > seen


def _kind(session: Session) -> str:
    return "SQLite" if session.ledger.database.is_sqlite else "PostgreSQL"
