"""Saving and loading: what is written is what comes back, and a broken file is refused with its reason."""

import json
import os
import stat

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from adapters.compose import stack
from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.files import digest, save
from adapters.insert import activate, active, build, insert, names, remove
from adapters.reading import load, load_into
from tests.tiny_models import MAIN_FAMILIES, tiny_config, tiny_model

CONFIG = AdapterConfig(bottleneck_dim=4, placement="houlsby", layers=(0, 2), activation="gelu", scaling=4.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hidden(model, tokens):
    return model(tokens).last_hidden_state


@pytest.fixture
def saved(tmp_path, fill):
    """A file of an adapter for the tiny BERT."""
    return save(fill(build(CONFIG, tiny_config("bert"), generator())), tmp_path / "adapter.safetensors")


def rewrite(path, tensors=None, **metadata):
    """Write the file again with other tensors or metadata; a metadata value of None takes the key away."""
    with safe_open(path, framework="pt") as file:
        entries = {**file.metadata(), **metadata}
    entries = {key: value for key, value in entries.items() if value is not None}
    save_file(load_file(path) if tensors is None else tensors, path, entries)


def metadata_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@pytest.mark.parametrize("family", MAIN_FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_saved_adapter_computes_the_same_in_another_model(family, dtype, tmp_path, tokens, fill):
    model = tiny_model(family).to(dtype)
    alone = hidden(model, tokens)
    fill(insert(model, CONFIG, generator=generator()))
    expected = hidden(model, tokens)
    path = save(model, tmp_path / "adapter.safetensors")
    remove(model)
    other = tiny_model(family).to(dtype)
    adapter = load_into(other, path, "loaded")
    assert active(other) == "loaded"
    assert adapter.config == CONFIG
    assert torch.equal(hidden(other, tokens), expected)
    remove(other, "loaded")
    assert torch.equal(hidden(other, tokens), alone)


def test_an_adapter_trained_in_a_bf16_backbone_is_saved_in_fp32_to_the_bit(tmp_path, tokens):
    model = tiny_model("bert").to(torch.bfloat16)
    adapter = insert(model, CONFIG, generator=generator())
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        hidden(model, tokens).float().square()[..., :5].mean().backward()
        optimizer.step()
    loaded = load(save(adapter, tmp_path / "adapter.safetensors"))
    expected = adapter.state_dict()
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())


def test_a_file_whose_biases_are_in_another_order_is_the_same_adapter(tmp_path, tokens, fill):
    """As they were sorted once."""
    model = tiny_model("bert")
    adapter = fill(insert(model, AdapterConfig(method="bitfit"), generator=generator()))
    expected = hidden(model, tokens)
    path = save(adapter, tmp_path / "adapter.safetensors")
    written = remove(model).shape.measured()
    text = json.dumps(json.loads(written), sort_keys=True)
    assert text != written
    rewrite(path, shape=text)
    loaded = load_into(model, path)
    assert torch.equal(hidden(model, tokens), expected)
    assert loaded.shape == adapter.shape and loaded.shape.measured() == text
    on_top = AdapterConfig(bottleneck_dim=4, initialization="kaiming")
    other = fill(build(AdapterConfig(method="bitfit"), model.config, generator()), 1)
    stacked = stack([other, loaded], on_top, generator()).state_dict()
    for key, bias in adapter.state_dict().items():
        assert torch.equal(stacked[key.replace(".bias", ".frozen.1.bias")], bias)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_dtype_is_kept(dtype, tmp_path, fill):
    adapter = fill(build(CONFIG, tiny_config("bert"), generator())).to(dtype)
    loaded = load(save(adapter, tmp_path / "adapter.safetensors"))
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}


def test_what_is_loaded_can_be_trained_on(saved, tokens):
    model = tiny_model("bert")
    adapter = load_into(model, saved)
    assert not adapter.training
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in adapter.parameters())
    hidden(model, tokens)[..., :5].sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())


def test_the_file_is_readable_without_this_package(saved):
    with safe_open(saved, framework="np") as file:
        metadata = file.metadata()
        assert sorted(file.keys())[:2] == ["layer_0_attention.down.bias", "layer_0_attention.down.weight"]
    assert json.loads(metadata.pop("config")) == CONFIG.to_dict()
    assert metadata == {
        "format": "adapter-sweeper/1",
        "model_type": "bert",
        "hidden_size": "32",
        "layers": "3",
    }


