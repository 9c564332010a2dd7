"""How a teacher learns the task: the probe, and whether fine-tuning pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from edgedistill.data.stage import Arrays
from edgedistill.errors import TeacherError
from edgedistill.metrics import top1
from edgedistill.nets import Floats, Ints, Look, forward, outputs, state_bytes
from edgedistill.progress import silent
from edgedistill.recipe import TeacherSection
from edgedistill.result import CurvePoint
from edgedistill.rundir import Done, Work
from edgedistill.teacher import adapt as room
from edgedistill.teacher import stage as stages
from edgedistill.teacher.adapt import (
    Adapted,
    Probe,
    adapt,
    check_head,
    for_a_head,
    linear_probe,
    set_head,
)
from edgedistill.teacher.stage import look_of, restore, teach

CPU = torch.device("cpu")


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


def test_the_strength_is_chosen_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits are stood in for by ones of which the third is right, so only validation can tell."""
    x, y = clusters(40, 0)
    good = torch.zeros(4, 7)
    good[:, :4] = torch.eye(4)
    asked: list[float] = []

    def fit(z: Tensor, labels: Tensor, classes: int, strength: float) -> tuple[Tensor, Tensor]:
        asked.append(strength)
        right = strength == room.PROBE_STRENGTHS[1]
        return (good if right else -good), torch.zeros(4)

    monkeypatch.setattr(room, "_fit", fit)
    probe = linear_probe(x, y, *clusters(40, 1), 4)
    assert tuple(asked) == room.PROBE_STRENGTHS
    assert probe.strength == room.PROBE_STRENGTHS[1] and probe.val_top1 == 1.0


def test_a_stronger_pull_makes_a_smaller_head() -> None:
    x, y = clusters(60, 0)
    z = torch.from_numpy(x).double()
    z = (z - z.mean(0)) / z.std(0)
    norms = [float(room._fit(z, torch.from_numpy(y), 4, s)[0].norm()) for s in room.PROBE_STRENGTHS]
    assert norms == sorted(norms, reverse=True) and norms[0] > 2 * norms[-1]


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


# The head


@pytest.mark.parametrize("name", ["test_resnet", "dla46x_c", "test_efficientnet"])
def test_the_probes_head_in_the_network_gives_the_probes_logits(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4).eval()
    width = model.num_features
    probe = Probe(torch.randn(4, width), torch.randn(4), 0.1, 0.5)
    set_head(model, probe)
    with torch.inference_mode():
        features, logits = forward(model, torch.randn(2, 3, 64, 64))
        want = features @ probe.weight.T + probe.bias
        assert torch.allclose(logits, want, atol=1e-3 * float(want.abs().max()))
    check_head(model, 64, 4, name)


@pytest.mark.parametrize("name", ["repvit_m0_9", "levit_128s"])
def test_a_network_without_one_linear_classifier_is_refused_in_words(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    with pytest.raises(TeacherError, match="not one linear layer") as caught:
        check_head(model, 224, 3, name)
    assert name in str(caught.value)


def test_a_size_that_a_network_does_not_take_is_refused_in_words() -> None:
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    with pytest.raises(TeacherError, match="does not take RGB images of 96 px"):
        check_head(model, 96, 3, "vit_tiny_patch16_224")
    grey = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    with pytest.raises(TeacherError, match="RGB"):
        check_head(grey, 96, 3, "grey")


# Which of the two


def fresh() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_resnet", num_classes=4)
    return model


PROBE = Probe(torch.full((4, 96), 0.5), torch.full((4,), 0.25), 0.01, 0.8)


def head_of(model: nn.Module) -> Any:
    net: Any = model
    return net.get_classifier()


def adapted(score: float | None, probe: Probe | None = PROBE, from_probe: bool = False) -> Adapted:
    def finetune(model: nn.Module) -> float:
        assert score is not None
        with torch.no_grad():
            head_of(model).bias.fill_(9.0)
        return score

    return adapt(fresh, probe, None if score is None else finetune, "too large", from_probe)


def test_fine_tuning_is_kept_when_it_pays() -> None:
    got = adapted(0.9)
    assert (got.adaptation, got.val_top1) == ("fine-tuned", 0.9)
    assert got.reason == "validation top-1 0.900, against 0.800 of the linear probe"
    assert bool((head_of(got.model).bias == 9.0).all())


@pytest.mark.parametrize("score", [0.8, 0.7])
def test_the_probe_is_kept_when_fine_tuning_does_not_pay(score: float) -> None:
    got = adapted(score)
    assert (got.adaptation, got.val_top1) == ("linear probe", 0.8)
    assert got.reason.startswith(f"fine-tuning did not pay: validation top-1 {score:.3f}")
    assert torch.equal(head_of(got.model).weight, PROBE.weight)


def test_without_fine_tuning_the_reason_is_told() -> None:
    got = adapted(None)
    assert (got.adaptation, got.reason) == ("linear probe", "too large")


def test_without_a_probe_the_fine_tuned_one_stands() -> None:
    got = adapted(0.1, probe=None)
    assert (got.adaptation, got.reason, got.val_top1) == ("fine-tuned", "asked for", 0.1)


@pytest.mark.parametrize("from_probe", [True, False])
def test_fine_tuning_starts_from_the_probes_head_only_when_told(from_probe: bool) -> None:
    begun: list[Tensor] = []

    def finetune(model: nn.Module) -> float:
        begun.append(head_of(model).weight.detach().clone())
        return 1.0

    adapt(fresh, PROBE, finetune, "", from_probe)
    assert torch.equal(begun[0], PROBE.weight) == from_probe


# The stage


def arrays(folder: Path, size: int = 40, n: int = 30) -> Arrays:
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 3
    canvas = rng.integers(0, 80, (n, size + 4, size + 4, 3), dtype=np.uint8)
    canvas[np.arange(n), :, :, labels] += 120
    val = canvas[:12, 2 : size + 2, 2 : size + 2].copy()
    val_labels = labels[:12].copy()
    val_labels[0] = (val_labels[0] + 1) % 3  # one that no probe gets right
    return Arrays(folder, canvas, val, val, val, val, labels, val_labels, val_labels)


def saved(folder: Path, name: str = "test_resnet", classes: int = 6, **args: Any) -> str:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=classes, **args)
    timm.models.save_for_hf(model, folder, model_args=args or None, safe_serialization=True)
    return f"local-dir:{folder}"


