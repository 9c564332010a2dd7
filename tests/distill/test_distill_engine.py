"""What the engine can beside its plain loop: every option resumes to the bit and does what it says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from engine_parts import (
    CLASSES,
    LOOK,
    VIEWS,
    Killed,
    Killing,
    Knowing,
    images,
    make,
    network,
    outcome,
    taught,
    work,
)
from safetensors.torch import load_file
from torch import Tensor

from edgedistill.distill import hard
from edgedistill.distill.facts import kept
from edgedistill.distill.objectives import Plain
from edgedistill.distill.optim import layers, param_groups
from edgedistill.distill.trainer import Trainer
from edgedistill.nets import Ints, outputs
from edgedistill.progress import silent

OPTIONS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "average of weights": ({}, {"ema": 0.9}),
    "patience": ({}, {"patience": 2, "epochs": 4}),
    "sgd with clipping": ({}, {"optimizer": "sgd", "clip": 0.5}),
    "plateau and decay": ({}, {"lr_schedule": "wsd"}),
    "growing views": ({}, {"first_size": 0.5, "epochs": 4}),
    "layer-wise rates": ({}, {"layer_decay": 0.7}),
    "bfloat16": ({}, {"precision": "bfloat16"}),
    "memory bank": ({"method": "crd", "crd_negatives": 4}, {}),
    "decoupled": ({"method": "dkd"}, {}),
    "correlations": ({"method": "dist"}, {}),
    "contrast": ({"method": "info_nce"}, {}),
    "features": ({"method": "mse"}, {}),
    "misread first": ({"warmup_align": True}, {"epochs": 6}),
    "influence": ({"influence": True}, {}),
    "hard images last": ({}, {"hard": True, "epochs": 5}),
    "mixed views": ({}, {"views": replace(VIEWS, mix="cutmix", magnitude=5.0, erasing=0.5)}),
    "two teachers": ({}, {"teachers": 2}),
}  # fmt: skip


def trainer_of(name: str) -> Trainer:
    distill, rest = OPTIONS[name]
    teacher = Knowing((12, 7)) if rest.get("teachers") else Knowing()
    return make(taught(teacher, **distill), **rest)


@pytest.mark.parametrize("name", OPTIONS)
def test_killed_and_resumed_each_option_ends_with_the_weights_of_an_unbroken_run(
    name: str, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    whole = trainer_of(name)
    want = outcome(whole.run(work(tmp_path / "whole"), silent()), whole)
    folder = work(tmp_path / "broken")
    for steps in (4, 5, 6):
        torch.manual_seed(99)
        try:
            trainer_of(name).run(folder, Killing(steps))
        except Killed:
            continue
        break
    trainer = trainer_of(name)
    torch.manual_seed(77)
    assert outcome(trainer.run(folder, silent()), trainer) == want


def test_the_average_lies_between_the_weights_it_saw_and_ships_with_its_statistics(
    tmp_path: Path,
) -> None:
    plain, averaged = make(Plain()), make(Plain(), ema=0.9)
    plain.run(work(tmp_path / "a"), silent())
    averaged.run(work(tmp_path / "b"), silent())
    start = network().state_dict()
    name = "conv_stem.weight"
    end = plain.model.state_dict()[name]
    mean = averaged.model.state_dict()[name]
    assert 0 < float((mean - start[name]).norm()) < 1.01 * float((end - start[name]).norm())
    assert not torch.equal(mean, end)
    moved = averaged.model.state_dict()["bn1.running_mean"]
    assert not torch.equal(moved, start["bn1.running_mean"])


def test_without_patience_left_it_stops_and_the_best_weights_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(Plain(), epochs=9, patience=2)
    scores = iter([(0.2, 2.0), (0.6, 1.5), (0.5, 1.4), (0.5, math.inf), (0.9, 1.0)])
    monkeypatch.setattr(trainer.net, "validate", lambda *_, **__: next(scores))
    folder = work(tmp_path / "stage")
    fitted = trainer.run(folder, silent())
    assert [point.val_top1 for point in fitted.curve] == [0.2, 0.6, 0.5, 0.5]
    assert [point.val_loss for point in fitted.curve] == [2.0, 1.5, 1.4, None]
    assert (fitted.val_top1, fitted.val_loss, fitted.steps) == (0.6, 1.5, 12)
    best = load_file(folder.path("student.best"))
    shipped = trainer.model.state_dict()
    assert all(torch.equal(shipped[key], best[key]) for key in best)


def test_the_validation_loss_is_the_mean_cross_entropy_of_the_weights_that_ship(
    tmp_path: Path,
) -> None:
    trainer = make(Plain())
    fitted = trainer.run(work(tmp_path / "stage"), silent())
    logits = outputs(trainer.model, trainer.images.val_pixels, trainer.look, trainer.device)[1]
    labels = torch.from_numpy(trainer.images.val_labels)
    loss = float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), labels))
    assert fitted.val_loss == pytest.approx(loss, rel=1e-5)
    assert fitted.val_loss == fitted.curve[-1].val_loss


def test_weights_of_the_epochs_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    trainer = make(Plain(), keep=(1, 3))
    folder = work(tmp_path / "stage")
    trainer.run(folder, silent())
    files = sorted(p.name for p in folder.folder.glob("*.safetensors"))
    assert files == [kept("student", 1), kept("student", 3)]
    last = load_file(folder.path(kept("student", 3)))
    shipped = trainer.model.state_dict()
    assert all(torch.equal(shipped[key], last[key]) for key in last)


def test_a_step_that_does_not_fit_is_done_in_parts_with_the_same_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, and with BatchNorm that keeps its statistics, parts add up to the whole."""

    def run(fails: int, folder: Path) -> Trainer:
        torch.manual_seed(1)
        trainer = make(Plain(), frozen_norm=True)
        for module in trainer.model.modules():
            if "drop_rate" in vars(module):
                module.drop_rate = 0.0
            if type(module).__name__ in ("Dropout", "DropPath"):
                module.p = module.drop_prob = 0.0
        real, left = trainer._loss, [fails]

        def loss(index: Ints, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
            if left[0] and len(index) > 2:
                left[0] -= 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(index, epoch)

        monkeypatch.setattr(trainer, "_loss", loss)
        fitted = trainer.run(work(folder), silent())
        assert [("images at once" in note) for note in fitted.notes] == [True] * fails
        return trainer

    whole, parts = run(0, tmp_path / "a"), run(2, tmp_path / "b")
    assert (whole.micro, parts.micro) == (6, 1)
    for (name, p), q in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-4), name


