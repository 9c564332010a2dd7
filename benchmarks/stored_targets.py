"""Reading stored teacher outputs against the training of small students, interleaved, as a ratio.

    python benchmarks/stored_targets.py [--images 20000] [--repeats 5]

Stores random records of 1,280 features for 10 and 1,000 classes, in full and as the 100 largest logits, reads random
batches of 64 of one view after the other, and trains two students (forward, backward, AdamW) in turn. Prints images a
second of both and the ratio of medians; the issue asks for 5.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F

from edgedistill.data.transforms import uniforms
from edgedistill.distill.depthwise import speed_up
from edgedistill.nets import Ints, forward
from edgedistill.progress import silent
from edgedistill.rundir import Work
from edgedistill.teacher.cache import StoredTargets
from edgedistill.teacher.course import Course
from edgedistill.teacher.records import Content
from edgedistill.teacher.storing import store

WIDTH, VIEWS, BATCH = 1280, 2, 64
CACHES = ((10, None), (1000, None), (1000, 100))
STUDENTS = (
    ("mobilenetv4_conv_small", 64),
    ("mobilenetv4_conv_small", 96),
    ("mobilenetv3_small_100", 64),
    ("mobilenetv3_small_100", 96),
)
READ_BATCHES, STEPS = 200, 3


class Noise:
    """A teacher that says random numbers at once, the same of the same view."""

    def __init__(self, classes: int) -> None:
        self.features, self.classes = WIDTH, classes

    def __call__(self, index: Ints, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, 1280) in 0..1 and logits (B, C) in 0..10."""
        numbers = torch.from_numpy(uniforms(0, index, view, WIDTH + self.classes)).float()
        return numbers[:, :WIDTH], 10 * numbers[:, WIDTH:]


def reader(folder: Path, images: int, classes: int, top_k: int | None) -> Callable[[], float]:
    """A function that reads random batches of every view and returns images a second."""
    lessons = tuple(Course(VIEWS, VIEWS).lessons())
    content = Content(lessons, images, (WIDTH,), classes, top_k, {"what": "random numbers"})
    start = time.perf_counter()
    facts = store(Work(folder), content, [Noise(classes)], silent())
    took = time.perf_counter() - start
    targets = StoredTargets(folder, content.about, lessons, images, classes)
    for lesson in lessons:  # each shard's first opening checks its hash
        targets(lesson, np.arange(0, images, 512))
    opened = time.perf_counter() - start - took
    kept = "all" if top_k is None else f"{top_k} largest"
    print(
        f"{classes:,} classes, {kept} logits: {facts['bytes'] / 1e6:.0f} MB, stored in {took:.1f} s, "
        f"checked and opened in {opened:.2f} s",
        flush=True,
    )
    order = np.random.default_rng(0)

    def run() -> float:
        batches = order.integers(0, images, (READ_BATCHES, BATCH))
        begin = time.perf_counter()
        for number, index in enumerate(batches):
            targets(lessons[number * VIEWS // READ_BATCHES], index)
        return READ_BATCHES * BATCH / (time.perf_counter() - begin)

    return run


def trainer(name: str, size: int) -> Callable[[], float]:
    """A function that trains a few plain steps and returns images a second."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10).to(memory_format=torch.channels_last).train()
    speed_up(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    images = torch.randn(BATCH, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,))

    def run() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            loss = F.cross_entropy(forward(model, images)[1], labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return STEPS * BATCH / (time.perf_counter() - start)

    run()
    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.processor()}, {torch.get_num_threads()} threads")
    print(f"{options.images:,} images x {WIDTH} features x {VIEWS} views, batches of {BATCH}")
    with tempfile.TemporaryDirectory() as folder:
        readers = {}
        for classes, top_k in CACHES:
            place = Path(folder) / f"{classes}-{top_k}"
            place.mkdir()
            readers[classes, top_k] = reader(place, options.images, classes, top_k)
        for name, size in STUDENTS:
            train = trainer(name, size)
            for (classes, top_k), read in readers.items():
                pairs = [(read(), train()) for _ in range(options.repeats)]
                fast = statistics.median(pair[0] for pair in pairs)
                slow = statistics.median(pair[1] for pair in pairs)
                ratio = statistics.median(a / b for a, b in pairs)
                kept = "all" if top_k is None else f"top {top_k}"
                print(
                    f"{name:24} {size:3} px {slow:6.0f}/s   {classes:5,} classes {kept:8} "
                    f"{fast:8.0f}/s   ratio {ratio:.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
