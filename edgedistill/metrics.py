"""How good is it, and is that luck? Accuracy, calibration, intervals, paired tests and parity:
numpy only.

Arrays named `logits` are `(N, C)`, `labels` and `pred` are `(N,)` class indices. Shares are
fractions in [0, 1]; points (percent) exist only in `words`. An empty array is a `ValueError`: there
is no accuracy of no images.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from edgedistill.result import Calibration, Gain, Proportion

Z95 = 1.959963984540054
"""0.975 quantile of the standard normal distribution."""

CALIBRATION_BINS = 15
SIGNIFICANT = 0.05

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class ParityNumbers(TypedDict):
    """Fields of `result.Parity` but for the name of the reference."""

    max_abs: float
    max_rel: float
    cosine: float
    top1_agreement: float
    n: int


def predictions(logits_or_pred: npt.ArrayLike) -> Ints:
    """Predicted classes `(N,)` from logits `(N, C)`, or predictions `(N,)` as they are.

    A row of logits with a NaN has no prediction: it is -1, which equals no label.
    """
    values = np.asarray(logits_or_pred)
    if values.ndim == 1 and values.dtype.kind in "iu":
        return np.asarray(values, dtype=np.int64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"needs logits (N, C) or integer predictions (N,), got {values.shape}")
    pred: Ints = values.argmax(axis=1).astype(np.int64)
    pred[np.isnan(values).any(axis=1)] = -1
    return pred


def correct(logits_or_pred: npt.ArrayLike, labels: npt.ArrayLike) -> Bools:
    """Which images are right, `(N,)` bool."""
    pred, truth = predictions(logits_or_pred), _labels(labels)
    if pred.shape != truth.shape:
        raise ValueError(f"{len(pred)} predictions for {len(truth)} labels")
    return np.asarray(pred == truth, dtype=np.bool_)


def top1(logits_or_pred: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of images whose predicted class is the label."""
    return float(correct(logits_or_pred, labels).mean())


def proportion(right: npt.ArrayLike) -> Proportion:
    """An accuracy with its 95 % Wilson score interval, from `(N,)` bool."""
    values = _bools(right)
    n, hits = len(values), int(values.sum())
    return Proportion(value=hits / n, n=n, ci95=wilson(hits, n))


def wilson(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of `hits` out of `n`. Source: Wilson 1927, JASA 22:209-212."""
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"needs 0 <= hits <= n and n > 0, got {hits} of {n}")
    share = hits / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    low = 0.0 if hits == 0 else min(max(0.0, centre - half), share)
    high = 1.0 if hits == n else max(min(1.0, centre + half), share)
    return low, high


def confusion(pred: npt.ArrayLike, labels: npt.ArrayLike, classes: int) -> Ints:
    """Counts `(classes, classes)`: row = label, column = prediction.

    Raises ValueError for a label or a prediction outside `range(classes)`.
    """
    guess, truth = predictions(pred), _labels(labels)
    if guess.shape != truth.shape:
        raise ValueError(f"{len(guess)} predictions for {len(truth)} labels")
    for name, values in (("label", truth), ("prediction", guess)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(f"a {name} lies outside 0..{classes - 1}")
    counts = np.bincount(truth * classes + guess, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class_recall(
    pred: npt.ArrayLike, labels: npt.ArrayLike, classes: int
) -> list[float | None]:
    """Share of each class that is found; `None` for a class without images."""
    right, truth = correct(pred, labels), _labels(labels)
    total = np.bincount(truth, minlength=classes)
    hits = np.bincount(truth[right], minlength=classes)
    if len(total) > classes:
        raise ValueError(f"a label lies outside 0..{classes - 1}")
    return [int(h) / int(t) if t else None for h, t in zip(hits, total, strict=True)]


def balanced_accuracy(pred: npt.ArrayLike, labels: npt.ArrayLike, classes: int) -> float | None:
    """Mean recall over the classes that have images; `None` when none has."""
    found = [r for r in per_class_recall(pred, labels, classes) if r is not None]
    return sum(found) / len(found) if found else None


def softmax(logits: npt.ArrayLike) -> Floats:
    """Probabilities over the last axis, float64, without overflow."""
    values = np.asarray(logits, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)


def nll(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean negative log likelihood of the labels, in nats."""
    values, truth = np.asarray(logits, dtype=np.float64), _labels(labels)
    shifted = values - values.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1))
    return float((log_total - shifted[np.arange(len(truth)), truth]).mean())


