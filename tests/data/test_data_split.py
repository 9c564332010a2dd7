"""The seeded split by content."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.data.dataset import Item, Split
from edgedistill.data.split import cap, contradictions, counts, divide, leaks, rank

SHARES: dict[Split, float] = {"test": 0.2, "val": 0.15}


def item(key: str, label: int = 0, content: str | None = None) -> Item:
    return Item(key, label, hashlib.sha256((content or key).encode()).hexdigest())


def many(n: int, label: int = 0) -> list[Item]:
    return [item(f"c{label}/{k:04d}", label) for k in range(n)]


def test_each_class_gives_its_share_to_each_split() -> None:
    parts = divide(many(100, 0) + many(40, 1), SHARES, seed=0)
    sizes = {
        split: [sum(i.label == label for i in part) for label in (0, 1)]
        for split, part in parts.items()
    }
    assert sizes == {"train": [65, 26], "val": [15, 6], "test": [20, 8]}


def test_names_do_not_matter_and_the_seed_does() -> None:
    items = many(60)
    renamed = [Item(f"z/{k}", 0, i.sha256) for k, i in enumerate(items)]
    first = {i.sha256 for i in divide(items, SHARES, 0)["test"]}
    assert {i.sha256 for i in divide(renamed[::-1], SHARES, 0)["test"]} == first
    assert {i.sha256 for i in divide(items, SHARES, 1)["test"]} != first


def test_a_new_image_moves_at_most_the_ones_at_the_borders() -> None:
    items = many(200)
    before = divide(items, SHARES, 0)
    after = divide([*items, item("new")], SHARES, 0)
    place = {i.key: split for split, part in before.items() for i in part}
    moved = [i for split, part in after.items() for i in part if place.get(i.key, split) != split]
    assert len(moved) <= 2


def test_three_contents_make_one_of_each() -> None:
    assert counts(3, SHARES) == {"test": 1, "val": 1}
    with pytest.raises(ValueError, match="2 contents"):
        counts(2, SHARES)


@settings(max_examples=60)
@given(st.integers(3, 500), st.floats(0.001, 0.499), st.floats(0.001, 0.499))
def test_every_split_has_one_whatever_the_shares(n: int, val: float, test: float) -> None:
    drawn = counts(n, {"val": val, "test": test})
    assert min(drawn.values()) >= 1
    assert n - sum(drawn.values()) >= 1


@settings(max_examples=40)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 2**31 - 1))
def test_the_same_bytes_never_fall_on_both_sides(contents: list[int], seed: int) -> None:
    items = [item(f"{k}", 0, f"content {c}") for k, c in enumerate(contents)]
    if len(set(contents)) < 3:
        return
    parts = divide(items, SHARES, seed)
    hashes = [{i.sha256 for i in part} for part in parts.values()]
    assert sum(map(len, hashes)) == len(set.union(*hashes))
    assert sorted(i.key for part in parts.values() for i in part) == sorted(i.key for i in items)


def test_rank_is_a_known_hash() -> None:
    assert rank(7, "ab") == hashlib.sha256(b"7:ab").hexdigest()


def test_content_under_two_labels_is_a_contradiction() -> None:
    items = [item("a", 0, "x"), item("b", 1, "x"), item("c", 0, "y"), item("d", 0, "y")]
    assert contradictions(items) == {items[0].sha256}


def test_test_wins_over_val_and_val_over_train() -> None:
    parts: dict[Split, list[Item]] = {
        "train": [item("t1", 0, "x"), item("t2", 0, "y"), item("t3"), item("t4", 0, "t3")],
        "val": [item("v1", 0, "x"), item("v2", 0, "y")],
        "test": [item("s1", 0, "x")],
    }
    found = {(gone.key, twin.key) for gone, twin in leaks(parts)}
    assert found == {("v1", "s1"), ("t1", "s1"), ("t2", "v2")}


def test_a_cap_keeps_the_proportions_and_one_of_each() -> None:
    items = many(90, 0) + many(9, 1) + many(1, 2)
    kept = cap(items, 10, seed=0)
    assert [sum(i.label == label for i in kept) for label in range(3)] == [8, 1, 1]
    assert [i.key for i in kept] == sorted(i.key for i in kept)
    with pytest.raises(ValueError, match="3 classes"):
        cap(items, 2, seed=0)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_a_cap_takes_exactly_that_many(sizes: list[int], data: st.DataObject) -> None:
    items = [i for label, size in enumerate(sizes) for i in many(size, label)]
    n = data.draw(st.integers(len(sizes), len(items) + 3))
    kept = cap(items, n, seed=3)
    assert len(kept) == min(n, len(items))
    assert {i.label for i in kept} == set(range(len(sizes)))
    assert set(kept) <= set(items)
