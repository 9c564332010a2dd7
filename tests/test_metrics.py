"""Metrics against hand-computed values, scipy and properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats  # type: ignore[import-untyped]

from edgedistill import metrics

count = st.integers(0, 60)
cells = st.tuples(count, count, count, count).filter(lambda c: sum(c) > 0)


def images(both: int, new_only: int, old_only: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    new = [True] * both + [True] * new_only + [False] * old_only + [False] * neither
    old = [True] * both + [False] * new_only + [True] * old_only + [False] * neither
    return np.array(new), np.array(old)


def test_top1_counts_the_largest_logit() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    assert metrics.top1(logits, np.array([0, 1, 1, 1])) == 0.75
    assert metrics.top1(np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1])) == 0.75


def test_a_row_with_nan_is_wrong_for_every_label() -> None:
    logits = np.array([[np.nan, 1.0], [1.0, np.nan], [1.0, 0.0]])
    for label in (0, 1):
        assert not metrics.correct(logits, np.full(3, label))[:2].any()
    assert metrics.predictions(logits).tolist() == [-1, -1, 0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.top1(np.zeros((0, 2)), np.zeros(0, int)),
        lambda: metrics.proportion(np.zeros(0, bool)),
        lambda: metrics.proportion(np.array([0, 1])),
        lambda: metrics.top1(np.zeros((3, 2)), np.zeros(2, int)),
        lambda: metrics.top1(np.zeros(3), np.zeros(3, int)),
        lambda: metrics.paired_gain(np.ones(2, bool), np.ones(3, bool), "x"),
        lambda: metrics.confusion(np.array([2]), np.array([0]), 2),
        lambda: metrics.confusion(np.array([0, 1]), np.array([0]), 2),
        lambda: metrics.per_class_recall(np.array([0]), np.array([2]), 2),
        lambda: metrics.wilson(3, 2),
        lambda: metrics.mcnemar(-1, 2),
        lambda: metrics.parity(np.zeros((1, 2)), np.zeros((2, 2))),
    ],
)
def test_what_cannot_be_measured_is_a_value_error(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]


def test_wilson_of_81_of_263_is_the_published_interval() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@settings(max_examples=60)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy_and_holds_the_estimate(case: tuple[int, int]) -> None:
    hits, n = case
    low, high = metrics.wilson(hits, n)
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= hits / n <= high <= 1
    mirror = metrics.wilson(n - hits, n)
    assert mirror == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_a_proportion_carries_value_count_and_interval() -> None:
    right = np.zeros(263, dtype=bool)
    right[:81] = True
    shown = metrics.proportion(right)
    assert (shown.value, shown.n) == (81 / 263, 263)
    assert shown.ci95 == metrics.wilson(81, 263)


def test_recall_is_none_for_a_class_without_images() -> None:
    pred, labels = np.array([0, 0, 1, 3]), np.array([0, 1, 1, 0])
    assert metrics.per_class_recall(pred, labels, 4) == [0.5, 0.5, None, None]
    assert metrics.balanced_accuracy(pred, labels, 4) == 0.5


def test_balanced_accuracy_weighs_classes_and_not_images() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert metrics.balanced_accuracy(np.zeros(100, int), labels, 2) == 0.5
    assert metrics.top1(np.zeros(100, int), labels) == 0.9


def test_confusion_has_labels_in_rows() -> None:
    counts = metrics.confusion(np.array([1, 1, 2]), np.array([0, 0, 2]), 3)
    assert counts.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_softmax_survives_huge_logits() -> None:
    values = metrics.softmax(np.array([[1e15, 0.0], [-1e15, -1e15], [1.0, 2.0]]))
    assert values[:2].tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert values[2] == pytest.approx(special.softmax([1.0, 2.0]))


def test_nll_is_the_mean_surprise_in_nats() -> None:
    logits = np.log(np.array([[0.25, 0.75], [0.5, 0.5]]))
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert metrics.nll(logits, np.array([1, 0])) == pytest.approx(expected)
    assert metrics.nll(np.array([[1000.0, 0.0]]), np.array([1])) == pytest.approx(1000.0)


@given(st.integers(0, 2**32 - 1))
def test_the_cross_entropy_is_that_of_the_softmax_for_logits_of_any_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 10.0 ** rng.integers(-3, 4), (7, 4))
    labels = rng.integers(0, 4, 7)
    expected = -special.log_softmax(logits, axis=1)[np.arange(7), labels].mean()
    assert metrics.cross_entropy(logits, labels) == pytest.approx(expected)
    shown = metrics.calibration(logits, labels)
    assert (shown.loss, shown.n) == (pytest.approx(expected), 7)
    logits[2, 1] = np.nan
    assert not math.isfinite(metrics.cross_entropy(logits, labels))


def test_the_cross_entropy_of_no_images_and_of_too_few_logits_is_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        metrics.cross_entropy(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match="3 labels"):
        metrics.cross_entropy(np.zeros((2, 3)), np.zeros(3, int))


def test_calibration_of_two_bins_by_hand() -> None:
    # two images at confidence 0.6 (one right), two at 0.9 (both right):
    # ece = 2/4 * |0.5 - 0.6| + 2/4 * |1 - 0.9| = 0.1
    logits = np.log(np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]]))
    shown = metrics.calibration(logits, np.array([0, 1, 0, 0]))
    assert shown.ece == pytest.approx(0.1)
    assert shown.confidence == pytest.approx(0.75)


def test_a_bin_is_closed_on_the_right() -> None:
    # 0.8 = 12/15 belongs to (11/15, 12/15] and not to the bin of 0.81
    logits = np.log(np.array([[0.79, 0.21], [0.81, 0.19]]))
    labels = np.array([0, 1])
    assert metrics.calibration(logits, labels).ece == pytest.approx((0.21 + 0.81) / 2)


def test_the_paired_interval_by_hand() -> None:
    # a, b, c, d = 36, 12, 2, 0 of 50: phi = (0 - 24) / sqrt(48 * 2 * 38 * 12) and Wilson intervals
    # (0.8654, 0.9890) of 48/50, (0.6259, 0.8570) of 38/50, joined by square and add.
    low_new, high_new = metrics.wilson(48, 50)
    low_old, high_old = metrics.wilson(38, 50)
    phi = -24 / math.sqrt(48 * 2 * 38 * 12)
    down, up_old = 0.96 - low_new, high_old - 0.76
    up, down_old = high_new - 0.96, 0.76 - low_old
    low = 0.2 - math.sqrt(down**2 - 2 * phi * down * up_old + up_old**2)
    high = 0.2 + math.sqrt(up**2 - 2 * phi * up * down_old + down_old**2)
    assert metrics.paired_interval(36, 12, 2, 0) == pytest.approx((low, high))
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@settings(max_examples=100)
@given(cells)
def test_a_paired_interval_holds_its_estimate_and_turns_with_the_arms(
    case: tuple[int, int, int, int],
) -> None:
    both, new_only, old_only, neither = case
    low, high = metrics.paired_interval(*case)
    value = (new_only - old_only) / sum(case)
    assert -1 <= low <= value <= high <= 1
    assert low < high
    swapped = metrics.paired_interval(both, old_only, new_only, neither)
    assert swapped == pytest.approx((-high, -low), abs=1e-12)
    mirrored = metrics.paired_interval(neither, old_only, new_only, both)
    assert mirrored == pytest.approx((-high, -low), abs=1e-12)


def test_the_paired_interval_covers_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    shares, n, rounds = (0.8, 0.06, 0.04, 0.1), 400, 2000
    draws = random.multinomial(n, shares, size=rounds)
    inside = sum(
        low <= shares[1] - shares[2] <= high
        for low, high in (metrics.paired_interval(*map(int, draw)) for draw in draws)
    )
    assert 0.935 <= inside / rounds <= 0.985


@settings(max_examples=60)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_the_exact_binomial_test(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert metrics.mcnemar(b, c) == pytest.approx(expected, rel=1e-9)
    assert metrics.mcnemar(c, b) == metrics.mcnemar(b, c)


def test_mcnemar_by_hand_and_for_many_images() -> None:
    assert metrics.mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert metrics.mcnemar(0, 0) == 1.0
    large = metrics.mcnemar(500_700, 499_300)
    assert large == pytest.approx(stats.binomtest(500_700, 1_000_000).pvalue, rel=1e-6)
    assert metrics.mcnemar(0, 100_000) == 0.0


def test_no_discordant_pair_is_no_measurable_gain() -> None:
    new, old = images(90, 0, 0, 10)
    gain = metrics.paired_gain(new, old, "plain")
    assert (gain.value, gain.p_value, gain.against) == (0.0, 1.0, "plain")
    assert gain.ci95[0] < 0 < gain.ci95[1]
    assert gain.words.startswith("no measurable gain: 0.0 points (95 % interval -")
    assert gain.words.endswith("p = 1.00, n = 100)")
    all_right = metrics.paired_gain(np.ones(50, bool), np.ones(50, bool), "plain")
    assert all_right.ci95[0] < 0 < all_right.ci95[1]


def test_words_say_gain_loss_or_neither() -> None:
    gain = metrics.paired_gain(*images(1700, 60, 20, 220), "plain")
    assert gain.words == (
        f"a gain of 2.0 points (95 % interval {100 * gain.ci95[0]:+.1f} to "
        f"{100 * gain.ci95[1]:+.1f}, p < 0.001, n = 2000)"
    )
    loss = metrics.paired_gain(*images(1700, 20, 60, 220), "plain")
    assert loss.words.startswith("a loss of 2.0 points (95 % interval -2.")
    small = metrics.paired_gain(*images(1700, 46, 40, 214), "plain")
    assert small.words.startswith("no measurable gain: +0.3 points (95 % interval -")
    assert "p = 0.59, n = 2000" in small.words


@settings(max_examples=60)
@given(cells)
def test_words_claim_a_gain_only_where_interval_and_test_agree(
    case: tuple[int, int, int, int],
) -> None:
    gain = metrics.paired_gain(*images(*case), "plain")
    sure = gain.p_value < 0.05 and not gain.ci95[0] <= 0 <= gain.ci95[1]
    assert gain.words.startswith("no measurable gain") != sure
    assert "-0.0 points" not in gain.words
    assert "+0.0 points" not in gain.words


def test_parity_of_equal_logits_is_perfect() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3))
    assert metrics.parity(logits, logits) == {
        "max_abs": 0.0,
        "max_rel": 0.0,
        "cosine": pytest.approx(1.0),
        "top1_agreement": 1.0,
        "n": 5,
    }


def test_parity_is_relative_to_the_largest_reference_logit() -> None:
    reference = np.array([[4.0, 0.0], [0.0, 2.0]])
    shown = metrics.parity(reference, np.array([[4.0, 0.0], [1.0, 0.0]]))
    assert shown["max_abs"] == 2.0
    assert shown["max_rel"] == 0.5
    assert shown["cosine"] == 0.5
    assert shown["top1_agreement"] == 0.5


def test_parity_of_tiny_and_huge_logits_has_a_true_cosine() -> None:
    for scale in (1e-200, 1e200):
        reference = scale * np.array([[3.0, 4.0]])
        shown = metrics.parity(reference, scale * np.array([[4.0, 3.0]]))
        assert shown["cosine"] == pytest.approx(24 / 25)
        assert shown["max_rel"] == pytest.approx(0.25)


def test_parity_with_overflow_is_infinite_and_never_nan() -> None:
    shown = metrics.parity(np.ones((2, 2)), np.array([[1.0, 1.0], [np.inf, np.nan]]))
    assert shown["max_abs"] == math.inf
    assert shown["max_rel"] == math.inf
    assert shown["cosine"] == pytest.approx(0.5)
    assert shown["top1_agreement"] == 0.5


def test_a_difference_counts_only_where_interval_and_test_agree() -> None:
    gain = metrics.paired_gain([True] * 40, [False] * 10 + [True] * 30, "plain")
    assert metrics.measurable(gain) and gain.words.startswith("a gain of")
    edge = gain.model_copy(update={"p_value": 0.053})
    assert not metrics.measurable(edge)
    assert not metrics.measurable(gain.model_copy(update={"ci95": (0.0, 0.5)}))


def test_the_interval_of_two_independent_accuracies_is_the_published_one() -> None:
    """Newcombe 1998, table II, (a): 56/70 and 48/80 by method 10; coverage on 2,000 draws."""
    new, old = (metrics.Proportion(value=h / n, n=n) for h, n in ((56, 70), (48, 80)))
    assert metrics.independent_interval(new, old) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    rng, kept = np.random.default_rng(0), 0
    for a, b in zip(rng.binomial(300, 0.9, 2000), rng.binomial(200, 0.85, 2000), strict=True):
        sides = (metrics.Proportion(value=h / n, n=n) for h, n in ((a, 300), (b, 200)))
        low, high = metrics.independent_interval(*sides)
        kept += low <= 0.05 <= high
    assert 0.935 < kept / 2000 < 0.97
