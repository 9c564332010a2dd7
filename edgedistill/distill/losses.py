"""How it learns, from logits: each loss a few lines with its source, as pure functions.

All compute in float32, whatever autocast says; float64 is kept, so that gradients can be checked by finite differences.
Student and teacher logits are (B, C). `weights` (B,), none negative, make a loss `sum(w * l) / sum(w)`, and 0 where
all are 0; None counts every image once. A label of -1 means unlabelled.

With several processes, give the logits, labels and weights of all of them (`gather`): DIST compares columns of the
batch, and a mean of weighted means is not the weighted mean of all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

P = ParamSpec("P")
NEVER = 1e5
"""How far below the likeliest class a logit lies whose class is not believed, at any temperature up to 100."""


def full(x: Tensor) -> Tensor:
    """At least float32: float16 and bfloat16 are raised, all else is kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def in_full(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """The same loss with its tensors in at least float32 and autocast off."""

    @wraps(loss)
    def raised(*args: P.args, **named: P.kwargs) -> Tensor:
        first: Any = args[0]
        with torch.autocast(first.device.type, enabled=False):
            wide: Any = [full(a) if isinstance(a, Tensor) else a for a in args]
            rest: Any = {k: full(a) if isinstance(a, Tensor) else a for k, a in named.items()}
            return loss(*wide, **rest)

    return raised


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of losses (B,), weighted when there are weights (B,); 0 where no image counts."""
    if weights is None:
        return losses.mean()
    total = weights.sum()
    return (losses * weights).sum() / torch.where(total > 0, total, 1)


def _divergence(log_s: Tensor, log_t: Tensor) -> Tensor:
    """KL(teacher || student) (B,) of log-probabilities (B, C), in nats."""
    return F.kl_div(log_s, log_t, reduction="none", log_target=True).sum(1)


@in_full
def cross_entropy(
    logits: Tensor, target: Tensor, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Cross entropy in nats with `smoothing` of each target spread evenly over all classes (Szegedy et al. 2016).

    `target` is labels (B,), -1 where unlabelled, or soft ones (B, C). A soft target counts with its sum: one made of a
    labelled and of an unlabelled image (a row of zeros) is worth the labelled share. Without any label it is 0, and its
    gradient too.
    """
    if target.ndim == 1:
        counted = (target >= 0).to(logits.dtype)
        losses = F.cross_entropy(
            logits, target, ignore_index=-1, reduction="none", label_smoothing=smoothing
        )
        return _mean(losses, counted if weights is None else counted * weights)
    mass = target.sum(1)
    spread = target * (1 - smoothing) + (mass * (smoothing / target.shape[1])).unsqueeze(1)
    losses = -(spread * F.log_softmax(logits, dim=1)).sum(1)
    total = (mass if weights is None else mass * weights).sum()
    summed = (losses if weights is None else losses * weights).sum()
    return summed / torch.where(total > 0, total, 1)


@in_full
def kd(
    student: Tensor, teacher: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """KL(teacher || student) of softened logits, a scalar in nats per image.

    Times `temperature` squared, so that the gradient keeps its size (Hinton et al. 2015, section 2). Function matching
    (Beyer et al. 2022) is this loss alone, the factor included, without labels and on mixed-up images.
    """
    log_s = F.log_softmax(student / temperature, dim=1)
    log_t = F.log_softmax(teacher / temperature, dim=1)
    return _mean(_divergence(log_s, log_t), weights) * temperature**2


@in_full
def soft_cross_entropy(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, weights: Tensor | None = None
) -> Tensor:
    """Cross entropy against the teacher's softened probabilities, in nats (TinyViT, Wu et al. 2022).

    Times `temperature` squared; its gradient in the student is that of `kd`, its value higher by the teacher's entropy.
    """
    log_s = F.log_softmax(student / temperature, dim=1)
    p_t = F.softmax(teacher / temperature, dim=1)
    return _mean(-(p_t * log_s).sum(1), weights) * temperature**2


@in_full
def hard(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy against the class that the teacher holds most likely (DeiT, Touvron et al. 2021, equation 3)."""
    return _mean(F.cross_entropy(student, teacher.argmax(1), reduction="none"), weights)


@in_full
def logit_mse(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Squared difference of logits, mean over the classes (Ba & Caruana 2014, equation 1, but for its factor)."""
    return _mean((student - teacher).pow(2).mean(1), weights)


def believed(teacher: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits (B, C) of which only the likeliest classes are left: the others have a probability of 0.

    First the fewest classes that together have the probability `top_p`, then the `top_k` of them that have the most
    (Peng et al. 2024, section 3.1); the first one always stays. Fewer classes than `top_k` stay as they are.
    """
    if top_k is None and top_p is None:
        return teacher
    ordered, order = full(teacher).sort(dim=1, descending=True, stable=True)
    out = torch.zeros_like(ordered, dtype=torch.bool)
    if top_p is not None:
        shares = F.softmax(ordered, dim=1)
        out |= (shares.cumsum(1) - shares) >= top_p
    if top_k is not None:
        out[:, top_k:] = True
    out[:, 0] = False
    lowest = ordered[:, :1] - NEVER
    kept = torch.where(out, lowest, ordered)
    return torch.empty_like(kept).scatter_(1, order, kept)


@in_full
def dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float = 1.0,
    beta: float = 8.0,
    weights: Tensor | None = None,
) -> Tensor:
    """`alpha` times the divergence of (target, all others) plus `beta` times that among the others, times T squared.

    Zhao et al. 2022, equation 7. `labels` (B,); where one is -1 the teacher's first choice is the target. With one
    class there is nothing to compare and the loss is 0; the term among the others is 0 with two.
    """
    classes = student.shape[1]
    if classes < 2:
        return student.sum() * 0.0
    target = torch.where(labels < 0, teacher.argmax(1), labels).unsqueeze(1)
    others = torch.arange(classes - 1, device=student.device).expand(len(student), -1)
    others = others + (others >= target)
    log_s = F.log_softmax(student / temperature, dim=1)
    log_t = F.log_softmax(teacher / temperature, dim=1)
    rest_s, rest_t = log_s.gather(1, others), log_t.gather(1, others)
    sum_s, sum_t = rest_s.logsumexp(1, keepdim=True), rest_t.logsumexp(1, keepdim=True)
    of_target = _divergence(
        torch.cat([log_s.gather(1, target), sum_s], 1),
        torch.cat([log_t.gather(1, target), sum_t], 1),
    )
    among_others = _divergence(rest_s - sum_s, rest_t - sum_t)
    return _mean(alpha * of_target + beta * among_others, weights) * temperature**2


def _correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson's along `dim` of two matrices; 0 where either does not vary."""
    x, y = x - x.mean(dim, keepdim=True), y - y.mean(dim, keepdim=True)
    lengths = torch.linalg.vector_norm(x, dim=dim) * torch.linalg.vector_norm(y, dim=dim)
    found: Tensor = (x * y).sum(dim) / (lengths + 1e-8)
    return found


@in_full
def dist(
    student: Tensor, teacher: Tensor, temperature: float, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """`beta` times one less the correlation of each image's probabilities plus `gamma` times that of each class's.

    Huang et al. 2022 (DIST), times `temperature` squared as in their code. What cannot vary counts as
    uncorrelated: every class in a batch of one, every image with one class; that part is then constant.
    """
    p_s, p_t = (F.softmax(z / temperature, dim=1) for z in (student, teacher))
    between_classes = 1 - _correlation(p_s, p_t, 1).mean()
    within_classes = 1 - _correlation(p_s, p_t, 0).mean()
    return (beta * between_classes + gamma * within_classes) * temperature**2
