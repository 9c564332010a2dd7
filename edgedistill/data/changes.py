"""RandAugment (Cubuk et al. 2020) as a pure function: two of fourteen changes for each image, drawn from given numbers.

The changes themselves are torchvision's; images that drew the same one go through it together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as V

Floats = npt.NDArray[np.float64]
OPS = 2
FILL = [127.0]

Change = Callable[[Tensor, float], Tensor]
"""A change of uint8 images (B, 3, S, S) by a strength in [-1, 1]; what has no direction takes its size."""


def _affine(x: Tensor, degrees: float, move: tuple[float, float], shear: list[float]) -> Tensor:
    shift = [round(move[0] * x.shape[-1]), round(move[1] * x.shape[-1])]
    out: Tensor = V.affine(
        x, degrees, shift, 1.0, shear, interpolation=InterpolationMode.BILINEAR, fill=FILL
    )
    return out


CHANGES: tuple[Change, ...] = (
    lambda x, _: x,
    lambda x, _: V.autocontrast(x),
    lambda x, _: V.equalize(x),
    lambda x, s: _affine(x, 30 * s, (0, 0), [0, 0]),
    lambda x, s: V.posterize(x, 8 - round(4 * abs(s))),
    lambda x, s: V.solarize(x, 255 * (1 - abs(s))),
    lambda x, s: V.adjust_saturation(x, 1 + 0.9 * s),
    lambda x, s: V.adjust_contrast(x, 1 + 0.9 * s),
    lambda x, s: V.adjust_brightness(x, 1 + 0.9 * s),
    lambda x, s: V.adjust_sharpness(x, 1 + 0.9 * s),
    lambda x, s: _affine(x, 0, (0, 0), [17 * s, 0]),
    lambda x, s: _affine(x, 0, (0, 0), [0, 17 * s]),
    lambda x, s: _affine(x, 0, (0.45 * s, 0), [0, 0]),
    lambda x, s: _affine(x, 0, (0, 0.45 * s), [0, 0]),
)
"""Identity, contrast stretched, histogram evened, turned, fewer grey levels, bright parts inverted, colour, contrast,
brightness, sharpness, sheared and shifted both ways; the ranges are those of the paper's reference."""


def change(pixels: Tensor, u: Floats, magnitude: float) -> Tensor:
    """Float pixels (B, 3, S, S) in 0..255 after two changes each; `u` (B, 4) draws them, `magnitude` is 0 to 10."""
    x = pixels.round().clamp(0, 255).to(torch.uint8).contiguous()
    for op in range(OPS):
        which = np.floor(u[:, 2 * op] * len(CHANGES)).astype(np.int64)
        sign = np.where(u[:, 2 * op + 1] < 0.5, -1, 1)
        out = x.clone()
        for kind, direction in sorted(set(zip(which.tolist(), sign.tolist(), strict=True))):
            rows = torch.from_numpy(np.flatnonzero((which == kind) & (sign == direction)))
            rows = rows.to(x.device)
            out[rows] = CHANGES[kind](x[rows], direction * magnitude / 10)
        x = out
    return x.float()
