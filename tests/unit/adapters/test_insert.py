"""Adapters in real models: identity, wiring, gradients, removal, names."""

import copy
import re

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BartForCausalLM,
    BloomConfig,
    BloomModel,
    DebertaConfig,
    DebertaModel,
    T5EncoderModel,
)

from adapters.architectures import ARCHITECTURES, Architecture, architecture_of, register
from adapters.config import PLACEMENTS, AdapterConfig
from adapters.errors import AdapterError
from adapters.insert import activate, active, attach, build, get, insert, names, remove
from adapters.pack import Pack
from tests.tiny_models import MAIN_FAMILIES, tiny_config, tiny_model

EVERYWHERE = [
    (family, placement)
    for family in MAIN_FAMILIES
    for placement in PLACEMENTS
    if not (family == "gpt2" and placement == "pfeiffer_original")
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def config_of(placement="pfeiffer", **fields):
    return AdapterConfig(**{"bottleneck_dim": 4, "placement": placement, **fields})


def hidden(model, tokens):
    return model.base_model(tokens).last_hidden_state


def hooks_of(model):
    return {
        (name, *map(id, hooks.values()))
        for name, module in model.named_modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        if hooks
    }


def flags_of(model):
    return (
        {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        {name: module.training for name, module in model.named_modules()},
        {name: set(vars(module)) for name, module in model.named_modules()},
    )


@pytest.mark.parametrize(("family", "placement"), EVERYWHERE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_zero_up_changes_no_bit_and_removal_none_either(family, placement, dtype, tokens, fill):
    model = tiny_model(family).to(dtype)
    alone = hidden(model, tokens)
    adapter = insert(model, config_of(placement), generator=generator())
    assert torch.equal(hidden(model, tokens), alone)
    fill(adapter)
    changed = hidden(model, tokens)
    assert changed.dtype == dtype
    assert not torch.allclose(changed, alone, atol=1e-2)
    activate(model, None)
    assert torch.equal(hidden(model, tokens), alone)
    activate(model, "default")
    assert torch.equal(hidden(model, tokens), changed)
    assert remove(model) is adapter
    assert torch.equal(hidden(model, tokens), alone)


def post_norm_layer(parts, placement, modules, read):
    """A post-norm layer in plain formulas; `modules` are this layer's, by sublayer."""
    attend, attention_norm, feed_forward, ffn_norm = parts
    h = attend(read)
    if "attention" in modules:
        h = h + modules["attention"](h)
    x = attention_norm(h + read)
    h = feed_forward(x)
    if placement in ("houlsby", "pfeiffer"):
        h = h + modules["ffn"](h)
    elif placement == "parallel":
        h = h + modules["ffn"](x)
    elif placement == "pfeiffer_original":
        return ffn_norm(modules["ffn"](ffn_norm(h + x)) + h + x)
    return ffn_norm(h + x)


def bert_parts(layer):
    def attend(read):
        return layer.attention.output.dense(layer.attention.self(read)[0])

    def feed_forward(x):
        return layer.output.dense(layer.intermediate(x))

    return attend, layer.attention.output.LayerNorm, feed_forward, layer.output.LayerNorm


def distilbert_parts(layer):
    def attend(read):
        return layer.attention(read)[0]

    return attend, layer.sa_layer_norm, layer.ffn, layer.output_layer_norm


def modules_of_layer(adapter, index):
    prefix = f"layer_{index}_"
    return {
        key.removeprefix(prefix): module
        for key, module in adapter.modules_by_site.items()
        if key.startswith(prefix)
    }


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("scaling", [1.0, 2.5])
def test_wiring_of_post_norm_families_is_that_of_the_formulas(family, placement, scaling, tokens, fill):
    model = tiny_model(family).double()
    adapter = build(config_of(placement, scaling=scaling), model.config, generator())
    fill(adapter).double()
    parts = distilbert_parts if family == "distilbert" else bert_parts
    expected = model.embeddings(tokens)
    for number, layer in enumerate(model.get_submodule(architecture_of(model).layers)):
        modules = modules_of_layer(adapter, number)
        expected = post_norm_layer(parts(layer), placement, modules, expected)
    attach(model, adapter)
    torch.testing.assert_close(hidden(model, tokens), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "attention", "parallel"])
def test_wiring_of_gpt2_is_that_of_the_formulas(placement, tokens, fill):
    model = tiny_model("gpt2").double()
    adapter = build(config_of(placement), model.config, generator())
    fill(adapter).double()
    states = model.wte(tokens) + model.wpe(torch.arange(tokens.shape[1]))
    for number, block in enumerate(model.h):
        modules = modules_of_layer(adapter, number)
        h = block.attn(block.ln_1(states))[0]
        if "attention" in modules:
            h = h + modules["attention"](h)
        states = states + h
        read = block.ln_2(states)  # what the FFN reads: after the norm
        h = block.mlp(read)
        if placement in ("houlsby", "pfeiffer"):
            h = h + modules["ffn"](h)
        elif placement == "parallel":
            h = h + modules["ffn"](read)
        states = states + h
    attach(model, adapter)
    torch.testing.assert_close(hidden(model, tokens), model.ln_f(states), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("family", "placement"), EVERYWHERE)
def test_gradients_reach_the_adapter_only_and_all_of_it(family, placement, tokens, fill):
    model = tiny_model(family)
    adapter = fill(insert(model, config_of(placement, activation="gelu"), generator=generator()))
    (hidden(model, tokens) * torch.linspace(-1, 1, 32)).sum().backward()
    own = {id(parameter) for parameter in adapter.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in own:
            assert parameter.grad.any(), name
        else:
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name


def test_gradients_are_those_of_finite_differences(tokens):
    model = tiny_model("bert", layers=2).double()
    adapter = insert(model, config_of("houlsby", initialization="normal"), generator=generator()).double()
    target = torch.randn(32, generator=generator(1), dtype=torch.float64)

    def loss():
        return (hidden(model, tokens) @ target).square().mean()

    loss().backward()
    for name, parameter in adapter.named_parameters():
        entry = parameter.data.view(-1)[1:2]
        numeric = []
        for step in (1e-5, -2e-5):
            entry += step
            numeric.append(loss().item())
        entry += 1e-5
        expected = (numeric[0] - numeric[1]) / 2e-5
        assert parameter.grad.view(-1)[1].item() == pytest.approx(expected, rel=1e-4, abs=1e-7), name


def test_only_the_sites_of_the_active_adapter_carry_a_hook(tokens):
    model = tiny_model("bert", layers=4)
    before = hooks_of(model)
    insert(model, config_of("houlsby", layers="upper_half"), generator=generator())
    where = sorted(name for name, *_ in hooks_of(model) - before)
    assert where == sorted(
        f"encoder.layer.{layer}.{path}"
        for layer in (2, 3)
        for path in ("attention.output.dense", "output.dense")
    )
    activate(model, None)
    assert hooks_of(model) == before


@pytest.mark.parametrize("family", MAIN_FAMILIES)
@pytest.mark.parametrize("training", [True, False])
def test_after_the_last_removal_all_is_as_before(family, training, tokens):
    model = tiny_model(family, auto_class=AutoModelForSequenceClassification).train(training)
    next(model.base_model.parameters()).requires_grad_(False)
    state = copy.deepcopy(model.state_dict())
    keys, flags, hooks, text = list(state), flags_of(model), hooks_of(model), repr(model)
    insert(model, config_of("houlsby"), "a", generator=generator())
    assert not any(module.training for module in next(model.base_model.children()).modules())
    insert(model, config_of("parallel"), "b", generator=generator())
    remove(model, "a")
    assert names(model) == ("b",)
    assert active(model) == "b"
    remove(model, "b")
    assert flags_of(model) == flags
    assert hooks_of(model) == hooks
    assert repr(model) == text
    assert list(model.state_dict()) == keys
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    again = copy.deepcopy(model).eval()
    assert list(again.state_dict()) == keys
    assert torch.equal(hidden(again, tokens), hidden(model.eval(), tokens))


def test_the_backbone_is_frozen_and_in_eval_mode_but_not_the_head(tokens):
    model = tiny_model("bert", auto_class=AutoModelForSequenceClassification).train()
    adapter = insert(model, config_of(), generator=generator())
    assert adapter.training
    assert all(parameter.requires_grad for parameter in model.classifier.parameters())
    trainable = {name for name, parameter in model.base_model.named_parameters() if parameter.requires_grad}
    assert trainable == {f"sweeper_adapters.adapters.default.{key}" for key in adapter.state_dict()}
    assert not model.base_model.encoder.training
    model.base_model(tokens)


def test_several_adapters_one_active(tokens, fill):
    model = tiny_model("bert")
    alone = hidden(model, tokens)
    outputs = {None: alone}
    for seed, (name, placement) in enumerate(
        [("a", "houlsby"), ("b", "parallel"), ("c", "pfeiffer_original")]
    ):
        fill(insert(model, config_of(placement), name, generator=generator(seed)), seed)
        assert active(model) == name
        outputs[name] = hidden(model, tokens)
    assert names(model) == ("a", "b", "c")
    for name in ["a", None, "c", "b", "b", "a"]:
        activate(model, name)
        assert active(model) == name
        assert torch.equal(hidden(model, tokens), outputs[name])
    remove(model, "b")
    assert active(model) == "a"
    assert torch.equal(hidden(model, tokens), outputs["a"])
    remove(model, "a")
    assert active(model) is None
    assert torch.equal(hidden(model, tokens), alone)
    activate(model, "c")
    assert torch.equal(hidden(model, tokens), outputs["c"])


def test_an_adapter_moves_to_another_model_of_its_family(tokens, fill):
    first, second = tiny_model("bert", seed=0), tiny_model("bert", seed=0)
    adapter = fill(insert(first, config_of(), generator=generator()))
    expected = hidden(first, tokens)
    attach(second, remove(first), "moved")
    assert torch.equal(hidden(second, tokens), expected)
    assert get(second, "moved") is adapter


def test_a_copy_of_a_model_has_adapters_of_its_own(tokens, fill):
    model = tiny_model("bert")
    adapter = fill(insert(model, config_of(dropout=0.5), generator=generator()))
    adapter.generator = generator(3)
    adapter.eval()
    expected = hidden(model, tokens)
    twin = copy.deepcopy(model)
    fill(adapter, seed=9)
    assert not torch.equal(hidden(model, tokens), expected)
    assert torch.equal(hidden(twin, tokens), expected)
    remove(model)
    assert torch.equal(hidden(twin, tokens), expected)
    remove(twin)
    assert torch.equal(hidden(twin, tokens), hidden(model, tokens))


def test_the_adapter_goes_where_the_model_goes(tokens):
    model = tiny_model("gpt2")
    adapter = insert(model, config_of(), generator=generator())
    model.double()
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float64}
    assert hidden(model, tokens).dtype == torch.float64


@pytest.mark.parametrize(("family", "placement"), EVERYWHERE)
def test_a_step_on_meta_leaves_no_tensor_behind(family, placement):
    model = tiny_model(family).to("meta")
    adapter = insert(model, config_of(placement, dropout=0.5), generator=generator())
    adapter.generator = generator(1)
    # Embedded first: given ids, GPT-2 looks for padding tokens among them, which meta has not.
    embedded = model.get_input_embeddings()(torch.zeros(2, 6, dtype=torch.int64, device="meta"))
    output = model(inputs_embeds=embedded).last_hidden_state
    output.sum().backward()
    assert output.device.type == "meta"
    assert {parameter.grad.device.type for parameter in adapter.parameters()} == {"meta"}


def test_dropout_in_a_model_draws_from_the_adapters_generator(tokens, fill):
    model = tiny_model("bert")
    adapter = fill(insert(model, config_of(dropout=0.5), generator=generator()))
    with pytest.raises(AdapterError, match="generator"):
        hidden(model, tokens)
    adapter.generator = generator(1)
    first = hidden(model, tokens)
    assert not torch.equal(hidden(model, tokens), first)
    adapter.generator.manual_seed(1)
    assert torch.equal(hidden(model, tokens), first)
    adapter.eval()
    assert torch.equal(hidden(model, tokens), hidden(model, tokens))


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("field", ["dropout", "stochastic_depth"])
def test_dropout_is_refused_where_layers_are_computed_again(family, field, tokens, fill):
    model = tiny_model(family)
    adapter = insert(model, config_of(**{field: 0.3}), generator=generator())
    adapter.generator = generator(3)
    inputs = {"input_ids": tokens} | ({"decoder_input_ids": tokens} if family == "t5" else {})
    model.gradient_checkpointing_enable()
    model.train()
    with pytest.raises(AdapterError, match="gradient checkpointing computes layers again"):
        model(**inputs)
    adapter.eval()
    model(**inputs)
    adapter.train()
    model.gradient_checkpointing_disable()
    model(**inputs)


@pytest.mark.parametrize("placement", ["houlsby", "parallel"])
def test_gpt2_generates_with_a_cache_as_without(placement, tokens, fill):
    model = tiny_model("gpt2", auto_class=AutoModelForCausalLM).double()
    arguments = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    alone = model.generate(tokens, attention_mask=torch.ones_like(tokens), **arguments)
    fill(insert(model, config_of(placement), generator=generator()), seed=2).double()
    texts = [
        model.generate(tokens, attention_mask=torch.ones_like(tokens), use_cache=cached, **arguments)
        for cached in (True, False)
    ]
    assert texts[0].shape[1] == tokens.shape[1] + 20
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], alone)
    remove(model)
    assert torch.equal(model.generate(tokens, attention_mask=torch.ones_like(tokens), **arguments), alone)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_chunked_feed_forward_computes_the_same(family, placement, tokens, fill):
    model = tiny_model(family).double()
    fill(insert(model, config_of(placement), generator=generator())).double()
    whole = hidden(model, tokens)
    for layer in model.get_submodule(architecture_of(model).layers):
        getattr(layer, "ffn", layer).chunk_size_feed_forward = 4
    torch.testing.assert_close(hidden(model, tokens), whole, rtol=1e-12, atol=1e-12)


