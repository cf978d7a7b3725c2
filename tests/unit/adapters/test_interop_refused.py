"""What AdapterHub or PEFT cannot express, and what of theirs is not here: refused, with the reason."""

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import adapters
from adapters import AdapterConfig, AdapterError, build
from adapters.interop.folders import files_of, kind_of, load_head, write_folder
from adapters.interop.heads import Head
from tests.tiny_models import tiny_config


def built(family="bert", **fields):
    return build(AdapterConfig(**fields), tiny_config(family), torch.Generator().manual_seed(0))


OUT = [
    ("adapterhub", {"method": "ladder", "bottleneck_dim": 4}, "nothing that computes what the method ladder"),
    ("adapterhub", {"method": "dora"}, "method dora"),
    ("adapterhub", {"method": "ia3"}, "method ia3"),
    ("adapterhub", {"method": "loreft"}, "method loreft"),
    ("adapterhub", {"method": "bitfit"}, "method bitfit"),
    ("adapterhub", {"method": "compacter", "bottleneck_dim": 4}, "method compacter"),
    ("adapterhub", {"bottleneck_dim": 4, "activation": "elu"}, "no activation that computes elu"),
    ("adapterhub", {"bottleneck_dim": 4, "activation": "softplus"}, "no activation that computes softplus"),
    ("adapterhub", {"method": "lora", "targets": "all"}, "does not reach attention_output"),
    ("peft", {"bottleneck_dim": 4}, "PEFT has nothing .* method bottleneck"),
    ("peft", {"method": "mam", "bottleneck_dim": 4}, "method mam"),
    ("peft", {"method": "head"}, "method head"),
    ("peft", {"method": "dora"}, "give the model itself as `backbone`"),
    ("peft", {"method": "prefix"}, "how many heads"),
    ("peft", {"method": "prefix", "layers": (0, 1)}, "in every layer"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "fields", "message"), OUT)
def test_what_the_other_side_has_not_is_refused_with_the_reason(format, fields, message, tmp_path):
    with pytest.raises(AdapterError, match=message):
        write_folder(tmp_path / "out", built(**fields), format)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "family", "fields", "message"),
    [
        ("adapterhub", "modernbert", {"bottleneck_dim": 4}, "not shown for the family 'modernbert'"),
        ("adapterhub", "gpt2", {"bottleneck_dim": 4, "placement": "parallel"}, "normalises first"),
        ("adapterhub", "gpt2", {"method": "lora"}, "does not reach query_key_value"),
        ("peft", "albert", {"method": "lora"}, "not shown for the family 'albert'"),
        ("adapterhub", "bert", {"method": "prefix", "positions": "after_prefix"}, "does not count on"),
    ],
)
def test_families_that_were_not_shown_are_refused(format, family, fields, message):
    with pytest.raises(AdapterError, match=message):
        files_of(built(family, **fields), format)


def test_heads_that_have_no_place_are_refused():
    two = Head(((torch.zeros(4, 32), None), (torch.zeros(2, 4), None)), "cls", between=torch.tanh)
    pooled = Head(((torch.zeros(2, 32), None),), "pooler")
    for format in ("adapterhub", "peft"):
        for head in (two, pooled):
            with pytest.raises(AdapterError, match="one linear on the hidden states"):
                files_of(built(method="lora"), format, head=head)
    with pytest.raises(AdapterError, match="no class with a bare linear head"):
        files_of(built("opt", method="lora"), "peft", head=Head(((torch.zeros(2, 32), None),), "cls"))


def test_an_unknown_format_a_folder_that_is_there_and_weights_that_are_not_finite(tmp_path):
    with pytest.raises(AdapterError, match="unknown format 'perft'"):
        files_of(built(method="lora"), "perft")
    with pytest.raises(AdapterError, match="is there already"):
        write_folder(tmp_path, built(method="lora"), "peft")
    broken = built(bottleneck_dim=4)
    with torch.no_grad():
        broken.layer_0_ffn.down.bias[0] = float("nan")
    with pytest.raises(AdapterError, match="not finite"):
        files_of(broken, "adapterhub")
    with pytest.raises(AdapterError, match="cannot name an adapter"):
        files_of(built(bottleneck_dim=4), "adapterhub", name="a.b")


