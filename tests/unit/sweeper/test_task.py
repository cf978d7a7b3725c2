"""Heads, pooling, losses and metrics against plain definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sweeper.data import Split
from sweeper.task import METRICS, loss, make_head, measure, outputs, pool


def metrics(kind: str, outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Of texts of one token each."""
    offsets = torch.arange(len(labels) + 1)
    return measure(kind, outputs, Split(torch.zeros(len(labels)), None, offsets, labels), None)


POOLINGS = ["cls", "mean", "last"]
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def flat(lengths: list[int], seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden_states = torch.randn(sum(lengths), 5, generator=generator, dtype=torch.float64).to(dtype)
    return hidden_states, torch.tensor([0, *torch.tensor(lengths).cumsum(0)])


@settings(deadline=None)
@given(lengths=LENGTHS)
def test_pooling_is_what_its_name_says(lengths: list[int]) -> None:
    hidden_states, offsets = flat(lengths)
    texts = hidden_states.split(lengths)
    assert torch.equal(pool(hidden_states, offsets, "cls"), torch.stack([text[0] for text in texts]))
    assert torch.equal(pool(hidden_states, offsets, "last"), torch.stack([text[-1] for text in texts]))
    means = torch.stack([text.mean(0) for text in texts])
    torch.testing.assert_close(pool(hidden_states, offsets, "mean"), means, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@settings(deadline=None, max_examples=30)
@given(lengths=LENGTHS, data=st.data())
def test_a_text_does_not_depend_on_its_neighbours(
    how: str, dtype: torch.dtype, lengths: list[int], data: st.DataObject
) -> None:
    """Bit for bit, and neighbours a million times as large would show in any shared sum."""
    hidden_states, offsets = flat(lengths, dtype=dtype)
    place = data.draw(st.integers(0, len(lengths) - 1))
    start, stop = int(offsets[place]), int(offsets[place + 1])
    changed = hidden_states * 1e6
    changed[start:stop] = hidden_states[start:stop]
    alone = pool(hidden_states[start:stop], torch.tensor([0, stop - start]), how)[0]
    assert torch.equal(pool(hidden_states, offsets, how)[place], alone)
    assert torch.equal(pool(changed, offsets, how)[place], alone)


@pytest.mark.parametrize("how", POOLINGS)
def test_gradients_of_pooling(how: str) -> None:
    hidden_states, offsets = flat([3, 1, 4])
    hidden_states.requires_grad_()
    assert torch.autograd.gradcheck(lambda states: pool(states, offsets, how), hidden_states)


@pytest.mark.parametrize("how", POOLINGS)
def test_pooling_raises_half_precision(how: str) -> None:
    hidden_states, offsets = flat([200, 3], dtype=torch.bfloat16)
    pooled = pool(hidden_states, offsets, how)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, pool(hidden_states.double(), offsets, how).float())


@pytest.mark.parametrize("how", POOLINGS)
def test_pooling_leaves_no_tensor_behind(how: str) -> None:
    hidden_states = torch.empty(8, 5, device="meta", requires_grad=True)
    pooled = pool(hidden_states, torch.empty(4, dtype=torch.int64, device="meta"), how)
    assert (pooled.device.type, pooled.shape) == ("meta", (3, 5))
    pooled.sum().backward()
    assert hidden_states.grad is not None


def test_unknown_pooling() -> None:
    with pytest.raises(ValueError, match="cls, mean or last"):
        pool(*flat([2]), "max")


def test_a_head_is_drawn_from_its_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = make_head(32, 3, torch.Generator().manual_seed(1))
    again = make_head(32, 3, torch.Generator().manual_seed(1))
    other = make_head(32, 3, torch.Generator().manual_seed(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.shape == (3, 32)
    assert first.weight.dtype == torch.float32
    assert first.weight.requires_grad
    assert 0.01 < first.weight.std().item() < 0.03
    assert not first.bias.any()


def test_outputs() -> None:
    assert outputs("regression", None) == 1
    assert outputs("classification", ("a", "b", "c")) == 3
    with pytest.raises(ValueError, match="labels"):
        outputs("classification", None)


def test_losses() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    expected = (
        -sum(
            math.log(math.exp(row[k]) / sum(map(math.exp, row)))
            for row, k in zip(logits, labels, strict=True)
        )
        / 3
    )
    assert loss("classification", logits, labels).item() == pytest.approx(expected, rel=1e-12)
    values = torch.tensor([[1.0], [2.0], [4.0]])
    assert loss("regression", values, torch.tensor([1.0, 0.0, 5.0])).item() == pytest.approx(5 / 3)


def test_the_loss_of_a_regression_keeps_the_dtype_of_its_logits() -> None:
    logits = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    found = loss("regression", logits, torch.tensor([1.0, 2.0]))
    found.backward()
    assert found.dtype == torch.float64
    assert logits.grad is not None and logits.grad.flatten().tolist() == [-1.0, -2.0]


def test_metrics_of_a_classification() -> None:
    # Predicted 0 0 1 1 2, true 0 1 1 1 0: by hand.
    logits = torch.eye(3)[[0, 0, 1, 1, 2]] * 4
    found = metrics("classification", logits, torch.tensor([0, 1, 1, 1, 0]))
    assert set(found) == set(METRICS["classification"])
    assert found["accuracy"] == pytest.approx(3 / 5)
    f1 = [2 * 1 / (2 * 1 + 1 + 1), 2 * 2 / (2 * 2 + 0 + 1), 0.0]
    assert found["f1_macro"] == pytest.approx(sum(f1) / 3)
    covariance = 3 * 5 - (2 * 2 + 2 * 3 + 1 * 0)
    spread = (25 - (4 + 4 + 1)) * (25 - (4 + 9))
    assert found["matthews"] == pytest.approx(covariance / math.sqrt(spread))
    expected = torch.nn.functional.cross_entropy(logits.double(), torch.tensor([0, 1, 1, 1, 0]))
    assert found["loss"] == pytest.approx(expected.item())


def test_a_label_that_is_never_predicted(recwarn: pytest.WarningsRecorder) -> None:
    found = metrics("classification", torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 1, 0, 1]))
    assert found["matthews"] == 0.0
    assert found["f1_macro"] == pytest.approx(1 / 3)
    assert not recwarn.list


def test_metrics_of_a_regression() -> None:
    predicted, truth = [1.0, 2.0, 4.0, 3.5], [1.5, 2.0, 3.0, 5.0]
    found = metrics("regression", torch.tensor(predicted)[:, None], torch.tensor(truth))
    assert set(found) == set(METRICS["regression"])
    n, mean_p, mean_t = 4, sum(predicted) / 4, sum(truth) / 4
    covariance = sum((p - mean_p) * (t - mean_t) for p, t in zip(predicted, truth, strict=True))
    spread = sum((p - mean_p) ** 2 for p in predicted) * sum((t - mean_t) ** 2 for t in truth)
    assert found["pearson"] == pytest.approx(covariance / math.sqrt(spread))
    # Ranks 1 2 4 3 against 1 2 3 4: two differ by one.
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (n * (n * n - 1)))
    squares = sum((p - t) ** 2 for p, t in zip(predicted, truth, strict=True)) / n
    assert found["mean_squared_error"] == found["loss"] == pytest.approx(squares)


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]), ([1.0], [2.0])],
)
def test_a_correlation_that_does_not_exist_is_nan(
    predicted: list[float], truth: list[float], recwarn: pytest.WarningsRecorder
) -> None:
    found = metrics("regression", torch.tensor(predicted)[:, None], torch.tensor(truth))
    assert math.isnan(found["pearson"]) and math.isnan(found["spearman"])
    assert math.isfinite(found["mean_squared_error"])
    assert not recwarn.list


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_give_nan(bad: float) -> None:
    assert all(map(math.isnan, metrics("regression", torch.tensor([[1.0], [bad]]), torch.zeros(2)).values()))
    logits = torch.tensor([[1.0, 0.0], [bad, 0.0]])
    assert all(map(math.isnan, metrics("classification", logits, torch.tensor([0, 0])).values()))
