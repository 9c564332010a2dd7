"""Which synthetic images are good enough to learn from: counting and comparing only, numpy alone.

An image is looked at by the adapted teacher: what it says (logits) and how it sees it (features, compared by cosine).
What real images of the task are like sets the measure: how near two of them come to each other, and how far one may be
from the middle of its class. The first rule that an image breaks is its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedistill.synth.ledger import Scores

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BLOCK = 512
"""Rows compared at once; always as many, so that the last bits of a row do not depend on how many there are."""
BLANK = "blank"
DISAGREES = "the teacher sees another class"
UNSURE = "the teacher is unsure"
OUTLIER = "too far from its class"
COPY = "copy of a {split} image"
TWIN = "near-duplicate of a kept image"
SURPLUS = "more than were asked for"


@dataclass(frozen=True)
class Rules:
    """What an image must keep. Quantiles are of what real training images do among themselves; `None` turns one off."""

    agree: bool = True
    least_confidence: float | None = 0.5
    copy_quantile: float | None = 0.995
    twin_quantile: float | None = 0.995
    outlier_quantile: float | None = 0.005


EVERYTHING = Rules(False, None, None, None, None)
"""Keeps whatever shows something."""


@dataclass(frozen=True)
class Seen:
    """How a teacher sees images: features (N, D) of length one, logits (N, C), labels and which are blank (N,)."""

    features: Floats
    logits: Floats
    labels: Ints
    blank: Bools


@dataclass(frozen=True)
class Measure:
    """What real images say: similarity of a copy and of a twin; of each class its middle (C, D) and the least (C,)."""

    copy: float
    twin: float
    middles: Floats
    least: Floats


@dataclass(frozen=True)
class Verdict:
    """What became of one image; `reason` is `None` where it is kept."""

    scores: Scores
    reason: str | None


def unit_length(features: Floats) -> Floats:
    """Rows (N, D) at length one; a row of zeros stays."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), dtype=np.float32)


