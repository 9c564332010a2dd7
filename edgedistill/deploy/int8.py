"""The INT8 file that a student gets: the best that is found, after training in INT8 where nothing else is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from edgedistill.deploy.bundle import Packed
from edgedistill.deploy.onnx import export_float32
from edgedistill.deploy.search import Asked, Made, Pixels, Search, told
from edgedistill.deploy.stage import Shape, kit_logits, packed
from edgedistill.deploy.tuning import tuned
from edgedistill.nets import Look
from edgedistill.progress import Face
from edgedistill.rundir import Work


@dataclass(frozen=True)
class Pupil:
    """What is trained in INT8: the student, training images (N, S, S, 3), how many steps, and the seed."""

    model: Callable[[], nn.Module]
    pixels: Callable[[], Pixels]
    steps: int
    seed: int


@dataclass(frozen=True)
class Found:
    """The file, the share of its multiply-accumulates that is in float, and how it came about."""

    item: Packed
    float_share: float
    facts: dict[str, Any]


def asked(
    float32: Packed,
    shape: Shape,
    metadata: Callable[[str], Mapping[str, str]],
    calibration: Pixels,
    pixels: Pixels,
    labels: npt.NDArray[np.int64],
    work: Work,
    *,
    method: str,
    integers: bool,
    allowed: float,
) -> Asked:
    """The question for an INT8 file of a float32 one; see `Asked`."""
    logits = kit_logits(float32, pixels, shape, work)
    return Asked(
        float32.data, shape, metadata, calibration, pixels, labels, logits, method, integers,
        allowed,
    )  # fmt: skip


def expected(int8: float | None, float32: float | None, found: Found) -> float | None:
    """The latency of an INT8 file from those predicted for the whole network; one that is partly float lies between."""
    if int8 is None or float32 is None or not found.float_share:
        return int8
    return int8 + found.float_share * (float32 - int8)


def find(question: Asked, pupil: Pupil | None, work: Work, face: Face) -> Found:
    """The INT8 file that loses least of those that lose no more than is allowed; else the one that loses least."""
    search = Search(question, work, face)
    made = search.best()
    steps = 0
    if made.drop > question.allowed and pupil is not None and pupil.steps:
        again = Search(replace(question, float32=_taught(question, made, pupil, face)), work, face)
        after = again.best()
        if after.drop < made.drop:
            search, made, steps = again, after, pupil.steps
    words = made.way.words(search.products)
    return Found(
        packed("int8", made.data, question.shape, layout=made.layout),
        search.float_share(made.way),
        {
            "layout": made.layout,
            "made": f"{words}, after {steps} steps of training in INT8" if steps else words,
            "images": len(question.calibration),
            "divergence": made.divergence,
            "drop": made.drop,
            "tried": told(search.tried, search.products),
        },
    )


def _taught(question: Asked, made: Made, pupil: Pupil, face: Face) -> bytes:
    """The float32 file of the student after training in INT8."""
    shape = question.shape
    look = Look(shape.preprocess.crop, shape.preprocess.mean, shape.preprocess.std)
    face.say(
        f"INT8 loses {100 * made.drop:.1f} points, {100 * question.allowed:.1f} are allowed: training in INT8"
    )
    with face.bar("training in INT8", pupil.steps) as advance:
        net = tuned(
            pupil.model(), look, pupil.pixels(), method=made.way.method,
            flavour=str(shape.flavour), steps=pupil.steps, seed=pupil.seed, advance=advance,
        )  # fmt: skip
    return export_float32(net, look, shape.layout, shape.opset, question.metadata(shape.layout))
