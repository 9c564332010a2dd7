"""What the labels of a mixed view say, and how much of a step is labelled."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.data.views import Mixture
from edgedistill.distill.truth import class_shares, labelled_share

LABELS = np.array([0, 1, -1, 1], np.int64)
INDEX = np.array([0, 1, 2, 3], np.int64)
MIXED = Mixture(np.array([1, 2, 0, 3], np.int64), np.array([0.75, 0.6, 0.3, 0.2]))


def test_a_mixed_view_has_the_classes_of_both_images_by_their_share() -> None:
    shares = class_shares(LABELS, INDEX, MIXED, 2)
    assert shares[0] == pytest.approx([0.75, 0.25])
    assert shares[3] == pytest.approx([0.0, 1.0]), "mixed with itself"


def test_what_is_unlabelled_of_a_mixed_view_is_missing_and_the_rest_is_not_lost() -> None:
    shares = class_shares(LABELS, INDEX, MIXED, 2)
    assert shares[1] == pytest.approx([0.0, 0.6])
    assert shares[2] == pytest.approx([0.7, 0.0])


def test_the_labelled_part_of_a_step_counts_both_images() -> None:
    assert labelled_share(LABELS, INDEX, None) == pytest.approx(0.75)
    assert labelled_share(LABELS, INDEX, MIXED) == pytest.approx((1 + 0.6 + 0.7 + 1) / 4)
    assert class_shares(LABELS, INDEX, MIXED, 2).sum() == pytest.approx(4 * 0.825)


def test_a_label_counts_with_the_weight_of_its_image() -> None:
    weights = np.array([1, 0.25, 1, 0.5], np.float32)
    alone = class_shares(LABELS, INDEX, None, 2, weights)
    assert alone.tolist() == [[1, 0], [0, 0.25], [0, 0], [0, 0.5]]
    assert labelled_share(LABELS, INDEX, None, weights) == pytest.approx(1.75 / 4)
    mixed = class_shares(LABELS, INDEX, MIXED, 2, weights)
    assert mixed[0] == pytest.approx([0.75, 0.25 * 0.25])
    assert labelled_share(LABELS, INDEX, MIXED, weights) == pytest.approx(mixed.sum() / 4)
