"""edgedistill at the same work: its stages from the images to the distilled student, in a fresh run folder.

python -m benchmarks.other_tools.run_ours --work DIR --scratch DIR [--views V]

The recipe is what `edgedistill build` would be given; the stages are asked for in its order, but for the plain arm,
which is the proof and not the training. The clock runs over all of them: reading and decoding the images, planning,
loading the teacher, storing its outputs for every view (also told apart), the start weights, the training with
validation after each epoch. The tool's images per second count that validation too, those of the others do not.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

from benchmarks.other_tools.common import Outcome, Settings, Work, marks, network, runner
from edgedistill import __version__
from edgedistill.learning import Build
from edgedistill.options import layered_from
from edgedistill.progress import Face
from edgedistill.recipe import Layered
from edgedistill.rundir import RunDir
from edgedistill.stages import Request


def recipe(work: Work, epochs: int, views: int | None, seed: int) -> Layered:
    """The work as a recipe; `views` `None` leaves the number of stored views to edgedistill."""
    chosen = work.settings
    settings = [
        "teacher.adapt=none", f"teacher.weights={work.folder / 'teacher.safetensors'}",
        f"teacher.input_size={chosen.size}", f"student.input_size={chosen.size}",
        "student.weights=random", f"data.min_crop={chosen.min_crop}",
        f"distill.epochs={epochs}", f"distill.batch_size={chosen.batch}", f"distill.lr={chosen.lr}",
        f"distill.weight_decay={chosen.weight_decay}", f"distill.temperature={chosen.temperature}",
    ]  # fmt: skip
    options = {
        "data.source": str(work.folder / "images"), "teacher.model": chosen.teacher,
        "device": "x86-cpu", "seed": seed, "student.model": chosen.student, "distill.views": views,
    }  # fmt: skip
    return layered_from(None, options, {}, settings, quick=False)


def train(layered: Layered, out: Path) -> dict[str, float]:
    """Run the stages; the seconds of each."""
    with RunDir(out) as run:
        learn = Build(Request(layered, out, "benchmark"), run, Face(0))
        stages = (learn.data, learn.planned, learn.pixels, learn.teacher, learn.targets)
        return {done.name: done.seconds for done in (*stages, learn.start, learn.distilled)}


def check_start(ours: Path, theirs: Path) -> None:
    """Raise RuntimeError when the start weights are not those of the other tools."""
    mine, given = load_file(ours), load_file(theirs)
    if mine.keys() != given.keys() or any(not torch.equal(mine[k], given[k]) for k in mine):
        raise RuntimeError(f"{ours} is not {theirs}: the comparison would not be fair")


def main() -> None:
    """Train, test, and tell."""
    parser = runner(__doc__ or "")
    parser.add_argument(
        "--views", type=int, help="stored views of each image [edgedistill's choice]"
    )
    given = parser.parse_args()
    work = Work.open(given.work)
    chosen: Settings = work.settings
    epochs = given.epochs or chosen.epochs
    out: Path = given.scratch.resolve() / "run"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    spent = train(recipe(work, epochs, given.views, given.seed), out)
    seconds = time.perf_counter() - began
    stages = out / "stages"
    check_start(stages / "07-start" / "start.safetensors", work.start(given.seed))
    weights = stages / "09-distilled" / "distilled.safetensors"
    model = network(chosen.student, len(chosen.classes), weights)
    look = timm.get_pretrained_cfg(chosen.student)
    test = work.tested((look.mean, look.std))
    views = len(list((stages / "06-targets").glob("*.safetensors")))
    images = epochs * (chosen.train // chosen.batch) * chosen.batch  # whole batches only
    Outcome(
        "edgedistill", __version__, given.seed, epochs, images, spent["09-distilled"],
        seconds, marks(model, test), spent["06-targets"],
        {
            "loss": "CE + KL + A/U", "teacher": f"stored, {views} views", "workers": 0,
            "threads": torch.get_num_threads(),
            "stages_s": {name: round(value, 2) for name, value in spent.items()},
        },
    ).tell()  # fmt: skip


if __name__ == "__main__":
    main()
