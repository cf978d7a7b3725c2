"""Every text once an epoch, like lengths together, and the same order from the same generator."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from adapters.depth import EMBEDDED
from adapters.pack import FlatBatch
from sweeper.batches import evaluation_batches, gather, training_batches
from sweeper.data import Split

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=200).map(torch.tensor)


@given(LENGTHS, st.integers(1, 33), st.integers(0, 9))
def test_an_epoch_sees_every_text_once(lengths: torch.Tensor, batch_size: int, seed: int) -> None:
    batches = training_batches(lengths, batch_size, torch.Generator().manual_seed(seed))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    assert max(len(batch) for batch in batches) <= batch_size
    assert len(batches) == -(-len(lengths) // batch_size)
    assert all(lengths[batch].diff().ge(0).all() for batch in batches)
    again = training_batches(lengths, batch_size, torch.Generator().manual_seed(seed))
    assert all(torch.equal(left, right) for left, right in zip(batches, again, strict=True))


@given(LENGTHS, st.integers(1, 100))
def test_evaluation_sees_every_text_once_within_its_tokens(lengths: torch.Tensor, tokens: int) -> None:
    batches = evaluation_batches(lengths, tokens)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or int(lengths[batch].sum()) <= tokens for batch in batches)


def test_gather_lays_the_texts_side_by_side() -> None:
    split = Split(
        input_ids=torch.tensor([1, 2, 3, 4, 5, 6], dtype=torch.int32),
        token_type_ids=torch.tensor([0, 0, 1, 0, 1, 1], dtype=torch.int32),
        offsets=torch.tensor([0, 1, 3, 6]),
        labels=torch.tensor([0, 1, 0]),
    )
    batch = gather(split, torch.tensor([2, 0]), torch.device("cpu"), (EMBEDDED,))
    assert isinstance(batch, FlatBatch)
    assert batch.input_ids.tolist() == [4, 5, 6, 1]
    assert batch.token_type_ids is not None and batch.token_type_ids.tolist() == [0, 1, 1, 0]
    assert batch.sequences.lengths == (3, 1)
