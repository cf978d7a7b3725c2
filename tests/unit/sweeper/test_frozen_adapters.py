"""Studies over compositions: what a study file may name, what is refused at which line, what is trained."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import yaml

from adapters.config import AdapterConfig
from adapters.pack import Pack
from sweeper import corners, space, warmstart
from sweeper.backbone import fingerprint, load_backbone, load_config
from sweeper.data import Split
from sweeper.errors import SweeperError, UsageError
from sweeper.frozen import check_frozen, check_same_frozen, keep_frozen, kept_frozen, named_frozen
from sweeper.ledger import TrialView
from sweeper.session import check_unchanged
from sweeper.slot import Job, Problem, start
from sweeper.study import Study, difference, from_dict, load_study
from sweeper.study.frozen import weights_file
from sweeper.study.schema import Fixed
from sweeper.trainconfig import TrainConfig
from tests.exported_folder import write_export
from tests.tiny_folder import write_study

LEARNING_RATE = {"from": 1.0e-4, "to": 1.0e-2, "log": True}
FUSE: dict[str, Any] = {"method": "fuse", "adapters": ["a", "b"], "learning_rate": LEARNING_RATE}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny study and three exports: two bottlenecks and a LoRA."""
    folder = tmp_path_factory.mktemp("frozen")
    write_study(folder)
    write_export(folder / "a", folder / "backbone", AdapterConfig(bottleneck_dim=4, placement="houlsby"), 1)
    write_export(folder / "b", folder / "backbone", AdapterConfig(bottleneck_dim=6, layers="upper_half"), 2)
    write_export(folder / "lora", folder / "backbone", AdapterConfig(method="lora"), 3)
    return folder


def study_of(made: Path, **search: Any) -> Study:
    return load_study(write_study(made, search={**FUSE, **search}))


def test_a_fusion_is_read_with_the_digests_of_its_adapters(made: Path) -> None:
    study = study_of(made)
    assert study.search["adapters"] == Fixed(("a", "b"))
    assert study.searched == ("learning_rate",)
    for name in "ab":
        content = (made / name / "adapter.safetensors").read_bytes()
        assert study.frozen[name].part.weights == hashlib.sha256(content).hexdigest()
    found = space.configuration(study, {"learning_rate": 1e-3})
    assert [part.config.bottleneck_dim for part in found.adapter.adapters] == [4, 6]
    assert found.to_dict()["adapters"] == ["a", "b"]
    config = load_config(study.backbone)
    corners.check_space(study, config)
    check_frozen(study, fingerprint(study.backbone))
    # Both act behind the FFNs of the two upper layers, the first alone behind the lowest and the attentions.
    square = 32 * 32
    assert corners.extremes(study, config) == (2 * (3 * square + 32) + 4 * square,) * 2


def test_what_the_store_keeps_is_the_study_and_needs_no_folder(made: Path, tmp_path: Path) -> None:
    study = study_of(made)
    again = from_dict(study.to_dict(), tmp_path / "elsewhere.yaml")
    assert difference(study, again) == []
    assert again.frozen == study.frozen and again.frozen["a"].path is None
    params = {"learning_rate": 1e-3}
    assert space.configuration(again, params) == space.configuration(study, params)
    assert yaml.safe_load(yaml.safe_dump(study.to_dict())) == study.to_dict()


def test_a_choice_among_sets_is_drawn_as_text(made: Path) -> None:
    write_export(made / "c", made / "backbone", AdapterConfig(bottleneck_dim=5), 4)
    study = study_of(made, adapters=[["a", "b", "c"], ["a", "c"]])
    assert study.searched == ("adapters", "learning_rate")
    first = space.default_params(study, 32)
    assert first["adapters"] == '["a", "b", "c"]'
    found = space.configuration(study, {"adapters": '["a", "c"]', "learning_rate": 1e-3})
    assert [part.config.bottleneck_dim for part in found.adapter.adapters] == [4, 5]
    sizes = {len(config.adapters) for config in corners.every(study)}
    assert sizes == {2, 3}
    again = from_dict(study.to_dict(), study.path)
    assert again.search["adapters"] == study.search["adapters"]


