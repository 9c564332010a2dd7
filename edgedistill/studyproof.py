"""What the arms of a study turned out to be. Counting and comparing only; nothing runs a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgedistill import __version__, metrics
from edgedistill.arms import PROBE, SYNTH, TAUGHT, WORDS, Arm
from edgedistill.compute.ledger import Row
from edgedistill.findings import environment
from edgedistill.ledgering import logits_in, row_of
from edgedistill.proof import flops_of, seconds_of
from edgedistill.result import SeedGain
from edgedistill.rundir import Done, now_utc
from edgedistill.seednoise import SeedNoise, known_of, seed_noise
from edgedistill.seeds import image_gain, seed_gain, student_t
from edgedistill.studyclaims import judged
from edgedistill.studyfile import Study
from edgedistill.studyresult import (
    Mean,
    SeedRun,
    StudyArm,
    StudyData,
    StudyResult,
    StudyTeacher,
)

if TYPE_CHECKING:
    from edgedistill.studybuild import StudyBuild

Bools = npt.NDArray[np.bool_]
MANY = 3
"""From this many arms on, the best of them is flattered by being chosen."""
MANY_CLAIMS = 5
"""From this many claims on, it is said that some verdict may be chance."""
WHAT = {**WORDS, "plain": "labels alone", "finetune": "labels alone, from pretrained weights"}


@dataclass(frozen=True)
class Run:
    """A finished run: the training, the answers on test, and which images (N,) student and teacher have right."""

    build: StudyBuild
    arm: Arm
    trained: Done
    tested: Done
    right: Bools
    teacher: Done | None
    teacher_right: Bools | None

    @property
    def row(self) -> Row | None:
        """Its row of the ledger."""
        return row_of(self.build, self.arm, logits_in(self.tested.folder / "logits.npz", "logits"))


def assemble(
    study: Study,
    builds: Mapping[str, StudyBuild],
    runs: Mapping[str, Sequence[Run]],
    command: str,
) -> StudyResult:
    """The whole document, of the runs that are finished."""
    base = {run.arm.seed: run for run in runs[study.baseline]}
    noise = noise_of(runs)
    arms = [_arm(study, entry.name, runs[entry.name], base, noise) for entry in study.arms]
    dataset = builds[study.baseline].dataset
    return StudyResult(
        study=study.name,
        created_utc=now_utc(),
        version=__version__,
        command=command,
        seeds=list(study.seeds),
        baseline=study.baseline,
        environment=environment(),
        data=StudyData(
            name=dataset.name,
            source=dataset.source,
            classes=len(dataset.classes),
            val=len(dataset.val),
            test=len(dataset.test),
            test_sha256=builds[study.baseline].test_key,
        ),
        arms=arms,
        claims=judged(
            study.claims,
            {name: {run.arm.seed: run.right for run in found} for name, found in runs.items()},
            len(study.seeds),
            noise,
        ),
        seconds_spent=_spent([run for found in runs.values() for run in found]),
        headline=headline(arms, study.baseline),
        remarks=_remarks(study, arms, noise),
    )


def noise_of(runs: Mapping[str, Sequence[Run]]) -> list[SeedNoise]:
    """How far the seed moves the arms that it moves, from all of those with one student on as many images."""
    alike: dict[object, dict[str, dict[int, float]]] = {}
    for name, arm in runs.items():
        if arm and not (len(arm) > 1 and _same(arm)):
            tops = {run.arm.seed: float(run.right.mean()) for run in arm}
            first = arm[0]
            like = (first.build.spec_of(first.arm), len(first.build.dataset.train))
            alike.setdefault(like, {})[name] = tops
    return [noise for noise in map(seed_noise, alike.values()) if noise is not None]


def _arm(
    study: Study,
    name: str,
    runs: Sequence[Run],
    base: Mapping[int, Run],
    noise: Sequence[SeedNoise],
) -> StudyArm:
    entry = next(arm for arm in study.arms if arm.name == name)
    head: dict[str, Any] = {
        "name": name, "factor": entry.factor, "kind": entry.kind,
        "what": WHAT[entry.kind], "changes": dict(entry.changes),
    }  # fmt: skip
    if not runs:
        return StudyArm(**head)
    build = runs[0].build
    spec = build.spec_of(runs[0].arm)
    pairs = [(run, base[run.arm.seed]) for run in runs if run.arm.seed in base]
    compared = name != study.baseline and bool(pairs)
    parts = _means([_seconds(run) for run in runs])
    return StudyArm(
        **head,
        student=spec.model,
        input_size=spec.size,
        start="pretrained" if spec.pretrained else "random",
        train_images=len(build.dataset.train),
        runs=[_run(run, base.get(run.arm.seed) if compared else None, study) for run in runs],
        top1=mean_of([float(run.right.mean()) for run in runs], _same(runs)),
        val_top1=mean_of([run.trained.facts["val_top1"] for run in runs], _same(runs)),
        seed_gain=seed_gain_of(pairs, name, study.baseline, noise) if compared else None,
        image_gain=image_gain(
            np.stack([new.right for new, _ in pairs]),
            np.stack([old.right for _, old in pairs]),
            study.baseline,
        )
        if compared
        else None,
        passes=float(np.mean([run.trained.facts["passes"] for run in runs])),
        seconds=parts["training"],
        seconds_total=sum(parts.values()),
        seconds_parts=parts,
        flops_parts=_means([flops_of(run.build, run.arm) for run in runs]),
        teacher=_teacher(runs[0]),
    )


def _run(run: Run, base: Run | None, study: Study) -> SeedRun:
    facts = run.trained.facts
    gain = None if base is None else metrics.paired_gain(run.right, base.right, study.baseline)
    return SeedRun(
        seed=run.arm.seed,
        top1=metrics.proportion(run.right),
        val_top1=facts["val_top1"],
        gain=gain,
        seconds=facts["training_seconds"],
        steps=facts["steps"],
        epochs=facts["epochs"],
        passes=facts["passes"],
        weights_sha256=facts["weights_sha256"],
        notes=facts["notes"],
    )


def _teacher(run: Run) -> StudyTeacher | None:
    if run.teacher is None or run.teacher_right is None:
        return None
    stage = run.build.teacher
    combine, count = stage.facts["combine"], len(stage.facts["members"])
    said = combine in ("single", "ensemble")  # by the adaptation
    together = "" if said else f" ({combine}: {count})"
    return StudyTeacher(
        key=stage.fingerprint[:12],
        model=stage.facts["model"],
        adaptation=f"{stage.facts['adaptation']}{together}",
        val_top1=stage.facts["val_top1"],
        top1=metrics.proportion(run.teacher_right),
        seconds=run.build.teacher_seconds,
    )


def _seconds(run: Run) -> dict[str, float]:
    """Seconds of each part of a run; a probe's start is its training."""
    parts = seconds_of(run.build, run.arm)
    if run.arm.name != PROBE:
        parts["start"] = run.build.start_of(run.arm).seconds
    return parts


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def _spent(runs: Sequence[Run]) -> float:
    """Seconds of every stage that the runs stand on, each counted once."""
    stages: dict[str, float] = {}
    for run in runs:
        build = run.build
        used = [build.data, build.planned, build.pixels, build.start_of(run.arm)]
        if run.arm.name in TAUGHT:
            used += [*build.teacher_stages, *build.stored_of(run.arm)]
        if run.arm.name == SYNTH:
            used.append(build.pixels_of(run.arm))
        used += [done for done in (run.trained, run.tested, run.teacher) if done is not None]
        stages.update({done.name: done.seconds for done in used})
    return sum(stages.values())


