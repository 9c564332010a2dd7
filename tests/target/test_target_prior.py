"""The prior: what it prefers, and what earlier runs change in its ranking."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgedistill.errors import UsageError
from edgedistill.target.prior import earlier_from, expected_top1, read_earlier
from edgedistill.target.students import find_student


def test_the_prior_prefers_large_inputs_pretrained_weights_and_float() -> None:
    lite0 = find_student("tf_efficientnet_lite0")
    best = expected_top1(lite0, 224, "float32", pretrained=True)
    assert best == pytest.approx(lite0.imagenet_top1)
    assert expected_top1(lite0, 256, "float32", pretrained=True) == best
    assert expected_top1(lite0, 112, "float32", pretrained=True) == pytest.approx(best - 0.08)
    assert expected_top1(lite0, 224, "float32", pretrained=False) == pytest.approx(best - 0.10)
    assert expected_top1(lite0, 224, "int8", pretrained=True) == pytest.approx(best - 0.02)


def _run(model: str, beyond: float, size: int = 96) -> Any:
    """A result of `model` that reached `beyond` more than the prior."""
    top1 = expected_top1(find_student(model), size, "float32", pretrained=False) + beyond
    arm = SimpleNamespace(name="distilled", val_top1=top1)
    student = SimpleNamespace(model=model, input_size=size, weights="random")
    return SimpleNamespace(student=student, arms=[arm], chosen_arm="distilled")


def test_students_that_did_better_before_rank_higher_and_so_does_their_family() -> None:
    found = earlier_from([_run("mobilenetv2_100", 0.1), _run("lcnet_100", -0.1)])
    assert found.runs == 2
    assert found.of(find_student("mobilenetv2_100")) == pytest.approx(0.05)
    assert found.of(find_student("mobilenetv2_050")) == pytest.approx(0.1 / 3)
    assert found.of(find_student("lcnet_100")) == pytest.approx(-0.05)
    assert found.of(find_student("resnet18")) == 0


def test_images_that_are_easier_for_all_change_no_ranking() -> None:
    found = earlier_from([_run("mobilenetv2_100", 0.2), _run("lcnet_100", 0.2)])
    assert all(abs(value) < 1e-12 for value in found.students.values())


def test_one_student_alone_says_nothing_of_the_others() -> None:
    found = earlier_from([_run("mobilenetv2_100", 0.2), _run("mobilenetv2_100", 0.1)])
    assert found.students == {} and found.runs == 2


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "result.json").write_text(json.dumps({"schema": "no"}))
    with pytest.raises(UsageError, match=r"plan\.earlier"):
        read_earlier(tmp_path)
