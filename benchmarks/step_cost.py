"""What distillation adds to a training step: plain, with stored targets and with a live teacher, in turn.

The engine's own steps on the built-in images, with the whole default loss (cross entropy, KL divergence, alignment and
uniformity with linear projectors). The teacher is tf_efficientnet_lite2 with a random head: weights do not change
what a step costs. Prints a line for each student and size: milliseconds of the plain step, ratios to it (median over
rounds in which each kind has its turn, with the quartiles), and how fast stored targets are read:

    python -m benchmarks.step_cost
    python -m benchmarks.step_cost --batch 512 --precision bfloat16      # on a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import numpy as np
import timm
import torch

from edgedistill import crew
from edgedistill.data.sources import open_source
from edgedistill.data.views import Views
from edgedistill.derive import resolve
from edgedistill.distill.depthwise import speed_up
from edgedistill.distill.facts import Images, Schedule
from edgedistill.distill.methods import method_values
from edgedistill.distill.objectives import Distilled, Objective, Plain, Targets
from edgedistill.distill.trainer import Trainer
from edgedistill.folding import quick
from edgedistill.nets import Ints, Look, forward, inference
from edgedistill.progress import silent
from edgedistill.recipe import DataSection, DistillSection, Layered, Recipe
from edgedistill.rundir import Work
from edgedistill.target.students import find_student
from edgedistill.teacher.cache import LiveTargets, StoredTargets
from edgedistill.teacher.course import Course
from edgedistill.teacher.records import Content
from edgedistill.teacher.storing import store

STUDENTS = ("mobilenetv4_conv_small", "mobilenetv2_100", "tf_efficientnet_lite0")
TEACHER, TEACHER_WIDTH = "tf_efficientnet_lite2", 1280
VIEWS = Views(0, 0.8, True, 2)
LIMITS = {64: 1.12}
LIMIT = 1.08
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "T4": 65e12}
"""Dense 16-bit operations a second, NVIDIA data sheets."""


class Teaching:
    """A teacher that cuts its own view and speaks, as in a build."""

    features = TEACHER_WIDTH

    def __init__(self, canvas: Any, look: Look, classes: int, device: torch.device) -> None:
        torch.manual_seed(0)
        model = timm.create_model(TEACHER, num_classes=classes).eval().to(device)
        self.model, self.canvas, self.look, self.device = (
            quick(model, look.size),
            canvas,
            look,
            device,
        )

    def __call__(self, index: Ints, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, D) and logits (B, C)."""
        pixels = VIEWS.pixels(self.canvas, index, view, self.look.size, self.device)
        with inference(self.device, fast=True):
            features, logits = forward(self.model, self.look.normalise(pixels))
        return features.float().clone(), logits.float().clone()


def images(count: int, size: int) -> Images:
    """The first `count` built-in images as canvases (N, size, size, 3)."""
    dataset = open_source(DataSection(), 0)
    items = dataset.train[:count]
    canvas = np.stack(
        [np.asarray(dataset.read(i).resize((size, size)).convert("RGB")) for i in items]
    )
    labels = np.array([item.label for item in items], dtype=np.int64)
    return Images(canvas, labels, canvas[:8], labels[:8])


def section() -> DistillSection:
    """The default recipe, resolved."""
    recipe = Recipe()
    return resolve(Layered(recipe), method_values(recipe)).recipe.distill


def trainers(
    student: str, data: Images, look: Look, folder: Path, args: argparse.Namespace
) -> tuple[dict[str, Trainer], StoredTargets]:
    """A trainer of each kind, and the stored targets."""
    classes, course = 10, Course(1000, 2)
    teaching = Teaching(data.canvas, look, classes, crew.accelerator().device)
    content = Content(
        tuple(course.lessons()), len(data.labels), (TEACHER_WIDTH,), classes, None, {"of": "bench"}
    )
    folder.mkdir()
    store(Work(folder), content, [teaching], silent())
    stored = StoredTargets(folder, {"of": "bench"}, course.lessons(), len(data.labels), classes)
    live = LiveTargets([teaching], classes)

    def of(targets: Targets | None) -> Trainer:
        torch.manual_seed(0)
        model = timm.create_model(student, num_classes=classes)
        width = int(getattr(model, "head_hidden_size", model.num_features))
        objective: Objective = Plain()
        if targets is not None:
            objective = Distilled(section(), width, targets, data.labels)
        plan = Schedule(1000, args.batch, 1e-3, 0.01, 0.1, 0, precision=args.precision)
        trainer = Trainer("bench", model, objective, data, look, VIEWS, course, plan)
        if args.precision == "float32":
            speed_up(model)
        return trainer

    return {"plain": of(None), "stored": of(stored), "live": of(live)}, stored


def seconds(work: Callable[[], object]) -> float:
    """Seconds of one call, the GPU's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measured(student: str, size: int, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Times of a student at a size."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    data, look = images(args.images, size), Look(size, (0.5,) * 3, (0.5,) * 3)
    kinds, stored = trainers(student, data, look, folder, args)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    face = silent()
    for round_ in range(args.warmup + args.rounds):
        for kind, trainer in kinds.items():
            spent = seconds(lambda t=trainer: [t._train_step(0, face) for _ in range(args.steps)])  # type: ignore[misc]
            if round_ >= args.warmup:
                times[kind].append(spent / args.steps)
    lesson = Course(1000, 2).lesson(0)
    rng = np.random.default_rng(0)
    rows = [rng.choice(args.images, args.batch, replace=False) for _ in range(50)]
    read = seconds(lambda: [stored(lesson, index) for index in rows]) / len(rows)
    plain = np.array(times["plain"])
    ratios = {k: np.array(v) / plain for k, v in times.items()}
    return {
        "student": student,
        "size": size,
        "plain_ms": round(1e3 * float(np.median(plain)), 2),
        "images_per_s": round(args.batch / float(np.median(plain)), 1),
        "stored": [round(float(q), 3) for q in np.quantile(ratios["stored"], (0.5, 0.25, 0.75))],
        "live": [round(float(q), 3) for q in np.quantile(ratios["live"], (0.5, 0.25, 0.75))],
        "reads_times_faster": round(float(np.median(plain)) / read, 1),
        "limit": LIMITS.get(size, LIMIT),
        **_gpu(student, size, args.batch / float(np.median(plain))),
    }


def _gpu(student: str, size: int, images_per_s: float) -> dict[str, Any]:
    """Share of the card's peak that the plain step reaches, and the most memory with all three kinds side by side."""
    if not torch.cuda.is_available():
        return {}
    name = torch.cuda.get_device_name()
    words = name.replace("-", " ").split()
    peak = next((flops for key, flops in PEAK_FLOPS.items() if key in words), None)
    flops = 6 * find_student(student).macs(size, 10) * images_per_s
    return {
        "gpu": name,
        "share_of_peak": round(flops / peak, 4) if peak else None,
        "memory_mb": round(torch.cuda.max_memory_allocated() / 1e6),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every stored step is inside its limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--students", nargs="+", default=STUDENTS)
    parser.add_argument("--sizes", nargs="+", type=int, default=(64, 96, 128))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=1, help="steps of each kind in a round")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgedistill-steps-") as name:
        for student in args.students:
            for size in args.sizes:
                rows.append(measured(student, size, Path(name) / f"{student}-{size}", args))
                print(json.dumps(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    inside = all(row["stored"][0] <= row["limit"] for row in rows)
    print("every stored step is inside its limit" if inside else "a stored step is over its limit")
    return 0 if inside else 1


if __name__ == "__main__":
    raise SystemExit(main())
