"""Linear probes: what they learn, and how their strength is chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgedistill.errors import TeacherError
from edgedistill.metrics import top1
from edgedistill.nets import Floats, Ints
from edgedistill.teacher import probe as room
from edgedistill.teacher.probe import for_a_head, linear_probe, resized


def clusters(n: int, seed: int, spread: float = 0.3) -> tuple[Floats, Ints]:
    """Points around the corners of a simplex, with features of very different scales."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % 4
    points = 3 * np.eye(4)[labels] + spread * rng.standard_normal((n, 4))
    noise = rng.standard_normal((n, 3)) * np.array([100.0, 1e-3, 1.0])
    return np.concatenate([points, noise + 7], axis=1).astype(np.float32), labels


# The probe


def test_the_probe_is_right_everywhere_on_separable_features() -> None:
    probe = linear_probe(*clusters(60, 0), *clusters(80, 1), 4)
    assert probe.val_top1 == 1.0
    x, y = clusters(200, 2)
    logits = torch.from_numpy(x) @ probe.weight.T + probe.bias
    assert top1(logits.numpy(), y) == 1.0
    assert probe.weight.dtype == torch.float32 and probe.weight.shape == (4, 7)


def test_the_strength_is_chosen_on_held_out_training_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fits are stood in for by ones of which the second strength's is right, so only the folds can tell."""
    x, y = clusters(40, 0)
    good = torch.zeros(4, 7)
    good[:, :4] = torch.eye(4)
    asked: list[tuple[int, float]] = []

    def fit(
        z: Tensor, labels: Tensor, classes: int, strength: float, start: Any = None, steps: int = 60
    ) -> tuple[Tensor, Tensor]:
        asked.append((len(z), strength))
        right = strength == room.PROBE_STRENGTHS[1]
        return (good if right else -good), torch.zeros(4)

    monkeypatch.setattr(room, "_fit", fit)
    probe = linear_probe(x, y, *clusters(40, 1), 4)
    assert asked == [(32, s) for _ in range(5) for s in room.PROBE_STRENGTHS] + [
        (40, probe.strength)
    ]
    assert probe.strength == room.PROBE_STRENGTHS[1] and probe.val_top1 == 1.0


def test_noise_calls_for_a_strong_pull_and_clear_classes_for_a_weak_one() -> None:
    """Real fits: many features that mean nothing, then features that say it all."""
    rng = np.random.default_rng(0)
    y = np.arange(60, dtype=np.int64) % 4
    noise = rng.standard_normal((60, 200)).astype(np.float32)
    noise[:, 0] += y
    assert linear_probe(noise, y, noise, y, 4).strength == max(room.PROBE_STRENGTHS)
    assert linear_probe(*clusters(200, 0), *clusters(40, 1), 4).strength == min(
        room.PROBE_STRENGTHS
    )


def test_folds_hold_each_class_evenly_and_the_images_of_the_choice_are_bounded() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int64), (50, 20, 7))
    folds = room.folds_of(labels, 0)
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=room.FOLDS)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(folds, room.folds_of(labels, 1))
    rows = room.cv_rows(10_000, 10, 0)
    assert len(rows) == room.CV_IMAGES and len(set(rows.tolist())) == len(rows)
    assert (np.diff(rows) > 0).all()
    assert len(room.cv_rows(50_000, 1_000, 0)) == 5_000 and len(room.cv_rows(30, 10, 0)) == 30


def test_one_image_a_class_still_gives_a_head() -> None:
    x, y = clusters(4, 0)
    assert linear_probe(x, y, *clusters(20, 1), 4).weight.shape == (4, 7)


def test_a_stronger_pull_makes_a_smaller_head() -> None:
    x, y = clusters(60, 0)
    z = torch.from_numpy(x).double()
    z = (z - z.mean(0)) / z.std(0)
    norms = [float(room._fit(z, torch.from_numpy(y), 4, s)[0].norm()) for s in room.PROBE_STRENGTHS]
    assert norms == sorted(norms) and norms[-1] > 2 * norms[0]


def test_the_probe_finds_the_minimum_of_its_loss() -> None:
    x, y = clusters(60, 0, spread=2.0)
    z = torch.from_numpy(x).double()
    z = (z - z.mean(0)) / z.std(0)
    w, b = (t.requires_grad_() for t in room._fit(z, torch.from_numpy(y), 4, 1e-2))
    loss = nn.functional.cross_entropy(z @ w.T + b, torch.from_numpy(y)) + 1e-2 * w.square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert w.grad is not None and float(w.grad.abs().max()) < 1e-3


def test_features_that_never_change_do_no_harm() -> None:
    x, y = clusters(60, 0)
    x[:, 6] = 5.0
    probe = linear_probe(x, y, *clusters(40, 1), 4)
    assert bool(torch.isfinite(probe.weight).all()) and bool(torch.isfinite(probe.bias).all())


def test_features_that_are_no_numbers_are_the_teachers_fault() -> None:
    x, y = clusters(20, 0)
    x[3, 2] = np.nan
    with pytest.raises(TeacherError, match="not finite"):
        linear_probe(x, y, *clusters(20, 1), 4)


def test_a_first_head_sees_some_images_of_a_large_set_and_all_of_a_small_one() -> None:
    pixels, truth = np.arange(5000, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(5000)
    some = for_a_head((pixels, truth), 10, 0)
    assert len(some[1]) == 2000 and len(set(some[1])) == 2000
    assert (some[0][:, 0, 0, 0] == some[1].astype(np.uint8)).all()
    assert len(for_a_head((pixels, truth), 60, 0)[1]) == 3000
    assert len(for_a_head((pixels[:100], truth[:100]), 10, 0)[1]) == 100


def test_images_at_another_size_are_the_same_images() -> None:
    rng = np.random.default_rng(0)
    flat = np.tile(rng.integers(0, 256, (300, 1, 1, 3), dtype=np.uint8), (1, 24, 24, 1))
    for size in (8, 24, 40):
        again = resized(flat, size)
        assert again.shape == (300, size, size, 3) and again.dtype == np.uint8
        assert (again == flat[:, :1, :1]).all()
    assert resized(flat, 24) is flat
