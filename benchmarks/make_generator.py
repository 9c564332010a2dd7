"""Trains a class-conditional generator for the built-in images, on others of the same kind.

python -m benchmarks.make_generator --out DIR [--steps N] [--widths 32 64 96] [--place FOLDER]

Learns from those of Fashion-MNIST's 60,000 training images that are in no split of the built-in set, nor have the bytes
of one that is, or of a test image. Killed and started again it goes on. `--place` writes the result in half precision,
with a card, to be shipped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgedistill.data.idx import FASHION_CLASSES, read_idx
from edgedistill.data.sources import SAMPLE_FILE
from edgedistill.progress import Face
from edgedistill.rundir import Work
from edgedistill.synth.conditional import ClassConditionalPipeline
from edgedistill.synth.train import GENERATOR, Fitting, GeneratorTrainer

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CARD = """---
license: apache-2.0
tags: [image-generation, diffusion]
datasets: [fashion_mnist]
---
# Fashion-MNIST, class by class

A class-conditional diffusion network for grey images of 28 px in the ten classes of Fashion-MNIST (MIT licence,
Zalando SE), {params:,} parameters. `python -m benchmarks.make_generator` trained it on {images:,} of Fashion-MNIST's
training images, none of which is in the built-in set of edgedistill or among the test images: {steps:,} steps of
{batch} images. What it is worth is written in edgedistill's `docs/results.md`.
"""


def outside(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Training images (N, 28, 28, 3) and labels (N,) that neither the built-in set nor the test holds."""
    images, labels = (
        read_idx(min(folder.glob(f"train-{kind}-idx*"))) for kind in ("images", "labels")
    )
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        own = {
            image.tobytes()
            for split in ("train", "val", "test")
            for image in sample[f"{split}_images"]
        }
    own |= {image.tobytes() for image in read_idx(min(folder.glob("t10k-images-idx*")))}
    rows = [row for row, image in enumerate(images) if image.tobytes() not in own]
    grey = images[rows][..., None]
    return np.repeat(grey, 3, axis=3), labels[rows].astype(np.int64)


def place(folder: Path, target: Path, facts: Mapping[str, Any], images: int, batch: int) -> None:
    """Copy the generator in half precision, with its card."""
    pipe = ClassConditionalPipeline.from_pretrained(folder, torch_dtype=torch.float16)
    shutil.rmtree(target, ignore_errors=True)
    pipe.save_pretrained(target)
    for path in target.rglob("*.json"):  # diffusers notes where it was loaded from
        config = json.loads(path.read_text("utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    text = CARD.format(params=facts["params"], images=images, steps=facts["steps"], batch=batch)
    (target / "README.md").write_text(text, "utf-8")


def main() -> None:
    """Train, and say what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to work in")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="idx files of Fashion-MNIST")
    parser.add_argument("--steps", type=int, default=6000, help="steps of training")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 96], help="channels")
    parser.add_argument("--patch", type=int, default=2, help="pixels of a place, each way")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak rate")
    parser.add_argument("--place", type=Path, help="copy the generator here")
    given = parser.parse_args()
    images, labels = outside(given.folder)
    fitting = Fitting(given.steps, given.batch, given.lr, tuple(given.widths), patch=given.patch)
    given.out.mkdir(parents=True, exist_ok=True)
    trainer = GeneratorTrainer(images, labels, FASHION_CLASSES, fitting)
    began = time.monotonic()
    facts = trainer.run(Work(given.out), Face(2))
    folder = given.out / GENERATOR
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    told = {"images": len(labels), "bytes": size, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({**{k: v for k, v in facts.items() if k != "curve"}, **told}))
    if given.place is not None:
        place(folder, given.place, facts, len(labels), given.batch)


if __name__ == "__main__":
    main()