def test_an_image_without_a_label_is_seen_by_a_teachers_student_only() -> None:
    data = images(20, unlabelled=8)
    plain, distilled = make(Plain(), data), make(taught(), data)
    assert plain.total == distilled.total
    seen = {int(i) for k in range(9) for i in plain.batch(k // 3, k)}
    assert seen <= set(range(12)) and len(seen) == 12
    assert {int(i) for k in range(9) for i in distilled.batch(k // 3, k)} > set(range(12))


def test_a_batch_of_unlabelled_images_still_teaches(tmp_path: Path) -> None:
    trainer = make(taught(), images(20, unlabelled=20))
    fitted = trainer.run(work(tmp_path / "stage"), silent())
    assert fitted.curve[-1].parts["ce"] == 0.0
    assert fitted.curve[-1].parts["kd"] < fitted.curve[0].parts["kd"]


def test_the_last_stage_trains_on_what_the_teacher_has_right_and_the_student_wrong(
    tmp_path: Path,
) -> None:
    trainer = make(taught(), hard=True, epochs=5)
    folder = work(tmp_path / "stage")
    fitted = trainer.run(folder, silent())
    stage = trainer.hard
    assert stage is not None and stage.first_epoch == 4
    assert "anchor" in fitted.curve[-1].parts and "anchor" not in fitted.curve[3].parts
    assert "hard images of 20 from epoch 5 on" in fitted.notes[0]
    assert 0 < len(stage.rows) < 20
    own = set(stage.rows.tolist())
    for k in range(3):
        batch = trainer.batch(4, 12 + k).tolist()
        assert sum(row in own for row in batch) >= len(batch) / 2
    earlier = [int(row) for k in range(3) for row in trainer.batch(3, 9 + k)]
    assert len(set(earlier)) == len(earlier), "before that every image comes once"


def test_hard_images_are_half_of_every_batch_and_each_process_has_some(tmp_path: Path) -> None:
    trainer = make(taught(), hard=True, epochs=5)
    trainer.run(work(tmp_path / "stage"), silent())
    assert trainer.hard is not None
    trainer.hard.rows = np.array([1, 4], np.int64)
    rng, others = np.random.default_rng(0), np.array([*range(8, 20), *range(8, 16)], np.int64)
    order = trainer.hard.among(rng, others, 10)
    for batch in order.reshape(-1, 10):
        assert np.isin(batch, [1, 4]).sum() == 5
    halves = [np.isin(order[k::2], [1, 4]).sum() for k in range(2)]
    assert min(halves) >= 2, "not all in the places of one process"


def test_an_image_is_hard_when_its_class_comes_second_to_fifteenth_and_the_teacher_knows_it() -> (
    None
):
    student = torch.tensor([[3.0, 2, 1], [1, 2, 3], [3, 2, 1], [3, 2, 1], [2, 3, 1]])
    teacher = torch.tensor([[0.0, 9, 0], [0, 0, 9], [0, 9, 0], [9, 0, 0], [0, 0, 9]])
    labels = torch.tensor([1, 2, 2, -1, 2])
    assert hard._hard(student, teacher, labels).tolist() == [True, False, False, False, True]


def test_without_enough_hard_images_the_stage_is_left_out_and_said(tmp_path: Path) -> None:
    trainer = make(taught(), hard=True, epochs=5)
    assert trainer.hard is not None
    trainer.hard.least = 21
    fitted = trainer.run(work(tmp_path / "stage"), silent())
    assert "no stage of hard images" in fitted.notes[0]
    assert "anchor" not in fitted.curve[-1].parts
    assert len(trainer.batch(4, 12)) == 6


def test_views_grow_to_their_full_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(Plain(), epochs=6, first_size=0.5)
    trainer.look = replace(LOOK, size=64)
    sides: list[int] = []
    real = trainer.net.together.forward

    def forward(x: Tensor) -> Any:
        sides.append(x.shape[-1])
        return real(x)

    monkeypatch.setattr(trainer.net.together, "forward", forward)
    trainer.images = replace(trainer.images, val_pixels=np.zeros((6, 64, 64, 3), np.uint8))
    trainer.run(work(tmp_path / "stage"), silent())
    assert sides[::3] == [32, 32, 48, 64, 64, 64]


def test_each_group_of_layers_learns_at_a_share_of_the_next_ones_rate() -> None:
    model = timm.create_model("test_efficientnet", num_classes=CLASSES)
    groups = param_groups(model, [], 1.0, 0.0, layer_decay=0.5)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    order = [rates[id(named[group[0]])] for group in layers(model)]
    assert order[-1] == 1.0
    assert all(b == pytest.approx(2 * a) for a, b in itertools.pairwise(order))


def test_bfloat16_trains_to_about_the_same_loss(tmp_path: Path) -> None:
    full, half = make(taught()), make(taught(), precision="bfloat16")
    a = full.run(work(tmp_path / "a"), silent())
    b = half.run(work(tmp_path / "b"), silent())
    assert b.curve[0].loss == pytest.approx(a.curve[0].loss, rel=0.05)
    assert b.curve[0].loss != a.curve[0].loss
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
