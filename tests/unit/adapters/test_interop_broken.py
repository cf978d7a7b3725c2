"""Folders of other libraries whose files are torn, edited or made up: an error that says what, no crash."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import adapters
from adapters import AdapterConfig, AdapterError, build
from adapters.interop.folders import load_head, write_folder
from adapters.interop.heads import Head
from tests.tiny_models import tiny_config, tiny_model

QUERY = "bert.encoder.layer.0.attention.self.query"
HUB_PREFIX = "bert.prefix_tuning.prefix_tunings.default.self_prefix."


def written(folder, format, **fields):
    adapter = build(AdapterConfig(**fields), tiny_config("bert"), torch.Generator().manual_seed(0))
    head = Head(((torch.ones(2, 32), torch.zeros(2)),), "cls", ("bad", "good"))
    return write_folder(folder / "out", adapter, format, head=head, backbone=tiny_model("bert"))


def rewritten(path, change, **metadata):
    """The safetensors file with other tensors, and other facts in its metadata."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        kept = file.metadata()
    change(tensors)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, {**kept, **metadata})


def changed(folder, name, values):
    """The JSON file with other values; those of AdapterHub's configuration are inside its envelope."""
    whole = json.loads((folder / name).read_text())
    (whole if whole.keys() & values.keys() else whole.get("config", whole)).update(values)
    (folder / name).write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("format", "fields", "values", "message"),
    [
        ("adapterhub", {"bottleneck_dim": 4}, {"reduction_factor": 1e-320}, "more units"),
        ("adapterhub", {"bottleneck_dim": 4}, {"scaling": 10**400}, "not a number"),
        ("adapterhub", {"bottleneck_dim": 4}, {"hidden_size": True}, "hidden_size is True"),
        ("peft", {"method": "lora"}, {"r": 10**400, "use_rslora": True}, "its r is"),
        ("peft", {"method": "lora"}, {"bias": "x" * 10**6}, "sets bias"),
    ],
)  # fmt: skip
def test_numbers_that_no_adapter_has(format, fields, values, message, tmp_path):
    folder = written(tmp_path, format, **fields)
    changed(folder, "adapter_config.json", values)
    with pytest.raises(AdapterError, match=message) as caught:
        adapters.load(folder)
    assert len(str(caught.value)) < 500 + len(str(folder))


def test_a_factor_within_factors_within_factors(tmp_path):
    folder = written(tmp_path, "adapterhub", bottleneck_dim=4)
    nested = 8
    for _ in range(600):
        nested = {"0": nested}
    whole = json.loads((folder / "adapter_config.json").read_text())
    whole["config"]["reduction_factor"] = nested
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    with pytest.raises(AdapterError, match="mappings in a mapping"):
        adapters.load(folder)


@pytest.mark.parametrize("format", ["adapterhub", "peft"])
def test_a_prefix_whose_keys_have_no_width(format, tmp_path):
    folder = written(tmp_path, format, method="prefix", prefix_length=3)
    [weights] = [path for path in folder.glob("*.safetensors") if "head" not in path.name]
    tensors = {name: tensor[..., :0] if "prefix" in name or "prompt" in name else tensor
               for name, tensor in load_file(weights).items()}  # fmt: skip
    with safe_open(weights, framework="pt") as file:
        kept = {key: value for key, value in file.metadata().items() if key != "shape"}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights, kept)
    with pytest.raises(AdapterError):
        adapters.load(folder)


def test_a_backbone_whose_name_is_too_long_for_a_path_is_none_that_is_here(tmp_path):
    folder = written(tmp_path, "peft", method="lora")
    rewritten(folder / "adapter_model.safetensors", lambda tensors: None)
    changed(folder, "adapter_config.json", {"base_model_name_or_path": "x" * 300})
    weights = folder / "adapter_model.safetensors"
    save_file(load_file(weights), weights)  # as PEFT writes it, without what is said of the backbone
    with pytest.raises(AdapterError, match="backbone"):
        adapters.load(folder)


def test_a_version_of_thousands_of_digits_is_no_version(tmp_path):
    folder = written(tmp_path, "adapterhub", bottleneck_dim=4)
    changed(folder, "adapter_config.json", {"version": f"adapters.{'9' * 5000}.0"})
    assert adapters.load(folder).config.bottleneck_dim == 4


@pytest.mark.parametrize(
    ("size", "value"), [("layers", "9999999"), ("layers", "0"), ("hidden_size", "9999999"), ("layers", "٣")]
)
def test_sizes_in_the_metadata_are_those_of_a_backbone(size, value, tmp_path):
    folder = written(tmp_path, "adapterhub", bottleneck_dim=4)
    rewritten(folder / "adapter.safetensors", lambda tensors: None, **{size: value})
    with pytest.raises(AdapterError, match=f"its {size} is '{value}', not a whole number from 1"):
        adapters.load(folder)