def entropy(logits: npt.ArrayLike) -> float:
    """Mean entropy of the predicted probabilities, in nats: 0 is certain, log C knows nothing."""
    shares = softmax(logits)
    if not shares.size:
        raise ValueError("there are no images")
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1).mean())


def cross_entropy(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean cross entropy of the labels in nats; not finite where a logit is not."""
    values, truth = np.asarray(logits, dtype=np.float64), _labels(labels)
    if values.ndim != 2 or len(values) != len(truth):
        raise ValueError(f"needs logits (N, C) for {len(truth)} labels, got {values.shape}")
    with np.errstate(invalid="ignore"):
        top = values.max(axis=1, keepdims=True)
        total = np.log(np.exp(values - top).sum(axis=1)) + top[:, 0]
        return float((total - values[np.arange(len(truth)), truth]).mean())


def calibration(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """Expected calibration error over 15 equal-width bins, the mean confidence, and the mean cross entropy.

    A bin is `(k/15, (k+1)/15]`. Source: Guo et al. 2017 (arXiv 1706.04599), eq. 3.
    """
    right = correct(logits, labels).astype(np.float64)
    confidence = np.minimum(softmax(logits).max(axis=1), 1.0)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, None)
    surplus = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    ece = float(np.abs(surplus).sum()) / len(right)
    return Calibration(
        ece=min(ece, 1.0),
        confidence=float(confidence.mean()),
        loss=cross_entropy(logits, labels),
        n=len(right),
    )


def paired_interval(
    both: int, new_only: int, old_only: int, neither: int, z: float = Z95
) -> tuple[float, float]:
    """95 % interval of the difference (new minus old) of two paired proportions.

    Arguments are image counts: right under both, the new only, the old only, neither. Source:
    Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10 (Wilson score intervals, joined
    with the continuity-corrected phi).
    """
    n = both + new_only + old_only + neither
    new, old = both + new_only, both + old_only
    difference = (new_only - old_only) / n
    (low_new, high_new), (low_old, high_old) = wilson(new, n, z), wilson(old, n, z)
    product = new * (n - new) * old * (n - old)
    phi = 0.0
    if product:
        cross = both * neither - new_only * old_only
        phi = (max(cross - n / 2, 0.0) if cross > 0 else float(cross)) / math.sqrt(product)
    up_new, down_new = high_new - new / n, new / n - low_new
    up_old, down_old = high_old - old / n, old / n - low_old
    below = math.sqrt(max(0.0, down_new**2 - 2 * phi * down_new * up_old + up_old**2))
    above = math.sqrt(max(0.0, up_new**2 - 2 * phi * up_new * down_old + down_old**2))
    return max(-1.0, difference - below), min(1.0, difference + above)


def independent_interval(new: Proportion, old: Proportion, z: float = Z95) -> tuple[float, float]:
    """95 % interval of the difference (new minus old) of two accuracies on different images.

    Source: Newcombe 1998, Statistics in Medicine 17:873-890, method 10 (Wilson score intervals).
    """
    (low_new, high_new), (low_old, high_old) = (
        wilson(round(p.value * p.n), p.n, z) for p in (new, old)
    )
    difference = new.value - old.value
    below = math.hypot(new.value - low_new, high_old - old.value)
    above = math.hypot(high_new - new.value, old.value - low_old)
    return max(-1.0, difference - below), min(1.0, difference + above)


def mcnemar(new_only: int, old_only: int) -> float:
    """Exact two-sided p value of McNemar's test: binomial(m, 1/2) on the m discordant images.

    1 when there are none. Source: McNemar 1947, Psychometrika 12:153-157, in its exact binomial
    form.
    """
    if new_only < 0 or old_only < 0:
        raise ValueError("counts must not be negative")
    m, k = new_only + old_only, min(new_only, old_only)
    if new_only == old_only:
        return 1.0
    log_term = math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1) - m * math.log(2)
    ratio, total = 1.0, 1.0
    for below in range(k, 0, -1):
        ratio *= below / (m - below + 1)
        total += ratio
        if ratio < 1e-17 * total:
            break
    return min(1.0, 2 * math.exp(log_term) * total)


def paired_gain(correct_new: npt.ArrayLike, correct_old: npt.ArrayLike, against: str) -> Gain:
    """New against old on the same images `(N,)` bool: difference in top-1, interval, exact p, and
    words.

    Words speak of a gain or a loss only where the interval leaves out zero and p is under 0.05.
    """
    new, old = _bools(correct_new), _bools(correct_old)
    if new.shape != old.shape:
        raise ValueError(f"a paired test needs the same images; got {len(new)} and {len(old)}")
    both, neither = int((new & old).sum()), int((~new & ~old).sum())
    new_only, old_only = int((new & ~old).sum()), int((~new & old).sum())
    value = (new_only - old_only) / len(new)
    gain = Gain(
        against=against,
        value=value,
        ci95=paired_interval(both, new_only, old_only, neither),
        p_value=mcnemar(new_only, old_only),
        words="",
    )
    return gain.model_copy(update={"words": _gain_words(gain, len(new))})


def measurable(gain: Gain) -> bool:
    """Whether a difference is more than chance: its interval leaves out zero and p is under 0.05."""
    low, high = gain.ci95
    return gain.p_value < SIGNIFICANT and not low <= 0 <= high


def _gain_words(gain: Gain, n: int) -> str:
    value, p_value = gain.value, gain.p_value
    low, high = (f"{100 * edge:+.1f}" for edge in gain.ci95)
    p_text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.{2 if p_value >= 0.1 else 3}f}"
    evidence = f"(95 % interval {low} to {high}, {p_text}, n = {n})"
    points = 100 * value
    if not measurable(gain):
        shown = f"{points:+.1f}" if round(points, 1) else "0.0"
        return f"no measurable gain: {shown} points {evidence}"
    digits = 1 if abs(points) >= 0.05 else 3
    return f"a {'gain' if value > 0 else 'loss'} of {abs(points):.{digits}f} points {evidence}"


def parity(logits_a: npt.ArrayLike, logits_b: npt.ArrayLike) -> ParityNumbers:
    """How far `logits_b` `(N, C)` lies from the reference `logits_a` `(N, C)`.

    `max_rel` is `max_abs` over the largest |logit| of the reference (0 when both are 0); `cosine`
    is the mean over images (1 where both rows are 0, 0 where one is). Where a value is not finite,
    the differences are infinite and that image's cosine is 0: check with `math.isfinite`.
    """
    a, b = np.asarray(logits_a, dtype=np.float64), np.asarray(logits_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise ValueError(
            f"parity needs two arrays of one shape (N, C), got {a.shape} and {b.shape}"
        )
    finite = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    max_abs = float(np.abs(a - b).max()) if finite.all() else math.inf
    if max_abs and math.isfinite(max_abs):
        largest = float(np.abs(a).max())
        max_rel = max_abs / largest if largest else math.inf
    else:
        max_rel = max_abs
    cosine = np.zeros(len(a))
    cosine[finite] = _cosine(a[finite], b[finite])
    pred_a, pred_b = predictions(a), predictions(b)
    return ParityNumbers(
        max_abs=max_abs,
        max_rel=max_rel,
        cosine=float(cosine.mean()),
        top1_agreement=float(((pred_a == pred_b) & (pred_a >= 0)).mean()),
        n=len(a),
    )


def _cosine(a: Floats, b: Floats) -> Floats:
    """Cosine of each pair of rows; scaled first, so that neither 1e-200 nor 1e200 is lost."""
    scale_a, scale_b = (np.abs(x).max(axis=1, keepdims=True) for x in (a, b))
    unit_a, unit_b = a / np.where(scale_a, scale_a, 1), b / np.where(scale_b, scale_b, 1)
    norms = np.sqrt((unit_a**2).sum(axis=1) * (unit_b**2).sum(axis=1))
    products = (unit_a * unit_b).sum(axis=1)
    both_zero = ((scale_a == 0) & (scale_b == 0))[:, 0]
    values = np.where(norms > 0, products / np.where(norms > 0, norms, 1), 0.0)
    return np.asarray(np.where(both_zero, 1.0, np.clip(values, -1, 1)), dtype=np.float64)


def _labels(labels: npt.ArrayLike) -> Ints:
    values: npt.NDArray[Any] = np.asarray(labels)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        if values.size == 0:
            raise ValueError("there are no images")
        raise ValueError(f"labels must be integers (N,), got {values.dtype} {values.shape}")
    if values.size == 0:
        raise ValueError("there are no images")
    return values.astype(np.int64)


def _bools(values: npt.ArrayLike) -> Bools:
    array: npt.NDArray[Any] = np.asarray(values)
    if array.size == 0:
        raise ValueError("there are no images")
    if array.ndim != 1 or array.dtype != np.bool_:
        raise ValueError(f"needs booleans (N,), got {array.dtype} {array.shape}")
    return array
