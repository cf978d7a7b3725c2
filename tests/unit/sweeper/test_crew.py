"""How many workers a machine has, and what they are told."""

from __future__ import annotations

import pytest

from sweeper.engine import crew
from sweeper.engine.crew import Post, WorkerOptions, parse_bytes, parse_count, posts
from sweeper.errors import UsageError

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "cpu_cores", lambda: 8)
    monkeypatch.setattr(crew, "memory_bytes", lambda: 64 * GIB)


@pytest.mark.parametrize(
    ("left", "backbone_bytes", "rows", "workers", "threads"),
    [
        (40, GIB // 8, 9000, 8, 1),
        (13, GIB // 8, 9000, 4, 2),
        (3, GIB // 8, 9000, 1, 8),
        (0, GIB // 8, 9000, 1, 8),
        (40, 8 * GIB, 9000, 2, 4),
        (40, GIB // 8, 30_000_000, 4, 2),
    ],
)
def test_a_cpu_has_as_many_workers_as_pay(
    left: int, backbone_bytes: int, rows: int, workers: int, threads: int
) -> None:
    found = posts(["cpu"], WorkerOptions(), left, backbone_bytes, rows)
    assert [(post.number, post.threads) for post in found] == [(n, threads) for n in range(1, workers + 1)]


def test_a_cuda_device_has_one_worker_and_all_threads() -> None:
    found = posts(["cuda:0", "cuda:1"], WorkerOptions(), 100, GIB, 1)
    assert found == [Post("cuda:0", 1, None), Post("cuda:1", 1, None)]
    assert [post.name for post in posts(["cuda:0"], WorkerOptions(workers=2), 1, 1, 1)] == [
        "cuda-0",
        "cuda-0-2",
    ]


def test_a_number_that_is_asked_for_is_kept() -> None:
    assert [post.threads for post in posts(["cpu"], WorkerOptions(workers=3), 1, 1, 1)] == [2, 2, 2]
    assert [post.threads for post in posts(["cpu"], WorkerOptions(workers=9), 1, 1, 1)] == [1] * 9


def test_workers_are_told_what_is_not_left_to_them() -> None:
    assert WorkerOptions().arguments() == ["--lease-seconds", "60.0"]
    given = WorkerOptions(2, 3, 0, 5.0).arguments()
    assert given == ["--pack", "3", "--cache-bytes", "0", "--lease-seconds", "5.0"]


def test_sizes_and_counts_are_read_or_refused() -> None:
    assert [parse_count("--pack", text) for text in ("auto", "1", "12")] == [None, 1, 12]
    sizes = {"auto": None, "off": 0, "4GiB": 4 * GIB, "1.5 gb": 1_500_000_000, "500MB": 5 * 10**8, "7": 7}
    assert {text: parse_bytes("--cache", text) for text in sizes} == sizes
    for text in ("0", "-1", "two", "1.5", "", "9" * 5000):
        with pytest.raises(UsageError, match="--pack"):
            parse_count("--pack", text)
    for text in ("4 apples", "-1GB", "GiB", "", "nan", "1e30GiB"):
        with pytest.raises(UsageError, match="--cache"):
            parse_bytes("--cache", text)
