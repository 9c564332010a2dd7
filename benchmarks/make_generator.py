"""Trains the class-conditional generator of the built-in images, which ships with the package.

python -m benchmarks.make_generator --out DIR [--steps N] [--widths 32 64 96]

Learns from those of Fashion-MNIST's 60,000 training images that are in no split of the built-in set, nor have the bytes
of one that is. Killed and started again it goes on. `--place` copies the result into the package.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgedistill.data.idx import FASHION_CLASSES, read_idx
from edgedistill.data.sources import SAMPLE_FILE
from edgedistill.progress import Face
from edgedistill.rundir import Work
from edgedistill.synth.train import GENERATOR, Fitting, GeneratorTrainer

FOLDER = Path("/usr/share/datasets/fashion-mnist")
SIDE = 28


def outside(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Training images (N, 28, 28, 3) and labels (N,) that the built-in set does not hold."""
    images, labels = (
        read_idx(min(folder.glob(f"train-{kind}-idx*"))) for kind in ("images", "labels")
    )
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        own = {
            image.tobytes()
            for split in ("train", "val", "test")
            for image in sample[f"{split}_images"]
        }
    rows = [row for row, image in enumerate(images) if image.tobytes() not in own]
    grey = images[rows][..., None]
    return np.repeat(grey, 3, axis=3), labels[rows].astype(np.int64)


def main() -> None:
    """Train, and say what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="idx files of Fashion-MNIST")
    parser.add_argument("--steps", type=int, default=6000, help="steps of training")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 96], help="channels")
    parser.add_argument("--place", type=Path, help="copy the generator here")
    given = parser.parse_args()
    images, labels = outside(given.folder)
    fitting = Fitting(steps=given.steps, batch_size=given.batch, widths=tuple(given.widths))
    given.out.mkdir(parents=True, exist_ok=True)
    trainer = GeneratorTrainer(images, labels, FASHION_CLASSES, fitting)
    began = time.monotonic()
    facts = trainer.run(Work(given.out), Face(2))
    folder = given.out / GENERATOR
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    told = {"images": len(labels), "bytes": size, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({**{k: v for k, v in facts.items() if k != "curve"}, **told}))
    if given.place is not None:
        shutil.copytree(folder, given.place, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
