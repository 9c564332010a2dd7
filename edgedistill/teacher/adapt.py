"""How a pretrained network learns the user's classes: a linear probe on frozen features, then fine-tuning.

The probe is cheap and never worse than its features; fine-tuning is kept only when validation says that it pays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.data.transforms import render
from edgedistill.errors import TeacherError
from edgedistill.folding import quick
from edgedistill.metrics import top1
from edgedistill.nets import Floats, Ints, Look, Pixels, forward, inference, outputs

PROBE_STRENGTHS = (1e-3, 1e-2, 1e-1)
HEAD_IMAGES = 2_000
HEAD_IMAGES_PER_CLASS = 50
"""What a first head is fitted on where training goes on from it: this many images a class, and 2,000 at least."""


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


def linear_probe(train: Floats, labels: Ints, val: Floats, val_labels: Ints, classes: int) -> Probe:
    """Softmax regression on standardised features (N, D) by L-BFGS; the L2 strength is chosen on validation.

    Raises `TeacherError` for features that are not finite.
    """
    if not (np.isfinite(train).all() and np.isfinite(val).all()):
        raise TeacherError(
            "the teacher gives features that are not finite; "
            "take another teacher, or another checkpoint of it"
        )
    x, y = torch.from_numpy(train), torch.from_numpy(labels)
    mean, std = x.mean(0), x.std(0).clamp_min(1e-4)
    z = (x - mean) / std
    best: Probe | None = None
    for strength in PROBE_STRENGTHS:
        w, b = _fit(z, y, classes, strength)
        weight = w / std
        bias = b - weight @ mean
        logits = torch.from_numpy(val) @ weight.T + bias
        score = top1(logits.numpy(), val_labels)
        if best is None or score > best.val_top1:
            best = Probe(weight.float(), bias.float(), strength, score)
    assert best is not None
    return best


def _fit(z: Tensor, y: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
    w = torch.zeros(classes, z.shape[1], dtype=z.dtype, requires_grad=True)
    b = torch.zeros(classes, dtype=z.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([w, b], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(z @ w.T + b, y) + strength * w.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return w.detach(), b.detach()


def clean_features(
    model: nn.Module,
    canvas: Pixels,
    look: Look,
    device: torch.device,
    advance: Callable[[int], None],
    batch: int = 128,
) -> Floats:
    """Features (N, D) of training canvases, whole and unmirrored, at the size of `look`."""
    net = quick(model.eval(), look.size)
    parts = []
    for start in range(0, len(canvas), batch):
        block = torch.from_numpy(np.ascontiguousarray(canvas[start : start + batch])).to(device)
        whole = np.tile(np.array([0.0, 0.0, 1.0, 1.0, 1.0]), (len(block), 1))
        x = look.normalise(render(block, whole, look.size))
        with inference(device, fast=True):
            parts.append(forward(net, x)[0].float().cpu().numpy())
        advance(len(block))
    return np.concatenate(parts)


def probe_network(
    model: nn.Module,
    train: tuple[Pixels, Ints],
    val: tuple[Pixels, Ints],
    look: Look,
    classes: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> Probe:
    """A linear probe on frozen features: training canvases (N, K, K, 3), validation pixels (M, S, S, 3), labels."""
    features = clean_features(model, train[0], look, device, advance)
    val_features = outputs(model, val[0], look, device, fast=True, advance=advance)[0]
    return linear_probe(features, train[1], val_features, val[1], classes)


def for_a_head(train: tuple[Pixels, Ints], classes: int, seed: int) -> tuple[Pixels, Ints]:
    """Training images (N, K, K, 3) and labels, as many of them, drawn by seed, as a first head needs."""
    count = max(HEAD_IMAGES, HEAD_IMAGES_PER_CLASS * classes)
    if count >= len(train[1]):
        return train
    rows = np.sort(np.random.default_rng(seed).permutation(len(train[1]))[:count])
    return np.asarray(train[0][rows]), train[1][rows]


def check_head(model: nn.Module, size: int, classes: int, name: str) -> None:
    """Raise `TeacherError` unless a network at `size` px gives pooled features and one linear layer's logits."""
    head = model.get_classifier()  # type: ignore[operator]
    shape: tuple[int, ...] = ()
    if isinstance(head, nn.Linear | nn.Conv2d) and head.bias is not None:
        device = head.weight.device
        try:
            with torch.inference_mode():
                zeros = torch.zeros(1, 3, size, size, device=device)
                features, logits = forward(model.eval(), zeros)
        except Exception as error:  # each architecture refuses a size in its own way
            text = " ".join(str(error).split())[:200]
            raise TeacherError(
                f"{name} does not take RGB images of {size} px ({type(error).__name__}: {text}); "
                "give another teacher.input_size, or another teacher"
            ) from None
        shape = (features.ndim, head.weight.numel() // features.shape[-1], *logits.shape)
    if shape != (2, classes, 1, classes):
        raise TeacherError(
            f"{name} cannot teach here: its classifier is not one linear layer on pooled features. "
            "Take a plain version of it, or another architecture."
        )


def set_head(model: nn.Module, probe: Probe) -> None:
    """Put the probe's weights into a classifier whose head is linear."""
    head = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        head.weight.copy_(probe.weight.view_as(head.weight))
        head.bias.copy_(probe.bias)


def adapt(
    fresh: Callable[[], nn.Module],
    probe: Probe | None,
    finetune: Callable[[nn.Module], float] | None,
    why_not: str,
    from_probe: bool,
) -> Adapted:
    """The better of the probed and the fine-tuned teacher on validation.

    `fresh` gives the pretrained network with a new head; `finetune` trains it in place and returns validation top-1,
    and is `None` when fine-tuning is not to be tried, for the reason `why_not`. With `from_probe` it starts from the
    probe's head, so that the first steps do not distort good features (Kumar et al. 2022, LP-FT).
    """
    probed: nn.Module | None = None
    if probe is not None:
        probed = fresh()
        set_head(probed, probe)
    if finetune is None:
        assert probe is not None and probed is not None
        return Adapted(probed, "linear probe", why_not, probe.val_top1)
    if probe is not None and probed is not None and probe.val_top1 == 1.0:
        reason = (
            "the linear probe is right on every validation image: nothing can show that more pays"
        )
        return Adapted(probed, "linear probe", reason, probe.val_top1)
    tuned = fresh()
    if probe is not None and from_probe:
        set_head(tuned, probe)
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
