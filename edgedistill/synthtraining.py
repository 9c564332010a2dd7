"""`edgedistill synth train`: a class-conditional generator of a task's own training images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill import crew
from edgedistill.data.dataset import Dataset, labels
from edgedistill.data.pixels import pixel_blocks
from edgedistill.data.sources import open_source
from edgedistill.errors import MissingExtraError, UsageError
from edgedistill.files import replace_folder
from edgedistill.progress import Face
from edgedistill.recipe import DataSection, hash_of
from edgedistill.rundir import Work

PASSES, GPU_FACTOR = 400_000, 10
"""Image passes of a training without a GPU, and how many times as many with one."""
MOST_SIDE = 64
WORK, MARK, FACTS = ".training", "fingerprint", "training.json"
LEAST_PATCHED = 24
"""Side in pixels from which the network sees patches of two pixels."""
WIDTHS = {32: (32, 64, 96), 64: (32, 64, 96, 128)}
"""Channels by the largest side in pixels that they are for."""


@dataclass(frozen=True)
class TrainRequest:
    """What a person asked for; `None` is derived."""

    data: DataSection
    out: Path
    side: int | None = None
    steps: int | None = None
    batch: int = 128
    lr: float = 1e-3
    seed: int = 0


def train_generator(request: TrainRequest, face: Face) -> dict[str, Any]:
    """Train, and leave an ordinary diffusers folder at `out`; the same request goes on where it was broken off.

    Raises `UsageError` for a folder that holds something else.
    """
    from importlib.util import find_spec

    if find_spec("diffusers") is None:
        raise MissingExtraError("training a generator", "synth")
    out = request.out
    if crew.told(out.exists() and not (out / WORK).is_dir()):
        raise UsageError(f"{out} exists; give a new folder for the generator (--out)")
    dataset = open_source(request.data, request.seed, None, face.counter("images"), face.say)
    side = request.side or min(MOST_SIDE, dataset.image_side)
    fitting = _fitting(request, side)
    key = hash_of({"data": dataset.sha256, "side": side, "fitting": vars(fitting)})
    work = _work(out / WORK, key)
    from edgedistill.synth.train import GENERATOR, GeneratorTrainer

    face.say(
        f"{len(dataset.train):,} training images of {len(dataset.classes)} classes at {side} px, "
        f"{fitting.steps:,} steps of {fitting.batch_size} images"
    )
    pixels = _pixels(dataset, side)
    trainer = GeneratorTrainer(pixels, labels(dataset.train), dataset.classes, fitting)
    facts = trainer.run(work, face)
    facts |= {"data": dataset.name, "data_sha256": dataset.sha256, "images": len(dataset.train)}
    work.write(f"{GENERATOR}/{FACTS}", json.dumps(facts, indent=1) + "\n")
    if crew.leads():
        aside = out.with_name(f".{out.name}.tmp")
        replace_folder(work.path(GENERATOR), aside)
        replace_folder(aside, out)
    crew.told("placed")
    return facts


def _fitting(request: TrainRequest, side: int) -> Any:
    """How it is trained; with a GPU for longer, and in bfloat16."""
    from edgedistill.nets import pick_device
    from edgedistill.synth.train import Fitting

    gpu = pick_device().type == "cuda"
    steps = request.steps or PASSES * (GPU_FACTOR if gpu else 1) // request.batch
    widths = next((w for most, w in WIDTHS.items() if side <= most), WIDTHS[MOST_SIDE])
    return Fitting(
        steps=steps, batch_size=request.batch, lr=request.lr, widths=widths,
        patch=2 if side >= LEAST_PATCHED else 1, flip=request.data.flip,
        precision="bfloat16" if gpu else "float32", seed=request.seed,
    )  # fmt: skip


def _work(folder: Path, key: str) -> Work:
    """The working folder; that of another training is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(folder)
    if work.has(MARK) and work.path(MARK).read_text("utf-8") != key:
        raise UsageError(
            f"{folder.parent} holds a training of other images or settings that is not finished. Give the same "
            "command as before to go on with it, or another folder (--out)."
        )
    work.write(MARK, key)
    return work


def _pixels(dataset: Dataset, side: int) -> Any:
    """Training images (N, side, side, 3)."""
    return np.concatenate(list(pixel_blocks(dataset, dataset.train, side, side)))
