"""Laws of the draws: sizes, shares, disjointness, and what they depend on."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.data.draw import draw_fractions, draw_subset

LABELS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=80)
FRACTION = st.floats(0.01, 0.45)


@settings(deadline=None)
@given(count=st.integers(1, 200), seed=st.integers(0, 5), data=st.data())
def test_a_subset_is_ordered_and_of_its_size(count: int, seed: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, count))
    chosen = draw_subset(count, wanted, seed, "train")
    assert len(chosen) == len(set(chosen)) == wanted
    assert chosen == sorted(chosen)
    assert set(chosen) <= set(range(count))
    assert chosen == draw_subset(count, wanted, seed, "train")


def test_a_subset_depends_on_seed_and_purpose() -> None:
    drawn = [draw_subset(1000, 50, seed, purpose) for seed in (0, 1) for purpose in ("train", "test")]
    assert len({tuple(chosen) for chosen in drawn}) == 4


@settings(deadline=None)
@given(labels=LABELS, validation=FRACTION, test=FRACTION, seed=st.integers(0, 3))
def test_fractions_are_disjoint_and_leave_every_label(
    labels: list[str], validation: float, test: float, seed: int
) -> None:
    drawn = draw_fractions(len(labels), labels, {"validation": validation, "test": test}, seed)
    first, second = drawn["validation"], drawn["test"]
    assert not set(first) & set(second)
    assert first == sorted(first) and second == sorted(second)
    left = {labels[place] for place in range(len(labels)) if place not in {*first, *second}}
    assert left == set(labels)


@settings(deadline=None)
@given(labels=LABELS, fraction=FRACTION, seed=st.integers(0, 3))
def test_each_label_has_its_share(labels: list[str], fraction: float, seed: int) -> None:
    chosen = draw_fractions(len(labels), labels, {"validation": fraction}, seed)["validation"]
    counts, drawn = Counter(labels), Counter(labels[place] for place in chosen)
    for label, count in counts.items():
        assert drawn[label] <= fraction * count + 1
        assert drawn[label] >= min(fraction * count, count - 1) - 1


def test_the_total_is_the_nearest_row() -> None:
    labels = ["a"] * 333 + ["b"] * 334 + ["c"] * 333
    for fraction, expected in ((0.1, 100), (0.25, 250), (0.0014, 1), (0.3337, 334)):
        chosen = draw_fractions(1000, labels, {"validation": fraction}, 0)["validation"]
        assert len(chosen) == expected


def test_validation_stays_when_a_test_split_is_added() -> None:
    labels = list("abcab" * 30)
    alone = draw_fractions(150, labels, {"validation": 0.2}, 7)
    both = draw_fractions(150, labels, {"validation": 0.2, "test": 0.3}, 7)
    assert alone["validation"] == both["validation"]
    assert len(both["test"]) == 45


def test_without_groups() -> None:
    drawn = draw_fractions(100, None, {"validation": 0.1}, 0)["validation"]
    assert len(drawn) == 10
    assert drawn != draw_fractions(100, None, {"validation": 0.1}, 1)["validation"]
