"""The two arms: the same start, order, views and steps; one learns from labels alone, one from the teacher too."""

from __future__ import annotations

import hashlib
from typing import Any

import timm
import torch
from torch import nn

from edgedistill.data.stage import Arrays
from edgedistill.data.views import Views
from edgedistill.distill.asked import AskedTargets
from edgedistill.distill.facts import Fitted, Images, Schedule, Synthetic
from edgedistill.distill.hard import HardStage
from edgedistill.distill.objectives import Distilled, Objective, Plain, Targets
from edgedistill.distill.pruning import Pruner, groups_of
from edgedistill.distill.spec import StudentSpec
from edgedistill.distill.trainer import Trainer
from edgedistill.errors import EdgedistillError, TeacherError, UsageError
from edgedistill.metrics import calibration, top1
from edgedistill.nets import (
    Ints,
    Look,
    is_out_of_memory,
    load_state,
    outputs,
    pick_device,
    state_bytes,
)
from edgedistill.progress import Face
from edgedistill.recipe import DistillSection, SynthSection, TeacherSection
from edgedistill.rundir import Done, Work
from edgedistill.teacher.adapt import Probe, for_a_head, probe_network, set_head
from edgedistill.teacher.bundled import bundled_for
from edgedistill.teacher.course import Course
from edgedistill.teacher.hub import load_bundled, load_pretrained
from edgedistill.teacher.pretrained import Pretrained

START = "start.safetensors"
HEAD_STD = 0.01
"""Standard deviation of a new classifier's weights, as in torchvision's MobileNets."""


def schedule_of(section: DistillSection, seed: int) -> Schedule:
    """The schedule of both arms. The recipe is resolved: `epochs` is a number."""
    assert isinstance(section.epochs, int)
    assert isinstance(section.batch_size, int)
    assert isinstance(section.lr, float)
    return Schedule(
        section.epochs,
        section.batch_size,
        section.lr,
        section.weight_decay,
        section.warmup,
        seed,
        section.frozen_norm is True,
        float(section.frozen_share),
        optimizer=section.optimizer,
        lr_schedule=section.lr_schedule,
        clip=None if section.clip is None else float(section.clip),
        ema=section.ema,
        layer_decay=section.layer_decay,
        precision=section.precision,
        compile=section.compile,
        first_size=section.first_size,
        patience=section.patience,
    )


def make_start(
    work: Work,
    spec: StudentSpec,
    arrays: Arrays,
    probed: bool,
    seed: int,
    face: Face,
    whole: bool = False,
) -> dict[str, Any]:
    """Write the weights that both arms start from, and say where they come from.

    With `probed`, a pretrained student gets the head of a linear probe on its own features first; a part of a large set
    is enough where training goes on from it, `whole` takes every image.
    """
    probe_top1 = None
    torch.manual_seed(seed)
    source, licence = "random values (seed in the recipe)", None
    if spec.pretrained or spec.prune_from:
        found = _pretrained(spec)
        model: Any = found.model
        torch.manual_seed(seed)
        model.reset_classifier(spec.classes)
        quieten_head(model)
        source, licence = found.origin.source, found.origin.licence
        if probed:
            probe = _probe(model, spec, arrays, seed, face, whole)
            set_head(model, probe)
            probe_top1 = probe.val_top1
    else:
        model = new_student(spec)
        quieten_head(model)
    cfg, ships = model.pretrained_cfg, model
    work.write(START, state_bytes(model))
    if spec.prune_from:
        ships, source = new_student(spec), f"{spec.prune_from}, pruned while it learns: {source}"
    features = int(getattr(model, "head_hidden_size", model.num_features))
    return {
        "source": source,
        "licence": licence,
        "probe_val_top1": probe_top1,
        "features": features,
        "params": sum(p.numel() for p in ships.parameters()),
        "look": {"size": spec.size, "mean": list(cfg["mean"]), "std": list(cfg["std"])},
    }


def quieten_head(model: Any) -> None:
    """Begin with logits near 0, as torchvision's MobileNets do.

    timm draws a classifier of few classes wide: ten begin with logits of 2 to 4 and at 3 to 7 nats instead of 2.3.
    """
    head = model.get_classifier()
    nn.init.normal_(head.weight, std=HEAD_STD)
    nn.init.zeros_(head.bias)


def _pretrained(spec: StudentSpec) -> Pretrained:
    """The pretrained student, or the wider sibling that it is cut out of."""
    name = spec.prune_from or spec.model
    bundled = bundled_for(name)
    try:
        if bundled and spec.prune_weights is None:
            return load_bundled(bundled)
        return load_pretrained(TeacherSection(model=name, weights=spec.prune_weights))
    except TeacherError as error:
        without = "student.prune_from=null" if spec.prune_from else "student.weights=random"
        raise UsageError(
            f"pretrained weights of the student {name} cannot be loaded: {error} "
            f"Or go without them: --set {without}"
        ) from None


def _probe(
    model: nn.Module, spec: StudentSpec, arrays: Arrays, seed: int, face: Face, whole: bool
) -> Probe:
    """A linear probe on the student's pretrained features, of a part of a large set or of the `whole`."""
    cfg = getattr(model, "pretrained_cfg", {})
    look, device = Look(spec.size, cfg["mean"], cfg["std"]), pick_device()
    train = arrays.labelled_train
    if not whole:
        train = for_a_head(train, spec.classes, seed)
    with face.bar("start: features for the head", len(train[1]) + len(arrays.val)) as advance:
        return probe_network(
            model.to(device), train, (arrays.val, arrays.val_labels), look, spec.classes, device,
            advance,
        )  # fmt: skip


