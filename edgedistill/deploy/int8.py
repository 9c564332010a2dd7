"""The INT8 file that a student gets: the best that is found, after training in INT8 where nothing else is enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from edgedistill.deploy.bundle import Packed
from edgedistill.deploy.onnx import export_float32
from edgedistill.deploy.search import Asked, Made, Pixels, Search, rows
from edgedistill.deploy.stage import packed
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


def find(asked: Asked, pupil: Pupil | None, work: Work, face: Face) -> Found:
    """The INT8 file that loses least of those that lose no more than is allowed; else the one that loses least."""
    search = Search(asked, work, face.detail)
    made = search.best()
    steps = 0
    if made.drop > asked.allowed and pupil is not None and pupil.steps:
        again = Search(replace(asked, float32=_taught(asked, made, pupil, face)), work, face.detail)
        after = again.best()
        if after.drop < made.drop:
            search, made, steps = again, after, pupil.steps
    words = made.way.words(search.products)
    return Found(
        packed("int8", made.data, asked.shape, layout=made.layout),
        search.float_share(made.way),
        {
            "layout": made.layout,
            "made": f"{words}, after {steps} steps of training in INT8" if steps else words,
            "images": len(asked.calibration),
            "divergence": made.divergence,
            "drop": made.drop,
            "tried": rows(search.tried, search.products),
        },
    )


def _taught(asked: Asked, made: Made, pupil: Pupil, face: Face) -> bytes:
    """The float32 file of the student after training in INT8."""
    shape = asked.shape
    look = Look(shape.preprocess.crop, shape.preprocess.mean, shape.preprocess.std)
    face.say(
        f"INT8 loses {100 * made.drop:.1f} points, {100 * asked.allowed:.1f} are allowed: training in INT8"
    )
    with face.bar("training in INT8", pupil.steps) as advance:
        net = tuned(
            pupil.model(), look, pupil.pixels(), method=made.way.method,
            flavour=str(shape.flavour), steps=pupil.steps, seed=pupil.seed, advance=advance,
        )  # fmt: skip
    return export_float32(net, look, shape.layout, shape.opset, asked.metadata(shape.layout))
