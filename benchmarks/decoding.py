"""Whether images come fast enough: decoding once (stage 03), reading views in training, and training itself.

    python -m benchmarks.decoding [--images 64] [--repeats 5] [--threads 1]

Photographs of scikit-image, cut to 500 px on the longer side and saved as JPEG, are put through stage 03's own
functions; the arrays that it leaves give training views; mobilenetv4_conv_small trains plainly on views of the same
size. All three take turns, so that a busy machine slows them alike. Prints images a second and the ratios.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
import timm
import torch
import torch.nn.functional as F
from PIL import Image

from edgedistill.data import dataset as room
from edgedistill.data.pixels import open_pixels, write_pixels
from edgedistill.data.sources import open_source
from edgedistill.data.stage import canvas_side
from edgedistill.data.views import Views
from edgedistill.nets import Look
from edgedistill.schema import DataSection

STUDENT = "mobilenetv4_conv_small"
SIZES = (64, 96, 224)
SIDE, QUALITY, BATCH = 500, 90, 32
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "cat", "rocket", "retina", "immunohistochemistry")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(folder: Path, count: int) -> None:
    """`count` different JPEG files of at most 500 px in two class folders, cut from real photographs."""
    found = []
    for name in PHOTOGRAPHS:
        try:
            found.append(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
        except (OSError, ModuleNotFoundError, AttributeError):  # not every one ships in the package
            continue
    for k in range(count):
        image = found[k % len(found)]
        shift = k // len(found)
        image = image.crop((shift, shift, image.width, image.height))
        scale = SIDE / max(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=QUALITY)
        path = folder / str(k % 2) / f"{k:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(out.getvalue())


def rate(work: Callable[[], int]) -> float:
    """Images a second of one call of `work`, which says how many it did."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def trainer(size: int) -> Callable[[], int]:
    """A function that trains the student on two batches."""
    torch.manual_seed(0)
    model = timm.create_model(STUDENT, num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    images = torch.randn(BATCH, 3, size, size).to(memory_format=torch.channels_last)
    truth = torch.randint(0, 10, (BATCH,))
    model.train()

    def work() -> int:
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(images), truth).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return 2 * BATCH

    return work


def measured(size: int, data: room.Dataset, folder: Path, repeats: int) -> tuple[float, ...]:
    """Median images a second of decoding, of reading views, and of training, and how many views a trained image."""
    items = [*data.train, *data.val, *data.test]
    canvas, path = canvas_side(size, size, data.image_side), folder / f"{size}.npy"

    def decode() -> int:
        write_pixels(data, items, canvas, canvas, path)
        return len(items)

    decode()
    pixels = open_pixels(path)
    views, look = Views(0, 0.35, True, 8), Look(size, MEAN, STD)
    rng = np.random.default_rng(0)

    def read() -> int:
        for view in range(4):
            index = rng.integers(0, len(pixels), BATCH)
            look.normalise(views.pixels(pixels, index, view, size, torch.device("cpu")))
        return 4 * BATCH

    works = (decode, read, trainer(size))
    for work in works:
        work()
    rates = np.array([[rate(work) for work in works] for _ in range(repeats)])
    ratio = statistics.median(rates[:, 1] / rates[:, 2])
    return (*(float(np.median(column)) for column in rates.T), ratio)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    room.workers = lambda: options.threads
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, "
        f"{options.threads} threads, {options.images} JPEG of {SIDE} px, {options.repeats} turns"
    )
    print(
        f"{'size':>6} {'decode once':>12} {'read views':>11} {'train':>8}   read / train   decoding pays off"
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photographs(folder / "data", options.images)
        data = open_source(DataSection(source=str(folder / "data")), 0)
        for size in SIZES:
            decode, read, train, ratio = measured(size, data, folder, options.repeats)
            print(
                f"{size:>4}px {decode:>10.0f}/s {read:>9.0f}/s {train:>6.0f}/s   {ratio:>10.1f}x"
                f"   as long as {train / decode:.2f} epochs of training",
                flush=True,
            )


if __name__ == "__main__":
    main()