def test_a_stack_searches_the_bottleneck_on_top(made: Path) -> None:
    search = {"method": "stack", "adapters": ["lora", "a"], "bottleneck_dim": [4, 8]}
    study = load_study(write_study(made, search=search))
    found = space.configuration(study, {"bottleneck_dim": 8})
    assert found.adapter.own == AdapterConfig(bottleneck_dim=8)
    assert [part.config.method for part in found.adapter.adapters] == ["lora", "bottleneck"]
    config = load_config(study.backbone)
    corners.check_space(study, config)
    assert corners.extremes(study, config) == (3 * (2 * 32 * 4 + 36), 3 * (2 * 32 * 8 + 40))


def test_a_fusion_beside_another_method(made: Path) -> None:
    methods = {"fuse": {"adapters": ["a", "b"]}, "bottleneck": {"bottleneck_dim": [4, 8]}}
    study = load_study(write_study(made, search={"method": methods}))
    config = load_config(study.backbone)
    corners.check_space(study, config)
    assert space.configuration(study, {"method": "fuse"}).frozen == ("a", "b")
    assert space.configuration(study, {"method": "bottleneck", "bottleneck.bottleneck_dim": 4}).frozen == ()


@pytest.mark.parametrize(
    ("search", "line", "message"),
    [
        ({"adapters": None}, "search", "the key 'adapters' is missing"),
        ({"adapters": "a"}, "adapters: a", "must be a list of folders"),
        ({"adapters": []}, "adapters: []", "must be a list of folders"),
        ({"adapters": ["a", "missing"]}, "missing", "there is no folder 'missing'"),
        ({"adapters": ["a", "b" * 300]}, "- bbb", "there is no folder 'bbb"),
        ({"adapters": ["a", "a"]}, "- a", "a second time"),
        ({"adapters": ["a", 3]}, "- 3", "must be a text"),
        ({"adapters": ["a", "data"]}, "- data", "no exported adapter"),
        ({"adapters": ["a", "../b"]}, "- ../b", "leaves its folder"),
        ({"adapters": ["a"]}, "adapters", "at least 2 frozen adapters"),
        ({"adapters": ["a", "lora"]}, "adapters", "takes no adapter of the method lora"),
        ({"adapters": [["a", "b"], "a"]}, "- a", "a list of lists of folders"),
        ({"adapters": [["a", "b"], ["a", "b"]]}, "a", "listed twice"),
        ({"temperature": 0.0}, "temperature", "above 0"),
        ({"value_matrix": "no"}, "value_matrix", "unknown value_matrix"),
        ({"rank": 4}, "rank", "means nothing to the method fuse"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    made: Path, search: dict[str, Any], line: str, message: str
) -> None:
    given = {key: value for key, value in {**FUSE, **search}.items() if value is not None}
    path = write_study(made, search=given)
    with pytest.raises(UsageError, match=message) as error:
        load_study(path)
    assert error.value.file == str(path) and error.value.line is not None
    assert line in path.read_text().splitlines()[error.value.line - 1]


def test_what_only_the_store_writes_is_no_key_of_a_study_file(made: Path) -> None:
    with pytest.raises(UsageError, match="there is no key 'frozen'"):
        load_study(write_study(made, search=FUSE, frozen={"a": {}}))


def test_wirings_that_do_not_meet_are_refused_before_the_run(made: Path) -> None:
    config = AdapterConfig(bottleneck_dim=4, placement="parallel")
    write_export(made / "parallel", made / "backbone", config, 5)
    study = study_of(made, adapters=["a", "parallel"])
    with pytest.raises(UsageError, match="wire the ffn of layer 0 differently"):
        corners.check_space(study, load_config(study.backbone))


def test_an_adapter_of_another_backbone_is_refused(made: Path) -> None:
    study = study_of(made)
    with pytest.raises(UsageError, match="was trained in another backbone") as error:
        check_frozen(study, "sha256:of another")
    assert error.value.line == study.line("search", "adapters")


def test_a_changed_adapter_is_another_study(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    before = study_of(folder)
    keep_frozen(before, tmp_path / "artifacts")
    write_export(folder / "b", folder / "backbone", AdapterConfig(bottleneck_dim=6, layers="upper_half"), 9)
    after = study_of(folder)
    assert [key for key, _, _ in difference(before, after)] == ["frozen.b"]
    with pytest.raises(UsageError, match="the adapter b has changed since the study tiny began"):
        check_same_frozen(before, after)
    row: Any = SimpleNamespace(name="tiny", spec=before.to_dict())
    with pytest.raises(UsageError, match="the adapter b has changed"):
        check_unchanged(row, after)
    check_unchanged(row, before)
    with pytest.raises(UsageError, match="is not what the study began with"):
        named_frozen(before)
    assert kept_frozen(before, tmp_path / "artifacts").keys() == {
        own.part.weights for own in before.frozen.values()
    }


def test_workers_find_the_weights_in_the_artifact_folder(made: Path, tmp_path: Path) -> None:
    study = study_of(made)
    with pytest.raises(UsageError, match="the frozen adapter a is not there"):
        kept_frozen(study, tmp_path)
    keep_frozen(study, tmp_path)
    files = [weights_file(tmp_path, "tiny", each) for each in study.frozen.values()]
    assert sorted(tmp_path.rglob("*.*")) == sorted(files)
    files[0].write_bytes(files[0].read_bytes()[:-1])
    with pytest.raises(UsageError, match="is not what the study began with"):
        kept_frozen(study, tmp_path)
    keep_frozen(study, tmp_path)  # what was torn is copied anew
    stored = from_dict(study.to_dict(), study.path)
    found = kept_frozen(stored, tmp_path)
    assert [found[str(each.part.weights)].config for each in stored.frozen.values()] == [
        each.part.config for each in stored.frozen.values()
    ]
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    with pytest.raises(SweeperError, match="cannot be copied"):
        keep_frozen(study, blocked)


def test_a_slot_trains_the_fusion_and_the_head_alone(made: Path) -> None:
    study = study_of(made)
    found = space.configuration(study, {"learning_rate": 1e-3})
    pack = Pack(load_backbone(study.backbone, "float32", "cpu"))
    texts = Split(torch.randint(5, 30, (12,)), None, torch.tensor([0, 4, 8, 12]), torch.tensor([0, 1, 0]))
    problem = Problem("classification", "mean", 2, "accuracy", True)
    job = Job(1, 0, 1, found.adapter, TrainConfig(), 0, frozen=named_frozen(study))
    slot = start(pack, 0, job, texts, problem, torch.device("cpu"))
    assert slot.adapter is not None
    one, two = (job.frozen[str(part.weights)] for part in found.adapter.adapters)
    inside = slot.adapter.state_dict()
    assert torch.equal(
        inside["layer_0_ffn.frozen.0.down.weight"], one.state_dict()["layer_0_ffn.down.weight"]
    )
    assert torch.equal(inside["layer_2_ffn.frozen.1.up.weight"], two.state_dict()["layer_2_ffn.up.weight"])
    trained = sum(parameter.numel() for parameter in slot.parameters)
    assert trained == corners.extremes(study, pack.backbone.config)[0] + 2 * 33
    assert job.identity()["adapter"]["adapters"][0]["weights"] == found.adapter.adapters[0].weights


def test_a_warm_start_takes_trials_over_the_same_adapters(made: Path) -> None:
    write_export(made / "c", made / "backbone", AdapterConfig(bottleneck_dim=5), 4)
    old = study_of(made, adapters=[["a", "b"], ["a", "c"]])
    for adapters, taken in (
        ([["a", "c"], ["a", "b"]], {"adapters": '["a", "b"]', "learning_rate": 1e-3}),
        (["a", "b"], {"learning_rate": 1e-3}),
        (["a", "c"], "the adapters that they are made of are others"),
        ([["a", "c"], ["b", "c"]], "adapters is outside of this space"),
    ):
        study = study_of(made, adapters=adapters)
        params = {"adapters": '["a", "b"]', "learning_rate": 1e-3}
        view = SimpleNamespace(params=params)
        found = warmstart._translated(study, old, cast(TrialView, view), lambda: 3)
        assert found == taken
