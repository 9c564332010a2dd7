"""What teachers say of views: alone, together, one after the other, and never what is no number."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from teacher_parts import CPU, Trainer, Tuner, arrays, done_of, saved, taught

from edgedistill.data.views import Views
from edgedistill.errors import TeacherError
from edgedistill.nets import forward
from edgedistill.recipe import TeacherSection
from edgedistill.teacher.lecturer import lecturers
from edgedistill.teacher.stage import look_of, restore
from edgedistill.teacher.voice import together

VIEWS = Views(seed=3, min_crop=0.6, flip=True, count=4, mix="mixup")
INDEX = np.array([4, 0, 7, 29], dtype=np.int64)


def stage(tmp_path: Path, section: TeacherSection, tuner: Any = None) -> Any:
    facts, work = taught(tmp_path, section, tuner or Tuner())
    return done_of(work, json.loads(json.dumps(facts)))


def pair(tmp_path: Path, combine: Any) -> TeacherSection:
    large = saved(tmp_path / "large", "vit_tiny_patch16_224", img_size=48)
    small = saved(tmp_path / "small", "test_resnet")
    return TeacherSection(model=large, others=[small], combine=combine, adapt="probe")


def said(done: Any, member: int, view: int, canvas: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What one member says of a view, the long way."""
    facts = done.facts["members"][member]
    look = look_of(facts)
    x = look.normalise(VIEWS.pixels(canvas, INDEX, view, look.size, CPU))
    with torch.inference_mode():
        return forward(restore(done, member).eval(), x)


def near(got: torch.Tensor, want: torch.Tensor) -> bool:
    """The same but for bfloat16, where this processor has it."""
    return bool((got - want).abs().max() <= 0.03 * want.abs().max())


def test_a_single_teacher_speaks_for_itself_of_the_view_it_is_asked(tmp_path: Path) -> None:
    done = stage(tmp_path, TeacherSection(model=saved(tmp_path / "m"), adapt="probe"))
    canvas = arrays(tmp_path).train
    (one,) = lecturers(done, canvas, VIEWS, CPU)
    for view in (0, 3):
        features, logits = one(INDEX, view)
        want = said(done, 0, view, canvas)
        assert near(features, want[0]) and near(logits, want[1])
        assert features.dtype == logits.dtype == torch.float32
    assert features.shape == (4, one.features) and logits.shape == (4, 3)
    projector = torch.nn.Linear(one.features, 2)
    projector(features).sum().backward()
    assert projector.weight.grad is not None, "a live teacher's features go into what is trained"
    assert not torch.equal(one(INDEX, 0)[1], one(INDEX, 1)[1])
    assert torch.equal(one(INDEX, 2)[1], one(INDEX, 2)[1])


def test_an_ensemble_is_one_lecturer_whose_features_stand_side_by_side(tmp_path: Path) -> None:
    done = stage(tmp_path, pair(tmp_path, "ensemble"))
    canvas = arrays(tmp_path).train
    (one,) = lecturers(done, canvas, VIEWS, CPU)
    features, logits = one(INDEX, 1)
    (f0, z0), (f1, z1) = said(done, 0, 1, canvas), said(done, 1, 1, canvas)
    assert one.features == f0.shape[1] + f1.shape[1] == features.shape[1]
    np.testing.assert_allclose(features[:, : f0.shape[1]].norm(dim=1), np.ones(4), atol=1e-5)
    assert near(features, torch.cat([F.normalize(f0), F.normalize(f1)], dim=1))
    mean = (z0.softmax(1) + z1.softmax(1)) / 2
    np.testing.assert_allclose(logits.exp(), mean, atol=0.02)
    np.testing.assert_allclose(logits.exp().sum(1), np.ones(4), atol=1e-5)


def test_a_ladder_has_a_lecturer_a_step_from_small_to_large(tmp_path: Path) -> None:
    done = stage(tmp_path, pair(tmp_path, "ladder"))
    canvas = arrays(tmp_path).train
    steps = lecturers(done, canvas, VIEWS, CPU)
    assert [one.features for one in steps] == [96, 192]
    for member, one in enumerate(steps):
        assert near(one(INDEX, 0)[1], said(done, member, 0, canvas)[1])


def test_early_states_speak_one_after_the_other(tmp_path: Path) -> None:
    from edgedistill.rundir import Work

    work = Work(tmp_path / "stage")
    work.folder.mkdir()
    data = arrays(tmp_path)
    section = TeacherSection(model=saved(tmp_path / "m"), adapt="finetune", epochs=6, checkpoints=2)
    done = stage(tmp_path, section, Trainer(work, data, 6, lr=0.1))
    steps = lecturers(done, data.train, VIEWS, CPU)
    assert [one.name.rpartition(" after ")[2] for one in steps][:2] == ["epoch 2", "epoch 4"]
    confidence = [float(one(INDEX, 0)[1].softmax(1).max(1).values.mean()) for one in steps]
    assert len(set(confidence)) == 3


def test_together_is_the_log_of_mean_probabilities_however_large_the_logits() -> None:
    torch.manual_seed(0)
    said_by = [(torch.randn(5, 4), 300 * torch.randn(5, 3)) for _ in range(3)]
    features, logits = together(said_by)
    want = torch.stack([z.double().softmax(1) for _, z in said_by]).mean(0)
    torch.testing.assert_close(logits.double().exp(), want, atol=1e-6, rtol=1e-4)
    assert features.shape == (5, 12) and bool(torch.isfinite(logits).all())
    assert together(said_by[:1])[1] is said_by[0][1]


@pytest.mark.parametrize("part", ["features", "logits"])
def test_what_is_no_number_is_named_with_the_view_and_the_teacher(
    part: str, tmp_path: Path
) -> None:
    done = stage(tmp_path, TeacherSection(model=saved(tmp_path / "m"), adapt="probe"))
    (one,) = lecturers(done, arrays(tmp_path).train, VIEWS, CPU)
    net: Any = one.voices[0].network
    with torch.inference_mode():
        (net.conv1[0].weight if part == "features" else net.fc.bias)[0] = math.nan
    with pytest.raises(TeacherError) as caught:
        one(INDEX, 2)
    text = str(caught.value)
    assert f"gives {part} that are not finite for 4 of 4 images of view 2" in text
    assert str(tmp_path / "m") in text
