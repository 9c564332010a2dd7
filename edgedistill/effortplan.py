"""`plan --compute`: which training a budget of computing should go to, and what it will give, before it is trained.

The students that fit the device are timed here for a moment; what they will learn is said by laws that are fitted to
those rows of the user's ledger which can be compared. Where there are too few of them, the answer is the smallest set
of trainings that would do, with what it costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ontarget.machine import machine

from edgedistill.arms import DISTILLED, PLAIN
from edgedistill.compute.allocate import MOST_EPOCHS, Advice, Images, Laws, Master, Pupil, advise
from edgedistill.compute.effort import Effort
from edgedistill.compute.flops import training_flops
from edgedistill.compute.learn import FEWEST, learn_both
from edgedistill.compute.ledger import Row
from edgedistill.compute.predict import BEYOND, Law, Way, way_of
from edgedistill.data.dataset import Dataset
from edgedistill.derive import method_values, resolve, views_for
from edgedistill.distill.spec import StudentSpec
from edgedistill.errors import EdgedistillError
from edgedistill.ledgering import judged_by, settings_for
from edgedistill.pacing import Pace, pace_of
from edgedistill.planning import choose_student, values_for
from edgedistill.progress import Face
from edgedistill.recipe import Layered, replace
from edgedistill.result import Candidate, Plan
from edgedistill.stages import number
from edgedistill.target.device import Device
from edgedistill.target.measured import fingerprint
from edgedistill.teaching import views_of

MOST_PUPILS, MOST_KNOWN = 6, 4
"""Students that are weighed, and how many of them from the ledger beside the chosen one."""
PROBES = FEWEST + 2
"""Trainings of each way that are proposed where there are too few."""
PROBE_SHARES = (1.0, 0.25, 0.0625)
"""Shares of the training images that they learn from."""
LEAST_IMAGES, MOST_NAME = 200, 40
TEACHER_FEATURES = 1280


@dataclass(frozen=True)
class Probe:
    """A training that is proposed: the student, how many of the images, for how many epochs, with a teacher or not."""

    model: str
    images: int
    epochs: int
    taught: bool
    seconds: float
    flops: float


@dataclass(frozen=True)
class Answer:
    """What a budget should go to. `rows` are those of the ledger that can be compared, by way in words; `lacking` says
    what is missing for a way, and `probes` are the trainings that would supply it.
    """

    effort: Effort
    advice: Advice | None
    laws: tuple[Law, ...]
    rows: Mapping[str, int]
    lacking: tuple[str, ...]
    probes: tuple[Probe, ...]
    notes: tuple[str, ...] = ()


def answer(
    layered: Layered,
    device: Device,
    dataset: Dataset,
    planned: Plan,
    rows: Sequence[Row],
    effort: Effort,
    face: Face,
    candidates: Sequence[Candidate] = (),
) -> Answer:
    """The whole answer, of the `candidates` or else of those that `pupils_of` finds, timed here. Needs torch."""
    judges = judged_by(dataset)
    known = [row for row in rows if row.data.judged_sha256 == judges]
    candidates = candidates or pupils_of(layered, device, dataset, planned, known)
    pupils, paces = _pupils(layered, device, dataset, planned, candidates, face)
    starts = dict.fromkeys(pupil.start for pupil in pupils)
    ways = {start: _ways(layered, start) for start in starts}
    laws: dict[Way, Laws] = {}
    lacking: dict[Way, str] = {}
    counts: dict[str, int] = {}
    for both in ways.values():
        own = [[row for row in known if way_of(row) == way] for way in both]
        for way, found, law in zip(both, own, _laws(own[0], own[1], face), strict=True):
            counts[words_of(way)] = len(found)
            if law is None:
                lacking[way] = (
                    f"{words_of(way)}: {len(found)} trainings of the {FEWEST} that a law takes at least"
                    if len(found) < FEWEST
                    else f"{words_of(way)}: {len(found)} trainings follow no law that could be found"
                )
            else:
                laws[way] = law
    masters, notes = masters_of(known, dataset, pupils)
    images = Images(len(dataset.train), len(dataset.val), views_for)
    advice = advise(effort, pupils, masters, images, laws) if laws else None
    ways_lacking = sorted({way.taught for way in lacking})
    probes = _probes(pupils, paces, images, effort, ways_lacking)
    every = tuple(
        law for known_laws in laws.values() for law in (known_laws.error, known_laws.loss) if law
    )
    return Answer(
        effort, advice, every, counts, tuple(lacking.values()), tuple(probes), tuple(notes)
    )


def pupils_of(
    layered: Layered, device: Device, dataset: Dataset, planned: Plan, rows: Sequence[Row]
) -> list[Candidate]:
    """The students that are weighed: the chosen one, those that `rows` tell of and that fit, and others between the
    fastest and the best that fit. All begin as the chosen one does, from pretrained weights or not, and at its input
    size, as each start has laws of its own.
    """
    chosen = planned.chosen
    if layered.recipe.student.model != "auto":
        return [chosen]
    known = []
    for model in dict.fromkeys(row.student.model for row in rows):
        with contextlib.suppress(EdgedistillError):
            one = replace(layered, {"student.model": (model, "in the ledger")})
            known.append(choose_student(one, device, dataset).chosen)
    found = {chosen.model: chosen}
    found |= _spread(known, found, MOST_KNOWN)
    found |= _spread([*planned.front, *planned.runners_up], found, MOST_PUPILS - len(found))
    return list(found.values())


def _spread(
    some: Sequence[Candidate], found: Mapping[str, Candidate], most: int
) -> dict[str, Candidate]:
    """At most so many that fit and begin as those that were found do, evenly spaced by cost, with both ends."""
    first = next(iter(found.values()))
    free = {
        one.model: one
        for one in some
        if one.fits != "no"
        and one.model not in found
        and (one.input_size, one.pretrained) == (first.input_size, first.pretrained)
    }
    ordered = sorted(free.values(), key=lambda one: one.macs)
    if len(ordered) > most:
        ordered = [ordered[round(k)] for k in np.linspace(0, len(ordered) - 1, most)]
    return {one.model: one for one in ordered}


def words_of(way: Way) -> str:
    """A way as a person says it."""
    how = "labels alone" if way.method is None else f"with a teacher ({way.method})"
    return f"{how}, from {way.start} weights"


def _ways(layered: Layered, start: str) -> tuple[Way, Way]:
    recipe = layered.recipe
    plain = Way(PLAIN, None, settings_for(recipe, PLAIN, start), start)
    taught = settings_for(recipe, DISTILLED, start)
    return plain, Way(DISTILLED, recipe.distill.method, taught, start)


def _laws(plain: Sequence[Row], taught: Sequence[Row], face: Face) -> list[Laws | None]:
    """The laws of students without and with a teacher, where there are any."""
    if max(len(plain), len(taught)) < FEWEST:
        return [None, None]
    face.detail(f"fitting laws to {len(plain) + len(taught)} trainings")
    errors, losses = (learn_both(plain, taught, what) for what in ("error", "loss"))
    return [
        None if error is None else Laws(error, loss)
        for error, loss in zip(errors, losses, strict=True)
    ]


def _pupils(
    layered: Layered,
    device: Device,
    dataset: Dataset,
    planned: Plan,
    candidates: Sequence[Candidate],
    face: Face,
) -> tuple[list[Pupil], dict[str, Pace]]:
    """Each student with its pace on this machine."""
    from edgedistill.nets import Look

    found, paces = [], {}
    classes, images = len(dataset.classes), len(dataset.train)
    with face.bar("timing students", len(candidates)) as advance:
        for candidate in candidates:
            own = planned.model_copy(update={"chosen": candidate})
            values = values_for(layered, device, dataset, own)
            values |= method_values(layered.recipe, images + len(dataset.unlabelled))
            recipe = resolve(layered, values).recipe
            start = "pretrained" if recipe.student.weights == "pretrained" else "random"
            size = number(recipe.student.input_size)
            spec = StudentSpec(candidate.model, size, classes, start == "pretrained")
            canvas = max(size, number(recipe.teacher.input_size))
            look = Look(size, (0.5,) * 3, (0.25,) * 3)
            pace = pace_of(
                spec, recipe.distill, views_of(recipe, 1), look, canvas, TEACHER_FEATURES
            )
            paces[candidate.model] = pace
            found.append(
                Pupil(
                    candidate.model, candidate.params, candidate.macs, start, pace.train_s,
                    pace.taught_s, pace.validate_s,
                )
            )  # fmt: skip
            advance(1)
    return found, paces


def masters_of(
    rows: Sequence[Row], dataset: Dataset, pupils: Sequence[Pupil]
) -> tuple[list[Master], list[str]]:
    """The teachers that taught in `rows`, as they were with the number of images that is nearest to the one at hand.

    Seconds of a row of another machine are made from its operations, at the pace at which the students train here.
    """
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        teacher = row.teacher
        if teacher is None or teacher.val is None or teacher.flops is None:
            continue
        key = (teacher.model, teacher.adaptation)
        if key not in found or _off(row, dataset) < _off(found[key], dataset):
            found[key] = row
    if not found or not pupils:
        return [], []
    speed = float(np.median([training_flops(p.macs, 1) / p.train_s for p in pupils]))
    notes = [
        f"{model}, {adaptation}: its loss is that with {row.data.train:,} training images; you have "
        f"{len(dataset.train):,}"
        for (model, adaptation), row in found.items()
        if row.data.train != len(dataset.train)
    ]
    return [_master(row, speed) for row in found.values()], notes


def _master(row: Row, speed: float) -> Master:
    """The teacher of a row; `speed` is in operations a second."""
    teacher = row.teacher
    assert teacher is not None and teacher.val is not None and teacher.flops is not None
    prepare, stored = (
        row.flops.get(part, 0.0) for part in ("teacher preparation", "storing teacher outputs")
    )
    prepare_s, pass_s = prepare / speed, teacher.flops / speed
    if row.machine == fingerprint(machine()):
        prepare_s = row.seconds.get("teacher preparation", prepare_s)
        if stored and "storing teacher outputs" in row.seconds:
            pass_s = row.seconds["storing teacher outputs"] / (stored / teacher.flops)
    name = f"{teacher.model}, {teacher.adaptation}"
    error = 1.0 - teacher.val.top1
    return Master(name, teacher.val.loss, error, prepare_s, prepare, pass_s, teacher.flops)


def _off(row: Row, dataset: Dataset) -> float:
    """How far a row's number of images is from the one at hand, in logarithms."""
    return abs(float(np.log(max(1, row.data.train) / max(1, len(dataset.train)))))


