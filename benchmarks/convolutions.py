"""Training and evaluation with edgedistill's convolutions against torch's own, interleaved, as a ratio.

    python -m benchmarks.convolutions [--size 64] [--batch 32] [--repeats 7]

In training: its gradient of depthwise filters and its products for 1x1 convolutions. In evaluation, of the folded copy:
the products. Prints images a second of both and the median ratio for five students.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import timm
import torch
import torch.nn.functional as F
from torch import nn

from edgedistill.distill.depthwise import speed_up
from edgedistill.folding import folded
from edgedistill.pointwise import as_products

STUDENTS = (
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite2",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
)
STEPS = 4


def trainer(model: nn.Module, size: int, batch: int) -> Callable[[], float]:
    """A function that trains a few steps and returns images a second."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch,))
    model.train()

    def run() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return STEPS * batch / (time.perf_counter() - start)

    return run


def evaluator(model: nn.Module, size: int, batch: int) -> Callable[[], float]:
    """A function that evaluates a few batches and returns images a second."""
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)

    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(STEPS):
                model(images)
        return STEPS * batch / (time.perf_counter() - start)

    return run


def compared(
    run: Callable[[], float], change: Callable[[], Callable[[], None]], repeats: int
) -> str:
    """Medians of both ways, and of their ratio."""
    own: list[float] = []
    torchs: list[float] = []
    run()
    for _ in range(repeats):
        torchs.append(run())
        undo = change()
        own.append(run())
        undo()
    ratio = statistics.median(a / b for a, b in zip(own, torchs, strict=True))
    fast, slow = statistics.median(own), statistics.median(torchs)
    return f"torch {slow:6.0f}/s   here {fast:6.0f}/s   ratio {ratio:.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.processor()}, {torch.get_num_threads()} threads")
    print(f"{given.size} px, batch {given.batch}, {given.repeats} interleaved pairs")
    for name in STUDENTS:
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=10).to(memory_format=torch.channels_last)
        run = trainer(model, given.size, given.batch)
        print(
            f"{name:24} training   {compared(run, partial(speed_up, model), given.repeats)}",
            flush=True,
        )
        copied = folded(model, given.size).to(memory_format=torch.channels_last)
        change = partial(as_products, copied, training_only=False)
        run = evaluator(copied, given.size, given.batch)
        print(f"{name:24} evaluation {compared(run, change, given.repeats)}", flush=True)


if __name__ == "__main__":
    main()
