"""What the arms turned out to be, from what stages leave: gains, seeds, seconds and operations of each part."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from edgedistill import metrics
from edgedistill.arms import DISTILLED, FINETUNE, LONGER, PLAIN, PROBE, SYNTH, WORDS, Arm, arms_of
from edgedistill.distill.spec import StudentSpec
from edgedistill.evidence.view import comparisons as shown
from edgedistill.findings import Outcome
from edgedistill.proof import arms_of as proven
from edgedistill.proof import pass_flops
from edgedistill.recipe import DistillSection, Recipe
from edgedistill.result import Arm as ArmResult
from edgedistill.rundir import Done
from edgedistill.target.students import find_student

SPEC = StudentSpec("mobilenetv3_small_050", 64, 4, pretrained=False)
IMAGES = 400
RIGHT = {PLAIN: 0.6, DISTILLED: 0.75, SYNTH: 0.8, LONGER: 0.7, PROBE: 0.5, FINETUNE: 0.85}


def done(name: str, seconds: float, **facts: Any) -> Done:
    return Done(name, Path(name), "0" * 64, facts, seconds)


@dataclass
class Learned:
    """What is asked of a finished build: its recipe, its arms and what each stage left."""

    recipe: Recipe
    flops: int | None = 1_000
    spec: StudentSpec = SPEC
    chosen_arm: str = DISTILLED
    arms: list[Arm] = field(init=False)
    selection: Done | None = None
    candidates: tuple[Done, ...] = ()
    teacher_seconds: float = 100.0

    def __post_init__(self) -> None:
        self.arms = arms_of(self.recipe, pretrained=False)

    def arm(self, arm: Arm) -> Done:
        """A finished training, a second longer for each seed."""
        probe = arm.name == PROBE
        curve = [{"epoch": e, "loss": 1 / e, "val_top1": 0.5, "seconds": 1.0 * e} for e in (1, 2)]
        return done(
            arm.key, 50.0, val_top1=RIGHT[arm.name] + 0.01 * arm.seed, steps=0 if probe else 20,
            passes=0 if probe else 1280, epochs=0 if probe else 2,
            training_seconds=4.0 if probe else 30.0 + arm.seed, weights_sha256="ab" * 32,
            curve=[] if probe else curve, notes=["went back"] if arm.name == DISTILLED else [],
        )  # fmt: skip

    @property
    def teacher(self) -> Done:
        """Stage 04."""
        flops = None if self.flops is None else 70 * self.flops
        return done(
            "04-teacher", 100.0, flops=self.flops, preparation_flops=flops, combine="single"
        )

    def stored_of(self, arm: Arm) -> list[Done]:
        """Stage 06; of synthetic images half as much again."""
        found = [done("06-targets", 8.0, passes=800)]
        return found + [done("06-targets@synthetic", 4.0, passes=400)] * (arm.name == SYNTH)

    def pixels_of(self, arm: Arm) -> Done:
        """Stage 05, whose images an earlier try had made."""
        assert arm.name == SYNTH
        return done("05-synth", 3.0, making_seconds=40.0, judging_seconds=2.0)


def outcome(learn: Learned, seed: int = 0) -> Outcome:
    """Logits of every arm, right on the share that `RIGHT` says."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, IMAGES)
    networks = {}
    for arm in learn.arms:
        right = rng.random(IMAGES) < RIGHT[arm.name]
        answer = np.where(right, labels, (labels + 1) % 4)
        networks[arm.key] = np.eye(4, dtype=np.float32)[answer]
    return Outcome(networks, {}, labels)


def prove(learn: Learned) -> dict[str, ArmResult]:
    return {arm.name: arm for arm in proven(cast(Any, learn), outcome(learn))}


def recipe(**proof: Any) -> Recipe:
    return Recipe.model_validate({"proof": proof})


EVERY = recipe(seeds=3, equal_seconds=True, arms=["linear_probe", "finetune"])