def _probes(
    pupils: Sequence[Pupil],
    paces: Mapping[str, Pace],
    images: Images,
    effort: Effort,
    ways: Sequence[bool],
) -> list[Probe]:
    """The smallest set of trainings from which a law for the budget could be fitted: three students, three amounts of
    images, and lengths up to the one from which the law may be carried to the budget.
    """
    spread = sorted(pupils, key=lambda pupil: pupil.macs)
    chosen = [spread[0], spread[len(spread) // 2], spread[-1]] if len(spread) > 2 else spread
    found: dict[tuple[Any, ...], Probe] = {}
    for taught in ways:
        for k in range(PROBES):
            pupil = chosen[k % len(chosen)]
            share = PROBE_SHARES[(k // len(chosen)) % len(PROBE_SHARES)]
            train = max(min(LEAST_IMAGES, images.train), round(images.train * share))
            length = _longest(effort, pupil) / BEYOND * 2.0 ** -((k * 5) % PROBES / 3)
            epochs = int(np.clip(round(length / train), 1, MOST_EPOCHS))
            while (pupil.model, train, epochs, taught) in found:
                epochs = epochs + 1 if epochs < MOST_EPOCHS / 2 else epochs - 1
            pace, seen = paces[pupil.model], epochs * train
            step = pace.taught_s if taught else pace.train_s
            seconds = seen * step + epochs * images.val * pace.validate_s
            found[pupil.model, train, epochs, taught] = Probe(
                pupil.model, train, epochs, taught, seconds, training_flops(pupil.macs, seen)
            )
    return list(found.values())


def _longest(effort: Effort, pupil: Pupil) -> float:
    """Images that the whole budget shows to a student."""
    if effort.seconds is not None:
        return effort.seconds / pupil.train_s
    assert effort.flops is not None
    return effort.flops / training_flops(pupil.macs, 1)


def probe_study(layered: Layered, probes: Sequence[Probe], name: str) -> dict[str, Any]:
    """The study that makes the proposed trainings: what `edgedistill study` reads."""
    asked = layered.recipe.model_dump(mode="json", exclude_defaults=True)
    for key in ("proof", "name", "seed"):
        asked.pop(key, None)
    arms = {}
    for place, probe in enumerate(probes, start=1):
        how = "taught" if probe.taught else "plain"
        arms[f"{place:02}-{how}-{probe.model}"[:MOST_NAME]] = {
            **({} if probe.taught else {"arm": PLAIN}),
            "data": {"max_train": probe.images},
            "student": {"model": probe.model},
            "distill": {"epochs": probe.epochs},
        }
    return {"name": name, "recipe": asked, "arms": arms}
