"""A generator on trial: speed, whether the teacher sees what was asked for, and whether it copies its training images.

python -m benchmarks.evaluate_generator --run RUN --generator GENERATOR [--images 1000] [--steps 10] [--guidance 2]

RUN is a run folder of the built-in images with a fine-tuned teacher (`edgedistill build --until teacher`). Prints, as
JSON: bytes of the generator; seconds for the images; how often the teacher sees the class asked for, before curation
and in what it keeps, beside how often it is right on the real test images (with 95 % intervals); and how near the
images come to the nearest one that the generator was trained on, beside how near real test images come to it, by the
teacher's features (cosine) and by pixels (root mean square of the difference, in grey levels).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.make_generator import FOLDER, outside
from edgedistill.data.sources import SAMPLE_FILE
from edgedistill.metrics import wilson
from edgedistill.progress import Face
from edgedistill.synth.curate import EVERYTHING, Rules, Seen, judge, nearest, unit_length
from edgedistill.synth.generators import Wish, open_source
from edgedistill.synth.pipelines import Making
from edgedistill.synth.score import blank
from edgedistill.synthesis import Material, Synthesis, SynthRequest, material_of

QUANTILES = (0.5, 0.95, 0.99, 1.0)


def main() -> None:
    """Make, look, compare, print."""
    given = parse()
    material = material_of(given.run)
    making = Making(
        "class_conditional", given.generator, steps=given.steps, guidance=given.guidance
    )
    files = [path for path in Path(given.generator).rglob("*") if path.is_file()]
    with tempfile.TemporaryDirectory() as scratch:
        synthesis = Synthesis(SynthRequest(Path(scratch) / "job", making, None), material, Face(0))
        images, labels, seconds = make(making, synthesis, given.images, given.batch)
        found = {
            "bytes": sum(path.stat().st_size for path in files),
            "images": len(images), "seconds": round(seconds, 1), "cores": os.cpu_count(),
            "steps": given.steps, "guidance": given.guidance,
            **agreement(synthesis, material, images, labels), **copies(synthesis, images),
        }  # fmt: skip
    print(json.dumps(found, indent=1))


def make(making: Making, synthesis: Synthesis, count: int, batch: int) -> tuple[Any, Any, float]:
    """Images (N, S, S, 3), their classes (N,), and the seconds from the loaded generator to the last pixel."""
    classes = synthesis.classes
    source = open_source(making, classes)
    labels = np.arange(count) % len(classes)
    wishes = [Wish(n, int(k), "", 1_000_003 + n) for n, k in enumerate(labels)]
    source.make(wishes[:2])
    began = time.perf_counter()
    made = [
        image for at in range(0, count, batch) for image in source.make(wishes[at : at + batch])
    ]
    return np.stack(made), labels, time.perf_counter() - began


def agreement(synthesis: Synthesis, material: Material, images: Any, labels: Any) -> dict[str, Any]:
    """How often the teacher sees the class: of what was made, of what is kept, and of real test images."""
    features, logits = synthesis.look(images)
    seen = Seen(unit_length(features), np.asarray(logits, np.float32), labels, blank(list(images)))
    right = np.asarray(logits).argmax(1) == labels
    many = [len(labels)] * len(synthesis.classes)
    teaching = synthesis.teaching
    told: dict[str, Any] = {}
    for name, rules in (("kept", Rules()), ("kept_without_filter", EVERYTHING)):
        verdicts = judge(seen, teaching.real, teaching.known, rules, many)
        kept = np.array([verdict.reason is None for verdict in verdicts])
        told[name] = int(kept.sum())
        told[f"{name}_agreement"] = rate(right[kept])
    test = synthesis.arrays
    real = np.asarray(synthesis.look(test.teacher_test)[1]).argmax(1) == test.test_labels
    return {
        "teacher": material.teacher.facts["model"], "agreement": rate(right), "real_test": rate(real),
        "points_below_real": round(100 * float(real.mean() - right.mean()), 2),
        "agreement_by_class": [round(float(right[labels == k].mean()), 3) for k in range(len(many))],
        **told,
    }  # fmt: skip


def copies(synthesis: Synthesis, images: Any) -> dict[str, Any]:
    """Nearness to the images that the generator was trained on, of made images and of real test images."""
    trained, _ = outside(FOLDER)
    known = unit_length(synthesis.look(trained)[0])
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        test = np.repeat(sample["test_images"][..., None], 3, axis=3)
    told: dict[str, Any] = {"copy_level": round(synthesis.teaching.known.copy, 4)}
    for name, pixels in (("made", images), ("test", test)):
        near = nearest(unit_length(synthesis.look(pixels)[0]), known)[0]
        told[f"{name}_nearest_cosine"] = quantiles(near)
        told[f"{name}_nearest_rms"] = quantiles(-rms(pixels, trained), sign=-1)
    return told


def rms(pixels: Any, others: Any) -> Any:
    """Least root mean square difference (N,) of each image to any of the others, in grey levels."""
    a, b = (x[..., 0].reshape(len(x), -1).astype(np.float32) for x in (pixels, others))
    norms, found = (b**2).sum(1), []
    for start in range(0, len(a), 256):
        block = a[start : start + 256]
        found.append(((block**2).sum(1)[:, None] - 2 * block @ b.T + norms).min(1))
    return np.sqrt(np.maximum(np.concatenate(found), 0) / a.shape[1])


def quantiles(values: Any, sign: int = 1) -> dict[str, float]:
    """What half, most and the nearest images reach."""
    return {f"{100 * q:g} %": round(sign * float(np.quantile(values, q)), 4) for q in QUANTILES}


def rate(right: Any) -> list[float]:
    """A share with its 95 % interval."""
    share = float(np.mean(right)) if len(right) else 0.0
    return [round(v, 4) for v in (share, *wilson(int(np.sum(right)), max(1, len(right))))]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder with a teacher")
    parser.add_argument("--generator", required=True, help="folder of a generator")
    parser.add_argument("--images", type=int, default=1000, help="images to make")
    parser.add_argument("--steps", type=int, default=10, help="steps of an image")
    parser.add_argument("--guidance", type=float, default=2.0, help="classifier-free guidance")
    parser.add_argument("--batch", type=int, default=64, help="images at once")
    return parser.parse_args()


if __name__ == "__main__":
    main()
