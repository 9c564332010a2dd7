"""What a training is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass

from edgedistill.nets import Ints, Pixels
from edgedistill.result import CurvePoint


@dataclass(frozen=True)
class Images:
    """Training canvases (N, K, K, 3), labels (N,), -1 where there is none; validation pixels (M, S, S, 3), labels."""

    canvas: Pixels
    labels: Ints
    val_pixels: Pixels
    val_labels: Ints


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: epochs, images a step over all processes, peak rate, decay, share of warm-up, seed.

    `frozen_norm`: BatchNorm layers keep their pretrained statistics (their weights still learn). `frozen_share` of the
    layers, from the input on, keep everything. `first_size` is the share of the side that training begins with,
    `patience` the epochs without a better validation after which it ends, `keep` epochs whose weights are kept.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    seed: int
    frozen_norm: bool = False
    frozen_share: float = 0.0
    optimizer: str = "adamw"
    lr_schedule: str = "cosine"
    clip: float | None = None
    ema: float = 0.0
    layer_decay: float = 1.0
    body_lr_ratio: float = 1.0
    precision: str = "float32"
    compile: bool = False
    first_size: float = 1.0
    patience: int | None = None
    keep: tuple[int, ...] = ()

    def steps_per_epoch(self, images: int) -> int:
        """Whole batches in an epoch; a set smaller than a batch is one step."""
        return max(1, images // self.batch_size)


@dataclass(frozen=True)
class Fitted:
    """A finished training: its curve, steps, seconds, validation top-1, image passes and what happened on the way.

    The model holds the weights.
    """

    curve: tuple[CurvePoint, ...]
    steps: int
    seconds: float
    val_top1: float
    passes: int
    notes: tuple[str, ...] = ()


def kept(name: str, epoch: int) -> str:
    """Name of the file with the weights after an epoch."""
    return f"{name}.epoch{epoch}.safetensors"
