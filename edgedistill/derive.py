"""Fills every `auto` of a recipe with a value, and says why. No torch here: planning must start at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgedistill.distill.methods import method_values as method_values
from edgedistill.errors import UsageError
from edgedistill.recipe import Layered, Recipe, Resolved, assign, hash_of
from edgedistill.result import Plan
from edgedistill.target.device import Device
from edgedistill.target.students import find_student, load_students


class Passes(NamedTuple):
    """Image passes of the teacher's fine-tuning and of one training of the student, without a GPU."""

    teacher: int
    student: int


PASSES = {"pretrained": Passes(20_000, 200_000), "random": Passes(20_000, 300_000)}
"""By the student's start. A minute of the student's own training is worth more than one of the teacher's, which it soon
passes and which fades out (runs: docs/log.md)."""
FIRST_LOOK = {"pretrained": Passes(18_000, 12_000), "random": Passes(6_000, 60_000)}
"""The same for the built-in images, so that a first run ends in minutes."""
PASSES_SIDE = 64
LEARNING_RATES = {"pretrained": 1e-3, "random": 8e-3}
"""Peak rates of AdamW at `RATE_BATCH` images a step; they grow with the root of the batch (runs: docs/log.md)."""
CLIP = 5.0
"""Largest norm of a gradient where statistics are frozen: above the median of 3 to 5, below the 30 to 550 that single
batches reach (runs: docs/log.md)."""
RATE_BATCH = 64
BATCH = {False: 64, True: 256}
"""Images a step, without and with a GPU."""
LEAST_STEPS, LEAST_BATCH = 10, 16
"""Steps of an epoch, which a small set gets by smaller batches, down to what BatchNorm and contrast need."""
FROZEN_SHARE = 0.5
"""Share of a pretrained network's layers that a training without a GPU leaves alone, for cheaper steps."""
GPU_FACTOR = 10
MOST_EPOCHS, MOST_TEACHER_EPOCHS = 300, 50
MOST_VIEWS, LEAST_VIEWS, TIMES_SEEN = 16, 3, 4
"""Stored views of an image: each is seen up to four times, more often when that needs more than sixteen views."""
EARLY_STATES = 3
MOST_STORED_CLASSES = 1_000
STORED_TOP_K = 100
"""More classes than this are stored as the largest logits; TinyViT (Wu et al. 2022) keeps 100 of 21,841."""

TEACHER_KEYS = (
    "model",
    "others",
    "checkpoints",
    "weights",
    "input_size",
    "epochs",
    "revision",
    "frozen_share",
)

Values = dict[str, tuple[Any, str]]


@dataclass(frozen=True)
class TeacherShape:
    """What is known of a teacher without its weights: native square size in pixels, and whether it is the only one."""

    size: int
    fixed: bool


def limits_from(layered: Layered, device: Device) -> Values:
    """Limits that nobody gave, from the device's profile."""
    values: Values = {}
    for key, limit in device.limits.model_dump().items():
        path = f"budget.{key}"
        if getattr(layered.recipe.budget, key) is None and path not in layered.reasons:
            if limit is not None:
                values[path] = (limit, f"default of the profile {device.name}")
            else:
                values[path] = (None, "no limit")
    return values


def student_values(recipe: Recipe, plan: Plan) -> Values:
    """What planning chose."""
    chosen = plan.chosen
    values: Values = {}
    if recipe.student.model == "auto":
        values["student.model"] = (chosen.model, f"planned: {chosen.reason}")
    if recipe.student.input_size == "auto":
        values["student.input_size"] = (chosen.input_size, plan.input_size_reason)
    if recipe.student.weights == "auto":
        start = "pretrained" if chosen.pretrained else "random"
        why = (
            "can be loaded here"
            if chosen.pretrained
            else "no pretrained weights can be loaded here"
        )
        values["student.weights"] = (start, why)
    return values


