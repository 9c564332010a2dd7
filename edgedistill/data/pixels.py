"""Images as the model takes them, in one file: `(N, crop, crop, 3)` uint8, bit-equal to what the
device does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ontarget.preprocess import DecodeError, resize_crop

from edgedistill.data.dataset import Dataset, Item, Progress, printable, quiet, threaded
from edgedistill.data.split import cap, spread
from edgedistill.errors import DataError

Pixels = npt.NDArray[np.uint8]

_TASK = 16
GOLDEN_IMAGES, MOST_GOLDEN = 8, 32


def pixels_bytes(n: int, crop: int) -> int:
    """Size of the file that `write_pixels` makes for `n` images."""
    return 128 + n * crop * crop * 3


def read_pixels(dataset: Dataset, item: Item, resize: int, crop: int) -> Pixels:
    """One image as `(crop, crop, 3)` uint8. Raises DataError."""
    try:
        return resize_crop(dataset.read(item), resize, crop)
    except DecodeError as error:
        raise DataError(f"image {printable(item.key)} cannot be used: {error}") from None


def train_pixels(dataset: Dataset, count: int, resize: int, crop: int, seed: int) -> Pixels:
    """`count` training images `(n, crop, crop, 3)`, or as many as there are, drawn evenly over the
    classes; where there are more classes than `count`, one of each.
    """
    least = max(count, len(dataset.classes))
    return _stacked(dataset, cap(dataset.train, least, seed), resize, crop)


def golden_pixels(dataset: Dataset, resize: int, crop: int, seed: int) -> Pixels:
    """The training images that go with a bundle: 8, or one of each class where that is at most 32."""
    count = min(max(GOLDEN_IMAGES, len(dataset.classes)), MOST_GOLDEN)
    return _stacked(dataset, spread(dataset.train, count, seed), resize, crop)


def _stacked(dataset: Dataset, items: Sequence[Item], resize: int, crop: int) -> Pixels:
    return np.stack([read_pixels(dataset, item, resize, crop) for item in items])


def pixel_blocks(
    dataset: Dataset, items: Sequence[Item], resize: int, crop: int
) -> Iterator[Pixels]:
    """`items` in order, in blocks `(n, crop, crop, 3)` uint8 decoded on a few threads."""

    def block(start: int) -> Pixels:
        return np.stack(
            [read_pixels(dataset, item, resize, crop) for item in items[start : start + _TASK]]
        )

    return threaded(block, range(0, len(items), _TASK))


def write_pixels(
    dataset: Dataset,
    items: Sequence[Item],
    resize: int,
    crop: int,
    path: Path,
    progress: Progress | None = None,
) -> None:
    """Write `items` as a .npy file `(N, crop, crop, 3)` uint8, in order, a few images in memory at
    a time.

    Shorter side to `resize`, centre crop `crop` (at most `resize`). Written in sequence and not
    through a memory map: on a full disk that is an OSError, not a killed process. The caller writes
    aside and renames. Raises DataError for an image that changed since it was scanned.
    """
    if not 0 < crop <= resize:
        raise ValueError(f"crop must be 1..{resize}, got {crop}")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(items), crop, crop, 3)}
    done = 0
    with quiet(), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in pixel_blocks(dataset, items, resize, crop):
            file.write(block.data)
            done += len(block)
            if progress:
                progress(done, len(items))


def open_pixels(path: Path) -> Pixels:
    """The array of a file that `write_pixels` made, mapped; whatever is written to it stays in memory."""
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim != 4:
        raise DataError(f"{path} does not hold pixels; build that stage again with --fresh.")
    return np.asarray(array) if array.size == 0 else array
