"""Prefixes as PEFT trains them: what a model computes that finds them in its cache, as PEFT does it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

import adapters
from adapters import AdapterConfig, AdapterError, build
from adapters.interop.folders import write_folder
from tests.tiny_models import tiny_config, tiny_model

LENGTH, LAYERS = 5, 3
LEARNED = ("bert", "roberta", "xlm-roberta", "electra", "gpt2", "opt")
ROTARY = ("gpt_neox", "llama", "qwen2", "qwen3", "phi3")
WEIGHTS = "adapter_model.safetensors"


def heads(model):
    return getattr(model.config, "num_key_value_heads", None) or model.config.num_attention_heads


def theirs(folder, model, network=False):
    """A folder that PEFT could have written, and its vectors: keys and values of each layer in turn.

    Where a network made them, the file holds what it put out.
    """
    width = heads(model) * 8
    vectors = 0.5 * torch.randn(LENGTH, 2 * LAYERS * width, generator=torch.Generator().manual_seed(3))
    folder.mkdir()
    values = {
        "peft_type": "PREFIX_TUNING", "task_type": "FEATURE_EXTRACTION", "num_virtual_tokens": LENGTH,
        "token_dim": width, "num_transformer_submodules": 1, "num_attention_heads": heads(model),
        "num_layers": LAYERS, "encoder_hidden_size": 32, "prefix_projection": network, "inference_mode": True,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(values))
    save_file({"prompt_embeddings": vectors}, folder / WEIGHTS)
    return folder, vectors


def with_cache(model, vectors, tokens, mask):
    """What a model computes with vectors in its cache: the lines of PEFT's `get_prompt`."""
    texts = len(tokens)
    past = vectors.repeat(texts, 1, 1).view(texts, LENGTH, 2 * LAYERS, heads(model), 8)
    cache = DynamicCache(past.permute(2, 0, 3, 1, 4).split(2))
    whole = torch.cat([mask.new_ones(texts, LENGTH), mask], dim=1)
    with torch.no_grad():
        found = model(input_ids=tokens, attention_mask=whole, past_key_values=cache).last_hidden_state
    return found[mask == 1]


def through(model, adapter, tokens, mask):
    adapters.attach(model, adapter)
    try:
        with torch.no_grad():
            return model(input_ids=tokens, attention_mask=mask).last_hidden_state[mask == 1]
    finally:
        adapters.remove(model)


def texts():
    tokens = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    return tokens, mask


def with_rope(**rope):
    config = tiny_config("llama")
    config.rope_parameters = {**config.rope_parameters, **rope}
    return config


@pytest.mark.parametrize("family", [*LEARNED, *ROTARY])
def test_a_prefix_of_theirs_computes_here_what_it_computes_there_and_goes_back(family, tmp_path):
    model = tiny_model(family)
    folder, vectors = theirs(tmp_path / "theirs", model, network=family == "gpt2")
    adapter = adapters.load(folder, backbone=model)
    assert adapter.config.positions == ("after_prefix" if family in LEARNED else "from_start")
    expected = with_cache(model, vectors, *texts())
    assert not torch.allclose(
        through(model, adapter, *texts()), model(texts()[0]).last_hidden_state[texts()[1] == 1]
    )
    torch.testing.assert_close(through(model, adapter, *texts()), expected, rtol=0, atol=1e-5)
    again = write_folder(tmp_path / "again", adapter, "peft", backbone=model)
    back = load_file(again / WEIGHTS)["prompt_embeddings"]
    torch.testing.assert_close(back, vectors, rtol=0, atol=1e-6)
    assert adapters.load(again, backbone=model).config == adapter.config
    torch.testing.assert_close(with_cache(model, back, *texts()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 40},
    ],
)  # fmt: skip
def test_scaled_rotary_positions_turn_keys_by_the_models_own_angles(rope, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = type(tiny_model("llama"))(with_rope(**rope)).eval()
    folder, vectors = theirs(tmp_path / "theirs", model)
    adapter = adapters.load(folder, backbone=model.config)
    expected = with_cache(model, vectors, *texts())
    torch.testing.assert_close(through(model, adapter, *texts()), expected, rtol=0, atol=1e-5)
    plain = adapters.load(folder, backbone=tiny_config("llama"))
    assert not torch.allclose(through(model, plain, *texts()), expected, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_file_of_an_earlier_version_is_read_as_it_was(family, tmp_path):
    """It has our shape in its metadata, and says nothing of positions."""
    model = tiny_model(family)
    folder, vectors = theirs(tmp_path / "theirs", model)
    config = AdapterConfig(method="prefix", prefix_length=LENGTH)
    shape = build(config, model.config, torch.Generator().manual_seed(0)).shape
    facts = {"model_type": family, "hidden_size": "32", "layers": "3", "shape": shape.measured()}
    save_file({"prompt_embeddings": vectors}, folder / WEIGHTS, facts)
    adapter = adapters.load(folder)
    assert adapter.config == config
    width = shape.key_width
    assert torch.equal(adapter.state_dict()["layer_1_prefix.keys"], vectors[:, 2 * width : 3 * width])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (tiny_config("mistral"), "a sliding window of 5 tokens"),
        (with_rope(rope_type="dynamic", factor=2.0), r"rotary positions \(dynamic\) turn by other angles"),
        (tiny_config("distilbert"), "the family 'distilbert' take none"),
    ],
)
def test_prefixes_that_have_no_equal_say_why(config, message, tmp_path):
    model = tiny_model("llama" if config.model_type != "distilbert" else "bert")
    folder, _ = theirs(tmp_path / "theirs", model)
    with pytest.raises(AdapterError, match=message):
        adapters.load(folder, backbone=config)


def test_a_window_that_no_text_reaches_may_be_left_out(tmp_path):
    config = tiny_config("mistral")
    config.sliding_window = None
    folder, _ = theirs(tmp_path / "theirs", tiny_model("llama"))
    assert adapters.load(folder, backbone=config).config.prefix_length == LENGTH


def test_our_own_rotary_export_asks_for_the_backbone(fill, tmp_path):
    config = AdapterConfig(method="prefix", prefix_length=LENGTH)
    adapter = fill(build(config, tiny_config("llama"), torch.Generator().manual_seed(0)))
    tiny_config("llama").save_pretrained(tmp_path / "model")
    for name, where in (("unknown", None), ("known", str(tmp_path / "model"))):
        given = {"backbone": tiny_config("llama"), "backbone_name": where}
        folder = write_folder(tmp_path / name, adapter, "peft", **given)
        if where is None:
            with pytest.raises(
                AdapterError, match=r"give the model or its configuration, as in adapters.load"
            ):
                adapters.load(folder)
            continue
        back = adapters.load(folder)
        for key, value in adapter.state_dict().items():
            torch.testing.assert_close(back.state_dict()[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", ["num_layers", "token_dim"])
def test_sizes_that_only_together_fit_the_backbone_are_refused(size, tmp_path):
    """Six layers half as wide hold as many numbers, and no part of them is where this backbone has it."""
    model = tiny_model("bert")
    folder, _ = theirs(tmp_path / "theirs", model)
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text())
    other = {"num_layers": 6, "token_dim": 16}[size]
    path.write_text(json.dumps({**values, size: other}))
    with pytest.raises(
        AdapterError, match=f"its {size} is {other}, and of this backbone it is {values[size]}"
    ):
        adapters.load(folder, backbone=model)
