"""Routes: each adapter on its own tokens of one flat run."""

from itertools import pairwise

import pytest
import torch

from adapters.config import AdapterConfig
from adapters.errors import AdapterError
from adapters.insert import activate, active, attach, build, insert, names, remove, route
from tests.tiny_models import tiny_model

PLACEMENTS = {
    "bert": ["houlsby", "parallel", "pfeiffer_original", "attention"],
    "roberta": ["parallel", "parallel", "houlsby", "pfeiffer"],
    "distilbert": ["pfeiffer_original", "houlsby", "parallel", "parallel"],
    "gpt2": ["houlsby", "parallel", "attention", "parallel"],
}
TOKENS = 40
# A gap in front, between and behind; one adapter twice.
ROUTES = [("a0", 3, 10), ("a1", 10, 18), ("a2", 20, 27), ("a3", 27, 29), ("a0", 30, 36)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def texts():
    """The boundaries of the texts: those of the routes, and the gaps between."""
    edges = sorted({0, TOKENS} | {edge for _, start, stop in ROUTES for edge in (start, stop)})
    return list(pairwise(edges))


def flat_hidden(model, input_ids):
    """Last hidden states of a flat run, each text attending to itself alone."""
    mask = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    positions = torch.zeros(TOKENS, dtype=torch.int64)
    first = 2 if model.config.model_type == "roberta" else 0
    for start, stop in texts():
        mask[start:stop, start:stop] = True
        positions[start:stop] = torch.arange(stop - start) + first
    if model.config.model_type == "gpt2":
        mask = mask.tril()
    keys = {} if model.config.model_type == "distilbert" else {"position_ids": positions[None]}
    return model(input_ids[None], attention_mask=mask[None, None], **keys).last_hidden_state[0]


def model_with_adapters(family, fill, **fields):
    model = tiny_model(family).double()
    adapters = []
    for index, placement in enumerate(PLACEMENTS[family]):
        config = AdapterConfig(bottleneck_dim=3 + index, placement=placement, activation="gelu", **fields)
        adapter = fill(build(config, model.config, generator(index)), seed=index).double()
        adapters.append(attach(model, adapter, f"a{index}"))
    return model, adapters


@pytest.fixture
def input_ids():
    return torch.randint(5, 100, (TOKENS,), generator=generator(8))


@pytest.mark.parametrize("family", PLACEMENTS)
def test_a_routed_run_equals_separate_runs(family, input_ids, fill):
    model, adapters = model_with_adapters(family, fill)
    weights = torch.randn(TOKENS, 32, generator=generator(5), dtype=torch.float64)
    with route(model, ROUTES):
        routed = flat_hidden(model, input_ids)
    (routed * weights).sum().backward()
    gradients = [[parameter.grad.clone() for parameter in adapter.parameters()] for adapter in adapters]
    model.zero_grad()
    owners = {(start, stop): name for name, start, stop in ROUTES}
    for start, stop in texts():
        activate(model, owners.get((start, stop)))
        whole = flat_hidden(model, input_ids)
        torch.testing.assert_close(routed[start:stop], whole[start:stop], rtol=1e-10, atol=1e-10)
        if active(model) is not None:
            (whole[start:stop] * weights[start:stop]).sum().backward()
    for adapter, expected in zip(adapters, gradients, strict=True):
        for parameter, gradient in zip(adapter.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", PLACEMENTS)
def test_tokens_of_no_adapter_are_unchanged_and_their_gradient_flows(family, input_ids, fill):
    model = tiny_model(family).double()
    alone = flat_hidden(model, input_ids)
    _, adapters = model_with_adapters(family, fill)
    for index, adapter in enumerate(adapters):
        attach(model, adapter, f"a{index}")
    embedded = []
    table = model.get_input_embeddings()
    handle = table.register_forward_hook(
        lambda module, args, output: embedded.append(output.requires_grad_())
    )
    with route(model, ROUTES):
        routed = flat_hidden(model, input_ids)
    handle.remove()
    torch.testing.assert_close(routed[36:], alone[36:], rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad((routed * torch.linspace(-1, 1, 32)).sum(), embedded[0])
    assert (gradient[0].abs().sum(-1) > 0).all()


def test_one_route_over_everything_is_the_active_adapter(input_ids, fill):
    model, _ = model_with_adapters("bert", fill)
    activate(model, "a2")
    expected = flat_hidden(model, input_ids)
    activate(model, None)
    with route(model, [("a2", 0, TOKENS)]):
        assert torch.equal(flat_hidden(model, input_ids), expected)


def test_no_routes_are_the_backbone_alone(input_ids, fill):
    alone = flat_hidden(tiny_model("bert").double(), input_ids)
    model, adapters = model_with_adapters("bert", fill)
    with route(model, []):
        assert torch.equal(flat_hidden(model, input_ids), alone)
    for index in range(len(adapters)):
        remove(model, f"a{index}")
    with route(model, []):
        assert torch.equal(flat_hidden(model, input_ids), alone)


def test_the_order_of_routes_does_not_matter(input_ids, fill):
    model, _ = model_with_adapters("bert", fill)
    with route(model, ROUTES):
        expected = flat_hidden(model, input_ids)
    with route(model, ROUTES[::-1]):
        assert torch.equal(flat_hidden(model, input_ids), expected)


@pytest.mark.parametrize("before", [None, "a1"])
def test_leaving_restores_the_active_adapter_even_after_an_error(before, input_ids, fill):
    model, _ = model_with_adapters("bert", fill)
    activate(model, before)
    expected = flat_hidden(model, input_ids)
    with pytest.raises(AdapterError), route(model, ROUTES):
        model(input_ids[None, :35])
    assert active(model) == before
    assert torch.equal(flat_hidden(model, input_ids), expected)


def test_each_adapter_draws_dropout_from_its_own_generator(input_ids, fill):
    model, adapters = model_with_adapters("bert", fill, dropout=0.5)

    def routed(routes):
        for index, adapter in enumerate(adapters):
            adapter.generator = generator(index)
        with route(model, routes):
            return flat_hidden(model, input_ids)

    together, apart = routed(ROUTES[1:4]), routed(ROUTES[2:3])
    torch.testing.assert_close(together[20:27], apart[20:27], rtol=1e-10, atol=1e-10)


def test_nothing_changes_inside_a_route(fill):
    model, _ = model_with_adapters("bert", fill)
    config = AdapterConfig(bottleneck_dim=2)
    with route(model, ROUTES):
        for change in (
            lambda: activate(model, "a1"),
            lambda: remove(model, "a1"),
            lambda: insert(model, config, "new", generator=generator()),
            lambda: attach(model, build(config, model.config, generator()), "new"),
            lambda: route(model, ROUTES).__enter__(),
        ):
            with pytest.raises(AdapterError, match="inside `route`"):
                change()
    assert names(model) == ("a0", "a1", "a2", "a3")
    assert active(model) == "a3"


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ([("nobody", 0, 4)], "no adapter named 'nobody'"),
        ([("a0", 4, 4)], "no range"),
        ([("a0", 5, 4)], "no range"),
        ([("a0", -1, 4)], "no range"),
        ([("a0", 0.0, 4)], "no range"),
        ([("a0", False, True)], "no range"),
        ([("a0", 0, 5), ("a1", 4, 8)], "overlap"),
        ([("a0", 0, 5), ("a0", 0, 5)], "overlap"),
    ],
)
def test_routes_that_make_no_sense_are_refused(routes, message, fill):
    model, _ = model_with_adapters("bert", fill)
    with pytest.raises(AdapterError, match=message), route(model, routes):
        pass
    assert active(model) == "a3"


def test_an_input_that_does_not_fit_the_routes_is_refused(input_ids, fill):
    model, _ = model_with_adapters("bert", fill)
    with route(model, ROUTES):
        with pytest.raises(AdapterError, match="flat input"):
            model(input_ids[None, :35])
        with pytest.raises(AdapterError, match="flat input"):
            model(input_ids[None].expand(2, TOKENS))


def test_a_chunked_feed_forward_cannot_be_routed(fill):
    model, _ = model_with_adapters("bert", fill)
    model.config.chunk_size_feed_forward = 8
    with pytest.raises(AdapterError, match="chunk_size_feed_forward"), route(model, ROUTES):
        pass


def test_a_model_without_adapters_has_no_routes():
    with pytest.raises(AdapterError, match="no adapter"), route(tiny_model("bert"), ROUTES):
        pass
