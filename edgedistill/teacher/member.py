"""The teachers of a stage one by one: each learns the task once, and lies in the working folder with all it takes to
build it again.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgedistill import crew, metrics
from edgedistill.nets import Floats, Ints, load_state, state_bytes
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.adapt import TUNED, Adapted
from edgedistill.teacher.pupil import Pupil, Task, forget_training

Facts = dict[str, Any]


def make_members(
    task: Task, section: TeacherSection, index: int, alone: bool
) -> list[tuple[Facts, Floats]]:
    """The teacher `index` of a stage, and the early states of its fine-tuning where they are asked for, in order.

    Each comes with its logits (M, C) on validation; all of it lies in the working folder then.
    """
    stem = f"teacher-{index}" if index else "teacher"
    work = task.work
    if not crew.told(work.has(f"{stem}.json")):
        pupil = Pupil(task, section, stem, alone)
        found = pupil.adapted()
        final = _written(pupil, found, found.model, f"{stem}.safetensors", None)
        early = _early_states(pupil) if found.adaptation == TUNED else []
        for file in [] if early else work.folder.glob("teacher.epoch*.safetensors"):
            file.unlink()
        work.write(f"{stem}.json", json.dumps([*early, final]))
        forget_training(work)
    crew.told("written")
    members: list[Facts] = json.loads(work.path(f"{stem}.json").read_text("utf-8"))
    return [(member, np.load(work.path(_val_file(member["file"])))) for member in members]


def _early_states(pupil: Pupil) -> list[Facts]:
    """The kept states of a fine-tuning, as members of their own."""
    members = []
    for epoch in pupil.early():
        model, file = pupil.fresh(), f"teacher.epoch{epoch}.safetensors"
        load_state(model, pupil.task.work.path(file), "the early state of the teacher")
        reason = f"after {epoch} of {pupil.section.epochs} epochs"
        members.append(_written(pupil, Adapted(model, TUNED, reason, 0.0), model, file, epoch))
    return members


def _written(pupil: Pupil, found: Adapted, model: nn.Module, file: str, epoch: int | None) -> Facts:
    """Write one member and its logits on validation; gives all that it takes to build it again, and what is known."""
    task, pretrained, section = pupil.task, pupil.pretrained, pupil.section
    logits = pupil.said(model)
    kept = io.BytesIO()
    np.save(kept, logits)
    task.work.write(_val_file(file), kept.getvalue())
    if epoch is None:
        task.work.write(file, state_bytes(model))
    graph = None
    if pretrained.kind == "onnx":
        net: Any = model
        graph = f"{pupil.stem}.onnx"
        task.work.write(graph, net.session.data)
    labels = task.arrays.val_labels
    flops = flops_of(model, pupil.look.size)
    note = f"; {pretrained.note}" if pretrained.note else ""
    return {
        "name": section.model if epoch is None else f"{section.model} after epoch {epoch}",
        "model": section.model,
        "file": file,
        "graph": graph,
        "kind": pretrained.kind,
        "architecture": pretrained.architecture,
        "rebuild": pretrained.rebuild,
        "headed": isinstance(model.get_classifier(), nn.Linear | nn.Conv2d),  # type: ignore[operator]
        "source": pretrained.origin.source,
        "revision": pretrained.origin.revision,
        "licence": section.licence or pretrained.origin.licence,
        "params": pretrained.params,
        "features": pretrained.features,
        "classes": task.classes,
        "look": {"size": pupil.look.size, "mean": pupil.look.mean, "std": pupil.look.std},
        "adaptation": found.adaptation,
        "reason": found.reason + note,
        "epoch": epoch,
        "val_top1": found.val_top1 if epoch is None else metrics.top1(logits, labels),
        "probe_val_top1": pupil.probe.val_top1 if pupil.probe else None,
        "calibration": metrics.calibration(logits, labels).model_dump(),
        "softness": softness(logits, labels),
        "flops": flops,
        "preparation_flops": _preparation(pupil, flops) if epoch is None else 0,
        "curve": [point.model_dump() for point in pupil.curve] if epoch is None else [],
        "seconds_parts": pupil.spent if epoch is None else {},
        "notes": pupil.notes if epoch is None else [],
    }


def _preparation(pupil: Pupil, flops: int | None) -> int | None:
    """Operations of what made a teacher: a pass of each image seen, three of each trained on (backward counts two)."""
    return None if flops is None else flops * (pupil.seen + 3 * pupil.trained)


def _val_file(file: str) -> str:
    return file.replace(".safetensors", ".val.npy")


def softness(logits: Floats, labels: Ints) -> Facts:
    """How soft a teacher's answers are: mean entropy in nats, expected calibration error, mean confidence."""
    found = metrics.calibration(logits, labels)
    return {"entropy": metrics.entropy(logits), "ece": found.ece, "confidence": found.confidence}


def flops_of(model: nn.Module, size: int) -> int | None:
    """Floating point operations (two a multiplication) of one image, as torch counts them; `None` for an ONNX graph."""
    if hasattr(model, "session"):
        return None
    device = next(model.parameters()).device
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.zeros(1, 3, size, size, device=device))
    return int(counter.get_total_flops())