def test_what_a_model_cannot_hold_is_refused_and_nothing_changes(tokens):
    model = tiny_model("bert")
    keys, flags = list(model.state_dict()), flags_of(model)
    for wrong in ("", "a.b", "a b", "ä", "keys", "training", "x" * 129, None, 3):
        with pytest.raises(AdapterError, match="cannot name"):
            insert(model, config_of(), wrong, generator=generator())
    with pytest.raises(AdapterError, match="wider"):
        insert(model, config_of(bottleneck_dim=33), generator=generator())
    with pytest.raises(AdapterError, match="out of range"):
        insert(model, config_of(layers=(3,)), generator=generator())
    with pytest.raises(AdapterError, match="expected an Adapter,"):
        attach(model, config_of())
    with pytest.raises(AdapterError, match="expected an AdapterConfig,"):
        insert(model, config_of().to_dict(), generator=generator())
    with pytest.raises(AdapterError, match="pass one"):
        insert(model, config_of(), generator=None)
    other = build(config_of(), tiny_config("bert", layers=4), generator())
    with pytest.raises(AdapterError, match="of 4 layers"):
        attach(model, other)
    with pytest.raises(AdapterError, match="roberta"):
        attach(model, build(config_of(), tiny_config("roberta"), generator()))
    assert list(model.state_dict()) == keys
    assert flags_of(model) == flags