def effort_values(
    recipe: Recipe,
    plan: Plan,
    device: Device,
    images: int,
    image_side: int,
    classes: int,
    teacher: TeacherShape,
    gpu: bool,
    unlabelled: int = 0,
) -> Values:
    """Epochs, views, the teacher's size, and what the graph takes; an epoch of the student has all images."""
    values: Values = {}
    size = plan.chosen.input_size
    side = recipe.teacher.input_size
    if side == "auto":
        values["teacher.input_size"] = teacher_size(teacher, size, image_side)
        side = values["teacher.input_size"][0]
    pruned = recipe.student.prune_from is not None
    passes = _passes(recipe, pretrained=plan.chosen.pretrained or pruned)
    early = _early(recipe)
    if recipe.teacher.epochs == "auto":
        found = _epochs(passes.teacher, images, int(side), gpu, MOST_TEACHER_EPOCHS)
        if found[0] <= early:
            found = early + 1, f"{early} early states and the teacher itself"
        values["teacher.epochs"] = found
    epochs = recipe.distill.epochs
    if epochs == "auto":
        found = _epochs(passes.student, images + unlabelled, size, gpu, MOST_EPOCHS)
        values["distill.epochs"] = found
        epochs = values["distill.epochs"][0]
    values |= _training(recipe, plan, images + unlabelled, gpu)
    if recipe.teacher.checkpoints == "auto":
        words = "for the curriculum" if early else "no curriculum asks for them"
        values["teacher.checkpoints"] = (early, words)
    if recipe.teacher.frozen_share == "auto":
        values["teacher.frozen_share"] = _frozen_share(pretrained=True, gpu=gpu)
    if recipe.distill.views == "auto":
        views = views_for(epochs)
        seen = math.ceil(epochs / views)
        times = "once" if seen == 1 else f"at most {seen} times"
        words = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        values["distill.views"] = (views, f"{words}: each stored view is seen {times}")
    if recipe.distill.targets == "auto":
        values["distill.targets"] = ("stored", "made once for every arm, seed and later run")
    if recipe.distill.top_k == "auto":
        values["distill.top_k"] = _top_k(classes)
    if recipe.distill.precision == "auto":
        values["distill.precision"] = (
            ("bfloat16", "a GPU is here") if gpu else ("float32", "without a GPU it is as fast")
        )
    return values | export_values(recipe, device)


def export_values(recipe: Recipe, device: Device) -> Values:
    """What the graph takes and its opset, as the device wants them."""
    values: Values = {}
    if recipe.export.input == "auto":
        values["export.input"] = (device.input_layout, f"what {device.name} takes")
    if recipe.export.opset == "auto":
        values["export.opset"] = (device.opset, f"what the runtime of {device.name} reads")
    return values


def _training(recipe: Recipe, plan: Plan, images: int, gpu: bool) -> Values:
    """Batch, rate, and what a student keeps of its start."""
    values: Values = {}
    pruned = recipe.student.prune_from is not None
    start = "pretrained" if plan.chosen.pretrained or pruned else "random"
    batch = recipe.distill.batch_size
    if batch == "auto":
        values["distill.batch_size"] = _batch(images, gpu)
        batch = values["distill.batch_size"][0]
    if recipe.distill.lr == "auto":
        why = f"for a student from {start} weights and {batch} images a step"
        values["distill.lr"] = (_rate(start, batch), why)
    if recipe.distill.frozen_norm == "auto":
        why = "a short training moves them away from" if plan.chosen.pretrained else "there are no"
        frozen, why = plan.chosen.pretrained, f"{why} good pretrained statistics"
        if pruned:
            frozen, why = False, "channels that fall away move them"
        values["distill.frozen_norm"] = (frozen, why)
    else:
        frozen = bool(recipe.distill.frozen_norm)
    if recipe.distill.clip == "auto":
        values["distill.clip"] = _clip(frozen=frozen)
    if recipe.distill.frozen_share == "auto":
        share = _frozen_share(pretrained=plan.chosen.pretrained, gpu=gpu)
        values["distill.frozen_share"] = (0.0, "every layer is pruned") if pruned else share
    return values


def fine_tuning(batch: int, frozen_share: float) -> dict[str, Any]:
    """How a pretrained student is fine-tuned beside one from random weights: fields of `distill`."""
    return {
        "lr": _rate("pretrained", batch),
        "clip": CLIP,
        "frozen_norm": True,
        "frozen_share": frozen_share,
    }


def _rate(start: str, batch: int) -> float:
    return float(f"{LEARNING_RATES[start] * math.sqrt(batch / RATE_BATCH):.2g}")


def _early(recipe: Recipe) -> int:
    """How many early states of the teacher are kept."""
    curriculum = recipe.distill.curriculum == "teacher_checkpoints"
    if curriculum and recipe.teacher.others and recipe.teacher.combine != "select":
        raise UsageError(
            "distill.curriculum is teacher_checkpoints and teacher.others names "
            f"{len(recipe.teacher.others)} more: early states are kept of one teacher alone. Give no others, "
            "teacher.combine=select, or --set distill.curriculum=none."
        )
    if recipe.teacher.checkpoints != "auto":
        return recipe.teacher.checkpoints
    return EARLY_STATES if curriculum else 0


