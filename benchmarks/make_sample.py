"""Make the built-in sample set: 6,000 training, 1,000 validation and 2,000 test images of
Fashion-MNIST.

    python benchmarks/make_sample.py [FOLDER OF IDX FILES] [--out edgedistill/data/sample]

The folder is that of Debian's package `dataset-fashion-mnist`. Training and validation images are
drawn from the 60,000 training images, test images from the 10,000 test images; each class has the
same share. An image that is closer than `NEAR` to a test or validation image never enters training,
one that is closer to a test image never enters validation. The order of drawing is a hash of the
seed and the image's index, so the bytes of the output depend on the input and the zlib version
alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedistill.data.idx import read_idx
from edgedistill.data.sources import SAMPLE_FILE

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
SEED = 0
PER_CLASS = {"train": 600, "val": 100, "test": 200}
CLASSES = 10
NEAR = 10.0
"""Root mean squared difference in grey levels (of 255) under which two images are near-identical.
"""

LICENSE = """The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of
this software and associated documentation files (the "Software"), to deal in
the Software without restriction, including without limitation the rights to
use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of
the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


def drawing_order(part: str, n: int, seed: int) -> Rows:
    """Indices 0..n-1 in the order of a hash of seed, part and index."""
    keys = [hashlib.sha256(f"{seed}:{part}:{index}".encode()).digest() for index in range(n)]
    return np.array(sorted(range(n), key=keys.__getitem__), dtype=np.int64)


def far_from(images: Images, kept: Images) -> npt.NDArray[np.bool_]:
    """Which of `images` (N, H, W) lie at least `NEAR` from every one of `kept` (M, H, W)."""
    far = np.ones(len(images), dtype=np.bool_)
    right = kept.reshape(len(kept), -1).astype(np.float32)
    for start in range(0, len(images), 2000):
        left = images[start : start + 2000].reshape(-1, right.shape[1]).astype(np.float32)
        squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
        far[start : start + 2000] = squares.min(axis=1) >= NEAR**2 * right.shape[1]
    return far


def draw(order: Rows, labels: Images, per_class: int) -> Rows:
    """The first `per_class` of each class in `order`, sorted by class and then by index."""
    parts = [np.sort(order[labels[order] == label][:per_class]) for label in range(CLASSES)]
    if any(len(part) < per_class for part in parts):
        raise SystemExit("a class has too few images that are far from those already drawn")
    return np.concatenate(parts)


def choose(
    images: Images, labels: Images, test_images: Images, test_labels: Images
) -> dict[str, Rows]:
    """Row numbers of the sample, by split."""
    test = draw(drawing_order("t10k", len(test_images), SEED), test_labels, PER_CLASS["test"])
    order = drawing_order("train", len(images), SEED)
    order = order[far_from(images, test_images[test])[order]]
    val = draw(order, labels, PER_CLASS["val"])
    order = order[far_from(images, images[val])[order]]
    return {"train": draw(order, labels, PER_CLASS["train"]), "val": val, "test": test}


def pack(arrays: dict[str, npt.NDArray[np.generic]]) -> bytes:
    """A compressed .npz whose bytes do not depend on the time or the machine."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, member.getvalue())
    return out.getvalue()


def build(folder: Path) -> bytes:
    """The sample file, from a folder of idx files."""
    images, labels = (
        read_idx(folder / f"train-{kind}.gz") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    test_images, test_labels = (
        read_idx(folder / f"t10k-{kind}.gz") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    rows = choose(images, labels, test_images, test_labels)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for split, index in rows.items():
        pool, truth = (test_images, test_labels) if split == "test" else (images, labels)
        arrays[f"{split}_images"] = pool[index]
        arrays[f"{split}_labels"] = truth[index]
        arrays[f"{split}_source_index"] = index.astype(np.int32)
    return pack(arrays)


def main() -> None:
    """Write the sample file and its licence."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DEBIAN_FASHION)
    parser.add_argument("--out", type=Path, default=SAMPLE_FILE.parent)
    arguments = parser.parse_args()
    data = build(arguments.folder)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / SAMPLE_FILE.name).write_bytes(data)
    (arguments.out / "LICENSE.fashion-mnist").write_text(LICENSE, "utf-8")
    print(
        f"{arguments.out / SAMPLE_FILE.name}: {len(data):,} bytes, "
        f"sha256 {hashlib.sha256(data).hexdigest()}"
    )


if __name__ == "__main__":
    main()
