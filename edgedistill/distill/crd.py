"""Contrastive representation distillation: noise-contrastive estimation against a memory of all training images.

Tian, Krishnan & Isola 2020. Formulas and constants are those of the authors' code (RepDistiller), worked out in
logarithms, so that no temperature overflows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.distill.contrast import Projectors
from edgedistill.distill.gather import gather, several

Ints = npt.NDArray[np.int64]
EPS = 1e-7
DENSE = 16
"""A memory of up to so many rows for each that is drawn is multiplied whole: faster than copying the drawn ones."""


class Negatives:
    """The images that each image is told from: drawn anew at every step, never of its own class.

    A pure function of (seed, step, image), so that a training that is resumed draws the same, on any number of
    processes. Unlabelled images (-1) stand against all but themselves, and so do all where there is one class only.
    """

    def __init__(self, labels: Ints, count: int, seed: int) -> None:
        self.count = count if len(labels) > 1 else 0
        self.seed = seed
        self.order = np.argsort(labels, kind="stable")
        ranked = labels[self.order]
        self.first = np.searchsorted(ranked, labels, "left")
        self.end = np.searchsorted(ranked, labels, "right")
        alone = (labels < 0) | (self.end - self.first == len(labels))
        place = np.empty(len(labels), np.int64)
        place[self.order] = np.arange(len(labels))
        self.first[alone] = place[alone]
        self.end[alone] = place[alone] + 1

    def draw(self, index: Ints, step: int) -> Ints:
        """Indices (B, 1 + count): each image, then its negatives, none twice where there are enough."""
        drawn = np.empty((len(index), 1 + self.count), np.int64)
        drawn[:, 0] = index
        for row, image in zip(drawn, index.tolist(), strict=True):
            first, own = self.first[image], self.end[image] - self.first[image]
            others = len(self.order) - int(own)
            rng = np.random.default_rng([self.seed, step, image])
            at = rng.choice(others, self.count, replace=self.count > others, shuffle=False)
            row[1:] = self.order[at + own * (at >= first)]
        return drawn


def nce(log_p: Tensor, images: int) -> Tensor:
    """Loss, in nats per image, of log-probabilities (B, 1 + K): the partner first, then the negatives.

    Equation 18, the noise uniform over `images`: a true pair is told from K others.
    """
    noise = (log_p.shape[1] - 1) / images
    bound = math.log(noise + EPS)
    partner = F.softplus(bound - log_p[:, 0]).mean()
    if noise == 0:
        return partner
    return partner + (F.softplus(log_p[:, 1:] - bound) + bound - math.log(noise)).sum(1).mean()


def _scores(anchors: Tensor, memory: Tensor, drawn: Tensor) -> Tensor:
    """Products (B, 1 + K) of each anchor (B, D) with its drawn rows of a memory (N, D)."""
    if len(memory) <= DENSE * drawn.shape[1]:
        kept = memory.clone()  # backward needs it, and the memory is about to be moved
        return (anchors @ kept.T).gather(1, drawn)
    rows = memory.index_select(0, drawn.reshape(-1)).view(*drawn.shape, -1)
    return torch.bmm(rows, anchors.unsqueeze(2)).squeeze(2)


class CRD(nn.Module):
    """Each embedding finds its own image in the other side's memory, among `negatives` of other classes.

    `labels` (N,) of all training images, -1 where unlabelled. The memory holds an embedding of every image and moves it
    towards the new one each time the image is seen: 8 * N * width bytes, and half as much again for each teacher after
    the first. `log_z`, the constants that make scores probabilities, are those of the first batch; NaN until then.
    """

    memory_s: Tensor
    memory_t: Tensor
    log_z: Tensor

    def __init__(
        self,
        student: int,
        teacher: int | Sequence[int],
        labels: Ints,
        width: int = 128,
        negatives: int = 4096,
        temperature: float = 0.07,
        momentum: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.projectors = Projectors(student, teacher, width, "linear")
        self.negatives = Negatives(labels, negatives, seed)
        self.temperature, self.momentum = temperature, momentum
        teachers, images = len(self.projectors.teachers), len(labels)
        edge = 1 / math.sqrt(width / 3)
        generator = torch.Generator().manual_seed(seed)
        start = torch.rand(1 + teachers, images, width, generator=generator) * (2 * edge) - edge
        self.register_buffer("memory_s", start[0].clone())
        self.register_buffer("memory_t", start[1:].clone())
        self.register_buffer("log_z", torch.full((teachers, 2), math.nan))

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        index: Tensor | None = None,
        step: int = 0,
        which: int = 0,
    ) -> Tensor:
        """Scalar in nats of this process's rows; `index` (B,) is needed, on the CPU, where the negatives are drawn."""
        assert index is not None, "CRD needs the index of each image"
        z_s, z_t = self.projectors.own(student, teacher, which)
        memory_t = self.memory_t[which]
        drawn = torch.from_numpy(self.negatives.draw(index.numpy(), step)).to(z_s.device)
        with torch.autocast(z_s.device.type, enabled=False):
            of_s = _scores(z_s, memory_t, drawn) / self.temperature
            of_t = _scores(z_t, self.memory_s, drawn) / self.temperature
            log_z = self._log_z(of_s.detach(), of_t.detach(), which)
            images = len(memory_t)
            loss = nce(of_s - log_z[0], images) + nce(of_t - log_z[1], images)
        with torch.no_grad():
            seen = gather(index.to(z_s.device))
            _move(self.memory_s, seen, gather(z_s), self.momentum)
            _move(memory_t, seen, gather(z_t), self.momentum)
        return loss

    def _log_z(self, of_s: Tensor, of_t: Tensor, which: int) -> Tensor:
        """Logarithms (2,) of the number of images times the mean score of the first batch, of all processes."""
        if bool(self.log_z[which].isnan().any()):
            sums = torch.stack([s.logsumexp((0, 1)) - math.log(s.numel()) for s in (of_s, of_t)])
            mean = gather(sums[None])
            log_mean = mean.logsumexp(0) - math.log(len(mean)) if several() else mean[0]
            self.log_z[which] = log_mean + math.log(len(self.memory_s))
        return self.log_z[which].clone()


def _move(memory: Tensor, index: Tensor, z: Tensor, momentum: float) -> None:
    """Move rows `index` (B,) of a memory (N, D) towards `z` (B, D), in place, and back to unit length."""
    moved = memory[index] * momentum + z * (1 - momentum)
    memory.index_copy_(0, index, F.normalize(moved, dim=1))