def edited(folder, **changes):
    """The folder with other values in its configuration; those of AdapterHub are inside its envelope."""
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text())
    values.get("config", values).update(changes)
    path.write_text(json.dumps(values))
    return folder


HUB_IN = [
    ({"ln_before": True}, "sets ln_before"),
    ({"use_gating": True}, "sets use_gating"),
    ({"phm_layer": True}, "sets phm_layer"),
    ({"inv_adapter": "nice"}, "sets inv_adapter"),
    ({"cross_adapter": True}, "sets cross_adapter"),
    ({"scaling": "learned"}, "one learned factor a module"),
    ({"scaling": "7"}, "not a number"),
    ({"non_linearity": "quick_gelu"}, "quick_gelu"),
    ({"non_linearity": "gelu_10"}, "gelu_10"),
    ({"original_ln_after": False}, "original_ln_after"),
    ({"original_ln_before": True, "residual_before_ln": False}, "no wiring here adds that residual"),
    ({"original_ln_before": True, "mh_adapter": True}, "LayerNorm inside after attention"),
    ({"residual_before_ln": "post_add"}, "post_add"),
    ({"reduction_factor": {"0": 2, "default": 16}}, "differ in size"),
    ({"reduction_factor": 0}, "not a number above 0"),
    ({"reduction_factor": 4.0}, r"its tensor 'layer_0_ffn.down.weight' is \[4, 32\]"),
    ({"mh_adapter": True}, "lacks 'bert.encoder.layer.0.attention.output.adapters"),
    ({"leave_out": [1]}, "beyond what its configuration asks for"),
    ({"architecture": "reft"}, "its architecture is 'reft'"),
    ({"architecture": "union", "configs": []}, "holds no configurations"),
    ({"architecture": "union", "configs": [{"architecture": "lora"}]}, "only bottlenecks are read"),
    ({"some_knob": 3}, "sets some_knob"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), HUB_IN)
def test_what_of_adapterhub_is_not_here_is_refused(changes, message, tmp_path):
    folder = write_folder(tmp_path / "out", built(bottleneck_dim=4), "adapterhub")
    with pytest.raises(AdapterError, match=message) as caught:
        adapters.load(edited(folder, **changes))
    assert str(caught.value).startswith(str(folder))


PEFT_IN = [
    ({"bias": "all"}, "sets bias"),
    ({"lora_bias": True}, "sets lora_bias"),
    ({"rank_pattern": {"query": 3}}, "sets rank_pattern"),
    ({"init_lora_weights": "pissa"}, "starts by 'pissa'"),
    ({"layer_replication": [[0, 2]]}, "sets layer_replication"),
    ({"trainable_token_indices": [1]}, "sets trainable_token_indices"),
    ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
    ({"r": 9}, "its config asks for"),
    ({"lora_alpha": None}, "lora_alpha is 'None', not a number"),
    ({"use_dora": True}, "lacks 6 tensors"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), PEFT_IN)
def test_what_of_peft_is_not_here_is_refused(changes, message, tmp_path):
    folder = write_folder(tmp_path / "out", built(method="lora"), "peft")
    with pytest.raises(AdapterError, match=message) as caught:
        adapters.load(edited(folder, **changes))
    assert str(caught.value).startswith(str(folder))


def test_layers_that_differ_in_what_they_change_are_refused(tmp_path):
    folder = write_folder(tmp_path / "out", built(method="lora"), "peft")
    weights = load_file(folder / "adapter_model.safetensors")
    left = {key: value for key, value in weights.items() if "layer.1.attention.self.value" not in key}
    save_file(left, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="its layers differ in what they change"):
        adapters.load(folder, backbone=tiny_config("bert"))
    renamed = {
        key.replace("attention.self.query", "output.LayerNorm"): value for key, value in weights.items()
    }
    save_file(renamed, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="names no such linear"):
        adapters.load(folder, backbone=tiny_config("bert"))