class Tuner:
    """Stands in for training: gives a network another bias and a score."""

    def __init__(self, score: float = 0.0) -> None:
        self.score, self.calls = score, 0

    def __call__(self, model: nn.Module, look: Look) -> tuple[float, list[CurvePoint], float]:
        self.calls += 1
        with torch.no_grad():
            head_of(model).bias.add_(0.5)
        return self.score, [CurvePoint(epoch=1, loss=1.0)], 2.0


def taught(
    tmp_path: Path, section: TeacherSection, tuner: Tuner, size: int = 40
) -> tuple[dict[str, Any], Work]:
    work = Work(tmp_path / "stage")
    work.folder.mkdir(exist_ok=True)
    facts = teach(work, section, arrays(tmp_path, size), size, 0, tuner, silent())
    return facts, work


def test_the_stage_leaves_a_teacher_that_comes_back_as_it_was(tmp_path: Path) -> None:
    section = TeacherSection(model=saved(tmp_path / "m"), epochs=2)
    facts, work = taught(tmp_path, section, Tuner(2.0))
    assert (facts["adaptation"], facts["classes"], facts["architecture"]) == (
        "fine-tuned", 3, "test_resnet",
    )  # fmt: skip
    assert facts["probe_val_top1"] == pytest.approx(11 / 12)
    assert facts["seconds_parts"] == {"fine-tuning": 2.0}
    assert look_of(facts).size == 40
    model = restore(Done("04-teacher", work.folder, "0" * 64, facts, 1.0))
    assert state_bytes(model) == work.path("teacher.safetensors").read_bytes()


def test_a_teacher_with_its_own_arguments_comes_back_too(tmp_path: Path) -> None:
    """As a hub's config.json states them: a transformer of another image size."""
    name = saved(tmp_path / "m", "vit_tiny_patch16_224", img_size=48)
    section = TeacherSection(model=name, adapt="probe")
    facts, work = taught(tmp_path, section, Tuner(), size=48)
    model = restore(Done("04-teacher", work.folder, "0" * 64, facts, 1.0))
    assert state_bytes(model) == work.path("teacher.safetensors").read_bytes()
    with torch.inference_mode():
        assert forward(model.eval(), torch.zeros(1, 3, 48, 48))[1].shape == (1, 3)


def test_a_teacher_of_one_size_names_that_size(tmp_path: Path) -> None:
    name = saved(tmp_path / "m", "vit_tiny_patch16_224", img_size=48)
    with pytest.raises(TeacherError, match=r"48 px only.*--set teacher.input_size=48"):
        taught(tmp_path, TeacherSection(model=name), Tuner(), size=40)


