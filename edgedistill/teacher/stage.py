"""The teacher's two stages: learn the task, then store what it says of every view that the student will see."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from edgedistill.data.stage import Arrays
from edgedistill.errors import TeacherError
from edgedistill.folding import quick
from edgedistill.metrics import calibration, top1
from edgedistill.nets import (
    Cut,
    Ints,
    Look,
    Pixels,
    load_state,
    outputs,
    pick_device,
    state_bytes,
    torch_bytes,
)
from edgedistill.progress import Face
from edgedistill.recipe import TeacherSection
from edgedistill.result import CurvePoint
from edgedistill.rundir import Done, Work
from edgedistill.teacher.adapt import (
    Adapted,
    Probe,
    adapt,
    check_head,
    for_a_head,
    probe_network,
    set_head,
)
from edgedistill.teacher.cache import store_view, view_file
from edgedistill.teacher.hub import Pretrained, load_pretrained

LARGE_FOR_CPU = 30_000_000
Labelled = tuple[Pixels, Ints]
"""Training canvases (N, K, K, 3) and labels (N,)."""
FineTune = Callable[[nn.Module, Look], tuple[float, list[CurvePoint], float]]
"""Trains a network in place; gives validation top-1, the curve and the seconds."""


def teach(
    work: Work,
    section: TeacherSection,
    arrays: Arrays,
    size: int,
    seed: int,
    finetune: FineTune,
    face: Face,
) -> dict[str, Any]:
    """Load the teacher, adapt it to the task, and leave `teacher.safetensors` and what is known of it."""
    device = pick_device()
    pretrained = load_pretrained(section)
    look = _look(pretrained, section.model, size)
    classes = int(arrays.labelled_train[1].max()) + 1
    curve: list[CurvePoint] = []
    spent: dict[str, float] = {}

    def fresh() -> nn.Module:
        torch.manual_seed(seed)
        model: Any = copy.deepcopy(pretrained.model)
        model.reset_classifier(classes)
        return model  # type: ignore[no-any-return]

    def tune(model: nn.Module) -> float:
        score, points, seconds = finetune(model, look)
        curve.extend(points)
        spent["fine-tuning"] = seconds
        return score

    if section.adapt == "none":
        model, how, why = _as_it_is(pretrained, classes, section.model)
        probe, val_top1 = None, None
    else:
        check_head(fresh(), size, classes, section.model)
        skip = _why_not_tune(section, pretrained, device)
        adapted, probe = _adapted(
            section, skip, fresh, tune,
            lambda name, train: _probe(
                work, name, pretrained, train, arrays, look, classes, device, face
            ),
            arrays.labelled_train, classes, seed,
        )  # fmt: skip
        model, how, why = adapted.model, adapted.adaptation, adapted.reason
        val_top1 = adapted.val_top1
    logits = outputs(model.to(device), arrays.teacher_val, look, device, fast=True)[1]
    work.write("teacher.safetensors", state_bytes(model))
    work.path("teacher.checkpoint").unlink(missing_ok=True)
    return {
        **_origin(section, pretrained),
        "adaptation": how,
        "reason": why,
        "classes": classes,
        "look": {"size": size, "mean": look.mean, "std": look.std},
        "val_top1": top1(logits, arrays.val_labels) if val_top1 is None else val_top1,
        "probe_val_top1": probe.val_top1 if probe else None,
        "calibration": calibration(logits, arrays.val_labels).model_dump(),
        "curve": [p.model_dump() for p in curve],
        "seconds_parts": spent,
    }


def _adapted(
    section: TeacherSection,
    skip: str,
    fresh: Callable[[], nn.Module],
    tune: Callable[[nn.Module], float],
    probe_on: Callable[[str, Labelled], Probe],
    train: Labelled,
    classes: int,
    seed: int,
) -> tuple[Adapted, Probe | None]:
    """The adapted teacher, and the probe where there was one.

    A head that fine-tuning starts from is fitted on some of the images; one that stays, on all of them.
    """
    head = train if skip else for_a_head(train, classes, seed)
    probe = probe_on("probe", head) if skip or section.adapt != "finetune" else None
    adapted = adapt(fresh, probe, None if skip else tune, skip, section.frozen_norm)
    tuned_in_vain = not skip and adapted.adaptation == "linear probe"
    if not tuned_in_vain or head is train or probe is None or probe.val_top1 == 1.0:
        return adapted, probe
    whole = probe_on("whole", train)
    set_head(adapted.model, whole)
    count, score = len(train[1]), whole.val_top1
    reason = f"{adapted.reason}; refitted on all {count:,} training images it reaches {score:.3f}"
    return replace(adapted, reason=reason, val_top1=score), whole


def _look(pretrained: Pretrained, name: str, size: int) -> Look:
    """How the teacher sees images of `size` pixels. Raises `TeacherError` for a size that it does not take."""
    if pretrained.fixed_size and size != pretrained.size:
        raise TeacherError(
            f"{name} takes {pretrained.size} px only, and teacher.input_size is {size}; "
            f"give --set teacher.input_size={pretrained.size}"
        )
    return Look(size, pretrained.mean, pretrained.std)


def _origin(section: TeacherSection, pretrained: Pretrained) -> dict[str, Any]:
    """Where the teacher comes from, and what it takes to build it again."""
    return {
        "model": section.model,
        "architecture": pretrained.architecture,
        "source": pretrained.origin.source,
        "revision": pretrained.origin.revision,
        "licence": section.licence or pretrained.origin.licence,
        "params": pretrained.params,
        "features": pretrained.features,
        "rebuild": pretrained.rebuild,
    }


def _as_it_is(pretrained: Pretrained, classes: int, name: str) -> tuple[nn.Module, str, str]:
    if pretrained.classes != classes:
        raise TeacherError(
            f"{name} has {pretrained.classes} classes and the images have {classes}; "
            "teacher.adapt=none needs the same classes, in the same order. Use probe or finetune."
        )
    return pretrained.model, "none", "asked for; its own classes are used"


def _why_not_tune(section: TeacherSection, pretrained: Pretrained, device: torch.device) -> str:
    """Why fine-tuning is not tried, or the empty text when it is."""
    if section.adapt == "probe":
        return "asked for"
    if section.adapt == "auto" and device.type == "cpu" and pretrained.params > LARGE_FOR_CPU:
        return (
            f"{pretrained.params / 1e6:.0f} million parameters are too many to fine-tune without a GPU; "
            "--set teacher.adapt=finetune does it all the same"
        )
    if section.epochs == 0:
        return "teacher.epochs is 0"
    return ""


def _probe(
    work: Work,
    name: str,
    pretrained: Pretrained,
    train: Labelled,
    arrays: Arrays,
    look: Look,
    classes: int,
    device: torch.device,
    face: Face,
) -> Probe:
    """The linear probe, from its file where a broken try left one."""
    if work.has(f"{name}.pt"):
        saved = torch.load(work.path(f"{name}.pt"), weights_only=True)
        return Probe(**saved)
    model = pretrained.model.to(device)
    total = len(train[1]) + len(arrays.teacher_val)
    with face.bar("teacher: features for the probe", total) as advance:
        probe = probe_network(
            model, train, (arrays.teacher_val, arrays.val_labels), look, classes, device, advance,
        )  # fmt: skip
    work.write(f"{name}.pt", torch_bytes(vars(probe)))
    face.detail(f"teacher: linear probe, validation top-1 {probe.val_top1:.3f}")
    return probe


def look_of(facts: Any) -> Look:
    """The `Look` that a stage wrote into its facts."""
    size, mean, std = facts["look"]["size"], facts["look"]["mean"], facts["look"]["std"]
    return Look(int(size), (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def restore(done: Done) -> nn.Module:
    """The adapted teacher of a finished stage."""
    import timm

    facts = done.facts
    model: nn.Module = timm.create_model(
        str(facts["architecture"]),
        pretrained=False,
        num_classes=int(facts["classes"]),
        **facts.get("rebuild", {}),
    )
    load_state(model, done.folder / "teacher.safetensors", "the stored teacher")
    return model


def about_views(teacher: Done, seed: int, min_crop: float, flip: bool) -> dict[str, str]:
    """What stored outputs are of; reading them checks every word of it."""
    return {
        "teacher": teacher.fingerprint,
        "seed": str(seed),
        "min_crop": repr(min_crop),
        "flip": str(flip),
    }


def store(
    work: Work, teacher: Done, images: int, views: int, about: dict[str, str], cut: Cut, face: Face
) -> dict[str, Any]:
    """Store features and logits of every view; a view that a broken try finished is kept."""
    device = pick_device()
    model = quick(restore(teacher).to(device), int(teacher.facts["look"]["size"]))
    with face.bar("teacher: storing outputs", images * views) as advance:
        for view in range(views):
            if work.has(view_file(view)):
                advance(images)
            else:
                data = store_view(model, cut, images, view, about, device, advance)
                work.write(view_file(view), data)
    shapes = {k: list(v.shape) for k, v in load_file(work.path(view_file(0))).items()}
    return {"views": views, "images": images, "shapes": shapes, "about": about}
