"""The teacher's two stages: learn the task, then store what it says of every view that the student will see."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgedistill import metrics
from edgedistill.data.stage import Arrays
from edgedistill.nets import Floats, pick_device
from edgedistill.progress import Face
from edgedistill.recipe import TeacherSection
from edgedistill.rundir import Work
from edgedistill.teacher.member import Facts, make_members, softness
from edgedistill.teacher.pupil import FineTune, Task
from edgedistill.teacher.restore import look_of as look_of
from edgedistill.teacher.restore import restore as restore
from edgedistill.teacher.voice import together


def teach(
    work: Work,
    section: TeacherSection,
    arrays: Arrays,
    names: Sequence[str],
    size: int,
    seed: int,
    finetune: FineTune,
    face: Face,
) -> Facts:
    """Load each teacher, adapt it to the task, and leave its files and what is known of it.

    `names` are the classes of the data. `members` of the facts has every teacher in the order in which it speaks; what
    stands beside it is about the teacher as a whole: the only one, the ensemble, or the last of a ladder or of early
    states.
    """
    task = Task(work, arrays, names, size, seed, finetune, face, pick_device())
    every = section.each()
    found: list[tuple[Facts, Floats]] = []
    for index, one in enumerate(every):
        if len(every) > 1:
            face.detail(f"teacher {index + 1} of {len(every)}: {one.model}")
        found += make_members(task, one, index, len(every) == 1 and section.combine != "select")
    combine = section.combine if len(every) > 1 else "checkpoints" if len(found) > 1 else "single"
    if combine == "ladder":
        found.sort(key=lambda pair: pair[0]["params"])
    members, logits = [pair[0] for pair in found], [pair[1] for pair in found]
    whole = dict(members[-1])
    if combine == "ensemble":
        whole = _ensemble(members, logits, arrays)
    whole["look"] = {**whole["look"], "size": size}
    whole["softness"] = {**whole["softness"], "agreement": agreement(logits)}
    if combine == "ladder":
        whole["reason"] += "; the last of a ladder from few to many parameters"
    whole["licence"] = _licence(members)
    whole["seconds_parts"] = _seconds(members)
    whole["preparation_flops"] = _sum_or_none([m["preparation_flops"] for m in members])
    return {**whole, "combine": combine, "members": members}


def _ensemble(members: list[Facts], logits: list[Floats], arrays: Arrays) -> Facts:
    """What is known of several teachers as one: the log of their mean probabilities."""
    said = [(torch.zeros(len(z), 1), torch.from_numpy(z)) for z in logits]
    mean = together(said)[1].numpy()
    return {
        "model": " + ".join(member["model"] for member in members),
        "source": " + ".join(member["source"] for member in members),
        "revision": None,
        "params": sum(member["params"] for member in members),
        "features": sum(member["features"] for member in members),
        "classes": members[0]["classes"],
        "look": members[0]["look"],
        "adaptation": f"ensemble of {len(members)}",
        "reason": "; ".join(f"{m['model']}: {m['adaptation']}, {m['reason']}" for m in members),
        "val_top1": metrics.top1(mean, arrays.val_labels),
        "probe_val_top1": None,
        "calibration": metrics.calibration(mean, arrays.val_labels).model_dump(),
        "softness": softness(mean, arrays.val_labels),
        "flops": _sum_or_none([member["flops"] for member in members]),
        "curve": [],
    }


def _sum_or_none(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _licence(members: list[Facts]) -> str | None:
    """Licences of all that the student learns from; `None` where one is unknown."""
    licences = [member["licence"] for member in members]
    return None if None in licences else ", ".join(dict.fromkeys(licences))


def _seconds(members: list[Facts]) -> dict[str, float]:
    """Seconds of each part, over all teachers."""
    parts: dict[str, float] = {}
    for member in members:
        for what, seconds in member["seconds_parts"].items():
            parts[what] = parts.get(what, 0.0) + seconds
    return parts


def agreement(logits: Sequence[Floats]) -> float | None:
    """Share of images on which two teachers give the same class, over all pairs; `None` for one teacher."""
    said = [metrics.predictions(z) for z in logits]
    pairs = [(a, b) for i, a in enumerate(said) for b in said[i + 1 :]]
    return sum(float((a == b).mean()) for a, b in pairs) / len(pairs) if pairs else None
