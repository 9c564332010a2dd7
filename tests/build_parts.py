"""What the tests of `edgedistill build` share: real pictures, odd files among them, and the command itself."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLE = Path(__file__).parents[1] / "edgedistill" / "data" / "sample" / "fashion_mnist.npz"
CLASSES = {"bag": 8, "boot": 9, "trouser": 1}
SMALL = (
    "--device", "x86-cpu", "--student", "mobilenetv3_small_050", "--quick",
    "--teacher", "bundled:efficientnet_lite0", "--set", "teacher.adapt=probe",
    "--set", "student.weights=random", "--set", "student.input_size=64", "--set", "name=tiny",
    "--set", "bench.min_runs=11", "--set", "bench.min_seconds=0.01",
)  # fmt: skip
"""A build that does everything it can do in a few seconds, teacher and all."""


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams with every run of blanks as one, so that a wrapped line reads as one."""
        return " ".join((self.out + " " + self.err).split())


def tool(*arguments: object) -> Ran:
    """Run `edgedistill` in this process; whatever it raises but SystemExit fails the test."""
    from edgedistill.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, code = sys.argv, 0
    sys.argv = ["edgedistill", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.argv = before
    return Ran(code, out.getvalue(), err.getvalue())


@cache
def _sample() -> tuple[np.ndarray, np.ndarray]:
    with np.load(SAMPLE, allow_pickle=False) as found:
        return found["train_images"], found["train_labels"]


def picture(label: int, number: int, side: int = 56) -> Image.Image:
    """A real picture of the built-in set, in colour and enlarged."""
    images, labels = _sample()
    row = np.flatnonzero(labels == label)[number]
    return Image.fromarray(images[row]).convert("RGB").resize((side, side))


def make_images(root: Path, per_class: int = 20, classes: dict[str, int] | None = None) -> Path:
    """An image folder of real pictures, JPEG and PNG in turn."""
    for name, label in (classes or CLASSES).items():
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(per_class):
            suffix = "png" if number % 2 else "jpg"
            picture(label, number).save(folder / f"{number:03d}.{suffix}")
    return root


def add_odd_files(root: Path) -> dict[str, str]:
    """Files as users have them; gives those that must be left out, with a word of the reason."""
    whole = io.BytesIO()
    picture(1, 500, 120).save(whole, "JPEG", quality=95)
    (root / "trouser" / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (root / "bag" / "nothing.png").write_bytes(b"")
    (root / "boot" / "letter.png").write_text("Dear Sir or Madam,\n" * 20)
    (root / "README.txt").write_text("what these pictures are\n")
    for name in ("trouser", "bag"):
        picture(1, 501).save(root / name / "both.png")
    picture(1, 502).convert("CMYK").save(root / "trouser" / "cmyk.jpg")
    grey = np.asarray(picture(8, 502).convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(root / "bag" / "deep.png")
    palette = picture(9, 502).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(root / "boot" / "palette.png", transparency=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(9, 503).rotate(90).save(root / "boot" / "turned.jpg", exif=exif)
    (root / "boot" / "again.jpg").write_bytes((root / "boot" / "000.jpg").read_bytes())
    return {
        "README.txt": "outside",
        "bag/both.png": "another class",
        "bag/nothing.png": "empty",
        "boot/letter.png": "",
        "trouser/both.png": "another class",
        "trouser/cut.jpg": "",
    }


def events(run: Path) -> list[dict[str, object]]:
    """Every line of `events.jsonl`; each must be JSON."""
    return [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]


def worked(run: Path) -> list[str]:
    """The stages that the last build in `run` worked on; the others were done before."""
    names: list[str] = []
    for event in events(run):
        if event["event"] == "build_started":
            names = []
        elif event["event"] == "stage_started":
            names.append(str(event["stage"]))
    return names
