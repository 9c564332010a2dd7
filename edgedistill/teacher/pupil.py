"""A pretrained teacher on its way to the task: its own head, a linear probe, fine-tuning, and which of them stays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from edgedistill import crew
from edgedistill.data.stage import Arrays
from edgedistill.errors import TeacherError
from edgedistill.metrics import top1
from edgedistill.nets import Floats, Ints, Look, Pixels, outputs, torch_bytes
from edgedistill.progress import Face
from edgedistill.recipe import TeacherSection
from edgedistill.result import CurvePoint
from edgedistill.rundir import Work
from edgedistill.teacher.adapt import (
    LINEAR_PROBE,
    ZERO_SHOT,
    Adapted,
    adapt,
    check_head,
    own_head,
    set_head,
)
from edgedistill.teacher.hub import load_pretrained
from edgedistill.teacher.labels import match, rows_or_error
from edgedistill.teacher.pretrained import Pretrained
from edgedistill.teacher.probe import (
    CV_IMAGES,
    CV_IMAGES_PER_CLASS,
    FOLDS,
    PROBE_STRENGTHS,
    Probe,
    for_a_head,
    probe_network,
    resized,
)
from edgedistill.teacher.voice import check_finite

LARGE_FOR_CPU = 30_000_000
Labelled = tuple[Pixels, Ints]
"""Training canvases (N, K, K, 3) and labels (N,)."""


class FineTuned(NamedTuple):
    """What a fine-tuning came to: validation top-1, the curve, seconds, images trained on, and what went wrong."""

    val_top1: float
    curve: Sequence[CurvePoint]
    seconds: float
    images: int
    notes: Sequence[str] = ()


FineTune = Callable[[nn.Module, Look, tuple[int, ...]], FineTuned]
"""Trains a network in place and leaves `teacher.epoch<n>.safetensors` after each epoch that it is told to keep."""


@dataclass(frozen=True)
class Task:
    """What every teacher of a stage learns: images, class names, input size in pixels, and how it is fine-tuned."""

    work: Work
    arrays: Arrays
    names: Sequence[str]
    size: int
    seed: int
    finetune: FineTune
    face: Face
    device: torch.device

    @property
    def classes(self) -> int:
        """Number of classes of the data."""
        return len(self.names)


def forget_training(work: Work) -> None:
    """Remove what the engine needs to go on with a teacher's fine-tuning."""
    if crew.leads():
        for name in ("teacher.checkpoint", "teacher.begin"):
            work.path(name).unlink(missing_ok=True)


