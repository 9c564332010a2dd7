"""In which order images come: all in turns, and so many synthetic ones in each batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.distill.facts import Images, Synthetic
from edgedistill.distill.order import in_turns, order_of


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_short_set_comes_round_again_and_none_comes_twice_before_all_were_seen() -> None:
    order = in_turns(rng(), np.arange(5), 12)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5)) and len(order) == 12


@given(
    own=st.integers(1, 40),
    made=st.integers(0, 60),
    size=st.integers(1, 12),
    steps=st.integers(1, 5),
    among=st.integers(0, 12),
)
def test_each_batch_has_as_many_synthetic_images_as_were_asked_for(
    own: int, made: int, size: int, steps: int, among: int
) -> None:
    among = min(among, size)
    order = order_of(rng(), np.arange(own + made), own, size, steps, among)
    assert order.shape == (size * steps,) and order.max() < own + made
    wanted = among if made else 0
    assert ((order.reshape(steps, size) >= own).sum(1) == wanted).all()


def test_without_synthetic_images_the_order_is_that_of_before() -> None:
    rows = np.arange(9)
    assert np.array_equal(order_of(rng(), rows, 9, 4, 3, 0), in_turns(rng(), rows, 12))


def test_the_share_is_the_same_all_along_or_falls_from_all_to_none() -> None:
    mixed = Synthetic(first=10, share=0.25)
    assert [mixed.count(epoch, 4, 8) for epoch in range(4)] == [2, 2, 2, 2]
    first = Synthetic(first=10, share=0.5, at_first=True)
    assert [first.count(epoch, 5, 8) for epoch in range(5)] == [8, 6, 4, 2, 0]
    assert first.count(0, 1, 8) == 4, "a single epoch is mixed"


def test_labels_of_synthetic_images_weigh_less_only_where_they_count_at_all() -> None:
    def weights(weight: float) -> list[float] | None:
        pixels = np.zeros((4, 2, 2, 3), np.uint8)
        labels = np.array([0, 1, 0, 1])
        extra = Synthetic(first=2, share=0.5, label_weight=weight)
        found = Images(pixels, labels, pixels, labels, extra).label_weights
        return None if found is None else found.tolist()

    assert weights(0.0) is None and weights(1.0) is None
    assert weights(0.5) == pytest.approx([1, 1, 0.5, 0.5])
