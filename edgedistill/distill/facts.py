"""What a training is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedistill.nets import Ints, Pixels
from edgedistill.result import CurvePoint


@dataclass(frozen=True)
class Synthetic:
    """Synthetic images among those to train on: the rows from `first` on.

    `share` of each batch, on average over the epochs, is synthetic: the same in each epoch, or (`at_first`) all that is
    possible in the first and none in the last. `label_weight` is what a class that was asked for counts beside a
    label's 1.
    """

    first: int
    share: float
    at_first: bool = False
    label_weight: float = 0.0

    def count(self, epoch: int, epochs: int, size: int) -> int:
        """Synthetic images of a batch of `size` in `epoch` (from 0); at least one where the share never changes."""
        if self.at_first and epochs > 1:
            return min(size, round(2 * self.share * (1 - epoch / (epochs - 1)) * size))
        return max(1, round(self.share * size))


@dataclass(frozen=True)
class Images:
    """Training canvases (N, K, K, 3), labels (N,), -1 where there is none; validation pixels (M, S, S, 3), labels.

    An epoch is as long as the images that are not `synthetic` make it.
    """

    canvas: Pixels
    labels: Ints
    val_pixels: Pixels
    val_labels: Ints
    synthetic: Synthetic | None = None

    @property
    def own(self) -> int:
        """How many of the training images are not synthetic; they are the first."""
        return len(self.labels) if self.synthetic is None else self.synthetic.first

    @property
    def label_weights(self) -> npt.NDArray[np.float32] | None:
        """What each label counts (N,); `None` where all count the same."""
        if self.synthetic is None or self.synthetic.label_weight in (0.0, 1.0):
            return None
        weights = np.ones(len(self.labels), np.float32)
        weights[self.synthetic.first :] = self.synthetic.label_weight
        return weights


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
    """A finished training: its curve, steps, seconds, image passes and what happened on the way.

    The model holds the weights, of which validation top-1 and mean cross entropy (nats, `None` where it is not finite)
    are.
    """

    curve: tuple[CurvePoint, ...]
    steps: int
    seconds: float
    val_top1: float
    val_loss: float | None
    passes: int
    notes: tuple[str, ...] = ()


def kept(name: str, epoch: int) -> str:
    """Name of the file with the weights after an epoch."""
    return f"{name}.epoch{epoch}.safetensors"
