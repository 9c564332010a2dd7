"""The images of the worth of synthetic ones: an image folder with the built-in training images, 50 of the validation
images of each class, and all 10,000 test images of Fashion-MNIST. Who has 20 images of a class has no 100 to validate.

python -m benchmarks.worth_images --out DIR [--folder /usr/share/datasets/fashion-mnist]

The generator of `make_generator.py` has seen none of them: it learns from images that are in no split of the built-in
set, none of which is a test image.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.make_generator import FOLDER
from edgedistill.data.idx import FASHION_CLASSES, read_idx
from edgedistill.data.sources import SAMPLE_FILE

VAL = 50
"""Validation images of a class."""
NAMES = [name.replace("/", "-") for name in FASHION_CLASSES]


def write(folder: Path, images: Any, labels: Any) -> None:
    """One PNG file an image, in the folder of its class."""
    for name in NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(np.asarray(image)).save(folder / NAMES[int(label)] / f"{row:05}.png")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="idx files of Fashion-MNIST")
    given = parser.parse_args()
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        write(given.out / "train", sample["train_images"], sample["train_labels"])
        labels = sample["val_labels"]
        rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:VAL] for k in range(10)]))
        write(given.out / "val", sample["val_images"][rows], labels[rows])
    images, labels = (
        read_idx(min(given.folder.glob(f"t10k-{k}-idx*"))) for k in ("images", "labels")
    )
    write(given.out / "test", images, labels)
    print(f"{given.out}: train, val and test of {len(NAMES)} classes")


if __name__ == "__main__":
    main()
