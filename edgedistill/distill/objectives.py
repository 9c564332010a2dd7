"""What an arm minimises: labels alone, or labels and a teacher, put together from `losses`."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.distill.contrast import AlignUniform
from edgedistill.distill.losses import kd
from edgedistill.distill.trainer import ViewOutputs
from edgedistill.nets import Ints
from edgedistill.recipe import DistillSection


class Plain:
    """Cross entropy on the labels, `smoothing` of each spread evenly over all classes (Szegedy et al. 2016)."""

    modules: Sequence[nn.Module] = ()

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def __call__(
        self, features: Tensor, logits: Tensor, labels: Tensor, view: int, index: Ints
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy in nats."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing), {}


class Distilled:
    """`ce * CE + kd * KL(T) * T^2 + align_uniform * L_AU` (Farhat & Chen 2024; weights 1, 1, 1 and T = 4)."""

    def __init__(
        self, section: DistillSection, student: int, teacher: int, targets: ViewOutputs
    ) -> None:
        self.section, self.targets = section, targets
        self.align = AlignUniform(
            student, teacher, section.projection_dim, section.align_alpha, section.uniform_t
        )
        self.modules: Sequence[nn.Module] = (self.align,)

    def __call__(
        self, features: Tensor, logits: Tensor, labels: Tensor, view: int, index: Ints
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum and its parts before weighting."""
        taught_features, taught_logits = self.targets(view, index)
        taught_features = taught_features.to(features.device)
        taught_logits = taught_logits.to(features.device)
        parts = {
            "ce": F.cross_entropy(logits.float(), labels),
            "kd": kd(logits, taught_logits, self.section.temperature),
            "align_uniform": self.align(features, taught_features),
        }
        loss = (
            self.section.ce * parts["ce"]
            + self.section.kd * parts["kd"]
            + self.section.align_uniform * parts["align_uniform"]
        )
        return loss, parts