def new_student(spec: StudentSpec) -> nn.Module:
    """The student's architecture, without trained weights."""
    model: nn.Module = timm.create_model(spec.model, pretrained=False, num_classes=spec.classes)
    return model


def train_arm(
    name: str,
    work: Work,
    start: Done,
    spec: StudentSpec,
    look: Look,
    arrays: Arrays,
    views: Views,
    course: Course,
    section: DistillSection,
    seed: int,
    face: Face,
    targets: Targets | None = None,
    synth: SynthSection | None = None,
) -> dict[str, Any]:
    """Train one arm from the common start and leave `<name>.safetensors` and its facts.

    `synth` says how the synthetic images of `arrays`, where it has some, come among the others.
    """
    model, pruner = new_student(spec), None
    if spec.prune_from:
        narrow, model = model, timm.create_model(spec.prune_from, num_classes=spec.classes)
        pruner = Pruner(groups_of(model, narrow, spec.prune_from, spec.model))
    load_state(model, start.folder / START, "the student's start")
    torch.manual_seed(seed)
    plan = schedule_of(section, seed)
    objective: Objective = Plain()
    hard, images = None, images_of(arrays, synth)
    if targets is not None:
        features = int(start.facts["features"])
        if synth is not None and not synth.soft_targets:
            targets = AskedTargets(targets, views, known_labels(arrays, asked=True), arrays.own)
        objective = Distilled(section, features, targets, images.labels, seed)
        if section.hard_samples:
            hard = HardStage(targets, views, course, plan.batch_size)
    trainer = Trainer(
        name, model, objective, images, look, views, course, plan, hard, pruner,
    )  # fmt: skip
    fitted = run(trainer, work, face)
    said = {"val_top1": fitted.val_top1, "val_loss": fitted.val_loss}
    if pruner is not None:
        pruner.narrow(model, narrow)
        model = narrow.to(pick_device())
        said = _said(model, arrays, look)
    data = state_bytes(model)
    work.write(f"{name}.safetensors", data)
    for litter in ("checkpoint", "begin", "best", "hard", "snapshot"):
        work.path(f"{name}.{litter}").unlink(missing_ok=True)
    return {
        **said,
        "steps": fitted.steps,
        "passes": fitted.passes,
        "epochs": len(fitted.curve),
        "training_seconds": fitted.seconds,
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        "curve": [point.model_dump() for point in fitted.curve],
        "notes": list(fitted.notes),
    }


def images_of(arrays: Arrays, synth: SynthSection | None) -> Images:
    """What is trained on, and how synthetic images come among the others where there are some.

    The recipe is resolved: `share` is a number.
    """
    labels, extra = arrays.train_labels, None
    if synth is not None:
        first = synth.schedule == "first"
        extra = Synthetic(arrays.own, float(synth.share), first, synth.label_weight)
        labels = known_labels(arrays, asked=synth.label_weight > 0)
    return Images(arrays.train, labels, arrays.val, arrays.val_labels, extra)


def known_labels(arrays: Arrays, *, asked: bool) -> Ints:
    """Classes (N,) of the training images, -1 where there is none; those `asked` for of synthetic ones are one."""
    labels = arrays.train_labels.copy()
    if asked:
        labels[arrays.own :] = arrays.asked
    return labels


def probed_arm(
    name: str, work: Work, start: Done, spec: StudentSpec, look: Look, arrays: Arrays
) -> dict[str, Any]:
    """The start itself, whose head is a linear probe: nothing is trained but that head."""
    model = new_student(spec)
    load_state(model, start.folder / START, "the student's start")
    model.to(pick_device())
    data = state_bytes(model)
    work.write(f"{name}.safetensors", data)
    return {
        **_said(model, arrays, look),
        "steps": 0,
        "passes": 0,
        "epochs": 0,
        "training_seconds": start.seconds,
        "weights_sha256": hashlib.sha256(data).hexdigest(),
        "curve": [],
        "notes": [],
    }


def _said(model: nn.Module, arrays: Arrays, look: Look) -> dict[str, float | None]:
    """Top-1 and cross entropy of a network on validation."""
    logits = outputs(model, arrays.val, look, pick_device())[1]
    loss = calibration(logits, arrays.val_labels).loss
    return {"val_top1": top1(logits, arrays.val_labels), "val_loss": loss}


def run(trainer: Trainer, work: Work, face: Face) -> Fitted:
    """Train; running out of memory with a single image is told as a paragraph with what helps."""
    try:
        return trainer.run(work, face)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or is_out_of_memory(error):
            raise EdgedistillOutOfMemory(trainer.name) from None
        raise


class EdgedistillOutOfMemory(EdgedistillError):
    """Training did not fit in memory; resumable with a smaller batch."""

    exit_code = 3

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name}: the batch does not fit in memory. Give a smaller one "
            "(--set distill.batch_size=16, or teacher.batch_size for the teacher) and the same command again."
        )


def restore(done: Done, name: str, spec: StudentSpec) -> nn.Module:
    """The trained student of an arm."""
    model = new_student(spec)
    load_state(model, done.folder / f"{name}.safetensors", "the trained student")
    return model.eval()
