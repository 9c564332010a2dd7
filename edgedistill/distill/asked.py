"""What an image was asked to show, in the place of what the teacher sees in it: for the ablation of soft targets."""

from __future__ import annotations

import torch
from torch import Tensor

from edgedistill.data.views import Views
from edgedistill.distill.objectives import Targets
from edgedistill.distill.truth import class_shares
from edgedistill.nets import Ints
from edgedistill.teacher.course import Lesson

LEAST = 1e-30
"""Share of a class that was not asked for: its logarithm is finite, and softened it still is next to nothing."""


class AskedTargets:
    """A teacher's outputs; for synthetic images, the rows from `first` on, the logits say the class that was asked for.

    `labels` (N,) are the classes of all images, with those that were asked for.
    """

    def __init__(self, targets: Targets, views: Views, labels: Ints, first: int) -> None:
        self.targets, self.views, self.labels, self.first = targets, views, labels, first
        self.widths, self.classes = targets.widths, targets.classes

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]:
        """Features (B, D) of the teacher and logits (B, C) of images `index` in the view of `lesson`."""
        features, logits = self.targets(lesson, index)
        mixture = self.views.mixture(index, lesson.view, len(self.labels))
        shares = torch.from_numpy(class_shares(self.labels, index, mixture, self.classes))
        asked = shares.clamp_min(LEAST).log().to(logits.device, logits.dtype)
        made = torch.from_numpy(index >= self.first).to(logits.device)
        return features, torch.where(made[:, None], asked, logits)