def mean_of(values: Sequence[float], same: bool = False) -> Mean:
    """Mean of an accuracy over seeds with its 95 % t interval, inside [0, 1]; none where the seed changes nothing."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or same:
        return Mean(value=mean, seeds=n)
    half = student_t(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Mean(value=mean, ci95=(max(0.0, mean - half), min(1.0, mean + half)), seeds=n)


def _same(runs: Sequence[Run]) -> bool:
    """Whether the seed changed nothing, as with a linear probe."""
    return len({run.trained.facts["weights_sha256"] for run in runs}) == 1


def seed_gain_of(
    pairs: Sequence[tuple[Run, Run]], name: str, against: str, noise: Sequence[SeedNoise]
) -> SeedGain:
    """Gain of arm `name` over pairs of runs with one seed; no interval where the seed changes neither arm."""
    new, old = zip(*((float(a.right.mean()), float(b.right.mean())) for a, b in pairs), strict=True)
    found = seed_gain(new, old, against, known_of(noise, name, against, len(pairs)))
    if len(pairs) > 1 and all(_same(runs) for runs in zip(*pairs, strict=True)):
        words = f"{100 * found.value:+.1f} points, and the seed changes neither arm"
        return found.model_copy(update={"ci95": None, "words": words})
    return found


def _clear(arm: StudyArm, among: int) -> bool:
    """Whether the gain of the best of so many arms is more than chance, over images and over seeds, with Bonferroni's
    bound: it was chosen by both.
    """
    if arm.image_gain is None or not metrics.measurable(arm.image_gain):
        return False
    over_seeds = arm.seed_gain.p_value if arm.seed_gain else None
    return max(arm.image_gain.p_value, over_seeds or 0.0) < metrics.SIGNIFICANT / among


def headline(arms: Sequence[StudyArm], baseline: str) -> str:
    """The study in one sentence."""
    ran = [arm for arm in arms if arm.top1 is not None]
    if not ran:
        return "No run is finished yet."
    best = max(ran, key=lambda arm: arm.top1.value if arm.top1 else 0.0)
    assert best.top1 is not None
    reached = f"{100 * best.top1.value:.1f} % of the test images"
    if best.name == baseline:
        others = "no other arm does better" if len(ran) > 1 else "no other arm has run"
        return f"{baseline}, the baseline, has {reached} right, and {others}."
    if best.image_gain is None or best.seed_gain is None:
        return f"{best.name} has {reached} right; the baseline {baseline} has not run."
    words = best.seed_gain.words if best.seed_gain.ci95 is not None else best.image_gain.words
    among = len(ran) - 1
    of = f" among {among} arms" if among > 1 else ""
    verdict = "is best" if _clear(best, among) else f"is ahead, by no more than chance allows{of}"
    return f"{best.name} {verdict}: {reached} right; against {baseline} {words}."


def _remarks(study: Study, arms: Sequence[StudyArm], noise: Sequence[SeedNoise]) -> list[str]:
    remarks = []
    done, wanted = sum(len(arm.runs) for arm in arms), len(study.arms) * len(study.seeds)
    if done < wanted:
        remarks.append(f"{done} of {wanted} runs are finished; the same command goes on.")
    if sum(arm.top1 is not None for arm in arms) >= MANY:
        remarks.append(
            "The arm that is best of several on the same test images is flattered by that choice: "
            "choose by validation, or confirm it on other images."
        )
    if noise:
        judged_from = " and ".join(str(one.arms) for one in noise)
        remarks.append(
            f"Gains by seed: how far a seed moves an arm is judged from {judged_from} arms of one student together (t "
            "interval with moderated variances, Smyth 2004), since few seeds tell little of one arm alone."
        )
    if len(study.claims) >= MANY_CLAIMS:
        remarks.append(
            f"Each of the {len(study.claims)} claims is judged by itself at 95 %: of those about arms that do not "
            "differ, up to one in twenty is told to hold, or not to, by chance."
        )
    if len({arm.teacher.key for arm in arms if arm.teacher}) < sum(
        arm.teacher is not None for arm in arms
    ):
        remarks.append(
            "Time in all counts the teacher's preparation and stored outputs in full in each arm that uses them; arms "
            "with the same teacher share them here, and so do later runs."
        )
    notes = [
        f"{arm.name}, seed {run.seed}: {note}"
        for arm in arms
        for run in arm.runs
        for note in run.notes
    ]
    return remarks + notes
