"""Studies of ladders: the study file, the cache and the training loop."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from adapters import AdapterConfig
from adapters.depth import Depth, reads
from adapters.pack import Pack
from adapters.run import Readings
from sweeper.batches import gather
from sweeper.cache import FrozenCache, Layout
from sweeper.check import _sites
from sweeper.check.printed import folded
from sweeper.corners import check_space, depths, extremes
from sweeper.data import TaskData
from sweeper.errors import UsageError
from sweeper.events import Finished
from sweeper.space import configuration, default_params, distributions
from sweeper.study import Study, from_dict, load_study
from sweeper.study.schema import Fixed
from sweeper.train import train
from tests.study_text import STUDY, line_of, write_study_text
from tests.tiny_models import HIDDEN_SIZE, tiny_model
from tests.unit.sweeper.test_train import DATA, PROBLEM, job, supply

LADDER = AdapterConfig(method="ladder", bottleneck_dim=8)
DEPTHS = (Depth(3, 0), Depth(2, 0), Depth(1, 0), Depth(0, 0))
TEXT = STUDY.replace("  placement: [houlsby, pfeiffer]\n", "  method: ladder\n")


def bare(*depths_: Depth) -> Layout:
    tokens = len(DATA.train.input_ids) + len(DATA.validation.input_ids)
    return Layout("backbone", "data", "float32", HIDDEN_SIZE, tokens, depths_)


def attached(folder: Path, *depths_: Depth) -> TaskData:
    return FrozenCache(folder, bare(*depths_)).attach(DATA, Pack(tiny_model("bert")), lambda _: None)


def trained(pack: Pack, data: TaskData, *configs: AdapterConfig | None) -> list[Finished]:
    jobs = [job(number, seed=number, adapter=config) for number, config in enumerate(configs)]
    finished = [
        event
        for event in train(pack, data, PROBLEM, supply(*jobs), device="cpu")
        if isinstance(event, Finished)
    ]
    return sorted(finished, key=lambda event: event.job.place_id)


def test_once_its_states_are_kept_the_backbone_is_never_run(tmp_path: Path) -> None:
    data = attached(tmp_path, *DEPTHS)
    model = tiny_model("bert")
    called: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    [finished] = trained(Pack(model), data, replace(LADDER, dropout=0.1))
    assert called == []
    assert finished.metrics["accuracy"] > 0.9  # the token that tells is in the states
    trained(Pack(model), DATA, LADDER)
    assert "encoder.layer.0.attention.self" in called


def test_a_trial_is_the_same_to_the_bit_with_and_without_the_cache(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    config = replace(LADDER, dropout=0.2, layers=(0, 2))
    try:
        results = [
            trained(Pack(tiny_model("bert")), data, config)[0]
            # Of what a ladder reads something is missing in the second: all is computed anew.
            for data in (attached(tmp_path, *DEPTHS), attached(tmp_path / "part", *DEPTHS[:2]), DATA)
        ]
    finally:
        torch.set_num_threads(before)
    weights = [[one.head.weight, *one.adapter.parameters()] for one in results if one.adapter is not None]
    assert len(weights) == 3
    for other in weights[1:]:
        assert all(torch.equal(one, two) for one, two in zip(weights[0], other, strict=True))


def test_packed_with_bottlenecks_equals_alone() -> None:
    configs = (
        LADDER,
        AdapterConfig(bottleneck_dim=4, layers=(1, 2), dropout=0.1),
        replace(LADDER, bottleneck_dim=3, initialization="xavier", layers="upper_half", dropout=0.1),
        None,
    )
    alone = []
    for number, config in enumerate(configs):
        alone += [
            event
            for event in train(
                Pack(tiny_model("bert").double()),
                DATA,
                PROBLEM,
                supply(job(number, seed=number, adapter=config)),
                device="cpu",
            )
            if isinstance(event, Finished)
        ]
    packed = trained(Pack(tiny_model("bert").double(), slots=3), DATA, *configs)
    for one, other in zip(alone, packed, strict=True):
        torch.testing.assert_close(one.head.weight, other.head.weight, rtol=1e-9, atol=1e-12)
        assert math.isclose(one.metrics["validation/loss"], other.metrics["validation/loss"], rel_tol=1e-9)
        if one.adapter is not None and other.adapter is not None:
            for mine, theirs in zip(one.adapter.parameters(), other.adapter.parameters(), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_states_are_gathered_in_the_order_of_the_rungs(tmp_path: Path) -> None:
    data = attached(tmp_path, *DEPTHS)
    wanted = reads(LADDER, tiny_model("bert").config)
    batch = gather(data.train, torch.tensor([5, 2]), torch.device("cpu"), wanted)
    assert isinstance(batch, Readings)
    assert tuple(batch.states) == wanted
    offsets = data.train.offsets.tolist()
    rows = [*range(offsets[5], offsets[6]), *range(offsets[2], offsets[3])]
    for depth, states in batch.states.items():
        assert torch.equal(states, data.train.frozen[depth][0][rows])


def test_the_budget_keeps_all_that_a_ladder_reads_or_none() -> None:
    one = bare().bytes_of(Depth(1, 0))
    every = tuple(sorted(DEPTHS))
    uses = {every: 9.0, (Depth(3, 0),): 1.0}
    assert bare().within(4 * one, uses).depths == DEPTHS
    assert bare().within(3 * one, uses).depths == DEPTHS[:1]
    assert bare().within(0, uses).depths == ()
    # What two sets share is kept, and paid for, once.
    upper = every[2:]
    assert bare().within(4 * one, {every: 9.0, upper: 9.0}).depths == DEPTHS


BERT = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12)


def ladder_study(folder: Path, text: str = TEXT) -> Study:
    return load_study(write_study_text(folder, text))


def test_the_study_file(tmp_path: Path) -> None:
    study = ladder_study(tmp_path)
    assert study.search["method"] == Fixed("ladder")
    assert "placement" not in study.search and "placement" not in distributions(study)
    assert from_dict(study.to_dict(), study.path).search == study.search
    params = default_params(study, 384)
    assert (params["bottleneck_dim"], params["layers"]) == (48, "all")  # an eighth of the width
    assert configuration(study, params).adapter == AdapterConfig(method="ladder", bottleneck_dim=48)
    assert "placement" not in configuration(study, params).to_dict()
    check_space(study, BERT)
    smallest, largest = extremes(study, BERT)
    assert smallest < largest
    uses = depths(study, BERT)
    assert {len(depths_) for depths_ in uses} == {7, 4, 1}
    assert sum(uses.values()) == pytest.approx(study.budget.trials + 1)


def test_a_placement_means_nothing_to_a_ladder(tmp_path: Path) -> None:
    text = TEXT.replace("  method: ladder\n", "  method: ladder\n  placement: pfeiffer\n")
    with pytest.raises(UsageError, match="means nothing to the method ladder") as caught:
        ladder_study(tmp_path, text)
    assert caught.value.line == line_of(text, "placement: pfeiffer")


def test_a_layer_that_the_backbone_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    text = TEXT.replace("[0, 2, 4]]", "[0, 9]]")
    with pytest.raises(UsageError, match="layer 9 is out of range") as caught:
        check_space(ladder_study(tmp_path, text), BERT)
    assert caught.value.line == line_of(text, "[0, 9]")


def test_check_names_the_layers_that_it_reads(tmp_path: Path) -> None:
    found = _sites(ladder_study(tmp_path), BERT)
    assert found["ladder, [0, 2, 4]"] == ["encoder.layer.0", "encoder.layer.2", "encoder.layer.4"]
    assert folded(found["ladder, upper_half"]) == ["encoder.layer.{3,4,5}"]
