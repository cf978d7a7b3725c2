"""Files of AdapterHub and PEFT: what is written is what is read, under the names that those libraries use.

That their libraries compute the same from them is what `make interop` shows.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import adapters
from adapters import AdapterConfig, build
from adapters.interop.adapterhub_bottleneck import (
    ACTIVATIONS,
    bottleneck_in,
    bottleneck_out,
    reduction_factor,
)
from adapters.interop.folders import kind_of, load_head, write_folder
from adapters.interop.heads import Head
from adapters.interop.hubnames import ROWS
from adapters.interop.naming import PEFT
from adapters.shape import Shape, shape_of
from tests.tiny_models import tiny_config, tiny_model

PLACEMENTS = (
    "houlsby", "pfeiffer", "attention", "parallel", "pfeiffer_original", "attention:parallel",
    "attention:after+ffn:parallel", "attention:after+ffn:norm_inside", "attention:parallel+ffn:norm_inside",
)  # fmt: skip
BERT = Shape("bert", 32, 3)


def built(fill, family="bert", **fields):
    return fill(build(AdapterConfig(**fields), tiny_config(family), torch.Generator().manual_seed(0))).eval()


def same(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        torch.testing.assert_close(theirs[key], value, rtol=0, atol=1e-6, msg=key)
    return True


def head(pooling="cls", width=32):
    return Head(((torch.randn(3, width), torch.randn(3)),), pooling, ("a", "b", "c"))


@pytest.mark.parametrize("width", [384, 768, 1024])
def test_their_formula_makes_every_dimension_of_the_reduction_factor(width):
    for dim in range(1, width + 1):
        assert max(1, int(width // reduction_factor(width, dim))) == dim
        shape = Shape("bert", width, 2)
        if width == 384:
            values = bottleneck_out(AdapterConfig(bottleneck_dim=dim), shape)
            assert bottleneck_in(json.loads(json.dumps(values)), shape).bottleneck_dim == dim


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("layers", ["all", (0, 2)])
def test_a_bottleneck_comes_back_from_adapterhubs_files(placement, layers, fill, tmp_path):
    given = {"bottleneck_dim": 5, "scaling": 2.5, "dropout": 0.1, "stochastic_depth": 0.2}
    adapter = built(fill, placement=placement, layers=layers, initialization="normal", **given)
    folder = write_folder(tmp_path / "out", adapter, "adapterhub", name="task-1")
    back = adapters.load(folder)
    assert back.config == adapter.config
    assert back.shape == adapter.shape
    assert same(adapter, back)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_that_they_know_comes_back(activation):
    config = AdapterConfig(bottleneck_dim=5, activation=activation)
    assert bottleneck_in(bottleneck_out(config, BERT), BERT) == config


def test_a_factor_a_channel_takes_the_constant_along(fill, tmp_path, tokens):
    model = tiny_model("bert")
    adapter = built(fill, bottleneck_dim=5, learned_scaling="channel", scaling=3.0)
    back = adapters.load(write_folder(tmp_path / "out", adapter, "adapterhub"))
    assert (back.config.scaling, back.config.learned_scaling) == (1.0, "channel")
    outputs = []
    for one in (adapter, back):
        adapters.attach(model, one)
        outputs.append(model(tokens).last_hidden_state)
        adapters.remove(model)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ROWS)
@pytest.mark.parametrize("method", ["bottleneck", "lora", "prefix"])
def test_every_family_and_method_of_adapterhub(family, method, fill, tmp_path):
    fields = {
        "bottleneck": {"bottleneck_dim": 4, "placement": "houlsby", "initialization": "normal"},
        "lora": {"rank": 3, "alpha": 5.5, "targets": "query+value+ffn_up", "layers": (0, 2), "dropout": 0.1},
        "prefix": {"prefix_length": 4, "layers": (1, 2)},
    }[method]
    if family == "gpt2" and method == "lora":
        fields = {"rank": 3, "targets": "ffn_up"}
    adapter = built(fill, family, method=method, **fields)
    if method == "prefix" and ROWS[family].prefixes is None:
        with pytest.raises(adapters.AdapterError, match="computes something else"):
            write_folder(tmp_path / "out", adapter, "adapterhub")
        return
    folder = write_folder(tmp_path / "out", adapter, "adapterhub", head=head())
    back = adapters.load(folder)
    assert back.config == adapter.config and same(adapter, back)
    assert kind_of(folder) == "adapterhub"
    assert {key.split(".")[0] for key in load_file(folder / "adapter.safetensors")} == {ROWS[family].prefix}


IMPOSSIBLE = {("electra", "prompt"), ("deberta-v2", "prefix"), ("mpnet", "prefix")}
REFUSED = {
    ("distilbert", "prefix"): "models of the family 'distilbert' take none",
    ("modernbert", "prefix"): "models of the family 'modernbert' take none",
    ("mistral", "prefix"): "a sliding window of 5 tokens",
}


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prefix", "prompt"])
@pytest.mark.parametrize("family", PEFT)
def test_every_family_and_method_of_peft(family, method, fill, tmp_path):
    fields = {
        "lora": {"rank": 3, "alpha": 5.5, "targets": "all", "layers": (0, 2), "dropout": 0.1},
        "dora": {"rank": 2, "layers": (1,)},
        "ia3": {"targets": "all"},
        "prefix": {"prefix_length": 4},
        "prompt": {"prompt_length": 4},
    }[method]
    if (family, method) in IMPOSSIBLE:
        with pytest.raises(adapters.AdapterError, match=f"takes no adapter of the method {method}"):
            built(fill, family, method=method, **fields)
        return
    adapter = built(fill, family, method=method, **fields)
    model = tiny_model(family)
    given = head() if PEFT[family].token_head else None
    if (family, method) in REFUSED:
        with pytest.raises(adapters.AdapterError, match=REFUSED[family, method]):
            write_folder(tmp_path / "out", adapter, "peft", backbone=model, head=given)
        return
    folder = write_folder(tmp_path / "out", adapter, "peft", backbone=model, head=given)
    back = adapters.load(folder, model if method in ("dora", "prefix") else None)
    assert back.config == adapter.config and same(adapter, back)
    read = load_head(folder)
    assert (read is None) == (given is None)
    if read is not None and given is not None:
        assert read.pooling == "cls" and torch.equal(read.layers[0][0], given.layers[0][0])


def test_the_names_in_the_files_are_those_of_the_libraries(fill, tmp_path):
    lora = built(fill, method="lora", rank=2, layers=(1,))
    files = write_folder(tmp_path / "peft", lora, "peft", head=head())
    front = "base_model.model.bert.encoder.layer.1.attention.self"
    assert sorted(load_file(files / "adapter_model.safetensors")) == [
        *(f"{front}.{linear}.lora_{part}.weight" for linear in ("query", "value") for part in "AB"),
        "base_model.model.classifier.bias",
        "base_model.model.classifier.weight",
    ]
    values = json.loads((files / "adapter_config.json").read_text())
    assert (values["peft_type"], values["task_type"], values["r"], values["lora_alpha"]) == (
        "LORA",
        "TOKEN_CLS",
        2,
        8,
    )
    bottleneck = built(fill, bottleneck_dim=4, layers=(1,))
    files = write_folder(tmp_path / "hub", bottleneck, "adapterhub", name="mine", head=head("mean"))
    front = "bert.encoder.layer.1.output.adapters.mine"
    assert sorted(load_file(files / "adapter.safetensors")) == [
        *(f"{front}.adapter_down.0.{part}" for part in ("bias", "weight")),
        *(f"{front}.adapter_up.{part}" for part in ("bias", "weight")),
    ]
    config = json.loads((files / "head_config.json").read_text())
    assert config["config"]["head_type"] == "tagging" and config["model_class"] == "BertAdapterModel"


@pytest.mark.parametrize("format", ["adapterhub", "peft"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "last", "tokens"])
def test_a_head_comes_back(format, pooling, fill, tmp_path):
    given = head(pooling)
    folder = write_folder(tmp_path / "out", built(fill, method="lora", rank=2), format, head=given)
    back = load_head(folder)
    assert back.pooling == pooling
    assert torch.equal(back.layers[0][0], given.layers[0][0]) and torch.equal(
        back.layers[0][1], given.layers[0][1]
    )
    assert back.labels == (given.labels if format == "adapterhub" else None)


@pytest.mark.parametrize(
    ("family", "pooling", "kind"),
    [("bert", "cls", "classification"), ("bert", "last", "tagging"), ("gpt2", "last", "tagging")],
)
def test_only_a_head_on_the_first_token_is_a_head_on_texts_there(family, pooling, kind, fill, tmp_path):
    adapter = built(fill, family, bottleneck_dim=4)
    folder = write_folder(tmp_path / "out", adapter, "adapterhub", head=head(pooling))
    assert json.loads((folder / "head_config.json").read_text())["config"]["head_type"] == kind
    assert load_head(folder).pooling == pooling


def test_a_head_of_theirs_computes_what_its_layers_say(tmp_path, fill):
    folder = write_folder(
        tmp_path / "out", built(fill, bottleneck_dim=4), "adapterhub", name="x", head=head()
    )
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Dropout(0.1), nn.Linear(32, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 2)
    ).eval()
    save_file(
        {f"heads.x.{key}": value for key, value in layers.state_dict().items()},
        folder / "model_head.safetensors",
    )
    config = json.loads((folder / "head_config.json").read_text())
    config["config"].update(layers=2, activation_function="tanh", num_labels=2, label2id={"no": 0, "yes": 1})
    (folder / "head_config.json").write_text(json.dumps(config))
    read = load_head(folder)
    model, ids = tiny_model("bert"), torch.randint(5, 100, (2, 6))
    output, mask = model(ids), torch.ones_like(ids)
    torch.testing.assert_close(read.logits(output, mask), layers(output.last_hidden_state[:, 0]))
    config["config"].update(use_pooler=True)
    (folder / "head_config.json").write_text(json.dumps(config))
    torch.testing.assert_close(load_head(folder).logits(output, mask), layers(output.pooler_output))
    assert read.labels == ("no", "yes")


def test_poolings_of_a_head_leave_padding_out():
    hidden, mask = torch.randn(2, 4, 3), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    output = type("Output", (), {"last_hidden_state": hidden})()
    layer = ((torch.eye(3), None),)
    torch.testing.assert_close(Head(layer, "mean").logits(output, mask)[1], hidden[1, :2].mean(0))
    torch.testing.assert_close(
        Head(layer, "last").logits(output, mask), torch.stack([hidden[0, 3], hidden[1, 1]])
    )
    torch.testing.assert_close(Head(layer, "cls").logits(output, mask), hidden[:, 0])
    # bf16 cannot count so far, and the last token is found all the same.
    long, seen = torch.zeros(1, 300, 3, dtype=torch.bfloat16), torch.zeros(1, 300, dtype=torch.long)
    long[0, 259], seen[0, :260] = 1.0, 1
    output = type("Output", (), {"last_hidden_state": long})()
    assert Head(layer, "last").logits(output, seen).tolist() == [[1.0, 1.0, 1.0]]


def test_a_folder_of_ones_own_export_is_read_too(fill, tmp_path):
    adapter = built(fill, bottleneck_dim=4)
    adapters.save(adapter, tmp_path / "adapter.safetensors")
    assert kind_of(tmp_path) == "sweeper"
    assert same(adapter, adapters.load(tmp_path))


def test_the_backbone_of_a_peft_adapter_is_found_in_the_folder_it_names(fill, tmp_path):
    adapter = built(fill, method="lora", rank=2)
    folder = write_folder(tmp_path / "out", adapter, "peft", backbone_name=str(tmp_path / "model"))
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(weights, folder / "adapter_model.safetensors")  # as PEFT does: without what this library adds
    with pytest.raises(adapters.AdapterError, match="give the model or its configuration"):
        adapters.load(folder)
    assert same(adapter, adapters.load(folder, backbone=tiny_config("bert")))
    tiny_config("bert").save_pretrained(tmp_path / "model")
    back = adapters.load(folder)
    assert same(adapter, back) and back.shape == shape_of("lora", tiny_config("bert"))


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prefix", "prompt"])
def test_a_peft_folder_is_loaded_into_the_model_that_it_does_not_name(method, fill, tmp_path):
    model = tiny_model("bert")
    adapter = built(fill, method=method)
    folder = write_folder(tmp_path / "out", adapter, "peft", backbone=model)
    weights = folder / "adapter_model.safetensors"
    save_file(load_file(weights), weights, {"format": "pt"})  # as PEFT writes it
    with pytest.raises(adapters.AdapterError, match="backbone"):
        adapters.load(folder)
    assert same(adapter, adapters.load_into(model, folder))


def test_what_a_prefix_network_puts_out_is_read_as_a_prefix(fill, tmp_path):
    adapter = built(fill, method="prefix", prefix_length=4)
    folder = write_folder(tmp_path / "out", adapter, "adapterhub", name="p")
    weights = load_file(folder / "adapter.safetensors")
    (flat,) = weights.values()
    front = "bert.prefix_tuning.prefix_tunings.p.self_prefix"
    torch.manual_seed(0)
    wte, first = torch.randn(4, 32), nn.Linear(32, 6)
    # The second linear is solved for, so that the network puts out the flat prefix.
    hidden = torch.tanh(first(wte)).detach().double()
    second = torch.linalg.lstsq(hidden, flat.reshape(4, -1).double()).solution.T.float()
    network = {
        "wte.weight": wte, "control_trans.0.weight": first.weight, "control_trans.0.bias": first.bias,
        "control_trans.2.weight": second, "control_trans.2.bias": torch.zeros(len(second)),
    }  # fmt: skip
    tensors = {f"{front}.{key}": value.detach().clone().contiguous() for key, value in network.items()}
    save_file(tensors, folder / "adapter.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["config"].update(flat=False, bottleneck_size=6, non_linearity="tanh")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    back = adapters.load(folder, backbone=tiny_config("bert"))
    for key, value in adapter.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key], value, rtol=0, atol=1e-4)


def test_rank_stabilised_alpha_is_the_same_factor(fill, tmp_path):
    adapter = built(fill, method="lora", rank=4, alpha=6.0)
    folder = write_folder(tmp_path / "out", adapter, "peft")
    values = json.loads((folder / "adapter_config.json").read_text())
    values.update(use_rslora=True, lora_alpha=3)
    (folder / "adapter_config.json").write_text(json.dumps(values))
    back = adapters.load(folder)
    assert back.config.alpha / back.config.rank == pytest.approx(3 / 4**0.5)
