"""`edgedistill synth preview` and `verify`: what a job looks like, and whether its ledger tells the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgedistill.errors import DocumentError, UsageError
from edgedistill.files import write_atomic
from edgedistill.progress import Face
from edgedistill.rundir import RunDir
from edgedistill.synth.generators import ImageSource, Pixels, Wish, open_source
from edgedistill.synth.job import JOB, classes_of
from edgedistill.synth.ledger import Line, read_lines
from edgedistill.synth.naming import asked_by
from edgedistill.synth.picture import picture
from edgedistill.synth.pipelines import Making
from edgedistill.synth.rounds import LEDGER
from edgedistill.synth.shard import UNITS, pixels_hash, reader
from edgedistill.synthesis import material_of
from edgedistill.synthstage import PREVIEW, STAGE


@dataclass(frozen=True)
class Checked:
    """What was found: images whose bytes are not those of the ledger, and of those made again, how many are the same
    to the last bit and by how many grey levels the others differ at most.
    """

    images: int
    changed: tuple[str, ...]
    again: int
    same: int
    most_levels: int

    @property
    def faults(self) -> list[str]:
        """What is wrong, a line each."""
        found = [f"{name} is not as the ledger says" for name in self.changed]
        if self.most_levels > NEAR_LEVELS:
            found.append(f"an image that was made again differs by {self.most_levels} grey levels")
        return found


NEAR_LEVELS = 8
"""Another machine or version of torch moves the last bits; more than this is another image."""


def job_of(folder: Path) -> Path:
    """The job in a folder: itself, or that of the build whose run folder it is."""
    if (folder / JOB).is_file() or not (folder / "stages").is_dir():
        return folder
    done = RunDir(folder).done(STAGE)
    return folder / "cache" / str(done.facts["job"]) if done is not None else folder


def lines_of(folder: Path) -> list[Line]:
    """The ledger of a job; before it was judged, the lines of its units. Raises `UsageError` for what is no job."""
    if not (folder / JOB).is_file():
        raise UsageError(f"{folder} is no folder of synthetic images: it has no {JOB}.")
    if (folder / LEDGER).is_file():
        return list(read_lines(folder / LEDGER))
    return [line for path in sorted((folder / UNITS).glob("*.jsonl")) for line in read_lines(path)]


def preview(folder: Path) -> Path:
    """Write a picture of kept and dropped images."""
    folder = job_of(folder)
    lines = lines_of(folder)
    classes = classes_of(folder)
    path = folder / PREVIEW
    write_atomic(path, picture(lines, classes, reader(folder, lines)))
    return path


def check(
    folder: Path, generator: str | None, sample: int, seed: int, face: Face, run: Path | None = None
) -> Checked:
    """Hold every image to its hash, and make the batches of `sample` of them again where the generator is given.

    Variations are made again from the training images of `run`; where none is given, of the run that the job lies in.
    Raises `UsageError` for another generator than the one that the ledger names, or other training images.
    """
    folder = job_of(folder)
    lines = lines_of(folder)
    read, wrong = reader(folder, lines), set()
    with face.bar("images against the ledger", len(lines)) as advance:
        for line in lines:
            try:
                sound = pixels_hash(read(line)) == line.sha256
            except DocumentError as error:
                face.detail(str(error))
                sound = False
            if not sound:
                wrong.add(line.number)
            advance(1)
    sound_lines = [line for line in lines if line.number not in wrong]
    batches = _batches(sound_lines, sample, seed) if generator is not None else []
    source = _source(folder, batches[0][0], generator) if batches and generator else None
    starts = _beginnings(folder, run, {x.start for batch in batches for x in batch if x.start})
    same, most, again = 0, 0, 0
    with face.bar("images made again", sum(map(len, batches))) as advance:
        for batch in batches:
            assert source is not None
            for line, image in zip(batch, make_again(source, batch, starts), strict=True):
                again += 1
                same += pixels_hash(image) == line.sha256
                most = max(most, _levels(image, read(line)))
            advance(len(batch))
    return Checked(len(lines), tuple(f"image {n}" for n in sorted(wrong)), again, same, most)


def _source(folder: Path, line: Line, generator: str) -> ImageSource:
    """The generator as a line says that it was used."""
    maker = line.maker
    own_side = line.side if maker.kind != "class_conditional" else None
    making = Making(
        asked_by(maker.kind), generator, maker.revision, maker.steps, maker.guidance,
        maker.strength or 1.0, own_side, maker.scheduler, maker.negative,
    )  # fmt: skip
    source = open_source(making, classes_of(folder))
    if source.facts.sha256 != maker.sha256:
        raise UsageError(
            f"{generator} is another generator than {maker.model}, which made the images of {folder}: its files have "
            "another hash. Give the folder or the hub id that was used."
        )
    return source


def make_again(
    source: ImageSource, batch: Sequence[Line], starts: Mapping[str, Pixels]
) -> list[Pixels]:
    """The images of a whole batch, from its lines, and the training images by hash that variations begin with."""
    return source.make(
        [
            Wish(x.number, x.label, x.prompt, x.seed, starts[x.start] if x.start else None)
            for x in batch
        ]
    )


def _beginnings(folder: Path, run: Path | None, wanted: set[str]) -> dict[str, Pixels]:
    """The training images (K, K, 3) with these hashes. Raises `UsageError` where one is not there."""
    if not wanted:
        return {}
    from edgedistill.data.stage import open_arrays

    places = [run] if run is not None else [folder.parent, folder.parent.parent]
    home = next((place for place in places if (place / "stages").is_dir()), None)
    if home is None:
        raise UsageError(
            f"the images of {folder} are variations of training images, and no run folder is at hand. Give the one "
            "that they were made for: --run runs/NAME"
        )
    found: dict[str, Pixels] = {}
    for canvas in open_arrays(material_of(home).pixels.folder).labelled_train[0]:
        image = np.ascontiguousarray(canvas)
        key = hashlib.sha256(image.tobytes()).hexdigest()
        if key in wanted:
            found[key] = image
    if lacking := len(wanted - found.keys()):
        raise UsageError(
            f"{lacking} of {len(wanted)} training images that variations of {folder} begin with are not in {home}. "
            "Give the run folder that they were made for: --run runs/NAME"
        )
    return found


def _batches(lines: Sequence[Line], sample: int, seed: int) -> list[list[Line]]:
    """Whole batches with `sample` images at least, drawn by seed."""
    whole: dict[tuple[int, int], list[Line]] = {}
    for line in lines:
        whole.setdefault(line.batch, []).append(line)
    order = sorted(batch for batch, own in whole.items() if len(own) == batch[1] - batch[0])
    found: list[list[Line]] = []
    for place in np.random.default_rng(seed).permutation(len(order)):
        if sum(map(len, found)) >= sample:
            break
        found.append(whole[order[place]])
    return found


def _levels(one: Pixels, other: Pixels) -> int:
    """The largest difference of two images in grey levels; 255 where their sizes differ."""
    if one.shape != other.shape:
        return 255
    return int(np.abs(one.astype(np.int16) - other.astype(np.int16)).max())
