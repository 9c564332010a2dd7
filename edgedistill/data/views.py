"""What a training step sees of an image: a crop, changed, mixed and partly erased, as a pure function of (seed,
image, view).

Teacher and student call the same function with their own size, so a stored output belongs to the very view that the
student sees, whatever the augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgedistill.data.changes import change
from edgedistill.data.transforms import render, uniforms, view_params

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

GREY = 127.0
"""What an erased rectangle holds."""
MIX, CHANGE, ERASE = 0x4D49, 0x4348, 0x4552
"""Streams of random numbers that do not touch the one of crops."""


@dataclass(frozen=True)
class Mixture:
    """The second image of each mixed view `(B,)`, and the share `(B,)` of the view that the first one keeps."""

    partner: Ints
    share: Floats


@dataclass(frozen=True)
class Views:
    """How training views are made: smallest crop area, mirroring, number of different views of each image,
    RandAugment's magnitude (0: none), probability of an erased rectangle, and how two images are mixed. Of the first
    `own` images (0: all) none is mixed with one of the others, and those others have only `few` views (0: as many).
    """

    seed: int
    min_crop: float
    flip: bool
    count: int
    magnitude: float = 0.0
    erasing: float = 0.0
    mix: str = "none"
    mix_alpha: float = 1.0
    own: int = 0
    few: int = 0

    def pixels(
        self, canvas: Pixels | Tensor, index: Ints, view: int, size: int, at: torch.device
    ) -> Tensor:
        """View `view` of images `index` of `canvas` (N, K, K, 3) as float pixels (B, 3, size, size) in 0..255."""
        views = self._numbers(index, view)
        seen = self._one(canvas, index, views, size, at)
        mixture = self.mixture(index, view, len(canvas))
        if mixture is not None:
            other = self._one(canvas, mixture.partner, views, size, at)
            mask = _mask(self, mixture, index, views, size).to(at)
            seen = torch.lerp(other, seen, mask)
        if self.erasing:
            seen = _erase(seen, uniforms(self.seed ^ ERASE, index, views, 5), self.erasing)
        return seen.contiguous(memory_format=torch.channels_last)

    def mixture(self, index: Ints, view: int, images: int) -> Mixture | None:
        """Which image of `images` each view is mixed with, and how much of the first is left; `None` without mixing."""
        if self.mix == "none" or images < 2:
            return None
        views = self._numbers(index, view)
        u = uniforms(self.seed ^ MIX, index, views, 2)
        own = self.own or images
        first, count = np.where(index < own, 0, own), np.where(index < own, own, images - own)
        partner = index - first + 1 + np.floor(u[:, 0] * (count - 1)).astype(np.int64)
        partner = first + partner % count
        share = _beta(u[:, 1], self.mix_alpha)
        if self.mix == "cutmix":
            share = 1 - _box(self, share, index, views)[4]
        return Mixture(partner, share)

    def _numbers(self, index: Ints, view: int) -> Ints:
        """Which of its views (B,) each image shows when the others show `view`; they come round again."""
        few = np.where(index < self.own, view, view % self.few) if self.few else view
        return np.broadcast_to(few, index.shape)

    def _one(
        self, canvas: Pixels | Tensor, index: Ints, views: Ints, size: int, at: torch.device
    ) -> Tensor:
        params = view_params(self.seed, index, views, self.min_crop, self.flip)
        if isinstance(canvas, Tensor):
            batch = canvas[torch.from_numpy(index).to(canvas.device)].to(at)
        else:
            batch = torch.from_numpy(np.ascontiguousarray(canvas[index])).to(at, non_blocking=True)
        seen = render(batch, params, size)
        if self.magnitude:
            seen = change(seen, uniforms(self.seed ^ CHANGE, index, views, 4), self.magnitude)
        return seen

    def about(self) -> dict[str, str]:
        """Every fact that a stored output depends on, but for the number of views, as text."""
        facts = vars(replace(self, count=0))
        return {key: str(value) for key, value in facts.items() if key != "count"}


def _beta(u: Floats, alpha: float) -> Floats:
    """Quantiles `u` of Beta(alpha, alpha)."""
    if alpha == 1.0:
        return u
    from scipy.stats import beta

    return np.asarray(beta.ppf(u, alpha, alpha), dtype=np.float64)


def _box(
    views: Views, share: Floats, index: Ints, numbers: Ints
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Cut rectangles of area `1 - share`: left, top, right, bottom in [0, 1], and the area that lies inside.

    CutMix (Yun et al. 2019, equation 2): the centre is uniform, what hangs over is cut off.
    """
    centre = uniforms(views.seed ^ MIX, index, numbers, 4)[:, 2:]
    half = np.sqrt(1 - share) / 2
    left, right = np.clip(centre[:, 0] - half, 0, 1), np.clip(centre[:, 0] + half, 0, 1)
    top, bottom = np.clip(centre[:, 1] - half, 0, 1), np.clip(centre[:, 1] + half, 0, 1)
    return left, top, right, bottom, (right - left) * (bottom - top)


def _mask(views: Views, mixture: Mixture, index: Ints, numbers: Ints, size: int) -> Tensor:
    """Share (B, 1, H, W) of the first image at each pixel; edges of a rectangle are shared by area, so that the
    mixture is the same at every size.
    """
    if views.mix == "mixup":
        return torch.from_numpy(mixture.share).float()[:, None, None, None]
    u = uniforms(views.seed ^ MIX, index, numbers, 2)[:, 1]
    left, top, right, bottom, _ = _box(views, _beta(u, views.mix_alpha), index, numbers)
    across, down = _covered(left, right, size), _covered(top, bottom, size)
    inside = down[:, :, None] * across[:, None, :]
    return torch.from_numpy(1 - inside).float()[:, None]


def _covered(low: Floats, high: Floats, size: int) -> Floats:
    """How much of each of `size` pixels `(B, size)` lies between `low` and `high` in [0, 1]."""
    edge = np.arange(size, dtype=np.float64)
    start = np.maximum(low[:, None] * size, edge)
    covered: Floats = np.clip(np.minimum(high[:, None] * size, edge + 1) - start, 0, 1)
    return covered


def _erase(seen: Tensor, u: Floats, probability: float) -> Tensor:
    """Grey rectangles over some images: 2 to 33 % of the area, 0.3 to 3.3 wide (Zhong et al. 2020); `u` is (B, 5)."""
    size = seen.shape[-1]
    area, ratio = 0.02 + 0.31 * u[:, 1], np.exp((2 * u[:, 2] - 1) * np.log(3.3))
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    left, top = u[:, 3] * (1 - width), u[:, 4] * (1 - height)
    across, down = _covered(left, left + width, size), _covered(top, top + height, size)
    inside = down[:, :, None] * across[:, None, :] * (u[:, 0] < probability)[:, None, None]
    mask = torch.from_numpy(inside).float()[:, None].to(seen.device)
    return torch.lerp(seen, torch.full_like(seen, GREY), mask)
