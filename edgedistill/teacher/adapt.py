"""How a pretrained network learns the user's classes: a linear probe on frozen features, then fine-tuning.

The probe is cheap and never worse than its features; fine-tuning is kept only when validation says that it pays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.metrics import top1
from edgedistill.nets import Floats, Ints

PROBE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Probe:
    """A linear head on frozen features: weight (C, D), bias (C,), its L2 strength and validation top-1."""

    weight: Tensor
    bias: Tensor
    strength: float
    val_top1: float


@dataclass(frozen=True)
class Adapted:
    """An adapted teacher: what was done, why, and validation top-1."""

    model: nn.Module
    adaptation: str
    reason: str
    val_top1: float


def linear_probe(
    train: Floats, labels: Ints, val: Floats, val_labels: Ints, classes: int
) -> Probe:
    """Softmax regression on standardised features (N, D) by L-BFGS; the L2 strength is chosen on validation."""
    x, y = torch.from_numpy(train).double(), torch.from_numpy(labels)
    mean, std = x.mean(0), x.std(0).clamp_min(1e-4)
    z = (x - mean) / std
    best: Probe | None = None
    for strength in PROBE_STRENGTHS:
        w, b = _fit(z, y, classes, strength)
        weight = w / std
        bias = b - weight @ mean
        logits = torch.from_numpy(val).double() @ weight.T + bias
        score = top1(logits.numpy(), val_labels)
        if best is None or score > best.val_top1:
            best = Probe(weight.float(), bias.float(), strength, score)
    assert best is not None
    return best


def _fit(z: Tensor, y: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    w = torch.zeros(classes, z.shape[1], dtype=z.dtype, requires_grad=True)
    b = torch.zeros(classes, dtype=z.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(z @ w.T + b, y) + strength * w.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return w.detach(), b.detach()


def set_head(model: nn.Module, probe: Probe) -> None:
    """Put the probe's weights into a classifier whose head is linear."""
    head = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        head.weight.copy_(probe.weight)
        head.bias.copy_(probe.bias)


def adapt(
    fresh: Callable[[], nn.Module],
    probe: Probe | None,
    finetune: Callable[[nn.Module], float] | None,
    why_not: str,
) -> Adapted:
    """The better of the probed and the fine-tuned teacher on validation.

    `fresh` gives the pretrained network with a new head; `finetune` trains it in place and returns validation top-1,
    and is `None` when fine-tuning is not to be tried, for the reason `why_not`.
    """
    probed: nn.Module | None = None
    if probe is not None:
        probed = fresh()
        set_head(probed, probe)
    if finetune is None:
        assert probe is not None and probed is not None
        return Adapted(probed, "linear probe", why_not, probe.val_top1)
    tuned = fresh()
    score = finetune(tuned)
    if probe is None or probed is None:
        return Adapted(tuned, "fine-tuned", "asked for", score)
    if score > probe.val_top1:
        reason = f"validation top-1 {score:.3f}, against {probe.val_top1:.3f} of the linear probe"
        return Adapted(tuned, "fine-tuned", reason, score)
    reason = (
        f"fine-tuning did not pay: validation top-1 {score:.3f}, "
        f"against {probe.val_top1:.3f} of the linear probe"
    )
    return Adapted(copy.deepcopy(probed), "linear probe", reason, probe.val_top1)
