"""How it learns: the loss terms, each a few lines with its source. All compute in float32, whatever autocast says;
float64 stays float64, so that a gradient can be checked against finite differences.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _full(x: Tensor) -> Tensor:
    """At least float32: float16 and bfloat16 are raised, float64 is kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def kd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of softened logits (B, C), a scalar in nats per image.

    Times `temperature` squared, so that the gradient keeps its size (Hinton et al. 2015, section 2).
    """
    log_s = F.log_softmax(_full(student) / temperature, dim=1)
    log_t = F.log_softmax(_full(teacher) / temperature, dim=1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean distance to the power `alpha` between matching unit vectors (B, D).

    Wang & Isola 2020, equation 4: 0 when they agree, `2 - 2 cos` for `alpha` 2.
    """
    squared = (_full(x) - _full(y)).square().sum(1)
    return (squared if alpha == 2 else squared.clamp_min(1e-12).pow(alpha / 2)).mean()


def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential over all pairs of unit vectors (B, D); lower is more uniform.

    Wang & Isola 2020, equation 5. A batch of one has no pair and gives 0.
    """
    x = _full(x)
    if len(x) < 2:
        return x.sum() * 0.0
    return torch.pdist(x).square().mul(-t).exp().mean().log()


class Projector(nn.Module):
    """Linear, ReLU, linear, then unit length: features (B, D) to an embedding (B, `width`).

    The `mocov2` projector of Farhat & Chen 2024, hidden width = feature width.
    """

    def __init__(self, features: int, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width)
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.layers(_full(features)), dim=1)


class AlignUniform(nn.Module):
    """Alignment plus mean uniformity between projected student and teacher features.

    Farhat & Chen 2024: the teacher is frozen, both projectors are trained (`P_t` too: its uniformity is what keeps
    the two from collapsing onto one point), and both are thrown away after training.
    """

    def __init__(
        self, student: int, teacher: int, width: int = 128, alpha: float = 2.0, t: float = 2.0
    ) -> None:
        super().__init__()
        self.student = Projector(student, width)
        self.teacher = Projector(teacher, width)
        self.alpha, self.t = alpha, t

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar loss of features (B, D_s) and (B, D_t) of the same views."""
        with torch.autocast(student.device.type, enabled=False):
            z_s, z_t = self.student(student), self.teacher(teacher)
            uniform = (uniformity(z_s, self.t) + uniformity(z_t, self.t)) / 2
            return alignment(z_s, z_t, self.alpha) + uniform
