"""From a wider sibling to the student: the right channels, the right number, and the same function in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from engine_parts import CLASSES, LOOK, VIEWS, Killed, Killing, images, outcome, schedule, work
from torch import nn

from edgedistill.distill.objectives import Plain
from edgedistill.distill.pruning import UNTIL, Pruner, groups_of
from edgedistill.distill.trainer import Trainer
from edgedistill.errors import UsageError
from edgedistill.nets import state_bytes
from edgedistill.progress import silent
from edgedistill.teacher.course import Course

PAIRS = [
    ("mobilenetv2_140", "mobilenetv2_100"),
    ("mobilenetv3_large_100", "mobilenetv3_large_075"),
    ("mobilenetv3_small_100", "mobilenetv3_small_075"),
    ("lcnet_100", "lcnet_050"),
    ("mnasnet_140", "mnasnet_100"),
]


def net(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=CLASSES)
    return model


def lively(model: nn.Module) -> nn.Module:
    """Statistics and biases that are no zeros and ones, as after a training."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.rand_like(p))
        model.train()
        for _ in range(3):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize(("wide", "narrow"), PAIRS)
def test_what_is_cut_out_is_the_same_function_as_the_wide_network_with_zeros(
    wide: str, narrow: str
) -> None:
    big, small = lively(net(wide)), net(narrow).eval()
    pruner = Pruner(groups_of(big, small, wide, narrow))
    for at, group in enumerate(pruner.groups):
        getattr(pruner, f"importance{at}").copy_(torch.rand(group.wide))
    pruner.prune(big, 1.0)
    pruner.narrow(big, small)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        want, got = big(x), small(x)
    assert torch.allclose(want, got, atol=1e-4 * float(want.abs().max()))
    assert float(want.std()) > 0


def test_the_least_important_channels_go_first_on_a_cubic_schedule_and_do_not_come_back() -> None:
    big, small = net("lcnet_100"), net("lcnet_050")
    pruner = Pruner(groups_of(big, small, "lcnet_100", "lcnet_050"))
    group = pruner.groups[0]
    importance = torch.arange(group.wide).float()
    pruner.importance0.copy_(importance)
    counts = []
    for step in range(11):
        pruner.prune(big, UNTIL * step / 10)
        counts.append(int(pruner.kept0.sum()))
        assert pruner.kept0.nonzero()[:, 0].tolist() == list(
            range(group.wide - counts[-1], group.wide)
        )
    span = group.wide - group.narrow
    assert counts == [group.narrow + round(span * (1 - k / 10) ** 3) for k in range(11)]
    assert counts[0] == group.wide and counts[-1] == group.narrow
    for name in group.makers:
        assert not big.get_parameter(name)[: group.wide - group.narrow].any()


def test_importance_is_weight_times_gradient_over_all_that_reads_or_makes_a_channel() -> None:
    big, small = net("lcnet_100"), net("lcnet_050")
    pruner = Pruner(groups_of(big, small, "lcnet_100", "lcnet_050"))
    big.train()
    big(torch.randn(4, 3, 32, 32)).square().mean().backward()
    pruner.observe(big)
    group = pruner.groups[0]
    total = 0.0
    for name, dim in group.places:
        if "running" not in name:
            p = big.get_parameter(name)
            assert p.grad is not None
            total += float((p.detach() * p.grad).abs().select(dim, 3).sum())
    assert float(pruner.importance0[3]) == pytest.approx(0.05 * total, rel=1e-4)


@pytest.mark.parametrize(
    ("wide", "narrow", "words"),
    [
        ("mobilenetv2_100", "mobilenetv2_140", "is not wider than"),
        ("mobilenetv3_small_100", "mobilenetv2_100", "has other layers"),
        ("mobilenetv3_small_100", "mobilenetv3_small_050", "or connections"),
        ("ghostnet_130", "ghostnet_100", "cannot be pruned"),
    ],
)
def test_what_is_no_wider_sibling_is_refused_in_one_paragraph(
    wide: str, narrow: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        groups_of(net(wide), net(narrow), wide, narrow)
    assert "\n" not in str(caught.value) and "student.prune_from" in str(caught.value)


def pruning(**changes: Any) -> tuple[Trainer, Pruner]:
    big, small = net("mobilenetv3_small_100"), net("mobilenetv3_small_075")
    pruner = Pruner(groups_of(big, small, "100", "075"))
    plan = schedule(**{"epochs": 5, **changes})
    course = Course(plan.epochs, 2)
    trainer = Trainer("student", big, Plain(), images(), LOOK, VIEWS, course, plan, pruner=pruner)
    return trainer, pruner


def is_the_narrow_one(trainer: Trainer, pruner: Pruner) -> None:
    """What is cut out of the trained network answers as it does."""
    small = net("mobilenetv3_small_075")
    pruner.narrow(trainer.model, small)
    x = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        a, b = trainer.model.eval()(x), small.eval()(x)
    assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()))


def test_a_training_ends_with_the_students_width_and_resumes_to_the_bit(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole, pruner = pruning()
    want = outcome(whole.run(work(tmp_path / "whole"), silent()), whole)
    folder = work(tmp_path / "broken")
    with pytest.raises(Killed):
        pruning()[0].run(folder, Killing(7))
    again, other = pruning()
    assert outcome(again.run(folder, silent()), again) == want
    assert state_bytes(other) == state_bytes(pruner)
    is_the_narrow_one(whole, pruner)


def test_patience_begins_when_the_student_has_its_width_and_what_is_wider_never_ships(
    tmp_path: Path,
) -> None:
    torch.set_num_threads(1)
    trainer, pruner = pruning(epochs=9, patience=1, lr=1e-6)
    assert not pruner.ended
    fitted = trainer.run(work(tmp_path), silent())
    assert pruner.ended and trainer.best_epoch >= 5, "about 0.6 of nine epochs"
    assert len(fitted.curve) < 9, "an untrained student does not get better, so patience ends"
    is_the_narrow_one(trainer, pruner)
