"""Linear heads on frozen features: softmax regression whose strength of pull is chosen by cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgedistill.data.transforms import render
from edgedistill.errors import TeacherError
from edgedistill.folding import quick
from edgedistill.metrics import top1
from edgedistill.nets import Floats, Ints, Look, Pixels, forward, inference, outputs

PROBE_STRENGTHS = (1e-1, 1e-2, 1e-3)
"""L2 pulls, the strongest first, so that each fit starts where a simpler one ended."""
FOLDS = 5
CV_IMAGES = 4_000
CV_IMAGES_PER_CLASS = 5
"""What the strength is chosen on: this many training images a class, and 4,000 at least."""
CV_STEPS, STEPS = 15, 60
"""Most steps of L-BFGS: of each fit of the cross-validation, and of the one that stays."""
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


Start = tuple[Tensor, Tensor]
"""Weight (C, D) and bias (C,) that a fit starts from."""


def linear_probe(
    train: Floats, labels: Ints, val: Floats, val_labels: Ints, classes: int, seed: int = 0
) -> Probe:
    """Softmax regression on standardised features (N, D) by L-BFGS, fitted on all of them.

    The L2 strength is the one with the least loss over five folds of the training features, since a teacher is asked
    for probabilities; validation only scores the result. Raises `TeacherError` for features that are not finite.
    """
    if not (np.isfinite(train).all() and np.isfinite(val).all()):
        raise TeacherError(
            "the teacher gives features that are not finite; "
            "take another teacher, or another checkpoint of it"
        )
    x, y = torch.from_numpy(train), torch.from_numpy(labels)
    mean, std = x.mean(0), x.std(0).clamp_min(1e-4)
    z = (x - mean) / std
    rows = cv_rows(len(labels), classes, seed)
    strength, start = best_strength(z[rows], y[rows], folds_of(labels[rows], seed), classes)
    w, b = _fit(z, y, classes, strength, start)
    weight = w / std
    bias = b - weight @ mean
    logits = torch.from_numpy(val) @ weight.T + bias
    return Probe(weight.float(), bias.float(), strength, top1(logits.numpy(), val_labels))


def cv_rows(images: int, classes: int, seed: int) -> Ints:
    """Which training images the strength is chosen on, drawn by seed, in order."""
    count = max(CV_IMAGES, CV_IMAGES_PER_CLASS * classes)
    drawn = np.random.default_rng(seed).permutation(images)[:count]
    return np.sort(drawn).astype(np.int64)


def folds_of(labels: Ints, seed: int) -> Ints:
    """A fold (N,) for each image, each class spread over all of them as evenly as it goes."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


def best_strength(z: Tensor, y: Tensor, folds: Ints, classes: int) -> tuple[float, Start]:
    """The strength with the least cross entropy on held-out images, and where a fit with it ended."""
    loss = dict.fromkeys(PROBE_STRENGTHS, 0.0)
    ends: dict[float, Start] = {}
    for fold in np.unique(folds):
        out = torch.from_numpy(folds == fold)
        if bool(out.all()):
            break
        start: Start | None = None
        for strength in PROBE_STRENGTHS:
            start = _fit(z[~out], y[~out], classes, strength, start, CV_STEPS)
            logits = z[out] @ start[0].T + start[1]
            loss[strength] += float(F.cross_entropy(logits, y[out], reduction="sum"))
            ends[strength] = start
    best = min(PROBE_STRENGTHS, key=lambda strength: loss[strength])
    zeros = (z.new_zeros(classes, z.shape[1]), z.new_zeros(classes))
    return best, ends.get(best, zeros)


def _fit(
    z: Tensor,
    y: Tensor,
    classes: int,
    strength: float,
    start: Start | None = None,
    steps: int = STEPS,
) -> Start:
    """Weight and bias with the least mean cross entropy plus `strength` times the squared weights."""
    first = start or (z.new_zeros(classes, z.shape[1]), z.new_zeros(classes))
    w, b = (t.clone().requires_grad_() for t in first)
    optimizer = torch.optim.LBFGS([w, b], max_iter=steps, line_search_fn="strong_wolfe")

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
        block = np.ascontiguousarray(canvas[start : start + batch])
        x = look.normalise(whole_images(block, look.size, device))
        with inference(device, fast=True):
            parts.append(forward(net, x)[0].float().cpu().numpy())
        advance(len(block))
    return np.concatenate(parts)


def whole_images(pixels: Pixels, size: int, device: torch.device) -> Tensor:
    """Images (B, K, K, 3), whole and unmirrored, as float pixels (B, 3, size, size) in 0..255."""
    whole = np.tile(np.array([0.0, 0.0, 1.0, 1.0, 1.0]), (len(pixels), 1))
    return render(torch.from_numpy(pixels).to(device), whole, size)


def resized(pixels: Pixels, size: int, batch: int = 256) -> Pixels:
    """Images (N, S, S, 3) at another size, antialiased; as they are where the size is theirs."""
    if pixels.shape[1] == size:
        return pixels
    parts: list[npt.NDArray[np.uint8]] = []
    for start in range(0, len(pixels), batch):
        block = np.ascontiguousarray(pixels[start : start + batch])
        seen = whole_images(block, size, torch.device("cpu")).round().clamp(0, 255)
        parts.append(seen.to(torch.uint8).permute(0, 2, 3, 1).numpy())
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
