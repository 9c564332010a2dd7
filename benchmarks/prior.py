"""How well the accuracy prior ranks students: its rank correlation with what they reach when they are trained.

Each student is trained from random weights on the built-in images (labels alone, the plain arm of a build) with the
same number of epochs, and scored on validation images. All share one run folder, and so the pixels and the teacher.
About a minute a student on two cores:

    python -m benchmarks.prior
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.host_latency import spearman
from edgedistill.target.prior import expected_top1
from edgedistill.target.students import find_student

STUDENTS = (
    "lcnet_050", "mobilenetv3_small_050", "mobilenetv4_conv_small_050", "mobilenetv3_small_100",
    "lcnet_100", "tinynet_e", "mobilenetv4_conv_small", "mobilenetv2_050", "repghostnet_050", "resnet10t",
)  # fmt: skip
SIZE = 64


def trained_top1(student: str, epochs: int, folder: Path) -> float:
    """Validation top-1 of the plain arm."""
    command = [
        sys.executable, "-m", "edgedistill", "build", "--device", "x86-cpu", "--student", student, "--until", "plain",
        "--out", str(folder), "--latency-ms", "1000", "--size-mb", "100",
        "--set", f"student.input_size={SIZE}", "--set", "student.weights=random", "--set", f"distill.epochs={epochs}",
        "--teacher", "bundled:efficientnet_lite0", "--set", "teacher.adapt=probe", "--quiet",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    done = json.loads((folder / "stages" / "08-plain" / "done.json").read_text("utf-8"))
    return float(done["facts"]["val_top1"])


def main() -> None:
    """Train, rank, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    prior, truth = [], []
    with tempfile.TemporaryDirectory(prefix="edgedistill-prior-") as name:
        for student in STUDENTS:
            found = trained_top1(student, args.epochs, Path(name))
            prior.append(expected_top1(find_student(student), SIZE, "float32", pretrained=False))
            truth.append(found)
            print(f"{student:28} prior {prior[-1]:.3f}  trained {found:.3f}", flush=True)
    rank = spearman(np.array(prior), np.array(truth))
    print(f"rank correlation over {len(prior)} students: {rank:.2f}")


if __name__ == "__main__":
    main()
