"""All the time in which training waits for its worker is counted, and no more."""

from __future__ import annotations

import time

import pytest

import sweeper.worker
from benchmarks import overhead
from sweeper.events import Progress


def test_the_clock_runs_while_training_waits_and_is_taken_off_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(pack: None, data: None, problem: None, supply, *, device: str):  # type: ignore[no-untyped-def]
        assert supply() == "job"
        time.sleep(0.05)
        yield Progress("job", 1, 2)  # type: ignore[arg-type]
        time.sleep(0.05)

    monkeypatch.setattr(sweeper.worker, "train", train)
    with overhead.watched() as spent:

        def supply() -> str:
            time.sleep(0.02)
            return "job"

        for _ in sweeper.worker.train(None, None, None, supply, device="cpu"):
            time.sleep(0.02)
    assert sweeper.worker.train is train
    assert spent.events == 1 and set(spent.beside) == {"claim", "Progress"}
    assert min(spent.beside.values()) >= 0.02 and spent.total >= sum(spent.beside.values()) + 0.1
    assert spent.share == pytest.approx(100 * sum(spent.beside.values()) / spent.total)
