"""How fast a class-conditional generator is trained here, and how fast it makes images.

python -m benchmarks.generator_speed [--batch 128] [--steps 60] [--images 256] [--json FILE]

Prints images a second of training (after ten steps to warm up; the full training of `make_generator.py` is 400,000 of
them) and of sampling (10 steps with guidance).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from edgedistill.data.idx import FASHION_CLASSES
from edgedistill.data.sources import SAMPLE_FILE
from edgedistill.synth.generators import Wish, open_source
from edgedistill.synth.pipelines import Making
from edgedistill.synth.train import Fitting, GeneratorTrainer, save_pipeline

WARM, PASSES = 10, 400_000


def wait() -> None:
    """Until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def training(batch: int, steps: int, precision: str, folder: Path) -> float:
    """Images a second; what was trained so far is left in `folder`."""
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        pixels = np.repeat(sample["train_images"][..., None], 3, axis=3)
        labels = sample["train_labels"].astype(np.int64)
    fitting = Fitting(steps=steps, batch_size=batch, precision=precision)
    trainer = GeneratorTrainer(pixels, labels, FASHION_CLASSES, fitting)
    for _ in range(WARM):
        trainer._train_step()
    wait()
    began = time.perf_counter()
    for _ in range(steps):
        trainer._train_step()
    wait()
    spent = time.perf_counter() - began
    save_pipeline(trainer.net, FASHION_CLASSES, trainer.side, fitting.patch, folder)
    return batch * steps / spent


def sampling(batch: int, count: int, folder: Path) -> float:
    """Images a second."""
    making = Making("class_conditional", str(folder), guidance=2.0)
    source = open_source(making, FASHION_CLASSES)
    wishes = [Wish(n, n % len(FASHION_CLASSES), "", n) for n in range(count)]
    source.make(wishes[:batch])
    began = time.perf_counter()
    for at in range(0, count, batch):
        source.make(wishes[at : at + batch])
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--steps", type=int, default=60, help="timed steps of training")
    parser.add_argument("--images", type=int, default=256, help="images to make")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "generator"
        speed = training(given.batch, given.steps, "bfloat16" if cuda else "float32", folder)
        made = sampling(given.batch, given.images, folder)
    found = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "training_images_per_s": round(speed, 1),
        "training_minutes": round(PASSES / speed / 60, 1),
        "sampling_images_per_s": round(made, 1),
    }
    print(json.dumps(found))
    if given.json is not None:
        given.json.write_text(json.dumps(found) + "\n", "utf-8")


if __name__ == "__main__":
    main()
