"""From finished trainings to rows of the ledger. Nothing runs here, and nothing that goes wrong here stops a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ontarget.machine import machine

from edgedistill import __version__, metrics
from edgedistill.arms import FINETUNE, LONGER, PLAIN, PROBE, TAUGHT, TAUGHT_ONLY, Arm
from edgedistill.compute.ledger import LedgerTeacher, Row, Score, row, user_ledger
from edgedistill.data.dataset import Dataset, labels
from edgedistill.errors import EdgedistillError
from edgedistill.progress import Face
from edgedistill.proof import flops_of, seconds_of
from edgedistill.recipe import Recipe, hash_of
from edgedistill.rundir import Done, now_utc
from edgedistill.target.measured import fingerprint
from edgedistill.target.students import find_student
from edgedistill.teaching import VIEW_KEYS, is_live, view_count

if TYPE_CHECKING:
    from edgedistill.learning import Build

HOW_LONG = frozenset(("epochs", "patience", "targets", "views", "top_k", "compile"))
"""Settings of `distill` that say how much is learned and how fast the machine is at it, rather than how."""
AS_PLAIN = {FINETUNE: PLAIN, LONGER: PLAIN}
"""Arms that are plain training from another start, or for longer."""


def keep(rows: Iterable[Row | None], face: Face) -> None:
    """Add rows to the user's ledger. What hinders that is said, and hinders nothing else."""
    ledger, found = user_ledger(), [one for one in rows if one is not None]
    if ledger is None or not found:
        return
    try:
        ledger.add(found)
    except (OSError, EdgedistillError) as error:
        said = (error.strerror or error) if isinstance(error, OSError) else error
        face.warn(
            f"the ledger of runs was not written ({ledger.path}: {said}); "
            "EDGEDISTILL_LEDGER names another file, or off for none"
        )


def row_of(learn: Build, arm: Arm, logits: npt.NDArray[np.float32]) -> Row | None:
    """The row of a trained arm, with its `logits` (N, C) on the test images; `None` where nothing was trained, or the
    training was one of a version that kept no loss.
    """
    facts = learn.arm(arm).facts
    if arm.name == PROBE or facts.get("val_loss") is None:
        return None
    taught = arm.name in TAUGHT
    return row(
        created_utc=now_utc(),
        version=__version__,
        machine=fingerprint(machine()),
        data=_data(learn, arm),
        student=_student(learn, arm),
        kind=AS_PLAIN.get(arm.name, arm.name),
        method=learn.recipe.distill.method if taught else None,
        targets=_targets(learn) if taught else None,
        views=view_count(learn.recipe) if taught else None,
        settings_sha256=settings_for(
            learn.layered.recipe,
            arm.name,
            "pretrained" if learn.spec_of(arm).pretrained else "random",
        ),
        weights_sha256=facts["weights_sha256"],
        seed=arm.seed,
        epochs=facts["epochs"],
        steps=facts["steps"],
        seen=facts["passes"],
        teacher=_teacher(learn.teacher, len(learn.dataset.val)) if taught else None,
        val=Score(loss=facts["val_loss"], top1=facts["val_top1"], n=len(learn.dataset.val)),
        test=_score(logits, learn.dataset),
        flops=flops_of(learn, arm),
        seconds=seconds_of(learn, arm),
    )


def judged_by(dataset: Dataset) -> str:
    """What tells sets of validation images apart: their content and their classes. A part of the training images less
    leaves it as it is.
    """
    items = sorted([item.sha256, item.label] for item in dataset.val)
    return hash_of([items, list(dataset.classes)])


def settings_for(asked: Recipe, arm: str, start: str) -> str:
    """What tells ways of learning apart, whatever student learns, from however many images.

    It is what was asked for, beside the defaults: a value that edgedistill derives from the images makes no other way,
    and neither does a setting that a later version has more.
    """
    left_out = HOW_LONG if arm in TAUGHT else HOW_LONG | TAUGHT_ONLY
    return hash_of(
        {
            "distill": asked.distill.model_dump(exclude=set(left_out), exclude_defaults=True),
            "views": asked.data.model_dump(include=VIEW_KEYS, exclude_defaults=True),
            "start": start,
        }
    )


def _data(learn: Build, arm: Arm) -> dict[str, Any]:
    made = learn.pixels_of(arm)
    synthetic = made.facts["kept"] if made is not learn.pixels else 0
    own = len(learn.dataset.train) + len(learn.dataset.unlabelled)
    return {
        "name": learn.dataset.name,
        "judged_sha256": judged_by(learn.dataset),
        "classes": len(learn.dataset.classes),
        "train": own + synthetic,
        "synthetic": synthetic,
        "unlabelled": len(learn.dataset.unlabelled),
    }


def _student(learn: Build, arm: Arm) -> dict[str, Any]:
    spec = learn.spec_of(arm)
    start = "pruned" if spec.prune_from else "pretrained" if spec.pretrained else "random"
    return {
        "model": spec.model,
        "input_size": spec.size,
        "params": learn.start_of(arm).facts["params"],
        "macs": find_student(spec.model).macs(spec.size, spec.classes),
        "start": start,
    }


def _targets(learn: Build) -> str:
    return "live" if is_live(learn.recipe) else "stored"


def _teacher(done: Done, images: int) -> LedgerTeacher:
    facts = done.facts
    loss = facts["calibration"].get("loss")
    score = None if loss is None else Score(loss=loss, top1=facts["val_top1"], n=images)
    return LedgerTeacher(
        model=facts["model"],
        key=done.fingerprint[:12],
        adaptation=facts["adaptation"],
        params=facts["params"],
        flops=facts["flops"],
        val=score,
    )


def _score(logits: npt.NDArray[np.float32], dataset: Dataset) -> Score | None:
    truth = labels(dataset.test)
    loss = metrics.cross_entropy(logits, truth)
    if not np.isfinite(loss):
        return None
    return Score(loss=loss, top1=metrics.top1(logits, truth), n=len(truth))


def logits_in(path: Path, name: str) -> npt.NDArray[np.float32]:
    """Logits (N, C) of a finished stage's file."""
    with np.load(path, allow_pickle=False) as found:
        return np.asarray(found[name], dtype=np.float32)
