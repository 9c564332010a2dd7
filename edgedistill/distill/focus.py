"""Which images count more in a step: weights (B,) from what student and teacher say of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.distill.gather import gather
from edgedistill.distill.losses import full

LEAST = 0.05
"""No image's weight falls below this share of the largest possible one."""
MEMORY = 0.9
"""How much of the mean gradient stays from step to step."""


def mean_one(weights: Tensor) -> Tensor:
    """Weights (B,) scaled to a mean of 1 over all processes."""
    scaled: Tensor = weights / gather(weights).mean().clamp_min(1e-12)
    return scaled


class Misread:
    """Images whose student's answer the teacher thinks unlikely count more, before the main distillation.

    The reading for images of Warmup-Distill (Sun et al. 2025, arXiv 2502.11766): there, what the student would say and
    the teacher finds improbable is put right first.
    """

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Weights (B,) in [0.05, 1]: one minus the teacher's probability of the student's answer."""
        with torch.no_grad():
            share = F.softmax(full(teacher), dim=1)
            said = share.gather(1, student.argmax(1, keepdim=True))[:, 0]
            doubt: Tensor = (1 - said).clamp_min(LEAST)
            return doubt


class Influence(nn.Module):
    """Images whose distillation gradient agrees with the labels' gradient of other images count more.

    The cheap reading of LGTM's distillation influence (Ren et al. 2023, arXiv 2305.09651): on the classifier alone,
    where an image's gradient is `delta x feature`, so that its product with a mean gradient (C, D) costs one matrix
    product. The mean is over training images of earlier steps, as the validation split must choose and not teach.
    """

    mean: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(classes, width))

    @torch.no_grad()
    def forward(
        self, features: Tensor, logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        """Weights (B,) in [0.05, 2]: one plus the cosine of an image's gradient and the mean one."""
        f, z, taught = full(features), full(logits), full(teacher)
        delta = F.softmax(z / temperature, 1) - F.softmax(taught / temperature, 1)
        size = delta.norm(dim=1) * f.norm(dim=1) * self.mean.norm()
        product = torch.einsum("bc,cd,bd->b", delta, self.mean, f)
        weights: Tensor = (1 + product / size.clamp_min(1e-12)).clamp_min(LEAST)
        self._learn(f, z, labels)
        return weights

    def _learn(self, features: Tensor, logits: Tensor, labels: Tensor) -> None:
        known = labels >= 0
        wrong = F.softmax(logits[known], 1)
        wrong[torch.arange(len(wrong), device=wrong.device), labels[known]] -= 1
        mine = wrong.T @ features[known]
        # every process gathers, also one without a labelled image
        count, total = gather(known.sum()[None]).sum(), gather(mine[None]).sum(0)
        if bool(count > 0):
            self.mean.lerp_(total / count, 1 - MEMORY)