def test_an_arm_stands_once_with_the_words_for_what_it_is() -> None:
    arms = prove(Learned(EVERY))
    assert list(arms) == [PLAIN, DISTILLED, LONGER, PROBE, FINETUNE]
    assert {name: arm.what for name, arm in arms.items()} == {
        name: words for name, words in WORDS.items() if name != SYNTH
    }
    assert arms[DISTILLED].notes == ["went back"] and arms[PLAIN].notes == []
    assert [p.seconds for p in arms[PLAIN].curve] == [1.0, 2.0]


def test_the_distilled_arm_is_compared_with_every_other_and_no_other_with_any() -> None:
    learn = Learned(EVERY)
    found, arms = outcome(learn), prove(learn)
    assert [gain.against for gain in arms[DISTILLED].gains] == [PLAIN, LONGER, PROBE, FINETUNE]
    assert arms[DISTILLED].gain == arms[DISTILLED].gains[0]
    assert all(arm.gains == [] and arm.gain is None for n, arm in arms.items() if n != DISTILLED)
    for gain in arms[DISTILLED].gains:
        right, other = found.right(DISTILLED), found.right(gain.against)
        assert gain.value == pytest.approx(right.mean() - other.mean())
        new_only = int((right & ~other).sum())
        discordant = new_only + int((other & ~right).sum())
        assert gain.p_value == pytest.approx(stats.binomtest(new_only, discordant).pvalue)


def test_seeds_are_listed_and_their_gain_has_the_interval_of_a_paired_t_test() -> None:
    learn = Learned(EVERY)
    found, arms = outcome(learn), prove(learn)
    for name, arm in arms.items():
        keys = [a.key for a in learn.arms if a.name == name]
        assert [s.seed for s in arm.seeds] == [0, 1, 2]
        assert [s.top1 for s in arm.seeds] == [float(found.right(key).mean()) for key in keys]
        assert arm.top1.value == arm.seeds[0].top1
        assert [s.val_top1 for s in arm.seeds] == pytest.approx(
            [RIGHT[name] + 0.01 * k for k in range(3)]
        )
    gaps = [a.top1 - b.top1 for a, b in zip(arms[DISTILLED].seeds, arms[PLAIN].seeds, strict=True)]
    over = arms[DISTILLED].seed_gain
    assert over is not None and over.ci95 is not None
    expected = stats.ttest_1samp(gaps, 0.0).confidence_interval(0.95)
    assert over.value == pytest.approx(np.mean(gaps))
    assert over.ci95 == pytest.approx((expected.low, expected.high), rel=1e-4)
    assert arms[PLAIN].seed_gain is None


def test_one_seed_says_nothing_of_seeds() -> None:
    arms = prove(Learned(recipe()))
    assert list(arms) == [PLAIN, DISTILLED]
    assert all(arm.seeds == [] and arm.seed_gain is None for arm in arms.values())


def test_the_teacher_and_storing_are_parts_of_the_distilled_arm_alone() -> None:
    arms = prove(Learned(EVERY))
    assert arms[DISTILLED].seconds_parts == {
        "training": 30.0, "teacher preparation": 100.0, "storing teacher outputs": 8.0,
    }  # fmt: skip
    assert arms[DISTILLED].seconds == 138.0
    assert shown.own_seconds(arms[DISTILLED]) == 30.0
    assert all(set(arm.seconds_parts) == {"training"} for n, arm in arms.items() if n != DISTILLED)
    assert arms[PROBE].seconds == 4.0


def test_operations_are_those_of_forward_and_backward_passes() -> None:
    arms = prove(Learned(EVERY))
    macs = find_student(SPEC.model).macs(SPEC.size, SPEC.classes)
    assert arms[PLAIN].flops_parts == {"training": 6.0 * macs * 1280}
    assert arms[DISTILLED].flops_parts == {
        "training": 6.0 * macs * 1280,
        "teacher preparation": 70_000,
        "storing teacher outputs": 1_000 * 800,
    }
    assert arms[PROBE].flops_parts == {}


def test_a_live_teacher_is_asked_as_often_as_the_student_learns() -> None:
    live = recipe().model_copy(update={"distill": DistillSection(targets="live")})
    parts = prove(Learned(live))[DISTILLED].flops_parts
    assert parts["teacher at each step"] == 1_000 * 1280
    assert "storing teacher outputs" not in parts


