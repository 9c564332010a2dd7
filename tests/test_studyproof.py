"""What a study says of its arms: intervals over seeds and over images, the headline, and how long the rest takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from study_samples import CROWD, make_study, unrun

from edgedistill.studyproof import headline, mean_of
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
    over_seeds = best.seed_gain.model_copy(update={"ci95": (0.01, 0.03)})
    over_images = best.image_gain.model_copy(update={"ci95": (0.01, 0.03), "p_value": 0.001})
    by_chance = best.image_gain.model_copy(update={"ci95": (-0.01, 0.03), "p_value": 0.3})
    sure = best.model_copy(update={"seed_gain": over_seeds, "image_gain": over_images})
    assert "is best" in headline([study.arms[0], sure], "plain")
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
