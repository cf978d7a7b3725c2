"""Frozen states and several processes: one builds, the others wait."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from adapters.pack import Pack
from sweeper.cache import FrozenCache
from tests.fork_server import fork_server
from tests.tiny_models import tiny_model
from tests.unit.sweeper.test_cache import layout
from tests.unit.sweeper.test_train import DATA


def _build(folder: Path, seen: multiprocessing.Queue[int]) -> None:
    said: list[str] = []
    FrozenCache(folder, layout()).attach(DATA, Pack(tiny_model("bert")), said.append)
    seen.put(len(said))


def test_of_several_processes_one_builds(tmp_path: Path) -> None:
    context = fork_server()
    seen: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=_build, args=(tmp_path, seen)) for _ in range(3)]
    for process in processes:
        process.start()
    counts = sorted(seen.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert counts[:2] == [0, 0] and counts[2] > 0
