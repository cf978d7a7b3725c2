"""A flat run of tokens gives what padded batches give, text by text."""

import pytest
import torch

from adapters.flat import Sequences, prepare
from adapters.run import flat_forward
from tests.tiny_models import VOCABULARY, tiny_model

FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "gpt2")


def texts(lengths: list[int], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, VOCABULARY, (length,), generator=generator) for length in lengths]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [[7], [3, 3, 5], [1, 9, 2, 9, 1]])
def test_equals_the_model_run_text_by_text(family: str, lengths: list[int]) -> None:
    model = tiny_model(family).double()
    inputs = texts(lengths)
    expected = torch.cat([model(input_ids=text.unsqueeze(0)).last_hidden_state[0] for text in inputs])
    prepare(model)
    actual = flat_forward(model, torch.cat(inputs), None, Sequences(tuple(lengths)))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_does_not_depend_on_its_neighbours(family: str) -> None:
    model = tiny_model(family)
    prepare(model)
    own = texts([6])[0]
    with torch.no_grad():
        first = flat_forward(model, torch.cat([own, *texts([6, 6], seed=1)]), None, Sequences((6, 6, 6)))[:6]
        second = flat_forward(model, torch.cat([own, *texts([6, 6], seed=2)]), None, Sequences((6, 6, 6)))[:6]
    assert torch.equal(first, second)


def test_token_types_reach_the_model() -> None:
    model = tiny_model("bert").double()
    text, types = texts([6])[0], torch.tensor([0, 0, 0, 1, 1, 1])
    expected = model(input_ids=text.unsqueeze(0), token_type_ids=types.unsqueeze(0)).last_hidden_state[0]
    prepare(model)
    actual = flat_forward(model, text, types, Sequences((6,)))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_texts_of_equal_length_share_a_group() -> None:
    assert Sequences((3, 3, 5, 3)).groups == ((2, 3), (1, 5), (1, 3))
    assert Sequences((3, 2)).positions.tolist() == [0, 1, 2, 0, 1]
    assert Sequences((3, 2)).offsets.tolist() == [0, 3, 5]
    assert Sequences.join([Sequences((3, 2)), Sequences((4,))]).lengths == (3, 2, 4)


@pytest.mark.parametrize("lengths", [(), (3, 0)])
def test_empty_runs_and_texts_are_refused(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sequences(lengths)


def test_a_prepared_model_says_how_it_wants_to_be_called() -> None:
    model = tiny_model("bert")
    prepare(model)
    with pytest.raises(ValueError, match="flat_forward"):
        model(input_ids=texts([4])[0].unsqueeze(0))
    model.set_attn_implementation("sdpa")
    model(input_ids=texts([4])[0].unsqueeze(0))