def teacher_size(teacher: TeacherShape, student: int, image_side: int) -> tuple[int, str]:
    """The teacher's input size in pixels, with the reason."""
    if teacher.fixed:
        return teacher.size, "the only size that this teacher takes"
    wanted = max(student, min(teacher.size, 32 * math.ceil(image_side / 32)))
    if wanted >= teacher.size and student <= teacher.size:
        return teacher.size, "its native size"
    if wanted == student:
        return student, f"as the student: the images are {image_side} px and hold no more"
    return wanted, f"the images are {image_side} px and hold no more"


def _batch(images: int, gpu: bool) -> tuple[int, str]:
    """A power of two: what the machine does well, less for few images."""
    most = BATCH[gpu]
    batch = most
    while batch > LEAST_BATCH and images // batch < LEAST_STEPS:
        batch //= 2
    if batch < most:
        return batch, f"{images:,} training images: at least {LEAST_STEPS} steps an epoch"
    return batch, "what a GPU does well" if gpu else "what a CPU does well"


def _top_k(classes: int) -> tuple[int | None, str]:
    """How many logits of a view are stored: all of them up to 1,000 classes (2 kB a view)."""
    if classes <= MOST_STORED_CLASSES:
        return None, f"all {classes} classes are stored"
    return STORED_TOP_K, f"of {classes:,} classes; the rest is spread evenly"


def _clip(*, frozen: bool) -> tuple[float | None, str]:
    if frozen:
        return CLIP, "frozen statistics let single batches push hard"
    return None, "statistics follow the batches"


def _frozen_share(*, pretrained: bool, gpu: bool) -> tuple[float, str]:
    if not pretrained:
        return 0.0, "random weights: every layer learns"
    if gpu:
        return 0.0, "with a GPU every layer learns"
    return FROZEN_SHARE, "without a GPU: early layers keep pretrained weights, a step gets cheaper"


def _passes(recipe: Recipe, *, pretrained: bool) -> Passes:
    return (FIRST_LOOK if _first_look(recipe) else PASSES)["pretrained" if pretrained else "random"]


def _first_look(recipe: Recipe) -> bool:
    return recipe.data.source.startswith("builtin:")


def views_for(epochs: int) -> int:
    """Stored views of an image; a few epochs see each of theirs twice."""
    return min(
        max(math.ceil(epochs / TIMES_SEEN), min(LEAST_VIEWS, math.ceil(epochs / 2))), MOST_VIEWS
    )


def _epochs(passes: int, images: int, size: int, gpu: bool, most: int) -> tuple[int, str]:
    """Fewer passes of larger images: in proportion to the side, which keeps half of what their cost takes away."""
    smaller = min(1.0, PASSES_SIDE / size)
    passes = round(passes * smaller * (GPU_FACTOR if gpu else 1))
    wanted, where = round(passes / max(1, images)), "on a GPU" if gpu else "without a GPU"
    epochs = max(1, min(most, wanted))
    why = f"about {passes:,} image passes {where} over {images:,} training images"
    if wanted > most:
        why = f"{images:,} training images: no more than {most}"
    elif wanted < 1:
        why = f"{images:,} training images: once is more than {passes:,} image passes"
    return epochs, why


def resolve(layered: Layered, values: Values) -> Resolved:
    """The recipe with every derived value in its place."""
    tree = layered.recipe.model_dump()
    reasons = dict(layered.reasons)
    for path, (value, reason) in values.items():
        assign(tree, path, value)
        reasons[path] = reason
    return Resolved(Recipe.model_validate(tree), reasons)


def plan_key(recipe: Recipe, device_facts: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """All that planning and deriving depend on, for the fingerprint of the stage."""
    teacher = recipe.teacher.model_dump()
    names = (
        "epochs", "views", "batch_size", "lr", "clip", "frozen_norm", "frozen_share", "targets", "top_k", "precision",
        "curriculum",
    )  # fmt: skip
    distill = {name: getattr(recipe.distill, name) for name in names}
    return {
        "budget": recipe.budget.model_dump(),
        "earlier": recipe.plan.earlier,
        "student": recipe.student.model_dump(),
        "teacher": {k: teacher[k] for k in TEACHER_KEYS},
        "distill": distill,
        "export": {"input": recipe.export.input, "opset": recipe.export.opset},
        "device": hash_of(device_facts),
        "images": data["train"],
        **({"unlabelled": data["unlabelled"]} if data.get("unlabelled") else {}),
        "image_side": data["image_side"],
        "first_look": _first_look(recipe),
        "classes": len(data["classes"]),
        "students": hash_of([s.name for s in load_students()]),
    }


def known_student(name: str) -> None:
    """Raise `UsageError` with the nearest name when a student is not in the table."""
    if name != "auto":
        find_student(name)
