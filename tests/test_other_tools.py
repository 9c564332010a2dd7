"""The comparison with other tools: who runs when, which images are taken, and what is said of a difference."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.other_tools.compare import OURS, difference, summarise, table, turns
from benchmarks.other_tools.work import NAMES, capped, once


def _run(slot: str, index: int, seconds: float, right: str) -> dict[str, object]:
    stored = 2.0 if slot == OURS else None
    return {
        "slot": slot, "tool": slot, "version": "1", "round": index, "seconds": seconds,
        "images_per_s": 600 / seconds, "right": right, "n": len(right), "hits": right.count("1"),
        "storing_s": stored, "settings": {"loss": "KL", "teacher": "live", "workers": 0}, "spin": None,
    }  # fmt: skip


def test_ours_runs_before_every_tool_and_the_tools_take_turns_at_being_first() -> None:
    order = turns(("a", "b", "c"), 2, once=False)
    assert [tool for _, tool in order[::2]] == [OURS] * 6
    assert [tool for _, tool in order[1::2]] == ["a", "b", "c", "b", "c", "a"]
    assert [index for index, _ in order] == [0] * 6 + [1] * 6
    assert turns(("a",), 2, once=True) == [(0, OURS), (0, "a"), (1, "a"), (1, OURS)]


def test_a_ratio_is_taken_within_a_round() -> None:
    runs = [
        _run(OURS, 0, 10, "1100"), _run("a", 0, 30, "1000"),
        _run(OURS, 1, 40, "1110"), _run("a", 1, 120, "1010"),
    ]  # fmt: skip
    ours, theirs = summarise(runs, ("a",))
    assert ours["ratio"] == 1
    assert theirs["ratios"] == [3, 3]
    assert theirs["top1_of_seeds"] == [0.25, 0.5]
    assert ours["storing_s"] == 2
    assert theirs["ours_minus"][0] == pytest.approx(0.25)
    assert "| 3.00 |" in table([ours, theirs])


def test_a_difference_averages_seeds_before_its_interval() -> None:
    twice = difference(["1100" * 50] * 2, ["1010" * 50] * 2)
    assert twice == difference(["1100" * 50], ["1010" * 50])
    mean, low, high = difference(["11" * 50], ["10" * 50])
    assert mean == 0.5
    assert (low, high) == pytest.approx((0.5 - 1.96 * 0.0503, 0.5 + 1.96 * 0.0503), abs=1e-3)


def test_the_same_bytes_are_taken_once_and_first_in_the_first_split() -> None:
    one, two = np.zeros((1, 2, 2), np.uint8), np.ones((1, 2, 2), np.uint8)
    label = np.array([3])
    kept = once({"test": (one, label), "train": (np.concatenate([one, two, two]), np.arange(3))})
    assert len(kept["test"][1]) == 1
    assert kept["train"][1].tolist() == [1]


def test_a_cap_draws_the_same_images_every_time() -> None:
    split = (np.arange(40, dtype=np.uint8).reshape(10, 2, 2), np.arange(10))
    first, again = capped(split, 4), capped(split, 4)
    assert first[1].tolist() == again[1].tolist()
    assert len(set(first[1].tolist())) == 4
    assert (first[0][:, 0, 0] == 4 * first[1]).all()
    assert capped(split, None) is split


def test_class_folders_stand_in_the_order_of_the_labels() -> None:
    assert list(NAMES) == sorted(NAMES)
