"""Noise of the seed judged from all arms: the intervals cover, are narrower, and say nothing where little is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgedistill.seednoise import FEWEST_ARMS, SeedNoise, known_of, seed_noise
from edgedistill.seeds import seed_gain, student_t

Tops = dict[str, dict[int, float]]


def drawn(
    rng: np.random.Generator, arms: int, seeds: int, noise: np.ndarray, shared: float = 0.0
) -> Tops:
    """Arms that are 0.8 right, but for what the seed does to all of them and to each."""
    common = shared * rng.standard_normal(seeds)
    return {
        f"arm{a}": {s: 0.8 + common[s] + noise[a] * rng.standard_normal() for s in range(seeds)}
        for a in range(arms)
    }


def width(noise: SeedNoise, arm: str, seeds: int) -> float | None:
    """Half of the interval; `None` where it is left to the pairs."""
    known = noise.known(arm, "arm0", seeds)
    return None if known is None else student_t(known.degrees) * known.error


@pytest.mark.parametrize(
    ("arms", "seeds", "spread", "shared", "narrower"),
    [
        (30, 3, 0.0, 0.0, 0.65), (30, 3, 0.0, 0.02, 0.65), (30, 3, 0.5, 0.0, 0.7), (30, 3, 1.0, 0.01, 0.75),
        (8, 3, 0.5, 0.01, 0.75), (12, 2, 0.0, 0.01, 0.3), (12, 5, 0.5, 0.01, 0.95),
    ],
)  # fmt: skip
def test_95_of_100_intervals_hold_the_truth_and_are_narrower_than_pairs(
    arms: int, seeds: int, spread: float, shared: float, narrower: float
) -> None:
    """Where all arms have the same noise, and where it differs from arm to arm; with a common effect of the seed."""
    rng = np.random.default_rng(7)
    held, wide, own = [], [], []
    for _ in range(3000 // arms):
        noise = 0.004 * np.exp(spread * rng.standard_normal(arms))
        tops = drawn(rng, arms, seeds, noise, shared)
        found = seed_noise(tops)
        assert found is not None and arms - 4 <= found.arms <= arms
        for arm in list(tops)[1:]:
            gaps = np.subtract(list(tops[arm].values()), list(tops["arm0"].values()))
            pairs = stats.t.ppf(0.975, seeds - 1) * gaps.std(ddof=1) / np.sqrt(seeds)
            half = width(found, arm, seeds)
            half = pairs if half is None else half
            held.append(abs(gaps.mean()) <= half)
            wide.append(half)
            own.append(pairs)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
    assert np.mean(wide) < narrower * np.mean(own)


def test_one_common_noise_is_found() -> None:
    rng = np.random.default_rng(3)
    found = seed_noise(drawn(rng, 60, 3, np.full(60, 0.005), 0.03))
    assert found is not None
    assert np.sqrt(np.mean(list(found.variances.values()))) == pytest.approx(0.005, rel=0.1)
    assert found.degrees > 20


def test_an_arm_that_is_far_noisier_than_all_others_is_left_to_its_pairs() -> None:
    rng = np.random.default_rng(4)
    left, noises = 0, []
    for _ in range(50):
        noise = np.full(40, 0.003)
        noise[5] = 0.03
        found = seed_noise(drawn(rng, 40, 3, noise))
        assert found is not None and 36 <= found.arms == len(found.variances)
        noises.append(found.variances["arm0"])
        left += found.known("arm5", "arm0", 3) is None
    assert left > 40
    assert np.sqrt(np.median(noises)) == pytest.approx(0.003, rel=0.1)


def test_arms_of_very_different_noise_are_hardly_drawn_together() -> None:
    rng = np.random.default_rng(4)
    noise = np.full(40, 0.003)
    noise[5::2] = 0.03
    found = seed_noise(drawn(rng, 40, 6, noise))
    assert found is not None
    means = [
        np.mean([v for arm, v in found.variances.items() if (noise[int(arm[3:])] > 0.01) == loud])
        for loud in (False, True)
    ]
    assert means[1] > 20 * means[0]


def test_what_the_seed_does_to_every_arm_is_no_noise() -> None:
    rng = np.random.default_rng(5)
    tops = drawn(rng, 12, 3, np.full(12, 0.004))
    moved = {arm: {s: top + 0.05 * s for s, top in runs.items()} for arm, runs in tops.items()}
    one, two = seed_noise(tops), seed_noise(moved)
    assert one is not None and two is not None
    assert one.variances == pytest.approx(two.variances)


def test_few_arms_or_one_seed_tell_nothing() -> None:
    rng = np.random.default_rng(6)
    few = drawn(rng, FEWEST_ARMS - 1, 9, np.full(9, 0.01))
    assert seed_noise(few) is None
    assert seed_noise(drawn(rng, 40, 1, np.full(40, 0.01))) is None
    assert seed_noise(drawn(rng, FEWEST_ARMS, 2, np.full(9, 0.01))) is None
    assert seed_noise({}) is None
    assert seed_noise({f"arm{a}": {0: 0.5, 1: 0.5, 2: 0.5} for a in range(9)}) is None


def test_a_seed_that_few_arms_have_does_not_count_nor_does_an_arm_that_lacks_one() -> None:
    rng = np.random.default_rng(8)
    whole = drawn(rng, 20, 3, np.full(20, 0.004))
    part = {arm: dict(runs) for arm, runs in whole.items()}
    for arm in list(part)[9:]:
        del part[arm][2]
    part["begun"] = {0: 0.1}
    found = seed_noise(part)
    two = seed_noise({arm: {s: runs[s] for s in (0, 1)} for arm, runs in whole.items()})
    assert found is not None and two is not None
    assert found.variances == pytest.approx(two.variances)
    assert found.known("begun", "arm0", 1) is None
    late = whole | {"late": {1: 0.8, 2: 0.81}}
    found, all_three = seed_noise(late), seed_noise(whole)
    assert found is not None and all_three is not None
    assert found.variances == pytest.approx(all_three.variances)
    assert found.known("late", "arm0", 2) is None


def test_the_group_that_has_both_arms_tells() -> None:
    rng = np.random.default_rng(9)
    one = seed_noise(drawn(rng, 12, 3, np.full(12, 0.004)))
    other = seed_noise({f"b{k}": v for k, v in drawn(rng, 12, 3, np.full(12, 0.02)).items()})
    assert one is not None and other is not None
    assert known_of([one, other], "barm1", "barm2", 3) == other.known("barm1", "barm2", 3)
    assert known_of([one, other], "arm1", "barm2", 3) is None
    assert known_of([], "arm1", "arm2", 3) is None


def test_a_gain_says_from_how_many_arms_its_noise_is_judged() -> None:
    rng = np.random.default_rng(10)
    tops = drawn(rng, 20, 3, np.full(20, 0.004))
    found = seed_noise(tops)
    assert found is not None
    new, old = list(tops["arm1"].values()), list(tops["arm0"].values())
    gain = seed_gain(new, old, "arm0", found.known("arm1", "arm0", 3))
    assert gain.noise_arms == 20 and "noise judged from 20 arms" in gain.words
    assert gain.ci95 is not None
    assert (gain.ci95[1] - gain.ci95[0]) / 2 == pytest.approx(width(found, "arm1", 3))
    assert seed_gain(new, old, "arm0").noise_arms == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), min_size=3, max_size=3), min_size=6, max_size=12))
def test_equal_and_coarse_results_never_give_an_impossible_noise(hits: list[list[int]]) -> None:
    """Few test images give the same top-1 with several seeds."""
    found = seed_noise(
        {f"arm{a}": {s: k / 20 for s, k in enumerate(h)} for a, h in enumerate(hits)}
    )
    if found is None:
        return
    assert all(np.isfinite(v) and v > 0 for v in found.variances.values())
    assert 1 <= found.degrees <= (len(hits) - 1) * 2
