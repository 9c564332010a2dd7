"""Training steps with edgedistill's gradient of depthwise filters against torch's own, interleaved, as a ratio.

    python benchmarks/depthwise.py [--size 64] [--repeats 7]

Prints images a second of both and the median ratio for five students.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import nn

from edgedistill.distill.depthwise import speed_up

STUDENTS = (
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite2",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
)
BATCH, STEPS = 32, 4


def stepper(model: nn.Module, size: int) -> Callable[[], float]:
    """A function that trains a few steps and returns images a second."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    images = torch.randn(BATCH, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,))
    model.train()

    def run() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return STEPS * BATCH / (time.perf_counter() - start)

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {platform.processor()}, {torch.get_num_threads()} threads")
    print(f"{options.size} px, batch {BATCH}, {options.repeats} interleaved pairs")
    for name in STUDENTS:
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=10).to(memory_format=torch.channels_last)
        run = stepper(model, options.size)
        run()
        own: list[float] = []
        torchs: list[float] = []
        for _ in range(options.repeats):
            torchs.append(run())
            undo = speed_up(model)
            own.append(run())
            undo()
        ratio = statistics.median(a / b for a, b in zip(own, torchs, strict=True))
        fast, slow = statistics.median(own), statistics.median(torchs)
        print(f"{name:24} torch {slow:6.0f}/s   here {fast:6.0f}/s   ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
