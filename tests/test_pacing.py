"""A pace is measured by the engine itself, and leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from edgedistill import pacing
from edgedistill.data.views import Views
from edgedistill.derive import resolve
from edgedistill.distill.methods import method_values
from edgedistill.distill.spec import StudentSpec
from edgedistill.nets import Look
from edgedistill.recipe import DistillSection, Layered, Recipe

LOOK, VIEWS = Look(32, (0.5,) * 3, (0.5,) * 3), Views(0, 0.8, True, 2)
SPEC = StudentSpec("mobilenetv3_small_050", 32, 4, pretrained=False)


def section(method: str = "align_uniform") -> DistillSection:
    """A resolved section with small batches."""
    recipe = Recipe.model_validate(
        {"distill": {"method": method, "batch_size": 8, "lr": 1e-3, "epochs": 9, "frozen_norm": False,
                     "frozen_share": 0.0, "clip": None, "precision": "float32"}}
    )  # fmt: skip
    return resolve(Layered(recipe, {}), method_values(recipe)).recipe.distill


def test_a_pace_has_a_time_for_each_kind_of_step_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = pacing.pace_of(SPEC, section(), VIEWS, LOOK, 36, 1280, seconds=0.05)
    assert min(found.train_s, found.taught_s, found.validate_s) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["kd", "crd", "dist", "soft"])
def test_every_method_can_be_paced(method: str) -> None:
    assert pacing.pace_of(SPEC, section(method), VIEWS, LOOK, 36, 64, seconds=0.01).taught_s > 0


def test_a_pace_takes_as_many_steps_as_its_seconds_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def trained(*given: object) -> float:
        counts.append(int(str(given[-1])))
        return 0.01 * counts[-1]

    monkeypatch.setattr(pacing, "_train", trained)
    found = pacing.pace_of(SPEC, section(), VIEWS, LOOK, 36, 64, seconds=2.0)
    assert counts[0] == counts[2] == 8 * pacing.FIRST_STEPS
    assert counts[1] == pytest.approx(2.0 / 0.01, rel=0.5)
    assert found.train_s == pytest.approx(0.01, rel=0.3)
