"""Workers killed with SIGKILL between every two steps of a trial's life, and studies that go on from there.

The killed are real processes. They are forked from a server that has only imported what a worker imports,
so that none waits for its imports.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from sweeper.crash import POINTS
from sweeper.home import Home
from sweeper.session import join_study, open_study
from sweeper.study import load_study
from tests.agreement import check_agrees
from tests.faults.processes import begin, ended, results, start
from tests.fork_server import fork_server
from tests.tiny_folder import write_study

TRIALS = 3
OVERRIDES: dict[str, Any] = {
    "budget": {"trials": TRIALS},
    "sampler": "random",
    "pruner": {"name": "successive_halving", "minimum": 1, "reduction_factor": 2},
    "objective": {"metric": "loss", "direction": "minimize"},
    "limits": {"trainable_parameters": 2000},
}
LOST_TOO_OFTEN = "lost: 4 workers died or hung while they trained it"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, **OVERRIDES)
    return folder


@pytest.fixture(scope="module")
def server() -> multiprocessing.context.ForkServerContext:
    return fork_server()


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, server: multiprocessing.context.ForkServerContext) -> list[tuple[Any, ...]]:
    """What the study comes to when nothing happens to it."""
    session = begin(folder, folder / "uninterrupted")
    assert ended(start(server, session)) == 0
    return results(session)


@pytest.mark.parametrize(
    ("point", "passage"),
    [*((point, 1) for point in POINTS), ("after_create", 2), ("after_attach", 2), ("after_record", 3)],
)
def test_a_worker_killed_at_a_point_loses_and_repeats_nothing(
    point: str,
    passage: int,
    folder: Path,
    tmp_path: Path,
    server: multiprocessing.context.ForkServerContext,
    uninterrupted: list[tuple[Any, ...]],
) -> None:
    session = begin(folder, tmp_path)
    assert ended(start(server, session, f"{point}:{passage}")) == -signal.SIGKILL
    assert session.row.ended_at is None
    assert ended(start(server, session)) == 0
    check_agrees(session, TRIALS)
    assert results(session) == uninterrupted


def test_a_study_killed_at_every_point_in_turn_comes_to_the_same(
    folder: Path,
    tmp_path: Path,
    server: multiprocessing.context.ForkServerContext,
    uninterrupted: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = begin(folder, tmp_path)
    killed = 0
    # Backwards, so that every trial gets somewhere before its worker dies.
    for point in reversed(POINTS):
        code = ended(start(server, session, point))
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
    assert killed >= TRIALS
    assert ended(start(server, session)) == 0
    check_agrees(session, TRIALS)
    assert results(session) == uninterrupted


@pytest.mark.parametrize("seed", [0, 1])
def test_workers_that_race_and_are_killed_at_random(
    seed: int, folder: Path, tmp_path: Path, server: multiprocessing.context.ForkServerContext
) -> None:
    trials = 8
    overrides = {**OVERRIDES, "budget": {"trials": trials}, "study": "race"}
    path = write_study(folder, **overrides)
    home = Home.from_environment({"SWEEPER_HOME": str(tmp_path)})
    session = open_study(load_study(path), home)
    write_study(folder, **OVERRIDES)
    draw = random.Random(seed)
    crew: list[ForkServerProcess] = []
    kills = started = 0
    while session.row.ended_at is None:
        crew = [process for process in crew if process.is_alive()]
        while len(crew) < 4:
            # The first dozen die somewhere; after them, the study comes to its end.
            crash_at = f"{draw.choice(POINTS)}:{draw.randint(1, 2)}" if started < 12 else None
            crew.append(start(server, session, crash_at))
            started += 1
        finished = next((process for process in crew if process.exitcode is not None), crew[0])
        finished.join(1.0)
        kills += finished.exitcode == -signal.SIGKILL
    codes = [ended(process) for process in crew]
    assert set(codes) <= {0, -signal.SIGKILL} and kills > 0
    # Whoever was killed after the end of the study may have left something to tell.
    assert ended(start(server, join_study("race", home))) == 0
    check_agrees(session, trials)
    for view in session.ledger.trials("race"):
        # Four deaths over one trial are as many as it is given; no fewer may cost it its result.
        given_up = view.state == "failed" and view.reason == LOST_TOO_OFTEN
        assert view.state in ("complete", "pruned") or given_up, view