def test_a_probe_that_a_broken_try_left_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = TeacherSection(model=saved(tmp_path / "m"), adapt="probe")
    first, work = taught(tmp_path, section, Tuner())
    weights = work.path("teacher.safetensors").read_bytes()
    monkeypatch.setattr(stages, "probe_network", None)
    second, _ = taught(tmp_path, section, Tuner())
    assert second == first
    assert work.path("teacher.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("adapt_as", "epochs", "tuned", "words"),
    [
        ("auto", 1, 1, "fine-tuning did not pay"),
        ("probe", 1, 0, "asked for"),
        ("finetune", 1, 1, "asked for"),
        ("auto", 0, 0, "teacher.epochs is 0"),
        ("finetune", 0, 0, "teacher.epochs is 0"),
    ],
)
def test_what_is_tried_is_what_was_asked_for(
    adapt_as: Any, epochs: int, tuned: int, words: str, tmp_path: Path
) -> None:
    section = TeacherSection(model=saved(tmp_path / "m"), adapt=adapt_as, epochs=epochs)
    tuner = Tuner(0.1)
    facts, _ = taught(tmp_path, section, tuner)
    assert tuner.calls == tuned
    assert facts["reason"].startswith(words)


def test_a_probe_that_stays_is_fitted_on_every_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedistill.teacher.adapt.HEAD_IMAGES", 5)
    monkeypatch.setattr("edgedistill.teacher.adapt.HEAD_IMAGES_PER_CLASS", 1)
    seen: list[int] = []
    real = stages.probe_network
    monkeypatch.setattr(stages, "probe_network", lambda *a: seen.append(len(a[1][1])) or real(*a))
    section = TeacherSection(model=saved(tmp_path / "m"), epochs=1)
    facts, _ = taught(tmp_path, section, Tuner(-1.0))
    whole = len(arrays(tmp_path).train)
    assert seen == [5, whole] and facts["adaptation"] == "linear probe"
    assert facts["reason"].endswith(
        f"refitted on all {whole} training images it reaches {facts['val_top1']:.3f}"
    )
    assert facts["val_top1"] == facts["probe_val_top1"]


def test_a_first_head_sees_some_images_of_a_large_set_and_all_of_a_small_one() -> None:
    pixels, truth = np.arange(5000, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(5000)
    some = for_a_head((pixels, truth), 10, 0)
    assert len(some[1]) == 2000 and len(set(some[1])) == 2000
    assert (some[0][:, 0, 0, 0] == some[1].astype(np.uint8)).all()
    assert len(for_a_head((pixels, truth), 60, 0)[1]) == 3000
    assert len(for_a_head((pixels[:100], truth[:100]), 10, 0)[1]) == 100


def test_a_large_teacher_is_not_fine_tuned_without_a_gpu_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "LARGE_FOR_CPU", 1000)
    monkeypatch.setattr(stages, "pick_device", lambda: CPU)
    tuner, name = Tuner(2.0), saved(tmp_path / "m")
    facts, _ = taught(tmp_path, TeacherSection(model=name, epochs=1), tuner)
    assert tuner.calls == 0 and "--set teacher.adapt=finetune" in facts["reason"]
    (tmp_path / "stage" / "probe.pt").unlink()
    facts, _ = taught(tmp_path, TeacherSection(model=name, epochs=1, adapt="finetune"), tuner)
    assert tuner.calls == 1 and facts["adaptation"] == "fine-tuned"


def test_a_teacher_of_the_same_classes_can_be_taken_as_it_is(tmp_path: Path) -> None:
    section = TeacherSection(model=saved(tmp_path / "m", classes=3), adapt="none")
    tuner = Tuner()
    facts, work = taught(tmp_path, section, tuner)
    assert (facts["adaptation"], tuner.calls, facts["probe_val_top1"]) == ("none", 0, None)
    model = restore(Done("04-teacher", work.folder, "0" * 64, facts, 1.0))
    data = arrays(tmp_path)
    logits = outputs(model, data.teacher_val, look_of(facts), CPU, fast=True)[1]
    assert facts["val_top1"] == top1(logits, data.val_labels)


def test_a_teacher_of_other_classes_cannot_be_taken_as_it_is(tmp_path: Path) -> None:
    section = TeacherSection(model=saved(tmp_path / "m", classes=6), adapt="none")
    with pytest.raises(TeacherError, match="has 6 classes and the images have 3"):
        taught(tmp_path, section, Tuner())


def test_a_probe_that_is_always_right_leaves_nothing_for_fine_tuning_to_show() -> None:
    made: list[nn.Module] = []

    def fresh() -> nn.Module:
        model: nn.Module = timm.create_model("test_resnet", num_classes=2)
        made.append(model)
        return model

    def tune(model: nn.Module) -> float:
        raise AssertionError("it must not be tried")

    width = head_of(fresh()).weight.shape[1]
    probe = Probe(torch.zeros(2, width), torch.zeros(2), 0.1, 1.0)
    found = adapt(fresh, probe, tune, "", True)
    assert found.adaptation == "linear probe" and "every validation image" in found.reason