def probabilities(logits: Floats) -> Floats:
    """Softmax of logits (N, C)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)


def measure(train: Seen, rules: Rules) -> Measure:
    """How near real training images come to each other, and how far from the middle of their class they lie."""
    classes = train.logits.shape[1]
    near = nearest(train.features, train.features, itself=True)[0]
    sums = np.zeros((classes, train.features.shape[1]), dtype=np.float32)
    np.add.at(sums, train.labels, train.features)
    middles = unit_length(sums)
    own = np.einsum("nd,nd->n", train.features, middles[train.labels])
    least = np.full(classes, -1.0, dtype=np.float32)
    if rules.outlier_quantile is not None:
        for label in np.unique(train.labels):
            least[label] = np.quantile(own[train.labels == label], rules.outlier_quantile)

    def level(quantile: float | None) -> float:
        return 2.0 if quantile is None or not len(near) else float(np.quantile(near, quantile))

    return Measure(level(rules.copy_quantile), level(rules.twin_quantile), middles, least)


def nearest(queries: Floats, others: Floats, *, itself: bool = False) -> tuple[Floats, Ints]:
    """Largest similarity (N,) of each row to the rows of `others`, and which one; `itself` leaves out the same row.

    Of no other rows the similarity is -1 and the row -1.
    """
    best = np.full(len(queries), -1.0, dtype=np.float32)
    which = np.full(len(queries), -1, dtype=np.int64)
    if len(others) == 0 or (itself and len(others) == 1):
        return best, which
    for start in range(0, len(queries), BLOCK):
        part = queries[start : start + BLOCK]
        rows = np.arange(len(part))
        whole = np.zeros((BLOCK, queries.shape[1]), dtype=np.float32)
        whole[rows] = part
        block = (whole @ others.T)[rows]
        if itself:
            block[rows, start + rows] = -2.0
        which[start : start + BLOCK] = found = block.argmax(axis=1)
        best[start : start + BLOCK] = block[rows, found]
    return best, which


def judge(
    made: Seen,
    real: Mapping[str, Floats],
    known: Measure,
    rules: Rules,
    wanted: Sequence[int],
) -> list[Verdict]:
    """A verdict for each image in order. `real` are the features of each split's images; `wanted` counts a class (C,).

    Images come in the order of their numbers, so that a later round never takes the place of an earlier one.
    """
    probs = probabilities(made.logits)
    answers = probs.argmax(axis=1)
    rows = np.arange(len(answers))
    asked, sure = probs[rows, made.labels], probs[rows, answers]
    own = np.einsum("nd,nd->n", made.features, known.middles[made.labels])
    splits = list(real)
    similar = np.stack([nearest(made.features, real[split])[0] for split in splits])
    closest = similar.argmax(axis=0)
    kept = _Kept(len(known.middles), made.features.shape[1])
    found = []
    for i in rows:
        label = int(made.labels[i])
        split = splits[closest[i]]
        twin = kept.nearest(label, made.features[i])
        scores = Scores(
            teacher_label=int(answers[i]),
            teacher_confidence=float(sure[i]),
            asked_probability=float(asked[i]),
            nearest_real=float(similar[closest[i], i]),
            nearest_real_split=split,
            nearest_kept=twin,
            class_similarity=float(own[i]),
        )
        broken = {
            BLANK: bool(made.blank[i]),
            DISAGREES: rules.agree and int(answers[i]) != label,
            UNSURE: rules.least_confidence is not None and asked[i] < rules.least_confidence,
            OUTLIER: own[i] < known.least[label],
            COPY.format(split=split): similar[closest[i], i] >= known.copy,
            TWIN: twin is not None and twin >= known.twin,
            SURPLUS: kept.count(label) >= wanted[label],
        }
        reason = next((name for name, is_so in broken.items() if is_so), None)
        if reason is None:
            kept.add(label, made.features[i])
        found.append(Verdict(scores, reason))
    return found


class _Kept:
    """Features of the images that were kept, by class, in arrays that grow."""

    def __init__(self, classes: int, width: int) -> None:
        self.rows = [np.empty((64, width), dtype=np.float32) for _ in range(classes)]
        self.counts = [0] * classes

    def count(self, label: int) -> int:
        return self.counts[label]

    def nearest(self, label: int, row: Floats) -> float | None:
        count = self.counts[label]
        return float((self.rows[label][:count] @ row).max()) if count else None

    def add(self, label: int, row: Floats) -> None:
        count = self.counts[label]
        if count == len(self.rows[label]):
            self.rows[label] = np.concatenate([self.rows[label], np.empty_like(self.rows[label])])
        self.rows[label][count] = row
        self.counts[label] += 1


def tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many images broke each rule, most first."""
    return dict(Counter(v.reason for v in verdicts if v.reason is not None).most_common())


def lacking(labels: Ints, verdicts: Sequence[Verdict], wanted: Sequence[int]) -> list[int]:
    """How many kept images each class still lacks (C,)."""
    have = Counter(
        int(label) for label, v in zip(labels, verdicts, strict=True) if v.reason is None
    )
    return [max(0, count - have[k]) for k, count in enumerate(wanted)]


def next_round(
    labels: Ints, verdicts: Sequence[Verdict], lack: Sequence[int], most: Sequence[int]
) -> list[int]:
    """How many images of each class to make next, so that by the share kept so far the rest will be there.

    `most` is what each class may still have made (C,); a class of which nothing was kept is tried as often again.
    """
    counts = []
    for k, missing in enumerate(lack):
        tried = int(np.count_nonzero(labels == k))
        kept = sum(
            1 for label, v in zip(labels, verdicts, strict=True) if label == k and v.reason is None
        )
        share = max(kept, 0.5) / max(tried, 1)
        counts.append(min(most[k], int(np.ceil(1.1 * missing / share))) if missing else 0)
    return counts
