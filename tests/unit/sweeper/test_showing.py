"""The thread that draws in MLflow: how a run ends that waits for it."""

from __future__ import annotations

import threading

from sweeper.engine.showing import Showing


def test_who_interrupts_does_not_wait_for_what_is_being_drawn() -> None:
    """MLflow may be slow, and thousands of runs missing there."""
    signals, drawing, done = [1], threading.Event(), threading.Event()

    def draw() -> None:
        drawing.set()
        done.wait(60)

    with Showing(draw, interrupts=lambda: len(signals)) as showing:
        assert drawing.wait(60)
        threading.Timer(0.3, signals.append, [2]).start()
    assert showing.error == "it was interrupted while it drew" and not done.is_set()
    done.set()


def test_the_end_waits_for_the_last_drawing() -> None:
    drawn = []
    with Showing(lambda: drawn.append(1), every_seconds=60.0, interrupts=lambda: 1) as showing:
        pass
    assert len(drawn) >= 1 and showing.error is None
