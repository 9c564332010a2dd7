"""What was asked for in the place of what the teacher sees: of synthetic images alone, and of mixed views by share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_parts import CLASSES, VIEWS, Knowing

from edgedistill.data.views import Views
from edgedistill.distill.asked import AskedTargets
from edgedistill.teacher.course import Lesson

LABELS = np.array([2, 1, 0, 2, 1], np.int64)
LESSON = Lesson(0, 1)
INDEX = np.arange(5)


def asked(views: Views = VIEWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of the wrapped teacher, and those of the teacher itself."""
    features, logits = AskedTargets(Knowing(), views, LABELS, 3)(LESSON, INDEX)
    own_features, own = Knowing()(LESSON, INDEX)
    assert torch.equal(features, own_features), "features are the teacher's"
    return logits.softmax(1), own.softmax(1)


def test_real_images_keep_the_teachers_answer_and_synthetic_ones_say_their_class() -> None:
    mine, own = asked()
    assert torch.equal(mine[:3], own[:3])
    assert mine[3:].argmax(1).tolist() == [2, 1]
    softened = AskedTargets(Knowing(), VIEWS, LABELS, 3)(LESSON, INDEX)[1][3:] / 4
    assert float(softened.softmax(1).max(1).values.min()) > 1 - 1e-6, "also at a temperature of 4"
    assert own[3:].argmax(1).tolist() != [2, 1], "the teacher would have said something else"


def test_a_mixed_view_says_both_classes_by_their_share() -> None:
    views = Views(seed=3, min_crop=0.7, flip=True, count=2, mix="mixup")
    mixture = views.mixture(INDEX, LESSON.view, len(LABELS))
    assert mixture is not None
    mine, _ = asked(views)
    for row in (3, 4):
        wanted = np.zeros(CLASSES)
        wanted[LABELS[row]] += mixture.share[row]
        wanted[LABELS[mixture.partner[row]]] += 1 - mixture.share[row]
        assert mine[row].numpy() == pytest.approx(wanted, abs=1e-6)
