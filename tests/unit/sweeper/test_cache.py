"""Frozen states on disk: the same bits with and without, one builder, whole or not there."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from adapters import AdapterConfig
from adapters.depth import FFN, Depth, reads
from adapters.pack import Pack
from sweeper import cache
from sweeper.cache import FrozenCache, Layout, Stopped
from sweeper.data import TaskData
from sweeper.events import Finished
from sweeper.train import train
from tests.tiny_models import HIDDEN_SIZE, tiny_model
from tests.unit.sweeper.test_train import CONFIG, DATA, PROBLEM, job, supply

TOKENS = len(DATA.train.input_ids) + len(DATA.validation.input_ids)
DEPTHS = (Depth(3, 0), Depth(2, FFN), Depth(1, 0), Depth(0, FFN))
ADAPTERS = (
    AdapterConfig(bottleneck_dim=8, dropout=0.1),
    AdapterConfig(bottleneck_dim=4, layers=(2,), placement="parallel"),
    AdapterConfig(bottleneck_dim=4, layers=(1, 2), placement="houlsby"),
    None,
)


def layout(depths: tuple[Depth, ...] = DEPTHS, dtype: str = "float32") -> Layout:
    return Layout("backbone", "data", dtype, HIDDEN_SIZE, TOKENS, depths)


def attached(folder: Path, depths: tuple[Depth, ...] = DEPTHS, dtype: str = "float32") -> TaskData:
    pack = Pack(tiny_model("bert").to(getattr(torch, dtype)))
    return FrozenCache(folder, layout(depths, dtype)).attach(DATA, pack, lambda _: None)


def trained(data: TaskData, adapter: AdapterConfig | None, dtype: str = "float32") -> Finished:
    pack = Pack(tiny_model("bert").to(getattr(torch, dtype)))
    config = replace(CONFIG, epochs=2)
    events = train(pack, data, PROBLEM, supply(job(adapter=adapter, train=config)), device="cpu")
    [finished] = [event for event in events if isinstance(event, Finished)]
    return finished


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trial_is_the_same_to_the_bit_with_and_without(
    adapter: AdapterConfig | None, dtype: str, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # as the workers of a CPU have it; with more, small batches may be rounded otherwise
    try:
        with_cache, without = (
            trained(data, adapter, dtype) for data in (attached(tmp_path, dtype=dtype), DATA)
        )
    finally:
        torch.set_num_threads(before)
    assert torch.equal(with_cache.head.weight, without.head.weight)
    assert with_cache.metrics["validation/loss"] == without.metrics["validation/loss"]
    if adapter is not None:
        assert with_cache.adapter is not None and without.adapter is not None
        for one, other in zip(with_cache.adapter.parameters(), without.adapter.parameters(), strict=True):
            assert torch.equal(one, other)


def test_nothing_below_the_states_is_computed(tmp_path: Path) -> None:
    data = attached(tmp_path)
    model = tiny_model("bert")
    computed: list[int] = []
    for index, layer in enumerate(model.encoder.layer):
        layer.attention.self.key.register_forward_hook(lambda *_, index=index: computed.append(index))
    for adapter, layers in zip(ADAPTERS, ({1, 2}, set(), {1, 2}, set()), strict=True):
        computed.clear()
        list(train(Pack(model), data, PROBLEM, supply(job(adapter=adapter)), device="cpu"))
        assert set(computed) == layers, adapter


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    attached(tmp_path, DEPTHS[1:])
    said: list[str] = []
    pack = Pack(tiny_model("bert"))
    FrozenCache(tmp_path, layout(DEPTHS[1:])).attach(DATA, pack, said.append)
    assert said == []
    more = FrozenCache(tmp_path, layout()).attach(DATA, pack, said.append)
    assert said[-1] == "validation: 100%"
    assert set(more.train.frozen) == set(DEPTHS)
    assert all(len(states) == depth.tensors for depth, states in more.train.frozen.items())


def test_what_a_killed_builder_left_is_taken_away(tmp_path: Path) -> None:
    place = tmp_path / layout().key
    (place / ".building-killed").mkdir(parents=True)
    (place / f"train-{DEPTHS[0].key}").mkdir()  # never renamed as a whole
    data = attached(tmp_path)
    assert set(data.train.frozen) == set(DEPTHS)
    assert not list(place.glob(".building-*"))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_take_room", full)
    with pytest.raises(OSError, match="No space"):
        attached(tmp_path)
    assert [path.name for path in (tmp_path / layout().key).iterdir()] == ["lock"]


def test_the_budget_goes_to_what_saves_most() -> None:
    bare = layout(())
    config = tiny_model("bert").config
    uses = {(Depth(0, 0),): 9.0, (Depth(1, 0),): 3.0, (Depth(2, FFN),): 3.0, reads(None, config): 1.0}
    one = bare.bytes_of(Depth(1, 0))
    assert bare.within(0, uses).depths == ()
    assert bare.within(one, uses).depths == (Depth(3, 0),)
    assert bare.within(2 * one, uses).depths == (Depth(2, FFN),)
    assert bare.within(100 * one, uses).depths == (Depth(3, 0), Depth(2, FFN), Depth(1, 0))
    assert bare.within(100 * one, uses).bytes == 4 * one


def test_another_backbone_data_or_dtype_is_another_cache() -> None:
    changes = ({"backbone": "other"}, {"data": "other"}, {"dtype": "bfloat16"})
    keys = {layout().key, *(replace(layout(), **change).key for change in changes)}  # type: ignore[arg-type]
    assert len(keys) == 4


def test_a_damaged_file_is_built_again(tmp_path: Path) -> None:
    attached(tmp_path)
    damaged = tmp_path / layout().key / f"train-{DEPTHS[1].key}" / "0.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = attached(tmp_path)
    assert again.train.frozen[DEPTHS[1]][0].shape == (len(DATA.train.input_ids), HIDDEN_SIZE)


def test_what_is_kept_does_not_count_against_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total, budgets = 10**6, []

    def used() -> int:
        return sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())

    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: type("Usage", (), {"free": total - used()}))
    of = layout(DEPTHS)

    def look(progress: str) -> None:  # while it is built, as other workers of the study do
        budgets.append(cache.budget_bytes(None, tmp_path, of))

    FrozenCache(tmp_path, of).attach(DATA, Pack(tiny_model("bert")), look)
    assert used() > 0 and budgets and {*budgets, cache.budget_bytes(None, tmp_path, of)} == {total // 2}
    # What is kept of other data is not to be had.
    other = replace(of, data="other")
    assert cache.budget_bytes(None, tmp_path, other) == (total - used()) // 2 < total // 2


def test_a_stop_ends_the_building_and_leaves_nothing_half_built(tmp_path: Path) -> None:
    stop = threading.Event()
    pack = Pack(tiny_model("bert"))

    def stop_in_the_second_split(progress: str) -> None:
        assert not stop.is_set()
        if progress == "train: 100%":
            stop.set()

    with pytest.raises(Stopped):
        FrozenCache(tmp_path, layout()).attach(DATA, pack, stop_in_the_second_split, stop)
    [place] = tmp_path.iterdir()
    kept = {path.name for path in place.iterdir()} - {"lock"}
    assert len(kept) == len(DEPTHS) and all(name.startswith("train-") for name in kept)
    said: list[str] = []
    FrozenCache(tmp_path, layout()).attach(DATA, pack, said.append, threading.Event())
    assert said and all(progress.startswith("validation") for progress in said)


def test_a_stop_ends_the_waiting_for_another_builder(tmp_path: Path) -> None:
    place = tmp_path / layout().key
    place.mkdir()
    stop = threading.Event()
    waiting = threading.Timer(0.1, stop.set)
    waiting.start()
    with FileLock(place / "lock"), pytest.raises(Stopped):
        FrozenCache(tmp_path, layout()).attach(DATA, Pack(tiny_model("bert")), lambda _: None, stop)
    waiting.join()
    assert attached(tmp_path).train.frozen


def test_the_budget_is_found_while_others_build_and_remove(tmp_path: Path) -> None:
    of = layout(DEPTHS)
    places = [tmp_path / of.key / name for name in (".building-abc", "train-layer_1")]
    places[0].mkdir(parents=True)
    for number in range(50):
        (places[0] / f"{number}.safetensors").write_bytes(b"bytes")
    stop = threading.Event()

    def rename() -> None:
        while not stop.is_set():
            places[0].rename(places[1])
            places[1].rename(places[0])

    builder = threading.Thread(target=rename)
    builder.start()
    try:
        found = [cache.budget_bytes(None, tmp_path, of) for _ in range(300)]
    finally:
        stop.set()
        builder.join()
    assert all(budget > 0 for budget in found)
