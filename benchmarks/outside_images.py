"""What a quickstart's networks are worth on test images outside the built-in set.

    python -m benchmarks.outside_images RUN [RUN ...] [--folder /usr/share/datasets/fashion-mnist]

Scores teacher, plain and distilled student of finished runs of the built-in data (one a seed) on the 8,000 of
Fashion-MNIST's 10,000 test images that are not in the built-in set, with torch, and prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from ontarget.preprocess import resize_crop
from PIL import Image

from edgedistill import metrics
from edgedistill.data.idx import read_idx
from edgedistill.data.sources import SAMPLE_FILE
from edgedistill.nets import load_state, outputs
from edgedistill.teacher.stage import look_of

NETWORKS = {"teacher": "04-teacher", "plain": "08-plain", "distilled": "09-distilled"}


def outside(folder: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (8000, side, side, 3) and labels of the test images that the built-in set does not hold."""
    images = read_idx(folder / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz")
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        rows = np.setdiff1d(np.arange(len(images)), sample["test_source_index"])
    pictures = (Image.fromarray(np.asarray(images[row])).convert("RGB") for row in rows)
    return np.stack([resize_crop(p, side, side) for p in pictures]), labels[rows].astype(np.int64)


def facts_of(run: Path, stage: str) -> dict[str, Any]:
    """What a finished stage says of itself."""
    done = json.loads((run / "stages" / stage / "done.json").read_text("utf-8"))
    facts: dict[str, Any] = done["facts"]
    return facts


def score(run: Path, folder: Path) -> dict[str, Any]:
    """Top-1 of the three networks of one run, and the gain of the distilled one."""
    teacher, start = facts_of(run, "04-teacher"), facts_of(run, "07-start")
    student = facts_of(run, "02-plan")["plan"]["chosen"]["model"]
    right: dict[str, np.ndarray] = {}
    for name, stage in NETWORKS.items():
        look = look_of(teacher if name == "teacher" else start)
        pixels, labels = outside(folder, look.size)
        architecture = teacher["architecture"] if name == "teacher" else student
        model = timm.create_model(architecture, num_classes=teacher["classes"])
        load_state(model, run / "stages" / stage / f"{name}.safetensors", name)
        logits = outputs(model, pixels, look, torch.device("cpu"), fast=True)[1]
        right[name] = metrics.correct(logits, labels)
    top1 = {name: metrics.proportion(r).model_dump() for name, r in right.items()}
    gain = metrics.paired_gain(right["distilled"], right["plain"], "plain")
    return {"run": run.name, "top1": top1, "gain": gain.model_dump()}


def main() -> None:
    """Score every run and print the means over them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    args = parser.parse_args()
    rows = [score(run, args.folder) for run in args.runs]
    means = {n: float(np.mean([r["top1"][n]["value"] for r in rows])) for n in NETWORKS}
    gain = float(np.mean([row["gain"]["value"] for row in rows]))
    print(json.dumps({"runs": rows, "mean_top1": means, "mean_gain": gain}, indent=1))


if __name__ == "__main__":
    main()