def test_names_are_checked():
    model = tiny_model("bert")
    assert names(model) == ()
    assert active(model) is None
    activate(model, None)
    for call in (remove, get, activate):
        with pytest.raises(AdapterError, match="the model has none"):
            call(model, "a")
    adapter = insert(model, config_of(), "a", generator=generator())
    with pytest.raises(AdapterError, match="already has"):
        insert(model, config_of(), "a", generator=generator())
    with pytest.raises(AdapterError, match="already in the model, as 'a'"):
        attach(model, adapter, "b")
    for call in (remove, get, activate):
        with pytest.raises(AdapterError, match="known: a"):
            call(model, "b")
    assert names(model) == ("a",)


def test_only_hugging_face_models_of_known_families():
    with pytest.raises(AdapterError, match="Hugging Face"):
        insert(torch.nn.Linear(2, 2), config_of(), generator=generator())
    bloom = BloomModel(BloomConfig(hidden_size=8, n_layer=1, n_head=2, vocab_size=10))
    with pytest.raises(AdapterError, match="no row"):
        insert(bloom, config_of(), generator=generator())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_autocast(placement, tokens, fill):
    model = tiny_model("bert")
    fill(insert(model, config_of(placement), generator=generator()))
    exact = hidden(model, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = hidden(model, tokens)
    torch.testing.assert_close(cast.float(), exact, rtol=0.1, atol=0.1)


def test_a_variant_whose_modules_are_elsewhere_is_refused():
    model = tiny_model("bert")
    del model.encoder.layer[1].output.dense
    with pytest.raises(AdapterError, match=r"'encoder\.layer\.1\.output\.dense'"):
        insert(model, config_of(), generator=generator())
    assert names(model) == ()


@pytest.fixture
def deberta():
    """A model whose attention takes no prefix, which is found out only where its hooks are set."""
    linears = {"query_key_value": "attention.self.in_proj", "ffn_up": "intermediate.dense"}
    paths = {"layers": "encoder.layer", "attention": "attention.output.dense", "ffn": "output.dense"}
    register(Architecture.from_dict("deberta", {**paths, "linears": linears}))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    yield DebertaModel(DebertaConfig(**sizes, vocab_size=100)).train()
    del ARCHITECTURES["deberta"]


PREFIXES = [AdapterConfig(method="prefix"), AdapterConfig(method="mam", bottleneck_dim=4)]


@pytest.mark.parametrize("config", PREFIXES)
def test_a_refused_hook_leaves_the_model_as_it_was(config, deberta, tokens):
    deberta.embeddings.requires_grad_(False)
    keys, flags, hooks = list(deberta.state_dict()), flags_of(deberta), hooks_of(deberta)
    with pytest.raises(AdapterError, match="takes no prefix"):
        insert(deberta, config, generator=generator())
    assert (names(deberta), active(deberta)) == ((), None)
    assert list(deberta.state_dict()) == keys
    assert flags_of(deberta) == flags
    assert hooks_of(deberta) == hooks


@pytest.mark.parametrize("config", PREFIXES)
def test_a_refused_hook_leaves_the_adapters_that_were_there(config, deberta, tokens, fill):
    fill(insert(deberta, config_of("houlsby"), "a", generator=generator()))
    expected, keys, flags = hidden(deberta, tokens), list(deberta.state_dict()), flags_of(deberta)
    with pytest.raises(AdapterError, match="takes no prefix"):
        insert(deberta, config, "b", generator=generator())
    assert (names(deberta), active(deberta)) == (("a",), "a")
    assert list(deberta.state_dict()) == keys
    assert flags_of(deberta) == flags
    assert torch.equal(hidden(deberta, tokens), expected)


def test_a_refused_hook_leaves_the_slot_of_a_pack_free(deberta):
    pack = Pack(deberta)
    with pytest.raises(AdapterError, match="takes no prefix"):
        pack.put(0, build(PREFIXES[0], deberta.config, generator()))
    assert names(deberta) == ()
    pack.put(0, build(config_of(), deberta.config, generator()))


OTHER_SIZES = [
    ("llama", {"num_key_value_heads": 4}, {"method": "lora"}, "layer_0_value.up.weight is [16, 8]"),
    ("llama", {"num_key_value_heads": 4}, {"method": "dora"}, "layer_0_value.up.weight is [16, 8]"),
    ("llama", {"intermediate_size": 48}, {"method": "lora", "targets": "ffn"}, "layer_0_ffn_up.up.weight"),
    ("llama", {"intermediate_size": 48}, {"method": "ia3"}, "layer_0_ffn_down.scale is [64]"),
    ("llama", {"num_key_value_heads": 4}, {"method": "prefix"}, "layer_0_prefix.keys is [30, 16]"),
    ("llama", {"num_key_value_heads": 4}, {"method": "mam", "bottleneck_dim": 4}, "layer_0_prefix.keys"),
    ("bert", {"intermediate_size": 48}, {"method": "bitfit"}, "bias is [64], and the model takes [48]"),
]


@pytest.mark.parametrize(("family", "change", "fields", "message"), OTHER_SIZES)
def test_an_adapter_for_a_model_of_other_sizes_is_refused(family, change, fields, message):
    config = tiny_config(family, layers=2)
    adapter = build(AdapterConfig(**fields), config, generator())
    for name, value in change.items():
        setattr(config, name, value)
    model = AutoModel.from_config(config)
    with pytest.raises(AdapterError, match=re.escape(message)):
        attach(model, adapter)
    assert names(model) == ()


def test_other_sizes_of_what_an_adapter_does_not_act_on_do_no_harm(tokens):
    config = tiny_config("llama", layers=2)
    adapter = build(AdapterConfig(method="lora"), config, generator())
    config.intermediate_size = 48
    model = AutoModel.from_config(config)
    attach(model, adapter)
    hidden(model, tokens)


@pytest.mark.parametrize("fields", [{"bottleneck_dim": 4}, {"method": "lora"}, {"method": "loreft"}])
def test_the_encoder_and_the_decoder_of_an_adapter_are_those_of_the_model(fields):
    config = tiny_config("t5", layers=2)
    config.num_layers, config.num_decoder_layers = 1, 3
    adapter = build(AdapterConfig(**fields), config, generator())
    model = tiny_model("t5", layers=2)
    with pytest.raises(AdapterError, match=r"a t5 of 1 \+ 3 layers, .*; the model is one of 2 \+ 2"):
        attach(model, adapter)
    attach(AutoModel.from_config(config), adapter)


def test_half_of_an_encoder_decoder_takes_the_layers_that_it_has(tokens):
    encoder = T5EncoderModel(tiny_config("t5", layers=2)).eval()
    for layers in ("all", "upper_half", [1, 2]):
        with pytest.raises(AdapterError, match=r"T5EncoderModel has no decoder: .* layers=\[0, 1\]$"):
            insert(encoder, config_of(layers=layers), generator=generator())
    insert(encoder, config_of(layers=[0, 1]), generator=generator())
    encoder(tokens)
    decoder = BartForCausalLM(tiny_config("bart", layers=2))
    with pytest.raises(AdapterError, match=r"has no encoder: .* layers=\[2, 3\]$"):
        insert(decoder, config_of(), generator=generator())
    insert(decoder, config_of(layers=[2, 3]), generator=generator())
    remove(decoder)
    insert(decoder, config_of(layers=[2, 3], dropout=0.1), generator=generator())
    decoder.gradient_checkpointing_enable()
    with pytest.raises(AdapterError, match="gradient checkpointing computes layers again"):
        decoder.train()(tokens)
