"""What an arm minimises: labels alone, or labels and a teacher, put together from `losses` and `contrast`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from edgedistill.distill.contrast import AlignUniform, FeatureMatch, InfoNCE
from edgedistill.distill.crd import CRD
from edgedistill.distill.focus import Influence, Misread, mean_one
from edgedistill.distill.gather import gather, several
from edgedistill.distill.losses import (
    believed,
    cross_entropy,
    dist,
    dkd,
    hard,
    kd,
    logit_mse,
    soft_cross_entropy,
)
from edgedistill.distill.schedules import teaching
from edgedistill.nets import Ints
from edgedistill.recipe import DistillSection
from edgedistill.teacher.course import Lesson

WARMUP_ALIGN = 0.1
"""Share of the run in which `warmup_align` weighs images."""


@dataclass(frozen=True)
class Batch:
    """One process' part of a step: rows (B,), labels (B,) with -1 for unlabelled images, what is taught, and when.

    `soft` (B, C) replaces the labels where views are made of two images; `anchor` (B, C) are logits of the student as
    it was before its last stage. `progress` is the share of the run in [0, 1). `labelled` is the labelled part of the
    whole step, over all processes and micro-batches; `None` where all is labelled.
    """

    index: Ints
    labels: Tensor
    lesson: Lesson
    step: int = 0
    progress: float = 0.0
    soft: Tensor | None = None
    anchor: Tensor | None = None
    labelled: float | None = None


class Targets(Protocol):
    """A teacher's outputs: features (B, D) and logits (B, C) of images `index` in the view of `lesson`.

    `widths` are the feature widths of the teachers of the course, in order.
    """

    widths: tuple[int, ...]
    classes: int

    def __call__(self, lesson: Lesson, index: Ints) -> tuple[Tensor, Tensor]: ...


class Objective(Protocol):
    """What is minimised: a scalar in nats and its named parts, from features (B, D) and logits (B, C) of one batch.

    `modules` are trained with the student, or hold state; they are thrown away after training. `labels_only`: images
    without a label are of no use to it.
    """

    modules: Sequence[nn.Module]
    labels_only: bool

    def __call__(
        self, features: Tensor, logits: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


class Plain:
    """Cross entropy on the labels, `smoothing` of each spread evenly over all classes (Szegedy et al. 2016)."""

    modules: Sequence[nn.Module] = ()
    labels_only = True

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing = smoothing

    def __call__(
        self, features: Tensor, logits: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy in nats."""
        return _labels_term(logits, batch, self.smoothing), {}


