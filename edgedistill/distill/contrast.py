"""How it learns, from features: losses between projected embeddings of student and teacher.

Each is a module with the signature `forward(student, teacher, index=None, step=0, which=0)`: features (B, D_s) and
(B, D_t) of the same views, the index (B,) of each image in the training set, the training step, and which of several
teachers speaks. `teacher` is one width or, where several teach one after the other, a sequence of widths: each has a
projector of its own. Projectors are trained with the student and thrown away; stored features get no gradient.

All compute in float32, whatever autocast says; float64 stays float64. With several processes the batch is that of all
of them (`gather`); BatchNorm in a projector sees its own process unless it is made synchronous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.distill.closed import AlignedUniform, UnitPerceptron
from edgedistill.distill.gather import gather, several
from edgedistill.distill.losses import full, in_full

ProjectorKind = Literal["mocov2", "linear", "simclr", "simclrv2"]


@in_full
def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """Mean distance to the power `alpha` between matching unit vectors (B, D).

    Wang & Isola 2020, equation 4: 0 when they agree, `2 - 2 cos` for `alpha` 2.
    """
    squared = (x - y).square().sum(1)
    return (squared if alpha == 2 else squared.clamp_min(1e-24).pow(alpha / 2)).mean()


@in_full
def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential over all pairs of unit vectors (B, D); lower is more uniform.

    Wang & Isola 2020, equation 5. A batch of one has no pair and gives 0.
    """
    if len(x) < 2:
        return x.sum() * 0.0
    return torch.pdist(x).square().mul(-t).exp().mean().log()


class _Norm(nn.BatchNorm1d):
    """BatchNorm that takes the running statistics for a batch of one, which has none of its own."""

    def forward(self, input: Tensor) -> Tensor:
        if len(input) > 1:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class Projector(nn.Module):
    """Features (B, D) to an embedding (B, `width`) of unit length; hidden layers are as wide as the features.

    The kinds of Farhat & Chen 2024: `mocov2` linear, ReLU, linear (Chen et al. 2020, MoCo v2); `linear` one layer;
    `simclr` and `simclrv2` one and two hidden layers, without bias, each followed by BatchNorm, the last unscaled.
    """

    def __init__(self, features: int, width: int = 128, kind: ProjectorKind = "mocov2") -> None:
        super().__init__()
        self.kind = kind
        layers: list[nn.Module] = []
        if kind == "mocov2":
            layers = [nn.Linear(features, features), nn.ReLU()]
        for _ in range({"simclr": 1, "simclrv2": 2}.get(kind, 0)):
            layers += [nn.Linear(features, features, bias=False), _Norm(features), nn.ReLU()]
        normed = kind in ("simclr", "simclrv2")
        layers.append(nn.Linear(features, width, bias=not normed))
        if normed:
            layers.append(_Norm(width, affine=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        if self.kind != "mocov2":
            return F.normalize(self.layers(features), dim=1)
        first, last = self.layers[0], self.layers[2]
        unit: Tensor = UnitPerceptron.apply(
            features, first.weight, first.bias, last.weight, last.bias
        )
        return unit


class Projectors(nn.Module):
    """A projector for the student and one for each teacher."""

    def __init__(
        self, student: int, teacher: int | Sequence[int], width: int, kind: ProjectorKind
    ) -> None:
        super().__init__()
        widths = (teacher,) if isinstance(teacher, int) else teacher
        self.student = Projector(student, width, kind)
        self.teachers = nn.ModuleList(Projector(features, width, kind) for features in widths)

    def forward(self, student: Tensor, teacher: Tensor, which: int = 0) -> tuple[Tensor, Tensor]:
        """Embeddings of both sides, over all processes, by one exchange."""
        z_s, z_t = self.own(student, teacher, which)
        if not several():
            return z_s, z_t
        all_s, all_t = gather(torch.cat([z_s, z_t], 1)).chunk(2, 1)
        return all_s, all_t

    def own(self, student: Tensor, teacher: Tensor, which: int) -> tuple[Tensor, Tensor]:
        """Embeddings (B, width) of both sides, of this process alone."""
        with torch.autocast(student.device.type, enabled=False):
            return self.student(full(student)), self.teachers[which](full(teacher))


class AlignUniform(nn.Module):
    """`alignment` plus mean `uniformity` between projected student and teacher features, in closed form.

    Farhat & Chen 2024: the teacher is frozen, both projectors are trained (the teacher's too: its uniformity is what
    keeps the two from collapsing onto one point), and both are thrown away after training.
    """

    def __init__(
        self,
        student: int,
        teacher: int | Sequence[int],
        width: int = 128,
        alpha: float = 2.0,
        t: float = 2.0,
        projector: ProjectorKind = "mocov2",
    ) -> None:
        super().__init__()
        self.projectors = Projectors(student, teacher, width, projector)
        self.alpha, self.t = alpha, t

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        index: Tensor | None = None,
        step: int = 0,
        which: int = 0,
    ) -> Tensor:
        """Scalar; `index` and `step` are not used."""
        z_s, z_t = self.projectors(student, teacher, which)
        loss: Tensor = AlignedUniform.apply(z_s, z_t, self.alpha, self.t)
        return loss


@in_full
def info_nce(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Cross entropy, in nats, of finding each vector's partner among all of the batch, mean of both directions.

    Unit vectors (B, D). Van den Oord et al. 2018, equation 4, in the symmetrical form of CLIP (Radford et al. 2021,
    figure 3). 0 for a batch of one.
    """
    scores = x @ y.T / temperature
    partner = torch.arange(len(x), device=x.device)
    return (F.cross_entropy(scores, partner) + F.cross_entropy(scores.T, partner)) / 2


class InfoNCE(nn.Module):
    """`info_nce` between projected features: the negatives are the other images of the batch."""

    def __init__(
        self,
        student: int,
        teacher: int | Sequence[int],
        width: int = 128,
        temperature: float = 0.07,
        projector: ProjectorKind = "linear",
    ) -> None:
        super().__init__()
        self.projectors = Projectors(student, teacher, width, projector)
        self.temperature = temperature

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        index: Tensor | None = None,
        step: int = 0,
        which: int = 0,
    ) -> Tensor:
        """Scalar in nats; `index` and `step` are not used."""
        z_s, z_t = self.projectors(student, teacher, which)
        return info_nce(z_s, z_t, self.temperature)


class FeatureMatch(nn.Module):
    """Teacher features from the student's by a linear map that is trained with it.

    `mse`: mean squared error over images and channels (FitNets, Romero et al. 2015).
    `cosine`: mean of one less the cosine, which does not see the length of the features.
    """

    def __init__(
        self, student: int, teacher: int | Sequence[int], kind: Literal["cosine", "mse"] = "cosine"
    ) -> None:
        super().__init__()
        widths = (teacher,) if isinstance(teacher, int) else teacher
        self.maps = nn.ModuleList(nn.Linear(student, features) for features in widths)
        self.kind = kind

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        index: Tensor | None = None,
        step: int = 0,
        which: int = 0,
    ) -> Tensor:
        """Scalar; `index` and `step` are not used."""
        with torch.autocast(student.device.type, enabled=False):
            mapped, teacher = self.maps[which](full(student)), full(teacher)
            if self.kind == "mse":
                return F.mse_loss(mapped, teacher)
            return (1 - F.cosine_similarity(mapped, teacher)).mean()
