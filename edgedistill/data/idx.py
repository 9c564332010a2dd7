"""The idx files of MNIST and its likes, plain or gzipped, and images that lie in arrays.

Format: two zero bytes, 0x08 (unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the bytes. Source: the description on the MNIST page of LeCun,
Cortes and Burges.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from edgedistill.data.dataset import Gathered, Item, Split, printable
from edgedistill.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Bytes = npt.NDArray[np.uint8]

MAX_IDX_BYTES = 8 << 30
_CHUNK = 1 << 24
_NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx([13])-ubyte(\.gz)?")

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_LICENCE = "MIT (Fashion-MNIST, Copyright 2017 Zalando SE)"
FASHION_LABELS_SHA256 = "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"
"""Of the 60,000 training labels: the set is known by its content, whatever its folder is called."""


@dataclass(frozen=True)
class ArrayStore:
    """Grey images in memory: arrays `(N, H, W)` and the array and row of each key."""

    arrays: Mapping[str, Bytes]
    rows: Mapping[str, tuple[str, int]]

    def read(self, item: Item) -> Image:
        """The image as RGB."""
        from PIL import Image

        name, row = self.rows[item.key]
        return Image.fromarray(self.arrays[name][row]).convert("RGB")


def read_idx(path: Path) -> Bytes:
    """The array of an idx file of unsigned bytes. Raises DataError for anything else."""
    try:
        with path.open("rb") as raw:
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                with gzip.open(raw) as unpacked:
                    return _parse(unpacked, path)
            raw.seek(0)
            return _parse(raw, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"idx file {path} cannot be read: {error}. Fetch it again, or unpack it first."
        ) from None


def _parse(file: BinaryIO | gzip.GzipFile, path: Path) -> Bytes:
    head = file.read(4)
    if len(head) < 4 or head[:3] != b"\0\0\x08" or head[3] not in (1, 3):
        raise DataError(
            f"{path} is not an idx file of unsigned bytes: it begins with "
            f"{head.hex() or 'nothing'}, which should be 00000801 (labels) or 00000803 (images)."
        )
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"idx file {path} is truncated: it ends within its header.")
    shape = struct.unpack(f">{head[3]}I", sizes)
    n_bytes = math.prod(shape)
    if n_bytes > MAX_IDX_BYTES:
        raise DataError(
            f"idx file {path} says that it has {n_bytes:,} bytes of data, more than the "
            f"{MAX_IDX_BYTES:,} allowed. Its header is damaged, or give the images as a folder."
        )
    data = io.BytesIO()
    while data.tell() <= n_bytes and (chunk := file.read(min(_CHUNK, n_bytes + 1 - data.tell()))):
        data.write(chunk)
    if data.tell() != n_bytes:
        fault = "too long" if data.tell() > n_bytes else "truncated"
        held = "more" if data.tell() > n_bytes else f"{data.tell():,} bytes"
        raise DataError(
            f"idx file {path} is {fault}: its header announces {n_bytes:,} bytes of data, and it "
            f"holds {held}. Fetch it again."
        )
    return np.frombuffer(data.getvalue(), dtype=np.uint8).reshape(shape)


def has_idx(folder: Path) -> bool:
    """Whether a folder holds files with the names of idx files."""
    return any(_NAME.fullmatch(entry.name) for entry in folder.iterdir())


def gather_idx(folder: Path, max_pixels: int) -> Gathered:
    """Images and labels of a folder of idx files. Raises DataError."""
    files = sorted(entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name))
    train = _pair(folder, files, ("train",), max_pixels)
    has_test = any(not file.startswith("train") for file in files)
    test = _pair(folder, files, ("t10k", "test"), max_pixels) if has_test else None
    truth = {"train": train[1], **({"test": test[1]} if test else {})}
    values = np.unique(np.concatenate(list(truth.values())))
    fashion = hashlib.sha256(train[1].tobytes()).hexdigest() == FASHION_LABELS_SHA256
    classes = FASHION_CLASSES if fashion else tuple(str(value) for value in values)
    given: dict[Split, Bytes] = {"train": train[0], **({"test": test[0]} if test else {})}
    parts: dict[Split, Sequence[Item]] = {}
    rows: dict[str, tuple[str, int]] = {}
    for split, images in given.items():
        keys = [f"{split}/{row:06d}" for row in range(len(images))]
        parts[split] = array_items(keys, images, np.searchsorted(values, truth[split]))
        rows.update({key: (split, row) for row, key in enumerate(keys)})
    return Gathered(
        name="fashion-mnist" if fashion else printable(folder.name) or "idx",
        source=printable(str(folder)),
        classes=classes,
        licence=FASHION_LICENCE if fashion else None,
        parts=parts,
        sides={item.key: min(given[split].shape[1:]) for split in given for item in parts[split]},
        store=ArrayStore({str(split): images for split, images in given.items()}, rows),
    )


def array_items(
    keys: Sequence[str], images: Bytes, truth: npt.NDArray[np.integer]
) -> tuple[Item, ...]:
    """Items of images `(N, H, W)`; the content hash is that of the raw pixels."""
    return tuple(
        Item(key, int(label), hashlib.sha256(image.tobytes()).hexdigest())
        for key, image, label in zip(keys, images, truth, strict=True)
    )


def _pair(
    folder: Path, files: Sequence[str], stems: Sequence[str], max_pixels: int
) -> tuple[Bytes, Bytes]:
    found = {
        kind: [file for file in files if file.startswith(tuple(f"{s}-{kind}" for s in stems))]
        for kind in ("images", "labels")
    }
    for kind, digit in (("images", 3), ("labels", 1)):
        if not found[kind]:
            raise DataError(
                f"the folder of idx files {folder} has no {stems[0]}-{kind}-idx{digit}-ubyte[.gz]. "
                "It needs train-images and train-labels; t10k-images and t10k-labels come together."
            )
    path, label_path = (folder / found[kind][0] for kind in ("images", "labels"))
    images, truth = read_idx(path), read_idx(label_path)
    if images.ndim != 3 or truth.ndim != 1:
        raise DataError(
            f"{path.name} must hold images and {label_path.name} labels: swapped files?"
        )
    if len(images) != len(truth):
        raise DataError(
            f"{path} has {len(images):,} images, but {label_path.name} has {len(truth):,} labels. "
            "The two files must belong together."
        )
    if images.size == 0:
        raise DataError(f"{path} has no images.")
    if images.shape[1] * images.shape[2] > max_pixels:
        raise DataError(
            f"the images of {path} have {images.shape[1]} x {images.shape[2]} pixels, more than "
            f"data.max_pixels = {max_pixels:,}."
        )
    return images, truth
