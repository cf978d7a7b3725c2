"""Both methods are drawn alike, and train on what is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.pack import Pack
from benchmarks.ladder import REPEATS, draw, flops, keep, timed
from benchmarks.material import Material


def test_the_draws_of_a_round_differ_in_their_method_alone(
    make_material: Callable[[str], Material],
) -> None:
    jobs = draw(make_material("bert"), 6, seed=3)
    for bottleneck, ladder in zip(jobs["bottleneck"], jobs["ladder"], strict=True):
        one, other = bottleneck.adapter.to_dict(), ladder.adapter.to_dict()
        assert (one.pop("learned_scaling"), one.pop("stochastic_depth")) == ("none", 0.0)  # a ladder has none
        assert one.pop("placement") and (one.pop("method"), other.pop("method")) == ("bottleneck", "ladder")
        assert one == other and bottleneck.train == ladder.train
    assert len({job.adapter for job in jobs["ladder"]}) == 6


@pytest.mark.parametrize("method", REPEATS)
def test_a_trial_runs_on_what_is_kept(
    method: str, make_material: Callable[[str], Material], tmp_path: Path
) -> None:
    material = make_material("bert")
    pack = Pack(material.load_backbone())
    data, layout = keep(method, material, pack, tmp_path)
    assert set(data.train.frozen) == set(data.validation.frozen) == set(layout.depths)
    job = draw(material, 1, seed=0)[method][0]
    seconds, finished = timed(pack, data, material, job)
    assert finished.outcome == "complete" and seconds > 0
    with_cache, without = (flops(pack, kept, material, job) for kept in (data, material.data))
    assert 0 < with_cache < without
