"""A job: images made unit by unit into WebDataset shards, each unit on its own, whole or not at all.

    job.json                     what is asked for, and how; another question wants another folder
    rounds/0.json, 1.json, ...   how many images of each class a round makes
    units/0-00000.tar, .jsonl    a unit: its images, and its lines of the ledger

The images of a round are counted through, class by class in turn, and cut into batches and units by number alone. So
several processes or machines share a job without talking: each takes the units of its part (`--part 2/5`), and whoever
finds them all there goes on. Inside a unit each finished batch is kept, so a kill costs at most one batch.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgedistill.errors import DocumentError, UsageError
from edgedistill.files import remove, write_atomic
from edgedistill.synth.generators import ImageSource, Pixels, Wish
from edgedistill.synth.ledger import Line, Maker, ledger_bytes, read_lines
from edgedistill.synth.prompts import PromptBook
from edgedistill.synth.shard import UNITS, pixels_hash, read_shard, shard_bytes
from edgedistill.synth.units import Part, Unit, cut, seed_of, stale

SCHEMA = "edgedistill.synth/1"
JOB, ROUNDS, JUDGE, TIMES = "job.json", "rounds", "judge", "times"
OWN = (ROUNDS, UNITS, TIMES, "scores")
"""Folders in which a job writes; nothing is swept elsewhere."""
MOST_IMAGES = 10_000_000


@dataclass(frozen=True)
class Plan:
    """What a job asks for. `batch` and `unit` are images; a unit is whole batches."""

    classes: tuple[str, ...]
    seed: int
    batch: int
    unit: int
    book: PromptBook
    maker: Maker

    def document(self) -> dict[str, Any]:
        """The job as its file holds it."""
        return {
            "schema": SCHEMA,
            "classes": list(self.classes),
            "seed": self.seed,
            "batch": self.batch,
            "unit": self.unit,
            "prompts": self.book.document(),
            "maker": self.maker.model_dump(mode="json", exclude={"packages", "licence"}),
        }


Starts = Callable[[int, int], tuple[Pixels, str]]
"""The training image (H, W, 3) that an image of (label, number) begins with, and the hash of its content."""


class Job:
    """A folder of synthetic images. Raises `UsageError` for a folder of another job, or of something else.

    Versions of packages and the licence stand in the lines of the ledger and are no part of what a job is: it goes on
    after an update, and where a hub's card cannot be read.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        path, wanted = folder / JOB, json.loads(json.dumps(plan.document()))
        if path.exists():
            if not same_job(path, plan):
                found = _read(path)
                keys = [key for key in wanted if found.get(key) != wanted[key]]
                raise UsageError(
                    f"{folder} holds a job that differs in {', '.join(keys) or 'its schema'}. Give the same command "
                    "as before to go on with it, or another folder (--out)."
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"--out {folder} holds what is no job of synthetic images; give an empty or a new folder, so that "
                "nothing of yours is overwritten"
            )
        else:
            write_atomic(path, json.dumps(wanted, indent=1) + "\n")

    # -- rounds --------------------------------------------------------------------------------

    def rounds(self) -> list[tuple[int, ...]]:
        """How many images of each class each round makes; none before the first is planned."""
        found: list[tuple[int, ...]] = []
        while (path := self.folder / ROUNDS / f"{len(found)}.json").exists():
            found.append(_counts(path, len(self.plan.classes)))
        return found

    def plan_round(self, counts: Sequence[int]) -> None:
        """Write down the next round: images of each class."""
        self._write_round(self.rounds(), counts)

    def _write_round(self, before: Sequence[Sequence[int]], counts: Sequence[int]) -> None:
        if sum(map(sum, before)) + sum(counts) > MOST_IMAGES:
            raise UsageError(f"a job makes at most {MOST_IMAGES:,} images")
        path = self.folder / ROUNDS / f"{len(before)}.json"
        write_atomic(path, json.dumps({"counts": list(counts)}) + "\n")

    def begin(self, judge: str, counts: Sequence[int]) -> None:
        """Begin with a first round of `counts` images of each class, for `judge`.

        What another judge found lacking, the later rounds, is forgotten; of a first round of another size stays what
        both have. So rounds are a function of what is asked for, whatever the folder has seen.
        """
        path = self.folder / JUDGE
        rounds = self.rounds()
        same = rounds[:1] == [tuple(counts)]
        if same and path.exists() and path.read_text("utf-8") == judge:
            return
        for index in range(len(rounds) - 1, 0, -1):
            self._forget(f"{index}-*")
            remove(self.folder / ROUNDS / f"{index}.json")
        if not same:
            for name in stale(rounds[:1], counts, self.plan.unit):
                self._forget(f"{name}*")
            self._write_round([], counts)
        write_atomic(path, judge)

    def _forget(self, pattern: str) -> None:
        """Remove units by their names, with the batches of those that are begun."""
        for place in (UNITS, TIMES):
            for name in (pattern, f".{pattern}"):
                for file in list((self.folder / place).glob(name)):
                    remove(file)

    def labels(self, index: int) -> list[int]:
        """The class of each image of a round in order: all classes in turn, as long as each has some left."""
        counts = self.rounds()[index]
        return [
            k for turn in range(max(counts, default=0)) for k, n in enumerate(counts) if n > turn
        ]

    def units(self, index: int) -> list[Unit]:
        """The units of a round."""
        rounds = self.rounds()
        first = sum(map(sum, rounds[:index]))
        return cut(index, first, first + sum(rounds[index]), self.plan.unit)

    def missing(self, part: Part = Part()) -> list[Unit]:
        """Units of a part that are not there yet."""
        return [unit for unit in self._units_of(part) if not self.has(unit)]

    def _units_of(self, part: Part) -> list[Unit]:
        every = [unit for index in range(len(self.rounds())) for unit in self.units(index)]
        return [unit for unit in every if unit.place % part.count == part.index]

    def has(self, unit: Unit) -> bool:
        """Whether a unit is whole."""
        return self.file(unit, "tar").exists() and self.file(unit, "jsonl").exists()

    def file(self, unit: Unit, suffix: str) -> Path:
        """A file of a unit: its shard ("tar") or its lines ("jsonl")."""
        return self.folder / UNITS / f"{unit.name}.{suffix}"

    # -- making --------------------------------------------------------------------------------

    def wishes(self, unit: Unit, starts: Starts | None = None) -> list[Wish]:
        """What each image of a unit is asked to be: a function of the job and its number alone."""
        labels = self.labels(unit.round)
        first = unit.start - (self.units(unit.round)[0].start)
        found = []
        for at in range(unit.stop - unit.start):
            number, label = unit.start + at, labels[first + at]
            prompt = self.plan.book.prompt(self.plan.seed, label, number)
            begin = starts(label, number)[0] if starts is not None else None
            found.append(Wish(number, label, prompt, seed_of(self.plan.seed, number), begin))
        return found

    def make(
        self,
        source: Callable[[], ImageSource],
        part: Part,
        starts: Starts | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Make every unit of a part that is missing, with what `source` gives then; the number of images made."""
        made = 0
        self._sweep(part)
        for unit in self.missing(part):
            began = time.monotonic()
            made += self._make_unit(unit, source(), starts, advance)
            took = f"{time.monotonic() - began:.3f}\n"
            write_atomic(self.folder / TIMES / unit.name, took)
        return made

    @property
    def made(self) -> int:
        """Images of the units that are there."""
        return sum(u.stop - u.start for u in self._units_of(Part()) if self.has(u))

    @property
    def seconds(self) -> float:
        """How long the units took that are there; of one that was broken off, its last try."""
        files = [self.folder / TIMES / unit.name for unit in self._units_of(Part())]
        return sum(float(path.read_text("utf-8")) for path in files if path.exists())

    def _sweep(self, part: Part) -> None:
        """Remove what a killed process of this part left: batches of a unit that is whole, what is half written or
        half removed. What is not of a unit is left to a job of one part.
        """
        for unit in self._units_of(part):
            aside = self._aside(unit)
            if self.has(unit):
                remove(aside)
            patterns = (f".trash-{aside.name}-*", f"{aside.name}.*.tmp", f"{aside.name}/.*.tmp")
            _clear(path for pattern in patterns for path in aside.parent.glob(pattern))
        if part.count == 1:
            places = [self.folder, *(self.folder / name for name in OWN)]
            _clear(path for place in places for path in place.glob(".*.tmp"))
            _clear(path for place in places for path in place.glob(".trash-*"))

    def _aside(self, unit: Unit) -> Path:
        """Where the finished batches of a unit lie while it is made."""
        return self.folder / UNITS / f".{unit.name}"

    def _make_unit(
        self,
        unit: Unit,
        source: ImageSource,
        starts: Starts | None,
        advance: Callable[[int], None],
    ) -> int:
        wishes = self.wishes(unit, starts)
        aside = self._aside(unit)
        aside.mkdir(parents=True, exist_ok=True)
        files = []
        for begin, end in unit.batches(self.plan.batch):
            path = aside / f"{begin}.npy"
            if not path.exists():
                images = source.make(wishes[begin - unit.start : end - unit.start])
                buffer = io.BytesIO()
                np.save(buffer, np.stack(images), allow_pickle=False)
                write_atomic(path, buffer.getvalue())
            advance(end - begin)
            files.append(path)
        pixels = [image for path in files for image in np.load(path, allow_pickle=False)]
        lines = list(self._lines(unit, wishes, pixels, starts))
        write_atomic(self.file(unit, "tar"), shard_bytes(lines, pixels))
        write_atomic(self.file(unit, "jsonl"), ledger_bytes(lines))
        remove(aside)
        return len(pixels)

    def _lines(
        self, unit: Unit, wishes: Sequence[Wish], pixels: Sequence[Pixels], starts: Starts | None
    ) -> Iterator[Line]:
        batches = {n: (a, b) for a, b in unit.batches(self.plan.batch) for n in range(a, b)}
        for wish, image in zip(wishes, pixels, strict=True):
            yield Line(
                number=wish.number,
                round=unit.round,
                unit=unit.name,
                batch=batches[wish.number],
                label=wish.label,
                cls=self.plan.classes[wish.label],
                prompt=wish.prompt,
                seed=wish.seed,
                start=starts(wish.label, wish.number)[1] if starts is not None else None,
                sha256=pixels_hash(image),
                side=int(image.shape[0]),
                maker=self.plan.maker,
            )

    # -- reading -------------------------------------------------------------------------------

    def unit_lines(self, unit: Unit) -> Iterator[Line]:
        """The lines of a unit that is there."""
        return read_lines(self.file(unit, "jsonl"))

    def lines(self) -> Iterator[Line]:
        """The lines of every unit that is there, in the order of the numbers."""
        for index in range(len(self.rounds())):
            for unit in self.units(index):
                if self.has(unit):
                    yield from self.unit_lines(unit)

    def images(self, unit: Unit) -> list[Pixels]:
        """The images of a unit, in the order of its lines. Raises `DocumentError` for a damaged shard."""
        return read_shard(self.file(unit, "tar"))


def _clear(litter: Iterable[Path]) -> None:
    for path in list(litter):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def same_job(path: Path, plan: Plan) -> bool:
    """Whether a job's file asks for what `plan` does. Raises `DocumentError`."""
    wanted: dict[str, Any] = json.loads(json.dumps(plan.document()))
    return _read(path) == wanted


def classes_of(folder: Path) -> list[str]:
    """The classes of a job by its file. Raises `DocumentError`."""
    names = _read(folder / JOB).get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DocumentError(f"{folder / JOB} names no classes")
    return names


def _counts(path: Path, classes: int) -> tuple[int, ...]:
    """Images of each class that a round makes (C,)."""
    counts = _read(path).get("counts")
    if (
        not isinstance(counts, list)
        or len(counts) != classes
        or any(type(n) is not int or not 0 <= n <= MOST_IMAGES for n in counts)
    ):
        raise DocumentError(f"{path} does not say how many images of each of {classes} classes")
    return tuple(counts)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no mapping")
        return found
    except (OSError, ValueError, RecursionError) as error:
        raise DocumentError(f"{path} cannot be read: {error}") from None