@pytest.mark.parametrize(
    ("format", "method", "new", "old"),
    [
        ("adapterhub", "bottleneck", "adapter.safetensors", "pytorch_adapter.bin"),
        ("peft", "lora", "adapter_model.safetensors", "adapter_model.bin"),
    ],
)
def test_a_pickle_is_not_read_and_the_way_around_is_said(format, method, new, old, tmp_path):
    fields = {"bottleneck_dim": 4} if method == "bottleneck" else {}
    folder = write_folder(tmp_path / "out", built(method=method, **fields), format)
    (folder / new).rename(folder / old)
    with pytest.raises(AdapterError, match=rf"{old}.*reads no pickle.*weights_only=True.*{new}"):
        adapters.load(folder)
    (folder / old).unlink()
    with pytest.raises(AdapterError, match=f"{new}: no such file"):
        adapters.load(folder)


def test_folders_that_are_none_and_files_that_are_damaged(tmp_path):
    with pytest.raises(AdapterError, match="no such folder"):
        kind_of(tmp_path / "missing")
    with pytest.raises(AdapterError, match="holds neither"):
        adapters.load(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(AdapterError, match="neither PEFT nor AdapterHub"):
        adapters.load(tmp_path)
    for text in ("[1]", "{", '{"peft_type": ["LORA"]}', '{"config": 3, "model_type": "bert"}'):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(AdapterError):
            adapters.load(tmp_path)
    folder = write_folder(tmp_path / "out", built(method="lora"), "peft")
    (folder / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(AdapterError, match="not a readable safetensors file"):
        adapters.load(folder)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int32])
def test_heads_of_dtypes_that_do_not_compute_are_refused(dtype):
    with pytest.raises(AdapterError, match="the weights of a head are floating, and finite"):
        Head(((torch.zeros(2, 32, dtype=dtype), None),), "cls")


def test_heads_of_kinds_that_are_not_here_are_refused(tmp_path):
    head = Head(((torch.zeros(2, 32), torch.zeros(2)),), "cls")
    folder = write_folder(tmp_path / "hub", built(bottleneck_dim=4), "adapterhub", head=head)
    path = folder / "head_config.json"
    values = json.loads(path.read_text())
    values["config"]["head_type"] = "question_answering"
    path.write_text(json.dumps(values))
    with pytest.raises(AdapterError, match="question_answering"):
        load_head(folder)
    folder = write_folder(tmp_path / "peft", built(method="lora"), "peft", head=head)
    with pytest.raises(AdapterError, match="of the task 'CAUSAL_LM'"):
        load_head(edited(folder, task_type="CAUSAL_LM"))


def test_an_adapter_for_another_backbone_is_refused(tmp_path):
    folder = write_folder(tmp_path / "out", built(bottleneck_dim=4), "adapterhub")
    with pytest.raises(AdapterError, match="is for a bert of hidden size 32"):
        adapters.load(folder, backbone=tiny_config("roberta"))


VALUES = (None, True, -1, 3, 1.5, 10**30, "x", [[]], {"a": 1})


@pytest.mark.parametrize(
    ("format", "fields"),
    [
        ("adapterhub", {"bottleneck_dim": 4}),
        ("adapterhub", {"bottleneck_dim": 4, "placement": "attention:after+ffn:parallel"}),
        ("adapterhub", {"method": "lora"}),
        ("adapterhub", {"method": "prefix", "prefix_length": 3}),
        ("peft", {"method": "lora"}),
        ("peft", {"method": "ia3"}),
        ("peft", {"method": "prompt", "prompt_length": 3}),
    ],
)
def test_any_value_of_any_key_is_read_or_refused_never_a_crash(format, fields, tmp_path):
    folder = write_folder(tmp_path / "out", built(**fields), format)
    path = folder / "adapter_config.json"
    whole = json.loads(path.read_text())
    inside = whole.get("config", whole)
    targets = [whole, inside, *inside.get("configs", [])]
    for target in targets:
        for key in list(target):
            kept = target[key]
            for value in VALUES:
                target[key] = value
                path.write_text(json.dumps(whole))
                with contextlib.suppress(AdapterError):
                    adapters.load(folder)
            target[key] = kept
