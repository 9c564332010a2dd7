"""Stage 05: synthetic images for a build, judged by its teacher and put behind the real training images.

    train.npy ...   the arrays of stage 03 with the kept images as the last rows
    ledger.jsonl    a line for every image, kept or not
    preview.png     kept and dropped images

Every image made lies in the job's folder, `cache/synth-<hash>` of the run. Another way of learning makes none again;
another teacher, rules or student size judge the first round anew and make what they find lacking; another number goes
on with the first round, or takes a part of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.files import remove, sha256_file
from edgedistill.progress import Face
from edgedistill.recipe import Recipe, SynthSection, hash_of
from edgedistill.rundir import Work
from edgedistill.stages import number
from edgedistill.synth.curate import Rules
from edgedistill.synth.generators import Pixels
from edgedistill.synth.kept import summary_of
from edgedistill.synth.ledger import Line, ledger_bytes
from edgedistill.synth.naming import folder_of
from edgedistill.synth.picture import picture
from edgedistill.synth.pipelines import Making, folder_hash
from edgedistill.synth.rounds import LEDGER, MORE, first_round
from edgedistill.synth.shard import reader
from edgedistill.synthesis import Material, Synthesis, SynthRequest, resized

STAGE, PREVIEW = "05-synth", "preview.png"
LEARNING_KEYS = {"share", "schedule", "label_weight", "soft_targets"}
"""What a recipe says of learning from the images: they do not depend on it."""
JUDGING_KEYS = {"images", "filter", "distinct", "tries", "licence"}
"""What it says of how many are kept, of judging them, and of how often."""


def making_of(section: SynthSection) -> Making:
    """How the generator of a resolved recipe is used."""
    assert section.kind != "auto" and section.generator is not None, "synth is not resolved"
    return Making(
        section.kind, section.generator, section.revision, section.steps,
        section.guidance, section.strength, section.size, licence=section.licence,
    )  # fmt: skip


def rules_of(section: SynthSection) -> Rules:
    """Which images are kept."""
    rules = Rules()
    return Rules(
        agree=section.filter,
        least_confidence=rules.least_confidence if section.filter else None,
        outlier_quantile=rules.outlier_quantile if section.filter else None,
        copy_quantile=rules.copy_quantile if section.distinct else None,
        twin_quantile=rules.twin_quantile if section.distinct else None,
    )


def synth_key(recipe: Recipe) -> dict[str, Any]:
    """What the images depend on, beside the stages: the files that are named count with their content."""
    section = recipe.synth
    files: dict[str, str] = {}
    if section.generator is not None and (folder := folder_of(section.generator)):
        files["generator"] = folder_hash(folder)
    if section.prompts is not None and Path(section.prompts).is_file():
        files["prompts"] = sha256_file(Path(section.prompts))
    asked = section.model_dump(exclude=LEARNING_KEYS)
    return {"synth": asked, "seed": recipe.seed, "files": files}


def job_folder(run: Path, key: Mapping[str, Any], material: Material) -> Path:
    """Where the images of a job lie: what they depend on gives the name, but for their number and who judges them.

    A local generator counts with its content, and variations with the training images that they begin with.
    """
    asked = {k: v for k, v in key["synth"].items() if k not in JUDGING_KEYS}
    more = {"classes": material.data.facts["classes"], "first": min(key["synth"]["tries"], MORE)}
    if "generator" in key["files"]:
        asked["generator"] = ""
    if asked["kind"] == "image_to_image":
        more["pixels"] = material.pixels.fingerprint
    return run / "cache" / f"synth-{hash_of({**key, **more, 'synth': asked})[:12]}"


def make_synthetic(
    work: Work, recipe: Recipe, material: Material, folder: Path, face: Face
) -> Mapping[str, Any]:
    """The work of the stage, with a job in `folder`.

    Raises `GeneratorError` for a class of which nothing was accepted.
    """
    from edgedistill.data.stage import extend

    section, began = recipe.synth, time.monotonic()
    request = SynthRequest(
        folder, making_of(section), number(section.images), section.domain,
        Path(section.prompts) if section.prompts else None, recipe.seed, section.batch,
        section.tries, rules_of(section),
    )  # fmt: skip
    synthesis = Synthesis(request, material, face)
    if synthesis.is_of_another_machine():
        face.say(
            f"images of {folder.name} were made by another device or version; they are made anew"
        )
        remove(folder)
    judge = [
        material.teacher.fingerprint, material.pixels.fingerprint, vars(request.rules),
        vars(synthesis.asked),
    ]  # fmt: skip
    synthesis.job.begin(hash_of(judge), first_round(synthesis.asked))
    before = synthesis.job.seconds
    outcome = synthesis.run(place=False)
    assert outcome is not None, "one part makes every unit"
    read, kept = reader(synthesis.job.folder, outcome.lines), outcome.kept
    side = int(synthesis.arrays.train.shape[1])
    asked = np.array([line.label for line in kept], dtype=np.int64)
    extend(work, material.pixels.folder, _canvases(kept, read, side), asked)
    work.write(LEDGER, ledger_bytes(outcome.lines))
    work.write(PREVIEW, picture(outcome.lines, synthesis.classes, read))
    maker = synthesis.job.plan.maker.model_dump(mode="json", exclude={"packages"})
    made = synthesis.job.seconds
    judging = max(0.0, time.monotonic() - began - (made - before))
    return {
        **summary_of(outcome, synthesis.classes), "maker": maker, "job": folder.name,
        "making_seconds": made, "judging_seconds": judging,
    }  # fmt: skip


def _canvases(lines: Sequence[Line], read: Any, side: int) -> Iterator[Pixels]:
    """The images of lines, one by one, as canvases (1, side, side, 3)."""
    for line in lines:
        yield resized(read(line)[None], side)
