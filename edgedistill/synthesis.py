"""Synthetic images for the teacher of a run: `edgedistill synth run`, and stage 05 of a build.

A job takes the run's classes, its teacher and what that sees in the run's real images. What `synth run` keeps lies in
`kept/` as WebDataset shards, which any build takes as more to learn from the teacher (`data.unlabelled`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from edgedistill.errors import BusyError, StoppedError, UsageError
from edgedistill.files import write_atomic
from edgedistill.progress import Face
from edgedistill.rundir import Done, RunDir, versions
from edgedistill.synth.curate import Rules, Seen, measure, unit_length
from edgedistill.synth.generators import ImageSource, Pixels, Wish, open_source
from edgedistill.synth.job import JOB, Job, Plan, same_job
from edgedistill.synth.kept import place_kept, summary_of
from edgedistill.synth.ledger import Maker
from edgedistill.synth.pipelines import Making
from edgedistill.synth.prompts import bare_book, book_for
from edgedistill.synth.rounds import Asked, Outcome, Teaching, fill, first_round
from edgedistill.synth.score import REAL, keep_arrays, kept_arrays
from edgedistill.synth.units import Part

if TYPE_CHECKING:
    from edgedistill.data.stage import Arrays

SUMMARY = "summary.json"
RULES, ALONE = Rules(), Part()
BATCHES = {
    ("class_conditional", "cuda"): 256, ("class_conditional", "cpu"): 64,
    ("text_to_image", "cuda"): 16, ("image_to_image", "cuda"): 16,
}  # fmt: skip
"""Images of a batch before memory has its say; 2 where nothing is said."""
UNIT_BATCHES, BLOCK = 4, 512
"""Batches of a unit; images that the teacher looks at in one go."""
QUICK_S, QUICK_BATCH = 5.0, 16
"""A first batch of fewer seconds is followed by one of so many images, to tell how long a job takes."""
SHOWN = 4
"""Prompts of each class in a preview."""
PNG_BYTES = 1.7
"""Bytes of a photograph's pixel as PNG, for the estimate of the disk."""


@dataclass(frozen=True)
class Material:
    """The stages of a run that a job needs: 01, 03 and 04."""

    data: Done
    pixels: Done
    teacher: Done


@dataclass(frozen=True)
class SynthRequest:
    """What a person asked for: the job's folder, how and how many, and which share of it is made here."""

    out: Path
    making: Making
    images: int | None
    domain: str = "photo"
    prompts: Path | None = None
    seed: int = 0
    batch: int | None = None
    tries: float = 3.0
    rules: Rules = RULES
    part: Part = ALONE


@dataclass(frozen=True)
class Preview:
    """What a job would do: prompts of each class, images, and seconds and bytes as far as they can be told."""

    prompts: dict[str, list[str]]
    images: int
    most: int
    seconds: float
    bytes: int
    device: str