class Pupil:
    """A pretrained teacher on its way: what it is, how it sees images, and what was tried so far."""

    def __init__(self, task: Task, section: TeacherSection, stem: str, alone: bool) -> None:
        self.task, self.section, self.stem = task, section, stem
        self.name = section.model
        self.pretrained = load_pretrained(section)
        self.look = _look(self.pretrained, self.name, task.size, alone)
        self.val = resized(task.arrays.teacher_val, self.look.size)
        self.curve: list[CurvePoint] = []
        self.notes: list[str] = []
        self.spent: dict[str, float] = {}
        self.seen, self.trained = 0, 0  # images, for the count of operations
        self.probe: Probe | None = None

    def fresh(self) -> nn.Module:
        """The pretrained network with a new head for the task."""
        torch.manual_seed(self.task.seed)
        model: Any = copy.deepcopy(self.pretrained.model)
        model.reset_classifier(self.task.classes)
        return model  # type: ignore[no-any-return]

    def said(self, model: nn.Module) -> Floats:
        """Logits (M, C) on validation. Raises `TeacherError` for what is no number."""
        device = self.task.device
        self.seen += len(self.val)
        features, logits = outputs(model.to(device), self.val, self.look, device, fast=True)
        said = torch.from_numpy(features), torch.from_numpy(logits)
        check_finite(self.name, said, "of the validation split")
        return logits

    def rows(self) -> tuple[list[int] | None, str]:
        """Rows of the teacher's own head in the order of the data's classes, and a warning.

        `None` where it does not have them and was not asked to; raises `TeacherError` where it was.
        """
        adapt_as, classes = self.section.adapt, self.task.classes
        known, own = self.pretrained.labels, self.pretrained.classes
        asked = adapt_as in ("none", "zero_shot")
        if adapt_as == "none" and own != classes:
            raise TeacherError(
                f"{self.name} has {own or 'no'} classes and the images have {classes}; teacher.adapt=none needs "
                "the same classes. Use zero_shot for some of its classes, probe or finetune."
            )
        if known is not None:
            found = match(known, self.task.names)
            if asked:
                return rows_or_error(self.name, f"teacher.adapt={adapt_as}", found, known), ""
            return ([row for row in found.rows if row is not None] if found.whole else None), ""
        if not asked:
            return None, ""
        if own != classes:
            raise TeacherError(
                f"{self.name} does not say what its {own} classes are called, so none of them can be found for "
                "the images; teacher.adapt=zero_shot needs their names. Use probe or finetune."
            )
        warning = "; it does not name its classes: they are taken to be in the order of the data's"
        self.task.face.warn(f"teacher {self.name}{warning}")
        return list(range(classes)), warning

    def zero_shot(self, rows: Sequence[int]) -> Probe | None:
        """The teacher's own rows as a head; `None` where its classifier is not one linear layer."""
        head = own_head(self.pretrained.model, rows, self.pretrained.features)
        if head is None:
            return None
        logits = self.said(self.pretrained.model)[:, list(rows)]
        return Probe(*head, 0.0, top1(logits, self.task.arrays.val_labels))

    def fit(self, part: str, train: Labelled) -> Probe:
        """The linear probe, from its file where a broken try left one."""
        task, file = self.task, f"{self.stem}.{part}.pt"
        self.seen += len(train[1]) + len(self.val)
        if task.work.has(file):
            return Probe(**torch.load(task.work.path(file), weights_only=True))
        model = self.pretrained.model.to(task.device)
        images = min(len(train[1]), max(CV_IMAGES, CV_IMAGES_PER_CLASS * task.classes))
        task.face.detail(
            f"teacher: linear probe on {len(train[1]):,} images; its strength is the best of "
            f"{len(PROBE_STRENGTHS)} over {FOLDS} folds of {images:,}"
        )
        with task.face.bar(
            "teacher: features for the probe", len(train[1]) + len(self.val)
        ) as advance:
            try:
                probe = probe_network(
                    model, train, (self.val, task.arrays.val_labels), self.look, task.classes,
                    task.device, advance,
                )  # fmt: skip
            except TeacherError as error:
                raise TeacherError(f"{self.name}: {error}") from None
        task.work.write(file, torch_bytes(vars(probe)))
        task.face.detail(f"teacher: linear probe, validation top-1 {probe.val_top1:.3f}")
        return probe

    def tune(self, model: nn.Module) -> float:
        """Fine-tune in place; a checkpoint that another teacher of the stage left is not gone on with."""
        work = self.task.work
        if (
            crew.told(work.has("tuned.txt"))
            and work.path("tuned.txt").read_text("utf-8") != self.stem
        ):
            forget_training(work)
        crew.told("read")
        work.write("tuned.txt", self.stem)
        tuned = self.task.finetune(model, self.look, self.early())
        self.curve.extend(tuned.curve)
        self.notes.extend(tuned.notes)
        self.spent["fine-tuning"] = tuned.seconds
        self.trained += tuned.images
        return tuned.val_top1

    def early(self) -> tuple[int, ...]:
        """Epochs after which the weights are kept: evenly spaced, the last epoch is the teacher itself."""
        epochs, count = self.section.epochs, self.section.checkpoints
        assert isinstance(epochs, int)
        count = 0 if count == "auto" else count
        asked = {round(epochs * (i + 1) / (count + 1)) for i in range(count)}
        return tuple(sorted(epoch for epoch in asked if 0 < epoch < epochs))

    def adapted(self) -> Adapted:
        """The teacher as it will teach."""
        adapt_as, task = self.section.adapt, self.task
        rows, warning = self.rows()
        if adapt_as == "none":
            assert rows is not None
            return self._as_it_is(rows, warning)
        check_head(self.fresh(), self.look.size, task.classes, self.name)
        heads: dict[str, Probe] = {}
        if rows is not None and adapt_as in ("auto", "zero_shot"):
            found = self.zero_shot(rows)
            if found is None:
                raise TeacherError(
                    f"{self.name}: teacher.adapt=zero_shot needs one linear classifier"
                )
            heads[ZERO_SHOT] = found
        if adapt_as == "zero_shot":
            why = f"asked for: {task.classes} of its {self.pretrained.classes:,} classes{warning}"
            return adapt(self.fresh, heads, None, why, False)
        return self._trained(heads)

    def _as_it_is(self, rows: list[int], warning: str) -> Adapted:
        """The pretrained network with its own classes, in the order of the data's."""
        model, reason = self.pretrained.model, f"asked for; its own classes are used{warning}"
        if rows != list(range(self.task.classes)):
            head = self.zero_shot(rows)
            if head is None:
                raise TeacherError(
                    f"{self.name} has the data's classes in another order, and its classifier is not one linear "
                    "layer that can be put in order. Use probe or finetune."
                )
            model = self.fresh()
            set_head(model, head)
            reason += ", by name put in the order of the data's"
        score = top1(self.said(model), self.task.arrays.val_labels)
        return Adapted(model, "none", reason, score)

    def _trained(self, heads: dict[str, Probe]) -> Adapted:
        """The best of its own head, a probe and fine-tuning.

        A head that fine-tuning starts from is fitted on some of the images; one that stays, on all of them.
        """
        section, task = self.section, self.task
        skip = _why_not_tune(section, self.pretrained, self.look.size != task.size, task.device)
        train = task.arrays.labelled_train
        head = train if skip else for_a_head(train, task.classes, task.seed)
        self.probe = heads[LINEAR_PROBE] = self.fit("probe", head)
        asked = section.adapt == "finetune"
        tune = None if skip else self.tune
        found = adapt(self.fresh, heads, tune, skip, section.frozen_norm, asked)
        in_vain = not skip and found.adaptation == LINEAR_PROBE
        if not in_vain or head is train or self.probe is None or self.probe.val_top1 == 1.0:
            return found
        self.probe = self.fit("whole", train)
        set_head(found.model, self.probe)
        score = self.probe.val_top1
        reason = f"{found.reason}; refitted on all {len(train[1]):,} training images it reaches {score:.3f}"
        return replace(found, reason=reason, val_top1=score)