def test_a_selected_teacher_costs_what_every_candidate_did_and_the_short_trainings() -> None:
    learn = Learned(recipe())
    facts = {"combine": "single", "members": []}
    learn.candidates = (
        done("04-teacher", 5.0, flops=10, preparation_flops=700, **facts),
        done("04-teacher", 6.0, flops=30, preparation_flops=900, **facts),
    )
    learn.selection = done("04-teacher", 7.0, candidates=[{"passes": 64}, {"passes": 64}])
    macs = find_student(SPEC.model).macs(SPEC.size, SPEC.classes)
    want = 700 + 900 + 64 * (10 + 30 + 2 * 6.0 * macs)
    assert prove(learn)[DISTILLED].flops_parts["teacher preparation"] == pytest.approx(want)
    learn.candidates[1].facts["flops"] = None
    assert "teacher preparation" not in prove(learn)[DISTILLED].flops_parts


def test_teachers_that_take_turns_count_with_their_mean() -> None:
    members = [{"flops": 100}, {"flops": 300}]
    for combine, want in (("ladder", 200), ("checkpoints", 200), ("ensemble", 400)):
        facts = {"combine": combine, "flops": 400, "members": members}
        assert pass_flops(facts) == want
    unknown = {"combine": "ladder", "flops": 400, "members": [*members, {"flops": None}]}
    assert pass_flops(unknown) is None


def test_operations_of_a_teacher_that_cannot_be_counted_are_left_out() -> None:
    arms = prove(Learned(EVERY, flops=None))
    assert set(arms[DISTILLED].flops_parts) == {"training"}


def test_both_comparisons_are_named_whether_they_were_made_or_not() -> None:
    both = shown.arm_remarks(list(prove(Learned(EVERY)).values()))
    assert both[0].startswith("Distillation, equal steps: a gain of")
    assert both[1].startswith("Distillation, equal seconds (teacher and storing counted): ")
    assert both[1].endswith("plain training took 30.0 s, distillation 2 min 18 s in all")
    assert both[2].startswith("Distillation, over 3 seeds, equal steps: ")
    assert both[-1] == "distilled: went back"
    steps, seconds, _ = shown.arm_remarks(list(prove(Learned(recipe())).values()))
    assert steps.startswith("Distillation, equal steps: ")
    assert "not compared. Distillation took 2 min 18 s in all, 30.0 s of them without" in seconds
    assert "--set proof.equal_seconds=true" in seconds


def test_synthetic_images_are_compared_with_none_and_cost_what_it_took_to_make_and_judge_them() -> (
    None
):
    tree = {"synth": {"images": 10}, "proof": {"seeds": 3}}
    arms = prove(Learned(Recipe.model_validate(tree)))
    assert list(arms) == [PLAIN, DISTILLED, SYNTH]
    made = arms[SYNTH]
    assert [gain.against for gain in made.gains] == [PLAIN, DISTILLED]
    assert made.seed_gain is not None and made.seed_gain.against == DISTILLED
    assert [gain.against for gain in arms[DISTILLED].gains] == [PLAIN]
    assert made.seconds_parts["synthetic images"] == 42.0
    assert made.seconds_parts["storing teacher outputs"] == 12.0
    assert "synthetic images" not in arms[DISTILLED].seconds_parts
    said = shown.arm_remarks(list(arms.values()))
    assert any(words.startswith("Synthetic images, equal steps: ") for words in said)
    assert any(words.startswith("Synthetic images over 3 seeds, equal steps: ") for words in said)


def test_the_names_of_arms_are_the_same_in_the_views() -> None:
    mine = (shown.PLAIN, shown.LONGER, shown.DISTILLED, shown.SYNTHETIC)
    assert mine == (PLAIN, LONGER, DISTILLED, SYNTH)


def test_a_gain_that_is_none_is_called_so() -> None:
    right = np.arange(IMAGES) % 2 == 0
    assert metrics.paired_gain(right, right, "plain").words.startswith("no measurable gain")
