"""MLflow's outages are compared with the blocks beside them, and what is slower in them is found."""

from __future__ import annotations

import math
import os
import random
import time
from itertools import pairwise

import pytest

from benchmarks.mlflow_away import AWAY, WELL, Block, Interval, Sampled, describe, more, planned, relative
from tests.faults.processes import wait_until

SECONDS = 6.0


def made(slower: dict[str, float], rounds: int = 6) -> tuple[list[Block], list[Interval]]:
    """Blocks and intervals without a gap on a machine that gets slower all the time."""
    draw, now = random.Random(0), 0.0
    modes = planned(rounds, 0)
    blocks = [Block(mode, SECONDS * at, SECONDS * (at + 1)) for at, mode in enumerate(modes)]
    intervals = []
    while now < blocks[-1].end:
        mode = modes[int(now / SECONDS)]
        cpu = 0.3 * (1 + now / 1000) * draw.uniform(0.97, 1.03) * (1 + slower.get(mode, 0.0) / 100)
        intervals.append(Interval(now, now + 1.5 * cpu, cpu))
        now += 1.5 * cpu
    return blocks, intervals


def test_every_outage_has_its_turns_between_blocks_without() -> None:
    modes = planned(3, seed=1)
    assert modes == planned(3, seed=1) != planned(3, seed=2)
    assert modes[::2] == [WELL] * 10
    assert [sorted(modes[at : at + 6 : 2]) for at in (1, 7, 13)] == [sorted(AWAY)] * 3


def test_what_is_slower_is_found_on_a_machine_that_gets_slower() -> None:
    blocks, intervals = made({"slow": 5.0})
    for cpu in (True, False):
        found = relative(blocks, intervals, cpu)
        assert {mode: len(each) for mode, each in found.items()} == dict.fromkeys(AWAY, 6)
        for mode, by_block in found.items():
            middle, low, high = more(by_block, seed=0)
            wanted = 5.0 if mode == "slow" else 0.0
            assert low < middle < high and low - 0.5 < wanted < high + 0.5 and high - low < 2.5
    assert [line.split()[0] for line in describe(blocks, intervals, 0).splitlines()[2:]] == [
        "well",
        *(name.split()[0] for name in AWAY.values()),
        "any",
    ]


def test_intervals_over_a_change_and_blocks_with_too_few_are_left_out() -> None:
    blocks = [
        Block(WELL, 0, 4),
        Block("down", 4, 8),
        Block(WELL, 8, 12),
        Block("slow", 12, 14),
        Block(WELL, 14, 18),
    ]
    times = [0.1, 1, 2, 3, 5, 6, 7, 7.9, 8.5, 9, 10, 11, 12.5, 13, 14.5, 15, 16, 17]
    intervals = [Interval(start, end, 1.0) for start, end in pairwise(times)]
    found = relative(blocks, intervals, cpu=True)
    assert found == {"down": [[1.0] * 3], "error": [], "slow": []}
    with pytest.raises(SystemExit, match="answers 500"):
        describe(blocks, intervals, 0)


def test_processor_time_is_read_between_the_samples_and_not_beyond() -> None:
    used = Sampled(os.getpid())
    with used:
        wait_until(lambda: len(used._times) > 2)
    first, *_, last = used.at(used._times)
    assert first <= last <= time.thread_time()
    used._times, used._used = [10.0, 11.0], [3.0, 4.0]
    assert used.at([10.0, 10.25, 11.0]) == [3.0, 3.25, 4.0]
    assert all(math.isnan(value) for value in used.at([9.9, 11.1]))
