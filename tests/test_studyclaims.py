"""Claims of a study: a verdict follows from both gains with their intervals, and a fault of one has its path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.seednoise import seed_noise
from edgedistill.seeds import image_gain, seed_gain
from edgedistill.studyclaims import Claim, claims_faults, judged, verdict

IMAGES, SEEDS = 4000, 3


def rights(share: float, shift: float = 0.0) -> dict[int, np.ndarray]:
    """Networks of three seeds; the seed moves a share of the answers by `shift`."""
    order = np.random.default_rng(0).random(IMAGES)
    return {s: order < share + shift * (s - 1) for s in range(SEEDS)}


def claim(by: float = 0.0, better: str = "new", than: str = "old") -> Claim:
    return Claim(says="New is better", source="a paper", better=better, than=than, by=by)


@pytest.mark.parametrize(
    ("new", "by", "words"),
    [
        (rights(0.85, 0.001), 0.0, "holds here"),
        (rights(0.85, 0.001), 3.0, "holds here"),
        (rights(0.85, 0.001), 5.0, "cannot be told"),
        (rights(0.85, 0.001), 8.0, "does not hold here"),
        (rights(0.85, 0.05), 0.0, "cannot be told"),
        (rights(0.75, 0.001), 0.0, "does not hold here"),
        (rights(0.7995, 0.0001), -0.5, "holds here"),
        ({0: rights(0.85)[0]}, 0.0, "not all run yet"),
        ({}, 0.0, "not run yet"),
    ],
)
def test_a_claim_is_judged_by_both_intervals(
    new: dict[int, np.ndarray], by: float, words: str
) -> None:
    old = rights(0.80, -0.001)
    (found,) = judged([claim(by)], {"new": new, "old": old}, SEEDS)
    assert found.verdict == words
    assert (found.says, found.source, found.by) == ("New is better", "a paper", by / 100)
    if not new:
        assert found.seed_gain is found.image_gain is None
        return
    seeds = list(new)
    left, right = np.stack([new[s] for s in seeds]), np.stack([old[s] for s in seeds])
    assert found.image_gain == image_gain(left, right, "old")
    shares = left.mean(axis=1).tolist(), right.mean(axis=1).tolist()
    assert found.seed_gain == seed_gain(*shares, "old")


def test_seeds_that_only_one_side_has_are_left_out() -> None:
    new, old = rights(0.85, 0.001), rights(0.8)
    del new[1], old[2]
    (found,) = judged([claim()], {"new": new, "old": old}, SEEDS)
    assert found.seed_gain is not None and found.seed_gain.seeds == 1
    assert found.verdict == "not all run yet"


def test_one_seed_is_judged_by_its_images() -> None:
    new, old = {0: rights(0.85)[0]}, {0: rights(0.8)[0]}
    (found,) = judged([claim()], {"new": new, "old": old}, 1)
    assert found.verdict == "holds here"


def test_what_all_arms_tell_of_the_seed_can_decide_a_claim() -> None:
    """Three pairs that happen to differ leave 2.5 points open; twenty arms of the same noise do not."""
    order, rng = np.random.default_rng(0).random(IMAGES), np.random.default_rng(3)
    arms = {f"arm{a}": _noisy(order, 0.80, rng.normal(0, 0.008, SEEDS)) for a in range(20)}
    arms |= {
        "new": _noisy(order, 0.82, (0.01, 0.0, -0.01)), "old": _noisy(order, 0.80, (-0.004, 0.0, 0.004)),
    }  # fmt: skip
    tops = {name: {s: float(r.mean()) for s, r in runs.items()} for name, runs in arms.items()}
    noise = seed_noise(tops)
    assert noise is not None
    (alone,) = judged([claim()], arms, SEEDS)
    (together,) = judged([claim()], arms, SEEDS, [noise])
    assert (alone.verdict, together.verdict) == ("cannot be told", "holds here")
    assert together.seed_gain is not None and together.seed_gain.noise_arms == 22
    assert together.image_gain == alone.image_gain


def _noisy(order: np.ndarray, share: float, noise: Sequence[float]) -> dict[int, np.ndarray]:
    return {seed: order < share + off for seed, off in enumerate(noise)}


ends = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(lambda pair: tuple(sorted(pair)))


@given(st.lists(ends, max_size=3), st.floats(-1, 1))
def test_a_claim_and_its_opposite_never_both_hold(
    intervals: list[tuple[float, float]], by: float
) -> None:
    found = verdict(intervals, by)
    turned = verdict([(-high, -low) for low, high in intervals], -by)
    opposite = {"holds here": "does not hold here", "does not hold here": "holds here"}
    assert turned == opposite.get(found, "cannot be told")
    if not intervals:
        assert found == "cannot be told"


def test_faults_are_told_with_their_path() -> None:
    found = claims_faults([claim(), claim(better="newer"), claim(than="new")], ["new", "old"])
    assert found[0].startswith('claims.1.better  unknown arm "newer"')
    assert found[1] == "claims.2  compares arm new with itself"
    assert len(found) == 2
