"""Training views: which part of an image is seen, as a pure function of (seed, image, view), and
its pixels.

Nothing is drawn from a generator with a state: any view can be made again, alone, in any order, at
any size. So the teacher's stored outputs belong to the very view that the student sees.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Words = npt.NDArray[np.uint64]

GAMMA = 0x9E3779B97F4A7C15
MAX_RATIO = 4 / 3
"""Widest and narrowest shape of a crop: width over height between 3/4 and 4/3."""

_MASK = (1 << 64) - 1


def splitmix64(state: npt.ArrayLike) -> Words:
    """First output of the SplitMix64 generator for each state. Source: Steele, OOPSLA 2014."""
    with np.errstate(over="ignore"):
        z = np.asarray(state, dtype=np.uint64) + np.uint64(GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def uniforms(
    seed: int, images: npt.ArrayLike, views: npt.ArrayLike, n: int
) -> npt.NDArray[np.float64]:
    """`n` numbers in [0, 1) for each (image, view): `(B, n)`, multiples of 2**-53."""
    index = np.atleast_1d(np.asarray(images)).astype(np.uint64)
    view = np.broadcast_to(np.asarray(views), index.shape).astype(np.uint64)
    key = splitmix64(splitmix64(splitmix64(np.uint64(seed & _MASK)) ^ index) ^ view)
    steps = np.arange(n, dtype=np.uint64) * np.uint64(GAMMA)
    with np.errstate(over="ignore"):
        words = splitmix64(key[:, None] + steps[None, :])
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def view_params(
    seed: int, images: npt.ArrayLike, views: npt.ArrayLike, min_crop: float, flip: bool
) -> npt.NDArray[np.float64]:
    """Boxes of views, `(B, 5)`: centre x, centre y, half width, half height, flip sign.

    The image spans [-1, 1] in both directions, so that the whole of it is `(0, 0, 1, 1, +1)`. The
    area is uniform in [min_crop, 1] of the image, width over height log-uniform in [3/4, 4/3] and
    then clipped so that a box of that area lies inside. `images` is `(B,)`, `views` is `(B,)` or
    one number.
    """
    if not 0 < min_crop <= 1:
        raise ValueError(f"min_crop must be in (0, 1], got {min_crop}")
    u = uniforms(seed, images, views, 5)
    area = min_crop + (1 - min_crop) * u[:, 0]
    ratio = np.clip(np.exp((2 * u[:, 1] - 1) * np.log(MAX_RATIO)), area, 1 / area)
    width, height = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
    x, y = (2 * u[:, 2] - 1) * (1 - width), (2 * u[:, 3] - 1) * (1 - height)
    sign = np.where(flip & (u[:, 4] < 0.5), -1.0, 1.0)
    return np.stack([x, y, width, height, sign], axis=1)


def render(
    canvas: torch.Tensor, params: npt.NDArray[np.float64] | torch.Tensor, size: int
) -> torch.Tensor:
    """Views as `(B, 3, size, size)` float32 in grey levels 0..255, channels last, on the canvas'
    device.

    `canvas` is `(B, K, K, 3)` uint8, `params` as `view_params` gives them. The resampling is
    separable, so it is two batched matrix products; its triangle filter widens with the scale,
    image by image, so a crop that shrinks is antialiased, and the whole image at `size == K` is the
    canvas itself.
    """
    n, side = canvas.shape[:2]
    if canvas.dtype != torch.uint8 or canvas.shape != (n, side, side, 3):
        raise ValueError(
            f"canvas must be (B, K, K, 3) uint8, got {tuple(canvas.shape)} {canvas.dtype}"
        )
    box = torch.as_tensor(params, dtype=torch.float64)
    if box.shape != (n, 5):
        raise ValueError(f"params must be ({n}, 5), got {tuple(box.shape)}")
    x, y, width, height, sign = box.unbind(1)
    across = _filter(x, width, side, size, canvas.device)
    across = torch.where((sign < 0).to(canvas.device)[:, None, None], across.flip(1), across)
    down = _filter(y, height, side, size, canvas.device)
    with torch.autocast(device_type=canvas.device.type, enabled=False):
        rows = torch.bmm(down, canvas.reshape(n, side, side * 3).float())
        rows = rows.view(n, size, side, 3).permute(0, 3, 1, 2).reshape(n, 3 * size, side)
        views = torch.bmm(rows, across.transpose(1, 2)).view(n, 3, size, size)
    return views.contiguous(memory_format=torch.channels_last)


def _filter(
    centre: torch.Tensor, half: torch.Tensor, side: int, size: int, device: torch.device
) -> torch.Tensor:
    """Weights `(B, size, side)` float32 of `side` pixels for `size` outputs; rows sum to 1."""
    first = ((centre - half + 1) / 2 * side).to(device, torch.float32)
    scale = (half * side / size).to(device, torch.float32)
    out = torch.arange(size, device=device, dtype=torch.float32) + 0.5
    pixel = torch.arange(side, device=device, dtype=torch.float32) + 0.5
    middle = first[:, None] + out[None, :] * scale[:, None]
    reach = scale.clamp(min=1.0)[:, None, None]
    weight = (1 - (pixel[None, None, :] - middle[:, :, None]).abs() / reach).clamp(min=0)
    return weight / weight.sum(dim=2, keepdim=True)