def test_the_same_adapter_gives_the_same_bytes(saved, tmp_path):
    again = save(load(saved), tmp_path / "again.safetensors")
    assert again.read_bytes() == saved.read_bytes()


def test_which_of_several_is_saved(tmp_path, fill):
    model = tiny_model("bert")
    for seed, name in enumerate("ab"):
        fill(insert(model, CONFIG, name, generator=generator()), seed)
    path = tmp_path / "adapter.safetensors"
    for name, chosen in (("b", None), ("a", "a")):
        save(model, path, chosen)
        assert torch.equal(
            load(path).state_dict()["layer_0_ffn.up.bias"],
            model.state_dict()[f"sweeper_adapters.adapters.{name}.layer_0_ffn.up.bias"],
        )
    with pytest.raises(AdapterError, match="known: a, b"):
        save(model, path, "c")
    activate(model, None)
    with pytest.raises(AdapterError, match="no active adapter"):
        save(model, path)
    with pytest.raises(AdapterError, match="chooses among"):
        save(load(path), path, "a")


def test_a_file_is_replaced_whole_and_leaves_nothing_beside(saved, tmp_path, fill):
    before = saved.read_bytes()
    adapter = build(CONFIG, tiny_config("bert"), generator())
    save(adapter, saved)
    assert saved.read_bytes() != before
    assert os.listdir(tmp_path) == [saved.name]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o666 & ~mask


def test_a_failed_write_keeps_the_old_file(saved, tmp_path, monkeypatch):
    before = saved.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        save(build(CONFIG, tiny_config("bert"), generator()), saved)
    assert saved.read_bytes() == before
    assert os.listdir(tmp_path) == [saved.name]


def test_an_adapter_of_several_dtypes_is_not_saved(tmp_path):
    adapter = build(CONFIG, tiny_config("bert"), generator())
    adapter.modules_by_site["layer_0_ffn"].double()
    for refused in (lambda: save(adapter, tmp_path / "adapter.safetensors"), lambda: digest(adapter)):
        with pytest.raises(AdapterError, match="one floating dtype"):
            refused()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(value, saved, tmp_path):
    adapter = load(saved)
    with torch.no_grad():
        adapter.modules_by_site["layer_2_ffn"].up.bias[3] = value
    with pytest.raises(AdapterError, match=r"layer_2_ffn\.up\.bias.*not finite"):
        save(adapter, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()
    rewrite(saved, adapter.state_dict())
    with pytest.raises(AdapterError, match=r"adapter\.safetensors.*layer_2_ffn\.up\.bias.*not finite"):
        load(saved)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": None}, "its format is None"),
        ({"format": "adapter-sweeper/2"}, "adapter-sweeper/2"),
        ({"config": None}, "lacks config"),
        ({"hidden_size": None, "layers": None}, "lacks hidden_size, layers"),
        ({"config": "{"}, "not JSON"),
        ({"config": "[" * 100_000}, "not JSON"),
        ({"config": "[]"}, "mapping"),
        ({"config": "{}"}, "bottleneck_dim is missing"),
        ({"config": '{"bottleneck_dim": 4, "sise": 3}'}, "unknown key 'sise'"),
        ({"config": '{"bottleneck_dim": 4, "scaling": NaN}'}, "finite"),
        ({"config": '{"bottleneck_dim": 4}'}, "lacks 4 tensors of its config, 'layer_1_ffn"),
        ({"model_type": "bret"}, "did you mean 'bert'"),
        ({"hidden_size": "64"}, "its config asks for"),
        ({"hidden_size": "-1"}, "hidden_size"),
        ({"hidden_size": "３２"}, "hidden_size"),
        ({"hidden_size": "99999999999999"}, "hidden_size"),
        ({"layers": "2"}, "out of range"),
        ({"layers": "3.0"}, "whole number"),
        ({"encoder_layers": "0"}, "encoder_layers"),
        ({"layers": "99999999"}, "whole number"),
    ],
)
def test_metadata_that_is_wrong_is_said(metadata, message, saved):
    rewrite(saved, **metadata)
    with pytest.raises(AdapterError, match=message) as caught:
        load(saved)
    assert str(caught.value).startswith(str(saved))


