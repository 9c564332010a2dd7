"""A whole build by one process and by two with the same images a step: where do both arms end?

python -m benchmarks.two_processes --out DIR [--epochs E]

Builds the built-in images' arms (mobilenetv4_conv_small from random weights, 64 px, the teacher fine-tuned) up to the
report, first alone, then by `accelerate launch --num_processes 2 --cpu`, a thread for each process. BatchNorm sees half
of the images of a step in each process, so the weights differ; the accuracy should not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from edgedistill.result import load

LAUNCH = (
    "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--cpu", "--mixed_precision",
    "no", "--dynamo_backend", "no",
)  # fmt: skip


def build(out: Path, processes: int, epochs: int) -> float:
    """Build into `out`; seconds."""
    command = [
        sys.executable, *(LAUNCH if processes > 1 else ()), "-m", "edgedistill", "build", "--device", "x86-cpu",
        "--student", "mobilenetv4_conv_small", "--out", str(out), "--quiet",
    ]  # fmt: skip
    for setting in ("student.weights=random", "student.input_size=64", f"distill.epochs={epochs}"):
        command += ["--set", setting]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if processes > 1:
        env["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> int:
    """Exit code 0 when each arm of two processes ends inside the interval of one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for both runs")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each arm")
    given = parser.parse_args()
    folders = {1: given.out / "one", 2: given.out / "two"}
    for processes, folder in folders.items():
        seconds = build(folder, processes, given.epochs)
        print(f"{processes} process{'es' * (processes > 1)}: {seconds:.0f} s", flush=True)
    one, two = (load(folder) for folder in folders.values())
    inside = []
    for alone, both in zip(one.arms, two.arms, strict=True):
        low, high = alone.top1.ci95 or (0.0, 1.0)
        inside.append(low <= both.top1.value <= high)
        print(
            f"{alone.name:<10} one {alone.top1.value:.4f} ({low:.4f} to {high:.4f}), two {both.top1.value:.4f}, "
            f"n = {alone.top1.n:,}: {'inside' if inside[-1] else 'OUTSIDE'}; {alone.steps:,} and {both.steps:,} steps"
        )
    return 0 if all(inside) else 1


if __name__ == "__main__":
    raise SystemExit(main())
