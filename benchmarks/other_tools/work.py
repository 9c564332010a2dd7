"""Makes the common material: an image folder, the teacher, the student's start weights and `work.json`.

python -m benchmarks.other_tools.work --out DIR [--idx DIR] [--train N] [--epochs E] [--teacher-run RUN]

Images are PNG files of 28 x 28 pixels, one folder a class: `images/train`, `images/val`, and `tested` for the test. In
`images/test` are the first few of these, which is all that edgedistill reads where the test is left out. Without
`--idx` the images are those of the built-in set; with it, of a folder of idx files (`train` and `val` drawn from its
training images). Images with the same bytes are taken once. The teacher is made by edgedistill itself on these images
(`build --until teacher`), or taken from the run folder of `--teacher-run`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.other_tools.common import Settings, Work, marks
from edgedistill.data.idx import FASHION_CLASSES, read_idx
from edgedistill.data.sources import SAMPLE_FILE
from edgedistill.distill.stage import quieten_head

Bytes = npt.NDArray[np.uint8]
Split = tuple[Bytes, npt.NDArray[np.int64]]
"""Grey images (N, H, W) and labels (N,)."""
STAGE, SEEN = "04-teacher", 100
NAMES = tuple(
    f"{index}-{name.lower().replace('/', '-').replace(' ', '-')}"
    for index, name in enumerate(FASHION_CLASSES)
)
"""Folders of the classes; in alphabetical order they are in the order of the labels."""


def builtin() -> dict[str, Split]:
    """The splits of the built-in set."""
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        return {
            split: (sample[f"{split}_images"], sample[f"{split}_labels"].astype(np.int64))
            for split in ("test", "val", "train")
        }


def from_idx(folder: Path, val: int) -> dict[str, Split]:
    """Test as given; `val` images and the rest drawn from the training images."""
    found: dict[str, Split] = {}
    for stem in ("t10k", "train"):
        pixels, truth = (
            read_idx(min(folder.glob(f"{stem}-{kind}-idx*"))) for kind in ("images", "labels")
        )
        found[stem] = (pixels, truth.astype(np.int64))
    images, labels = found["train"]
    order = np.random.default_rng(0).permutation(len(labels))
    return {
        "test": found["t10k"],
        "val": (images[order[:val]], labels[order[:val]]),
        "train": (images[order[val:]], labels[order[val:]]),
    }


def once(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Every image once: of those with the same bytes the first, in the order of the splits."""
    seen: set[bytes] = set()
    kept: dict[str, Split] = {}
    for split, (images, labels) in splits.items():
        rows = []
        for row, image in enumerate(images):
            key = hashlib.sha256(image.tobytes()).digest()
            if key not in seen:
                seen.add(key)
                rows.append(row)
        kept[split] = (images[rows], labels[rows])
    return kept


def capped(split: Split, most: int | None) -> Split:
    """At most `most` images, drawn with a fixed seed."""
    images, labels = split
    if most is None or most >= len(labels):
        return split
    rows = np.sort(np.random.default_rng(1).permutation(len(labels))[:most])
    return images[rows], labels[rows]


def write_images(folder: Path, split: Split) -> None:
    """One PNG file an image, in the folder of its class."""
    for name in NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for row, (image, label) in enumerate(zip(*split, strict=True)):
        Image.fromarray(image).save(folder / NAMES[int(label)] / f"{row:06d}.png")


def make_teacher(out: Path, given: argparse.Namespace) -> Path:
    """Have edgedistill adapt the teacher to the images; the run folder."""
    run = out / "teacher-run"
    sizes = [f"{part}.input_size={given.size}" for part in ("teacher", "student")]
    settings = [*sizes, "student.weights=random", f"teacher.epochs={given.teacher_epochs}"]
    command = [
        sys.executable, "-m", "edgedistill", "build", "--until", "teacher", "--device", "x86-cpu",
        "--data", str(out / "images"), "--student", given.student, "--out", str(run),
        *(word for setting in settings for word in ("--set", setting)),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return run


def take_teacher(out: Path, run: Path) -> dict[str, Any]:
    """Copy the teacher of a run in the forms that the tools read; what its stage says of it."""
    stage = run / "stages" / STAGE
    shutil.copyfile(stage / "teacher.safetensors", out / "teacher.safetensors")
    facts: dict[str, Any] = json.loads((stage / "done.json").read_text("utf-8"))["facts"]
    return facts


def main() -> None:
    """Make the folder, and say what is in it."""
    given = parse()
    out: Path = given.out.resolve()
    splits = once(from_idx(given.idx, given.val) if given.idx else builtin())
    caps = {"train": given.train, "val": given.val, "test": given.test}
    splits = {name: capped(split, caps[name]) for name, split in splits.items()}
    for name in ("images", "tested"):
        shutil.rmtree(out / name, ignore_errors=True)
    write_images(out / "tested", splits["test"])
    for name, split in {**splits, "test": capped(splits["test"], SEEN)}.items():
        write_images(out / "images" / name, split)
    run = given.teacher_run or make_teacher(out, given)
    facts = take_teacher(out, run)
    for seed in range(given.seeds):
        torch.manual_seed(seed)
        student = timm.create_model(given.student, pretrained=False, num_classes=len(NAMES))
        quieten_head(student)
        save_file(student.state_dict(), out / f"start-{seed}.safetensors")
    look = facts["look"]
    settings = Settings(
        size=given.size, batch=given.batch, epochs=given.epochs, lr=4e-3, weight_decay=0.01,
        temperature=4.0, min_crop=0.8, student=given.student, teacher=str(facts["architecture"]),
        classes=NAMES, mean=tuple(look["mean"]), std=tuple(look["std"]),
        train=len(splits["train"][1]), val=len(splits["val"][1]), test=len(splits["test"][1]),
        seeds=tuple(range(given.seeds)), source=str(given.idx.name if given.idx else "builtin"),
        teacher_hits=0,
    )  # fmt: skip
    work = Work(out, settings)
    right = marks(work.teacher(), work.tested()).count("1")
    values = {**asdict(settings), "teacher_hits": right}
    (out / "work.json").write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    print(json.dumps(values))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--idx", type=Path, help="folder of idx files [the built-in set]")
    parser.add_argument("--train", type=int, help="most training images [all]")
    parser.add_argument("--val", type=int, default=1000, help="validation images")
    parser.add_argument("--test", type=int, help="most test images [all]")
    parser.add_argument("--size", type=int, default=96, help="side of the input in pixels")
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each training")
    parser.add_argument("--seeds", type=int, default=3, help="start weights, and rounds, to have")
    parser.add_argument("--student", default="mobilenetv4_conv_small", help="timm name")
    parser.add_argument("--teacher-run", type=Path, help="run folder with an adapted teacher")
    parser.add_argument("--teacher-epochs", default="auto", help="epochs of its fine-tuning")
    return parser.parse_args()


if __name__ == "__main__":
    main()