def change(tensors, kind):
    key = "layer_0_ffn.down.weight"
    if kind == "lacks":
        del tensors[key]
    elif kind == "beyond":
        tensors["layer_1_ffn.down.weight"] = tensors[key].clone()
    elif kind == "config asks for":
        tensors[key] = tensors[key].T.contiguous()
    elif kind == "one floating dtype":
        tensors[key] = tensors[key].double()
    return tensors


@pytest.mark.parametrize("kind", ["lacks", "beyond", "config asks for", "one floating dtype"])
def test_tensors_that_are_wrong_are_said(kind, saved):
    rewrite(saved, change(load_file(saved), kind))
    with pytest.raises(AdapterError, match=kind):
        load(saved)


def test_integer_tensors_are_refused(saved):
    rewrite(saved, {key: value.to(torch.int32) for key, value in load_file(saved).items()})
    with pytest.raises(AdapterError, match=r"torch\.int32"):
        load(saved)


def test_no_file_and_no_safetensors(tmp_path):
    with pytest.raises(AdapterError, match="no such file"):
        load(tmp_path / "adapter.safetensors")
    with pytest.raises(AdapterError, match="no adapter of a known format"):
        load(tmp_path)
    for content in (b"", b"PK\x03\x04", b"\xff" * 64, b"\x80\x04."):
        path = tmp_path / "broken.safetensors"
        path.write_bytes(content)
        with pytest.raises(AdapterError, match="not a readable safetensors file"):
            load(path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match="its format is None"):
        load(tmp_path / "other.safetensors")


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_refused_or_is_another_valid_one(data, saved):
    content = bytearray(saved.read_bytes())
    cut = data.draw(st.integers(0, len(content)))
    damaged = saved.with_name("damaged.safetensors")
    if data.draw(st.booleans()):
        damaged.write_bytes(content[:cut])
    else:
        position = data.draw(st.integers(0, min(len(content) - 1, 2_000)))
        content[position] ^= data.draw(st.integers(1, 255))
        damaged.write_bytes(content)
    try:
        adapter = load(damaged)
    except AdapterError:
        return
    assert all(torch.isfinite(value).all() for value in adapter.state_dict().values())


def test_a_file_for_another_backbone_is_refused_by_the_model(saved):
    model = tiny_model("bert", layers=4)
    with pytest.raises(AdapterError, match="of 3 layers"):
        load_into(model, saved)
    assert names(model) == ()


def test_a_shape_of_an_encoder_decoder_without_an_encoder_is_refused(tmp_path):
    adapter = build(AdapterConfig(method="lora", rank=2), tiny_config("t5", layers=2), generator())
    path = save(adapter, tmp_path / "adapter.safetensors")
    edited = {**json.loads(adapter.shape.measured()), "encoder_layers": 0}
    rewrite(path, shape=json.dumps(edited))
    with pytest.raises(AdapterError, match="how many layers of a 't5' are the encoder's"):
        load(path)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_file_for_another_split_into_encoder_and_decoder_is_refused(family, tmp_path):
    config = tiny_config(family, layers=2)
    path = save(build(CONFIG, config, generator()), tmp_path / "adapter.safetensors")
    load_into(tiny_model(family, layers=2), path)
    encoder, decoder = {
        "t5": ("num_layers", "num_decoder_layers"),
        "bart": ("encoder_layers", "decoder_layers"),
    }[family]
    setattr(config, encoder, 1)
    setattr(config, decoder, 3)
    other = AutoModel.from_config(config)
    with pytest.raises(AdapterError, match=r"of 2 \+ 2 layers"):
        load_into(other, path)
    # A file of before does not say: it is taken, as it was, and keeps its bytes.
    rewrite(path, encoder_layers=None)
    old = load_into(other, path, "old")
    assert digest(old) == digest(load(path))
    assert "encoder_layers" not in metadata_of(save(old, tmp_path / "again.safetensors"))