class Synthesis:
    """A job for a run whose teacher is there. Raises `UsageError` for a domain or prompts that are none."""

    def __init__(self, request: SynthRequest, material: Material, face: Face) -> None:
        self.request, self.face = request, face
        self.pixels, self.teacher = material.pixels, material.teacher
        self.classes = tuple(material.data.facts["classes"])
        making, self.book = request.making, bare_book(self.classes)
        if making.kind != "class_conditional":
            self.book = book_for(self.classes, request.domain, request.prompts)
            making = replace(making, negative=making.negative or self.book.negative)
        self.making = making

    @cached_property
    def source(self) -> ImageSource:
        """The generator, loaded once."""
        self.face.say(f"loading the generator {self.making.model} ...")
        return open_source(self.making, self.classes)

    @cached_property
    def arrays(self) -> Arrays:
        """The run's images."""
        from edgedistill.data.stage import open_arrays

        return open_arrays(self.pixels.folder)

    @cached_property
    def job(self) -> Job:
        """The job's folder."""
        return Job(self.request.out, self.plan)

    @cached_property
    def plan(self) -> Plan:
        """What the job asks for; a folder that exists says the batch."""
        facts = self.source.facts
        batch = self.request.batch or _batch_before(self.request.out)
        if batch is None:
            first = BATCHES.get((facts.kind, facts.device.partition(":")[0]), 2)
            batch = fitting_batch(self.source, self._wishes(first))
        maker = Maker(
            **asdict(facts), packages=versions(), negative=self.making.negative,
            strength=self.making.strength if facts.kind == "image_to_image" else None,
        )  # fmt: skip
        return Plan(self.classes, self.request.seed, batch, UNIT_BATCHES * batch, self.book, maker)

    def is_of_another_machine(self) -> bool:
        """Whether the folder holds a job that was made by another device or precision, or asks for something else."""
        path = self.request.out / JOB
        return path.is_file() and not same_job(path, self.plan)

    @property
    def asked(self) -> Asked:
        """Images of each class: the same for all; where nothing is said, in all as many as there are to train on."""
        images = self.request.images or self.arrays.labelled
        each = -(-images // len(self.classes))
        most = max(each, round(self.request.tries * each))
        return Asked((each,) * len(self.classes), (most,) * len(self.classes))

    def _wishes(self, count: int) -> list[Wish]:
        labels = [n % len(self.classes) for n in range(count)]
        return [
            Wish(n, k, self.book.prompt(0, k, n), n, self._start(k, n)[0] if self._varies else None)
            for n, k in enumerate(labels)
        ]

    @property
    def _varies(self) -> bool:
        return self.making.kind == "image_to_image"

    def _start(self, label: int, number: int) -> tuple[Pixels, str]:
        """A training image of the class to begin with, drawn by number, and the hash of its pixels."""
        canvas, labels = self.arrays.labelled_train
        rows = np.flatnonzero(labels == label)
        draw = hashlib.blake2b(f"{self.request.seed}/start/{number}".encode(), digest_size=8)
        row = rows[int.from_bytes(draw.digest(), "big") % len(rows)]
        image = np.ascontiguousarray(canvas[row])
        return image, hashlib.sha256(image.tobytes()).hexdigest()

    def look(self, pixels: Pixels) -> tuple[Any, Any]:
        """Features (N, D) and logits (N, C) of the teacher for pixels (N, S, S, 3) of any side."""
        from edgedistill.nets import outputs, pick_device
        from edgedistill.teacher.restore import look_of

        net, look, parts = self._network, look_of(self.teacher.facts), []
        for start in range(0, len(pixels), BLOCK):
            block = resized(np.asarray(pixels[start : start + BLOCK]), look.size)
            parts.append(outputs(net, block, look, pick_device()))
        return np.concatenate([f for f, _ in parts]), np.concatenate([z for _, z in parts])

    @cached_property
    def _network(self) -> Any:
        from edgedistill.nets import pick_device
        from edgedistill.teacher.restore import restore

        return restore(self.teacher).to(pick_device())

    @cached_property
    def teaching(self) -> Teaching:
        """The teacher, and what it sees in the run's real images."""
        key = f"{self.teacher.fingerprint} {self.pixels.fingerprint}"
        parts = kept_arrays(self.request.out / REAL, key)
        if parts is None:
            train, labels = self.arrays.labelled_train
            images = {
                "train": train,
                "val": self.arrays.teacher_val,
                "test": self.arrays.teacher_test,
            }
            parts = {"labels": labels}
            for split, pixels in images.items():
                self.face.detail(f"the teacher looks at {len(pixels):,} {split} images")
                features, logits = self.look(pixels)
                parts[split] = unit_length(features)
                if split == "train":
                    parts["logits"] = np.asarray(logits, np.float32)
            keep_arrays(self.request.out / REAL, key, parts)
        nothing = np.zeros(len(parts["labels"]), dtype=bool)
        train_seen = Seen(parts["train"], parts["logits"], parts["labels"], nothing)
        real = {split: parts[split] for split in ("train", "val", "test")}
        rules = self.request.rules
        return Teaching(
            self.teacher.fingerprint, self.look, real, measure(train_seen, rules), rules
        )

    def run(self, *, place: bool = True) -> Outcome | None:
        """Make, judge and `place` the images; `None` where other parts have units to make first."""
        job, asked, part = self.job, self.asked, self.request.part
        starts = self._start if self._varies else None
        lock = FileLock(str(job.folder / f".lock-{part.index + 1}-of-{part.count}"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(
                f"another process makes part {part.index + 1}/{part.count} of {job.folder}. Wait until it ends, stop "
                "it, or take another part (--part)."
            ) from None
        there, total = job.made, sum(first_round(asked))
        with lock, self.face.bar("synthetic images", max(total, there)) as advance:
            advance(there)
            outcome = fill(job, lambda: self.source, asked, self.teaching, part, starts, advance)
            if outcome is not None and place:
                place_kept(job, outcome)
                text = json.dumps(summary_of(outcome, self.classes), indent=1)
                write_atomic(job.folder / SUMMARY, text + "\n")
        return outcome

    def preview(self) -> Preview:
        """What the job would do; a few images are made to see how long it takes, and more where that is quick."""
        source, batch = self.source, self.request.batch or 2
        images, seconds = _timed(source, self._wishes(batch))
        if seconds * batch < QUICK_S:  # mostly the start of the first batch
            images, seconds = _timed(source, self._wishes(self.request.batch or QUICK_BATCH))
        seed, step = self.request.seed, len(self.classes)
        shown = {
            name: [self.book.prompt(seed, k, k + turn * step) for turn in range(SHOWN)]
            for k, name in enumerate(self.classes)
        }
        count = sum(self.asked.wanted)
        disk = round(count * images[0].shape[0] * images[0].shape[1] * PNG_BYTES)
        return Preview(
            shown, count, sum(self.asked.most), count * seconds, disk, source.facts.device
        )


def _timed(source: ImageSource, wishes: Sequence[Wish]) -> tuple[list[Pixels], float]:
    """Images of a batch, and seconds for each."""
    began = time.perf_counter()
    images = source.make(wishes)
    return images, (time.perf_counter() - began) / len(wishes)


def fitting_batch(source: ImageSource, wishes: Sequence[Wish]) -> int:
    """The largest batch that fits into a GPU's memory: the number of `wishes`, or a half, a quarter ... of it."""
    count = len(wishes)
    while source.facts.device.startswith("cuda") and count > 1:
        try:
            source.make(wishes[:count])
            break
        except StoppedError:
            count //= 2
    return count


def resized(pixels: Pixels, side: int) -> Pixels:
    """Pixels (N, S, S, 3) at another side, as the kit resizes."""
    from ontarget.preprocess import resize_crop
    from PIL import Image

    if pixels.shape[1:3] == (side, side):
        return pixels
    return np.stack([resize_crop(Image.fromarray(image), side, side) for image in pixels])


def _batch_before(folder: Path) -> int | None:
    """The batch of a job that is there."""
    try:
        return int(json.loads((folder / "job.json").read_text("utf-8"))["batch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def material_of(folder: Path) -> Material:
    """The stages of a run folder. Raises `UsageError` with the command that makes them."""
    run = RunDir(folder)
    found = [run.done(name) for name in ("01-data", "03-pixels", "04-teacher")]
    selected = run.done("04-teacher@select")
    if selected is not None:
        found[2] = run.done(f"04-teacher@candidate{selected.facts['chosen'] + 1}")
    data, pixels, teacher = found
    if data is None or pixels is None or teacher is None:
        raise UsageError(
            f"{folder} is no run with a teacher that is ready. Make one:  edgedistill build --data ./images "
            f"--out {folder} --until teacher"
        )
    return Material(data, pixels, teacher)
