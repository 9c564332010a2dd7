"""`edgedistill teacher verify`: whether what a run stored is what its teacher says. Nothing is trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.text import Text

from edgedistill.errors import DocumentError, UsageError
from edgedistill.progress import Face
from edgedistill.recipe import Recipe, autos, compose
from edgedistill.rundir import Done, RunDir
from edgedistill.teaching import is_live, lecturers_of, stored_targets

if TYPE_CHECKING:
    from edgedistill.teacher.cache import Entry, Lectures, StoredTargets

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BATCH = 128
STAGE, SYNTHETIC = "06-targets", "06-targets@synthetic"


@dataclass(frozen=True)
class Bounds:
    """What arithmetic explains: largest and mean total variation, least agreement of top-1, least mean cosine."""

    max_dp: float
    mean_dp: float
    agreement: float
    cosine: float


EXACT = Bounds(0.01, 0.001, 0.99, 0.9999)
"""Float32 then and now: 100 times what folding BatchNorm and another order of sums were seen to make (1e-4, 1e-6)."""
ROUGH = Bounds(0.4, 0.04, 0.95, 0.985)
"""Bfloat16 then or now: 3 times what it makes of an EfficientNet (0.13, 0.015, 0.988 and 0.996 against float32).

Views of another seed are beyond it: 0.65, 0.13, 0.90 and 0.87. Both were seen on 258 views of the built-in images.
"""


@dataclass(frozen=True)
class Verified:
    """What was found: shards and those that are damaged, and stored records against the teacher asked again.

    `max_dp` and `mean_dp`: largest and mean total variation (0..1) of a record's probabilities; `agreement`: share of
    records with the same top-1; `cosine`: mean and least over records of features. They are `None` without records.
    """

    shards: int
    bytes: int
    damaged: tuple[str, ...]
    lessons: int
    records: int
    max_dp: float | None
    mean_dp: float | None
    agreement: float | None
    cosine: tuple[float, float] | None
    bounds: Bounds
    stage: str = STAGE

    @property
    def faults(self) -> list[str]:
        """What is more than float16 storage and the arithmetic explain, one line each."""
        found = [f"{name} is damaged or missing" for name in self.damaged]
        if self.max_dp is None or self.mean_dp is None or self.agreement is None:
            return found
        assert self.cosine is not None
        most = self.bounds
        if self.max_dp > most.max_dp:
            found.append(f"a record's probabilities differ by more than {most.max_dp}")
        if self.mean_dp > most.mean_dp:
            found.append(f"probabilities differ by more than {most.mean_dp} on average")
        if self.agreement < most.agreement:
            found.append(f"top-1 agrees for less than {most.agreement:.0%}")
        if self.cosine[0] < most.cosine:
            found.append(f"the mean cosine of features is less than {most.cosine}")
        return found


def verified_view(found: Verified) -> Text:
    """What was found, for a person."""
    whose = "synthetic images: " if found.stage == SYNTHETIC else ""
    lines = [
        f"{whose}{found.shards} shards, {found.bytes / 1e6:,.1f} MB, {len(found.damaged)} damaged"
    ]
    if found.max_dp is not None and found.agreement is not None and found.cosine is not None:
        lines += [
            f"{found.records:,} records of {found.lessons} views, and the teacher asked again:",
            f"  probabilities  largest difference {found.max_dp:.2g}, mean {found.mean_dp:.2g} (total variation)",
            f"  top-1          {found.agreement:.2%} agree",
            f"  features       cosine {found.cosine[0]:.6f} on average, {found.cosine[1]:.6f} at least",
        ]
    faults = found.faults
    lines += [f"- {fault}" for fault in faults]
    if faults:
        lines.append(
            f"These are not the teacher's outputs. Remove stages/{found.stage}, and stages/09-distilled (and "
            "with @...) if it was trained on them, and build again."
        )
    else:
        lines.append("The stored outputs are what the teacher says.")
    return Text("\n".join(lines))


def stores(folder: Path) -> list[str]:
    """The stages of a run that hold outputs: of its images, and of synthetic ones where it has some."""
    made = (folder / "stages" / SYNTHETIC / "done.json").is_file()
    return [STAGE, SYNTHETIC] if made else [STAGE]


def verify(folder: Path, sample: int, seed: int, face: Face, stage: str = STAGE) -> Verified:
    """Check every shard that a stage of a run stored, and ask the teacher again for `sample` records of all lessons.

    Raises `UsageError` for what is no run or lacks a stage, `DocumentError` for outputs of something else.
    """
    recipe, pixels, teacher, stored = opened(folder, stage)
    targets = stored_targets(recipe, pixels, teacher, stored)
    sound, damaged = _sound(targets, face)
    lecturers = lecturers_of(recipe, pixels, teacher)
    found = _compare(targets, sound, lecturers, sample, seed, face)
    return Verified(
        len(targets.index.shards),
        sum(entry.bytes for entry in targets.index.shards),
        tuple(damaged),
        len(targets.content.lessons),
        **found,
        bounds=_bounds(targets),
        stage=stage,
    )


def _bounds(targets: StoredTargets) -> Bounds:
    from edgedistill.nets import fast_arithmetic, pick_device

    used = {entry.arithmetic for entry in targets.index.shards}
    return EXACT if used | {fast_arithmetic(pick_device())} == {"float32"} else ROUGH


def opened(folder: Path, stage: str = STAGE) -> tuple[Recipe, Done, Done, Done]:
    """The resolved recipe, the pixels (03 or 05), the teacher (04) and the outputs (06) of a run; none is made."""
    if not (folder / "recipe.yaml").is_file() or not (folder / "stages").is_dir():
        raise UsageError(
            f"{folder} is no run folder: it has no recipe.yaml or no stages. Give the folder that "
            "edgedistill build wrote (--out)."
        )
    recipe = compose(folder / "recipe.yaml", {}, {}).recipe
    open_ = autos(recipe)
    if open_:
        raise UsageError(
            f"{folder / 'recipe.yaml'} is not that of a run: {', '.join(open_[:3])} say auto. "
            "Give the folder that edgedistill build wrote (--out)."
        )
    if is_live(recipe):
        raise UsageError(
            f"{folder} stores no teacher outputs: its recipe says distill.targets: live, and there is "
            "nothing to verify."
        )
    run, found = RunDir(folder), []
    teacher = "04-teacher"
    if recipe.teacher.combine == "select" and recipe.teacher.others:
        selected = run.done("04-teacher@select")
        if selected is None:
            raise _lacking(folder, "04-teacher@select")
        teacher = f"04-teacher@candidate{selected.facts['chosen'] + 1}"
    for name in ("05-synth" if stage == SYNTHETIC else "03-pixels", teacher):
        done = run.done(name)
        if done is None:
            raise _lacking(folder, name)
        found.append(done)
    stored = folder / "stages" / stage
    if not (stored / "done.json").is_file():
        raise _lacking(folder, stored.name)
    return recipe, found[0], found[1], Done(stored.name, stored, "", {}, 0.0)


def _lacking(folder: Path, stage: str) -> UsageError:
    return UsageError(
        f"{folder} has no finished stage {stage}, or its files are damaged, and verifying trains nothing. "
        f"Make it with:  edgedistill build {folder / 'recipe.yaml'} --out {folder} --until targets"
    )


def _sound(targets: StoredTargets, face: Face) -> tuple[list[Entry], list[str]]:
    """The shards that are as the index says, and the names of the others."""
    sound, damaged = [], []
    with face.bar("teacher: checking shards", len(targets.index.shards)) as advance:
        for entry in targets.index.shards:
            try:
                targets(entry.lesson, np.array([entry.first]))
                sound.append(entry)
            except DocumentError as error:
                face.detail(str(error))
                damaged.append(entry.name)
            advance(1)
    return sound, damaged


def _compare(
    targets: StoredTargets,
    sound: Sequence[Entry],
    lecturers: Sequence[Lectures],
    sample: int,
    seed: int,
    face: Face,
) -> dict[str, Any]:
    """Stored records of a sample against the teacher asked again; every lesson has its share."""
    draw = np.random.default_rng(seed)
    share = -(-sample // len(targets.content.lessons))
    parts: list[tuple[Floats, ...]] = []
    with face.bar("teacher: asking again", share * len(targets.content.lessons)) as advance:
        for lesson in targets.content.lessons:
            own = [np.arange(e.first, e.first + e.rows) for e in sound if e.lesson == lesson]
            rows = draw.permutation(np.concatenate(own) if own else np.empty(0, np.int64))[:share]
            for start in range(0, len(rows), BATCH):
                index = np.sort(rows[start : start + BATCH])
                parts.append(_differences(targets, lecturers[lesson.teacher], lesson, index))
                advance(len(index))
    if not parts:
        return {"records": 0, "max_dp": None, "mean_dp": None, "agreement": None, "cosine": None}
    dp, agree, cosine = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {
        "records": len(dp),
        "max_dp": float(dp.max()),
        "mean_dp": float(dp.mean()),
        "agreement": float(agree.mean()),
        "cosine": (float(cosine.mean()), float(cosine.min())),
    }


def _differences(
    targets: StoredTargets, lecturer: Lectures, lesson: Any, index: Ints
) -> tuple[Floats, ...]:
    """Total variation, same top-1 and cosine of features (B,) of records `index` and the teacher asked again.

    What it says now goes the way of what was stored, so that top-k costs nothing here.
    """
    from torch.nn.functional import cosine_similarity

    from edgedistill.teacher.cache import said
    from edgedistill.teacher.records import pack_logits, unpack_logits

    features, logits = targets(lesson, index)
    now, z = (tensor.cpu() for tensor in said(lecturer, lesson, index))
    again = unpack_logits(pack_logits(z, targets.content.kept), targets.classes)
    p, q = logits.double().softmax(1), again.double().softmax(1)
    columns = (
        0.5 * (p - q).abs().sum(1),
        (p.argmax(1) == q.argmax(1)).double(),
        cosine_similarity(features.double(), now.double(), dim=1),
    )
    return tuple(column.numpy() for column in columns)
