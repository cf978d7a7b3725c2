"""The size of a pack: the one that gets most done, found once, smaller after an out-of-memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.events import Stepped
from sweeper.worker.packsize import WINDOW_SECONDS, PackSize, memory_file


def observe(size: PackSize, rates: dict[int, float], slots: int | None = None) -> None:
    """Enough steps to judge the present size, by the work a second that a device does at each size."""
    limit = slots or size.limit
    for _ in range(40):
        size.observe(Stepped(limit, 0, rates[limit] * WINDOW_SECONDS / 20, WINDOW_SECONDS / 20))
        if slots is None and size.limit != limit:
            return


def settle(size: PackSize, rates: dict[int, float]) -> int:
    for _ in range(8):
        observe(size, rates)
    return size.limit


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ({1: 100.0, 2: 101.0, 4: 500.0}, 1),
        ({1: 100.0, 2: 180.0, 4: 300.0, 8: 290.0, 16: 900.0}, 4),
        ({size: 100.0 * size for size in (1, 2, 4, 8, 16, 32)}, 32),
    ],
)
def test_doubles_as_long_as_it_pays(rates: dict[int, float], found: int, tmp_path: Path) -> None:
    memory = tmp_path / "packs" / "it.json"
    assert settle(PackSize(None, memory), rates) == found
    assert PackSize(None, memory).limit == found


def test_steps_that_say_little_are_not_counted(tmp_path: Path) -> None:
    size = PackSize(None, tmp_path / "it.json")
    for _ in range(200):
        size.observe(Stepped(2, 0, 9.0, 1.0))  # not at this size
        size.observe(Stepped(1, 0, 0.0, 1.0))  # a head alone, for which no layer is computed
    assert size.limit == 1 and not (tmp_path / "it.json").exists()


def test_a_fixed_size_is_kept_and_nothing_is_remembered(tmp_path: Path) -> None:
    size = PackSize(3, tmp_path / "it.json")
    observe(size, {3: 1.0}, slots=3)
    assert (size.limit, size.largest) == (3, 3)
    assert size.shrink() and size.limit == 1
    assert not (tmp_path / "it.json").exists()


def test_after_an_out_of_memory_it_is_half_and_stays(tmp_path: Path) -> None:
    (tmp_path / "it.json").write_text('{"pack": 8}')
    size = PackSize(None, tmp_path / "it.json")
    assert size.shrink() and size.limit == 4
    assert size.shrink() and size.shrink() and size.limit == 1
    assert not size.shrink()
    observe(size, {1: 1.0, 2: 9.0})
    assert size.limit == 1
    # Something else may have had the memory: the next worker measures again.
    assert not (tmp_path / "it.json").exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pack": 0}', '{"pack": "4"}', "\x00"])
def test_what_cannot_be_read_is_found_again(content: str, tmp_path: Path) -> None:
    (tmp_path / "it.json").write_text(content)
    assert PackSize(None, tmp_path / "it.json").limit == 1


def test_the_memory_is_of_one_device_and_study(tmp_path: Path) -> None:
    about = {"device": "cpu", "data": "a"}
    assert memory_file(tmp_path, about) == memory_file(tmp_path, dict(reversed(about.items())))
    assert memory_file(tmp_path, about) != memory_file(tmp_path, {**about, "data": "b"})


@pytest.mark.parametrize(("seconds", "found"), [(45.0, 1), (10.0, 1), (3.0, 2)])
def test_where_steps_are_slow_the_best_is_kept_after_a_minute(
    seconds: float, found: int, tmp_path: Path
) -> None:
    """Twice the work takes 1.74 times the time."""
    size, passed = PackSize(None, tmp_path / "it.json"), 0.0
    while not (tmp_path / "it.json").exists():
        took = seconds * size.limit**0.8
        size.observe(Stepped(size.limit, 0, size.limit, took))
        passed += took
    assert size.limit == PackSize(None, tmp_path / "it.json").limit == found
    assert passed <= 60 + 3 * took


def test_it_settles_also_where_somebody_is_always_evaluated(tmp_path: Path) -> None:
    size = PackSize(None, tmp_path / "it.json")
    for _ in range(200):
        done = 100.0 * min(size.limit, 4)
        size.observe(Stepped(size.limit, min(1, size.limit - 1), done, 1.0))
    assert size.limit == 4