@pytest.mark.parametrize("tensor", [torch.zeros(()), torch.zeros(1), torch.zeros(33), torch.zeros(32).bool()])
def test_lengths_of_dora_that_are_not_one_for_each_output(tensor, tmp_path):
    folder = written(tmp_path, "peft", method="dora")
    name = f"base_model.model.{QUERY}.lora_magnitude_vector"
    rewritten(folder / "adapter_model.safetensors", lambda tensors: tensors.update({name: tensor}))
    with pytest.raises(AdapterError, match=r"lora_magnitude_vector of query .* 32 outputs"):
        adapters.load(folder, backbone=tiny_model("bert"))


@pytest.mark.parametrize(
    ("format", "new", "message"),
    [
        ("peft", "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight", "two of its weights"),
        ("peft", f"{QUERY}.lora_A.weight", "does not begin with"),
        ("adapterhub", "encoder.layer.00.attention.self.query.loras.default.lora_A", "two of its weights"),
    ],
)
def test_two_names_of_one_weight_are_not_read_as_one(format, new, message, tmp_path):
    folder = written(tmp_path, format, method="lora")
    weights = {"peft": "adapter_model.safetensors", "adapterhub": "adapter.safetensors"}[format]
    rewritten(folder / weights, lambda tensors: tensors.update({new: torch.ones(8, 32)}))
    with pytest.raises(AdapterError, match=message):
        adapters.load(folder, backbone=tiny_config("bert"))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"wte.weight": torch.zeros(())},
        {"wte.weight": torch.zeros(4, 32)},
        {"control_trans.0.weight": torch.zeros(16, 31)},
        {"control_trans.2.bias": torch.zeros(5)},
        {"control_trans.0.bias": torch.zeros(16).long()},
    ],
)
def test_a_prefix_with_a_network_that_does_not_fit_together(spoilt, tmp_path):
    folder = written(tmp_path, "adapterhub", method="prefix", prefix_length=3)
    network = {
        "wte.weight": torch.zeros(3, 32),
        "control_trans.0.weight": torch.zeros(16, 32),
        "control_trans.0.bias": torch.zeros(16),
        "control_trans.2.weight": torch.zeros(192, 16),
        "control_trans.2.bias": torch.zeros(192),
    }

    def replace(tensors, network):
        tensors.clear()
        tensors.update({HUB_PREFIX + name: tensor for name, tensor in network.items()})

    rewritten(folder / "adapter.safetensors", lambda tensors: replace(tensors, network))
    assert adapters.load(folder).config.prefix_length == 3
    rewritten(folder / "adapter.safetensors", lambda tensors: replace(tensors, {**network, **spoilt}))
    with pytest.raises(AdapterError, match="neither those of a flat prefix nor"):
        adapters.load(folder)


def test_a_backbone_that_is_named_and_cannot_be_read(tmp_path):
    folder = written(tmp_path, "peft", method="lora")
    save_file(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.safetensors")
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    changed(folder, "adapter_config.json", {"base_model_name_or_path": str(backbone)})
    for text in (
        "{",
        "[]",
        '{"model_type": "no such"}',
        '{"model_type": 3}',
        '{"auto_map": {"AutoConfig": "a.B"}}',
    ):
        (backbone / "config.json").write_text(text)
        with pytest.raises(AdapterError, match=r"config\.json cannot be read"):
            adapters.load(folder)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.full((2, 32), float("nan")), "finite"),
        (torch.ones(2, 32).long(), "floating"),
        (torch.ones(2, 31), "reads 31 channels, and the backbone has 32"),
        (torch.ones(()), "do not fit together"),
    ],
)
@pytest.mark.parametrize("format", ["adapterhub", "peft"])
def test_heads_that_no_backbone_can_have(format, weight, message, tmp_path):
    folder = written(tmp_path, format, method="lora")
    weights = {"peft": "adapter_model.safetensors", "adapterhub": "model_head.safetensors"}[format]

    def spoil(tensors):
        (name,) = (
            key for key in tensors if key.endswith(("classifier.weight", ".1.weight")) and "lora" not in key
        )
        tensors[name] = weight

    rewritten(folder / weights, spoil)
    with pytest.raises(AdapterError, match=message):
        load_head(folder, backbone=tiny_config("bert"))


@pytest.mark.parametrize("labels", [{"a": [1]}, {"a": 0, "b": 0}, {"a": 1, "b": 2}, {"a": 0.0, "b": 1.0}, 3])
def test_labels_that_do_not_name_the_outputs_are_left_out(labels, tmp_path):
    folder = written(tmp_path, "adapterhub", bottleneck_dim=4)
    assert load_head(folder).labels == ("bad", "good")
    changed(folder, "head_config.json", {"label2id": labels})
    assert load_head(folder).labels is None