class Distilled:
    """The weighted sum of the terms that a recipe's `distill.weights` are above 0 for."""

    labels_only = False

    def __init__(
        self,
        section: DistillSection,
        student: int,
        targets: Targets,
        labels: Ints,
        seed: int = 0,
    ) -> None:
        self.section, self.targets = section, targets
        self.weights = {k: float(v) for k, v in section.weights.model_dump().items() if v}
        self.temperature = float(section.temperature)
        embeddings = _embeddings(section, student, targets.widths, labels, seed, self.weights)
        self.embeddings: Mapping[str, nn.Module] = embeddings
        self.misread = Misread() if section.warmup_align else None
        self.influence = Influence(targets.classes, student) if section.influence else None
        extra = [self.influence] if self.influence is not None else []
        self.modules: Sequence[nn.Module] = [*embeddings.values(), *extra]

    def __call__(
        self, features: Tensor, logits: Tensor, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum and its parts before weighting."""
        taught_features, taught = self.targets(batch.lesson, batch.index)
        dtype = torch.promote_types(features.dtype, torch.float32)
        taught_features = taught_features.to(features.device, dtype, non_blocking=True)
        taught = taught.to(logits.device, dtype, non_blocking=True)
        focus = self._focus(features, logits, taught, batch)
        parts = {name: self._logit_term(name, logits, taught, batch, focus) for name in self._on}
        if focus is not None and several():  # a process whose images count more counts more
            own = {"ce", "dist"} if batch.labelled is not None else {"dist"}
            parts |= {name: v * focus.mean() for name, v in parts.items() if name not in own}
        rows, which = torch.from_numpy(batch.index), batch.lesson.teacher
        for name, module in self.embeddings.items():
            parts[name] = module(
                features, taught_features, index=rows, step=batch.step, which=which
            )
        factor = teaching(batch.progress, self.section.weight_schedule)
        total = torch.zeros((), device=logits.device)
        for name, value in parts.items():
            total = total + self.weights[name] * (1.0 if name == "ce" else factor) * value
        if len(self.targets.widths) > 1:
            # fused optimisers and DDP want a gradient for every parameter, also of a silent teacher's projector
            total = total + 0 * sum(p.sum() for m in self.modules for p in m.parameters())
        if batch.anchor is not None:
            parts["anchor"] = kd(logits, batch.anchor, 1.0)
            total = total + parts["anchor"]
        return total, parts

    @property
    def _on(self) -> list[str]:
        return [name for name in self.weights if name not in self.embeddings]

    def _logit_term(
        self, name: str, logits: Tensor, taught: Tensor, batch: Batch, focus: Tensor | None
    ) -> Tensor:
        section, t = self.section, self.temperature
        if name == "ce":
            return _labels_term(logits, batch, weights=focus)
        if name == "hard":
            return hard(logits, taught, weights=focus)
        if name == "logit_mse":
            return logit_mse(logits, taught, weights=focus)
        taught = believed(taught, section.believe_top_k, section.believe_top_p)
        if name == "kd":
            return kd(logits, taught, t, weights=focus)
        if name == "dkd":
            alpha, beta = section.dkd_alpha, section.dkd_beta
            return dkd(logits, taught, batch.labels, t, alpha, beta, weights=focus)
        if name == "dist":  # a class is correlated over the images of all processes
            return dist(gather(logits), gather(taught), t)
        return soft_cross_entropy(logits, taught, t, weights=focus)

    def _focus(
        self, features: Tensor, logits: Tensor, taught: Tensor, batch: Batch
    ) -> Tensor | None:
        """Weights (B,) of the images with a mean of 1, or `None` where all count the same."""
        weights: Tensor | None = None
        if self.misread is not None and batch.progress < WARMUP_ALIGN:
            weights = self.misread(logits, taught)
        if self.influence is not None:
            agreed = self.influence(features, logits, taught, batch.labels, self.temperature)
            weights = agreed if weights is None else weights * agreed
        return None if weights is None else mean_one(weights)


def _labels_term(
    logits: Tensor, batch: Batch, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Cross entropy of what the labels say.

    Where images lack labels, parts of a step count with what is labelled of them, so that their sum is the mean over
    all labelled images of the step.
    """
    truth = batch.labels if batch.soft is None else batch.soft
    value = cross_entropy(logits, truth, smoothing=smoothing, weights=weights)
    if not batch.labelled:
        return value
    mass = (truth >= 0).to(value.dtype) if truth.ndim == 1 else truth.sum(1)
    return value * (mass if weights is None else mass * weights).mean() / batch.labelled


def _embeddings(
    section: DistillSection,
    student: int,
    teachers: tuple[int, ...],
    labels: Ints,
    seed: int,
    weights: Mapping[str, float],
) -> dict[str, nn.Module]:
    """The terms on features that count, by name."""
    width, tau = section.projection_dim, section.contrast_temperature
    found: dict[str, nn.Module] = {}
    if "align_uniform" in weights:
        found["align_uniform"] = AlignUniform(
            student, teachers, width, section.align_alpha, section.uniform_t, section.projector
        )
    if "info_nce" in weights:
        found["info_nce"] = InfoNCE(student, teachers, width, tau, section.projector)
    if "crd" in weights:
        found["crd"] = CRD(student, teachers, labels, width, section.crd_negatives, tau, seed=seed)
    for name in ("cosine", "mse"):
        if name in weights:
            found[name] = FeatureMatch(student, teachers, name)
    return found
