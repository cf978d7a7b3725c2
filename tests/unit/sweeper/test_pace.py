"""A worker without work asks for some at once in a short study, and seldom in a long one."""

from __future__ import annotations

from sweeper.pace import LONGEST_POLL_SECONDS, POLL_SECONDS, idle_seconds


def test_waiting_is_prolonged_by_a_tenth_at_most_and_has_an_end() -> None:
    assert [idle_seconds(idle) for idle in (0.0, 9.0, 20.0, 1000.0)] == [
        POLL_SECONDS, POLL_SECONDS, 2.0, LONGEST_POLL_SECONDS,
    ]  # fmt: skip


def test_a_thousand_idle_workers_ask_a_tenth_as_often_after_a_few_minutes() -> None:
    waited = asked = 0.0
    while waited < 600.0:
        waited += idle_seconds(waited)
        asked += 1
    assert asked < 100
