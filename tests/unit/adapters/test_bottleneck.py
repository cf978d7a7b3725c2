"""One bottleneck module, against plain formulas."""

import pytest
import torch
from torch import nn

from adapters.bottleneck import Bottleneck, dropout_mask
from adapters.config import ACTIVATIONS
from adapters.errors import AdapterError

MODULES = {
    "relu": nn.ReLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(),
    "leaky_relu": nn.LeakyReLU(),
    "elu": nn.ELU(),
    "mish": nn.Mish(),
    "identity": nn.Identity(),
}


def made(activation="relu", scaling=1.0, dropout=0.0, seed=0):
    module = Bottleneck(16, 4, activation, scaling, dropout)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=generator)
    return module


def states(*shape, dtype=torch.float32):
    return torch.randn(*shape, 16, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scaling", [1.0, 4.0])
def test_it_is_scaled_up_of_activation_of_down(activation, scaling):
    module = made(activation, scaling).double()
    hidden_states = states(2, 5, dtype=torch.float64)
    expected = scaling * module.up(MODULES[activation](module.down(hidden_states)))
    torch.testing.assert_close(module(hidden_states), expected, rtol=1e-12, atol=1e-12)


def test_every_activation_has_a_function_and_no_other():
    assert set(MODULES) == set(ACTIVATIONS)
    with pytest.raises(AdapterError, match="did you mean 'silu'") as caught:
        Bottleneck(8, 2, "silus")
    assert caught.value.field == "activation"


def test_it_adds_nothing_until_it_is_initialized():
    assert not Bottleneck(16, 4)(states(3)).any()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (0,), (1, 0)])
def test_any_leading_shape(shape):
    assert made()(states(*shape)).shape == (*shape, 16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_it_computes_in_the_dtype_of_what_it_reads_and_trains_in_its_own(dtype):
    module = made()
    result = module(states(6, dtype=dtype))
    assert result.dtype == dtype
    tolerance = {torch.bfloat16: 5e-2, torch.float16: 5e-3}.get(dtype, 1e-5)
    exact = made().double()(states(6, dtype=torch.float64))
    torch.testing.assert_close(result.double(), exact, rtol=tolerance, atol=4 * tolerance)
    result.float().sum().backward()
    assert {parameter.grad.dtype for parameter in module.parameters()} == {torch.float32}


def test_gradients_are_right():
    module = made("gelu", 2.0).double()
    hidden_states = states(3, dtype=torch.float64).requires_grad_()
    weights = dict(module.named_parameters())

    def call(hidden_states, *values):
        return torch.func.functional_call(module, dict(zip(weights, values, strict=True)), (hidden_states,))

    assert torch.autograd.gradcheck(call, (hidden_states, *weights.values()))


def test_dropout_draws_from_its_generator_alone():
    module, hidden_states = made(dropout=0.5), states(40)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = module(hidden_states, torch.Generator().manual_seed(1))
    again = module(hidden_states, torch.Generator().manual_seed(1))
    other = module(hidden_states, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(module.eval()(hidden_states), made()(hidden_states))


def test_dropout_keeps_the_mean_and_masks_units():
    module = made("identity", dropout=0.25).double()
    hidden_states = states(1, dtype=torch.float64).expand(20_000, 16)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        mean = module(hidden_states, generator).mean(0)
        torch.testing.assert_close(mean, module.eval()(hidden_states)[0], rtol=0.05, atol=0.1)
        mask = dropout_mask(torch.empty(20_000, 4), 0.25, generator)
    assert sorted(set(mask.flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert (mask == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)


def test_the_mask_depends_on_no_dtype():
    masks = [
        dropout_mask(torch.empty(7, 4, dtype=dtype), 0.5, torch.Generator().manual_seed(5)).double()
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[1], masks[2])


def test_dropout_without_a_generator_is_refused():
    with pytest.raises(AdapterError, match="generator") as caught:
        made(dropout=0.1)(states(2))
    assert caught.value.field == "dropout"


def test_it_runs_on_meta():
    module = made(dropout=0.5).to("meta")
    result = module(states(2, 3).to("meta"), torch.Generator().manual_seed(0))
    assert result.device.type == "meta"
    assert result.shape == (2, 3, 16)
