"""The forecast measures what a worker would do: on frozen states where those would be kept."""

from __future__ import annotations

import torch

from adapters import AdapterConfig
from adapters.depth import Depth
from adapters.pack import Pack
from sweeper.check.forecast import _evaluation_seconds, _keep_frozen, _part, _training_speed, _with_states
from sweeper.slot import start
from tests.tiny_models import tiny_model
from tests.unit.sweeper.test_train import DATA, PROBLEM, job

LADDER = AdapterConfig(method="ladder", bottleneck_dim=8)
DEPTHS = (Depth(3, 0), Depth(2, 0), Depth(1, 0), Depth(0, 0))


def test_a_part_of_a_split_holds_the_same_texts_and_labels() -> None:
    indices = torch.tensor([3, 0, 5])
    part = _part(DATA.train, indices)
    assert part.labels.tolist() == DATA.train.labels[indices].tolist()
    for own, index in enumerate(indices.tolist()):
        mine, theirs = (
            split.input_ids[split.offsets[number] : split.offsets[number + 1]].tolist()
            for split, number in ((part, own), (DATA.train, index))
        )
        assert mine == theirs and mine


def test_the_states_of_a_part_are_those_of_its_texts() -> None:
    pack = Pack(tiny_model("bert").double())
    part = _part(DATA.train, torch.arange(6))
    split, seconds = _with_states(pack, part, DEPTHS[:2])
    assert seconds > 0 and set(split.frozen) == set(DEPTHS[:2])
    alone, _ = _with_states(pack, _part(part, torch.tensor([4])), DEPTHS[:1])
    rows = slice(int(part.offsets[4]), int(part.offsets[5]))
    torch.testing.assert_close(split.frozen[DEPTHS[0]][0][rows], alone.frozen[DEPTHS[0]][0])
    assert _with_states(pack, part, ()) == (part, 0.0)


def test_a_ladder_is_measured_without_a_run_of_the_backbone() -> None:
    model = tiny_model("bert")
    pack = Pack(model)
    slot = start(pack, 0, job(adapter=LADDER), DATA.train, PROBLEM, torch.device("cpu"))
    assert _keep_frozen(pack, slot, DEPTHS) > 0
    called: list[str] = []
    for layer in model.base_model.encoder.layer:
        layer.attention.register_forward_hook(lambda *_: called.append("attention"))
    seconds_a_token, examples_a_second, steps = _training_speed(pack, slot, PROBLEM)
    assert called == [] and steps >= 4 and min(seconds_a_token, examples_a_second) > 0
    assert _evaluation_seconds(pack, slot, DATA.validation, DEPTHS, PROBLEM) > 0


def test_without_states_the_same_steps_are_measured() -> None:
    pack = Pack(tiny_model("bert"))
    slot = start(pack, 0, job(adapter=LADDER), DATA.train, PROBLEM, torch.device("cpu"))
    assert _keep_frozen(pack, slot, ()) == 0
    assert _training_speed(pack, slot, PROBLEM)[2] >= 4
