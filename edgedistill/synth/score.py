"""How a teacher sees synthetic and real images: features and logits, stored unit by unit beside the job.

scores/0-00000.npz holds the answers for one unit; it names the teacher and the bytes that it is of, and is made again
where either is another. Units are looked at one by one, so their numbers do not depend on what else there is.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from edgedistill.errors import GeneratorError
from edgedistill.files import sha256_file, write_atomic
from edgedistill.synth.curate import Seen, unit_length
from edgedistill.synth.generators import Pixels
from edgedistill.synth.job import Job
from edgedistill.synth.units import Unit

SCORES, REAL = "scores", "scores/real.npz"
"""Answers for each unit, and those for the real images."""
BLANK_SPREAD = 2.0
"""An image whose grey levels vary by less (standard deviation, of 255) shows nothing."""

Look = Callable[[Pixels], tuple[Any, Any]]
"""Features (N, D) and logits (N, C) of pixels (N, S, S, 3), resized as the teacher wants them."""


def blank(images: Sequence[Pixels]) -> Any:
    """Which images (N,) show nothing: of one colour, as a safety checker leaves them."""
    return np.array([float(image.std()) < BLANK_SPREAD for image in images], dtype=bool)


def scored(job: Job, unit: Unit, teacher: str, look: Look) -> Seen:
    """What the teacher, named by the hash of its weights, says of a unit; kept beside it."""
    path = job.folder / SCORES / f"{unit.name}.npz"
    about = hashlib.sha256(f"{teacher} {sha256_file(job.file(unit, 'tar'))}".encode()).hexdigest()
    arrays = kept_arrays(path, about)
    if arrays is not None:
        found = Seen(**arrays)
    else:
        images = job.images(unit)
        features, logits = look(np.stack(images))
        labels = np.array([line.label for line in job.unit_lines(unit)], dtype=np.int64)
        found = Seen(unit_length(features), np.asarray(logits, np.float32), labels, blank(images))
        keep_arrays(path, about, vars(found))
    if not np.isfinite(found.logits).all() or not np.isfinite(found.features).all():
        raise GeneratorError(
            f"the teacher's answers for {unit.name} are not finite numbers; take another teacher or checkpoint."
        )
    return found


def keep_arrays(path: Path, about: str, arrays: Mapping[str, Any]) -> None:
    """Write arrays with what they are of, whole or not at all; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, about=np.array(about), **arrays)
    write_atomic(path, buffer.getvalue())


def kept_arrays(path: Path, about: str) -> dict[str, Any] | None:
    """Arrays that `keep_arrays` wrote; `None` where they are damaged, or of something else."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            if str(file["about"]) != about:
                return None
            return {name: file[name] for name in file.files if name != "about"}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def joined(parts: Sequence[Seen]) -> Seen:
    """Several units as one, in order."""
    return Seen(*(np.concatenate([getattr(p, name) for p in parts]) for name in vars(parts[0])))