def _look(pretrained: Pretrained, name: str, size: int, alone: bool) -> Look:
    """How a teacher sees images of `size` pixels; beside others, one that takes a single size has its own.

    Raises `TeacherError` for a size that a single teacher does not take.
    """
    if pretrained.fixed_size and size != pretrained.size:
        if alone:
            raise TeacherError(
                f"{name} takes {pretrained.size} px only, and teacher.input_size is {size}; "
                f"give --set teacher.input_size={pretrained.size}"
            )
        size = pretrained.size
    return Look(size, pretrained.mean, pretrained.std)


def _why_not_tune(
    section: TeacherSection, pretrained: Pretrained, other_size: bool, device: torch.device
) -> str:
    """Why fine-tuning is not tried, or the empty text when it is."""
    if pretrained.kind == "onnx":
        return "an ONNX file gives outputs only, so it is not fine-tuned"
    if section.adapt == "probe":
        return "asked for"
    if other_size:
        return f"it takes {pretrained.size} px only, another size than teacher.input_size, so it is not fine-tuned"
    if section.adapt == "auto" and device.type == "cpu" and pretrained.params > LARGE_FOR_CPU:
        return (
            f"{pretrained.params / 1e6:.0f} million parameters are too many to fine-tune without a GPU; "
            "--set teacher.adapt=finetune does it all the same"
        )
    if section.epochs == 0:
        return "teacher.epochs is 0"
    return ""
