"""What a study says of its arms: intervals over seeds and over images, the headline, and how long the rest takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from study_samples import CROWD, make_study, unrun

from edgedistill.seeds import student_t
from edgedistill.studyproof import Run, headline, mean_of, noise_of, seed_gain_of
from edgedistill.studyrun import Unit, seconds_left


@dataclass(frozen=True)
class _Took:
    trained: Any
    tested: Any


def took(seconds: float) -> Any:
    return _Took(SimpleNamespace(seconds=seconds - 1), SimpleNamespace(seconds=1.0))


def test_a_mean_over_seeds_has_the_t_interval() -> None:
    found = mean_of([0.80, 0.82, 0.84])
    half = 4.3027 * 0.02 / math.sqrt(3)
    assert found.value == pytest.approx(0.82)
    assert found.ci95 == pytest.approx((0.82 - half, 0.82 + half))
    assert mean_of([0.9]).ci95 is None
    assert mean_of([0.9, 0.9], same=True).ci95 is None
    assert mean_of([0.0, 1.0]).ci95 == (0.0, 1.0)


def test_the_headline_claims_no_more_than_the_interval_allows() -> None:
    study = make_study()
    best = max(study.arms, key=lambda arm: arm.top1.value if arm.top1 else 0)
    assert best.name in study.headline
    assert best.seed_gain is not None
    assert best.seed_gain.words in study.headline
    assert best.seed_gain.ci95 is not None and best.image_gain is not None
    clear = best.seed_gain.ci95[0] > 0 and best.image_gain.ci95[0] > 0
    assert ("is best" in study.headline) == clear
    over_seeds = best.seed_gain.model_copy(update={"ci95": (0.01, 0.03), "p_value": 0.001})
    over_images = best.image_gain.model_copy(update={"ci95": (0.01, 0.03), "p_value": 0.001})
    by_chance = best.image_gain.model_copy(update={"ci95": (-0.01, 0.03), "p_value": 0.3})
    sure = best.model_copy(update={"seed_gain": over_seeds, "image_gain": over_images})
    assert "is best" in headline([study.arms[0], sure], "plain")
    many = [sure.model_copy(update={"name": f"arm{i}"}) for i in range(50)]
    assert "is ahead, by no more than chance allows among 50 arms" in headline(
        [study.arms[0], *many], "plain"
    )
    by_seed = over_seeds.model_copy(update={"p_value": 0.03})
    lucky = sure.model_copy(update={"seed_gain": by_seed})
    assert "is best" in headline([study.arms[0], lucky], "plain")
    assert "is best" not in headline([study.arms[0], lucky, study.arms[1]], "plain")
    lucky = best.model_copy(update={"seed_gain": over_seeds, "image_gain": by_chance})
    assert "is best" not in headline([study.arms[0], lucky], "plain")


def test_the_headline_of_a_study_that_has_hardly_begun() -> None:
    study = make_study(CROWD[:2])
    assert unrun(study, "plain", "kd").headline == "No run is finished yet."
    assert "no other arm has run" in unrun(study, "kd").headline
    alone = study.arms[1].model_copy(update={"seed_gain": None, "image_gain": None})
    assert "the baseline plain has not run" in headline([alone], "plain")
    worse = make_study([CROWD[0], ("low", "distilled", 0.5, 60.0, 150.0)])
    assert worse.headline.startswith("plain, the baseline, has")
    assert "no other arm does better" in worse.headline


def runs_of(
    place: int, top1: float, seeds: int = 3, moved: bool = True, images: int = 500
) -> list[Run]:
    """Runs of an arm, of which nothing counts but the seed, what is right, and the hash of the weights."""
    rng = np.random.default_rng(place)
    stage: Any = SimpleNamespace(
        spec_of=lambda arm: "a student", dataset=SimpleNamespace(train=range(images))
    )
    found = []
    for seed in range(seeds):
        own: Any = SimpleNamespace(facts={"weights_sha256": f"{place * 8 + seed * moved:064x}"})
        arm: Any = SimpleNamespace(seed=seed)
        right = rng.random(2000) < top1 if moved or not seed else found[0].right
        found.append(Run(stage, arm, own, stage, right, None, None))
    return found


def test_where_arms_are_many_the_noise_of_a_seed_is_judged_from_all_that_it_moves() -> None:
    runs = {f"arm{i}": runs_of(i, 0.8) for i in range(8)} | {"begun": runs_of(8, 0.8, 1)}
    runs |= {"probe": runs_of(9, 0.7, moved=False)}
    (noise,) = noise_of(runs)
    assert noise.arms == 8
    pairs = list(zip(runs["arm1"], runs["arm0"], strict=True))
    found, known = seed_gain_of(pairs, "arm1", "arm0", [noise]), noise.known("arm1", "arm0", 3)
    assert known is not None and found.noise_arms == 8 and found.ci95 is not None
    assert found.ci95[1] == pytest.approx(found.value + student_t(known.degrees) * known.error)
    assert seed_gain_of(pairs, "arm1", "arm0", []).noise_arms == 0
    assert seed_gain_of(pairs[:1], "begun", "arm0", [noise]).ci95 is None
    beside = list(zip(runs["probe"], runs["arm0"], strict=True))
    assert seed_gain_of(beside, "probe", "arm0", [noise]).noise_arms == 0
    assert noise_of({name: runs[name] for name in ("arm0", "arm1")}) == []


def test_arms_on_other_images_have_a_noise_of_their_own() -> None:
    """A training on few images hangs more on its seed."""
    many = {f"many{i}": runs_of(i, 0.8) for i in range(7)}
    few = {f"few{i}": runs_of(10 + i, 0.6, images=20) for i in range(7)}
    noises = noise_of(many | few)
    assert [noise.arms for noise in noises] == [7, 7]
    pairs = list(zip(few["few1"], many["many0"], strict=True))
    assert seed_gain_of(pairs, "few1", "many0", noises).noise_arms == 0


def test_what_is_left_is_as_long_as_runs_of_the_arm_then_of_its_kind_then_any() -> None:
    kd, au, ft = (Unit("kd", "distilled", 0), Unit("au", "distilled", 0), Unit("ft", "finetune", 0))
    assert seconds_left([kd], {}) is None
    assert seconds_left([au], {kd: took(10)}) == 10
    assert seconds_left([ft], {kd: took(10), au: took(30)}) == 20
    assert (
        seconds_left(
            [Unit("kd", "distilled", 1), Unit("au", "distilled", 1)], {kd: took(10), au: took(30)}
        )
        == 40
    )
    assert seconds_left([], {kd: took(10)}) == 0
