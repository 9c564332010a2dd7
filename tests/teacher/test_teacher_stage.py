"""The stage: teachers that come back as they were, several of them, early states, class names, and what is resumed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from teacher_parts import (
    CPU,
    NAMES,
    Trainer,
    Tuner,
    arrays,
    done_of,
    saved,
    taught,
)
from torch import nn

from edgedistill.errors import TeacherError
from edgedistill.metrics import calibration, entropy, top1
from edgedistill.nets import Look, forward, outputs, state_bytes
from edgedistill.recipe import TeacherSection
from edgedistill.result import CurvePoint
from edgedistill.teacher import pupil
from edgedistill.teacher import stage as stages
from edgedistill.teacher.stage import agreement, look_of, restore


def test_the_stage_leaves_a_teacher_that_comes_back_as_it_was(tmp_path: Path) -> None:
    section = TeacherSection(model=saved(tmp_path / "m"), epochs=2)
    facts, work = taught(tmp_path, section, Tuner(2.0))
    assert (facts["adaptation"], facts["classes"], facts["architecture"]) == (
        "fine-tuned", 3, "test_resnet",
    )  # fmt: skip
    assert facts["probe_val_top1"] == pytest.approx(11 / 12)
    assert facts["seconds_parts"] == {"fine-tuning": 2.0}
    data = arrays(tmp_path)
    seen = len(data.train) + 2 * len(data.val_labels)  # the probe, and its answers at the end
    assert facts["preparation_flops"] == facts["flops"] * (seen + 3 * 30)
    assert look_of(facts).size == 40
    model = restore(done_of(work, facts))
    assert state_bytes(model) == work.path("teacher.safetensors").read_bytes()


def test_a_teacher_with_its_own_arguments_comes_back_too(tmp_path: Path) -> None:
    """As a hub's config.json states them: a transformer of another image size."""
    name = saved(tmp_path / "m", "vit_tiny_patch16_224", img_size=48)
    section = TeacherSection(model=name, adapt="probe")
    facts, work = taught(tmp_path, section, Tuner(), size=48)
    model = restore(done_of(work, facts))
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
    work.path("teacher.json").unlink()
    monkeypatch.setattr(pupil, "probe_network", None)
    second, _ = taught(tmp_path, section, Tuner())
    assert second == first
    assert work.path("teacher.safetensors").read_bytes() == weights


def test_a_teacher_that_is_whole_is_not_even_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = TeacherSection(model=saved(tmp_path / "m"), adapt="probe")
    first, _ = taught(tmp_path, section, Tuner())
    monkeypatch.setattr(pupil, "load_pretrained", None)
    assert taught(tmp_path, section, Tuner())[0] == first


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
    monkeypatch.setattr("edgedistill.teacher.probe.HEAD_IMAGES", 5)
    monkeypatch.setattr("edgedistill.teacher.probe.HEAD_IMAGES_PER_CLASS", 1)
    seen: list[int] = []
    real = pupil.probe_network
    monkeypatch.setattr(pupil, "probe_network", lambda *a: seen.append(len(a[1][1])) or real(*a))
    section = TeacherSection(model=saved(tmp_path / "m"), epochs=1)
    facts, _ = taught(tmp_path, section, Tuner(-1.0))
    whole = len(arrays(tmp_path).train)
    assert seen == [5, whole] and facts["adaptation"] == "linear probe"
    assert facts["reason"].endswith(
        f"refitted on all {whole} training images it reaches {facts['val_top1']:.3f}"
    )
    assert facts["val_top1"] == facts["probe_val_top1"]


def test_a_large_teacher_is_not_fine_tuned_without_a_gpu_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pupil, "LARGE_FOR_CPU", 1000)
    monkeypatch.setattr(stages, "pick_device", lambda: CPU)
    tuner, name = Tuner(2.0), saved(tmp_path / "m")
    facts, _ = taught(tmp_path, TeacherSection(model=name, epochs=1), tuner)
    assert tuner.calls == 0 and "--set teacher.adapt=finetune" in facts["reason"]
    for file in (tmp_path / "stage").iterdir():
        file.unlink()
    facts, _ = taught(tmp_path, TeacherSection(model=name, epochs=1, adapt="finetune"), tuner)
    assert tuner.calls == 1 and facts["adaptation"] == "fine-tuned"


def test_a_teacher_of_the_same_classes_can_be_taken_as_it_is(tmp_path: Path) -> None:
    section = TeacherSection(model=saved(tmp_path / "m", classes=3), adapt="none")
    tuner = Tuner()
    facts, work = taught(tmp_path, section, tuner)
    assert (facts["adaptation"], tuner.calls, facts["probe_val_top1"]) == ("none", 0, None)
    model = restore(done_of(work, facts))
    data = arrays(tmp_path)
    logits = outputs(model, data.teacher_val, look_of(facts), CPU, fast=True)[1]
    assert facts["val_top1"] == top1(logits, data.val_labels)


def test_a_teacher_of_other_classes_cannot_be_taken_as_it_is(tmp_path: Path) -> None:
    section = TeacherSection(model=saved(tmp_path / "m", classes=6), adapt="none")
    with pytest.raises(TeacherError, match="has 6 classes and the images have 3"):
        taught(tmp_path, section, Tuner())


# Class names


def test_a_teacher_with_the_datas_classes_in_another_order_is_put_in_order(tmp_path: Path) -> None:
    name = saved(tmp_path / "m", classes=3, labels=["Blue", "RED", "green"])
    facts, work = taught(tmp_path, TeacherSection(model=name, adapt="none"), Tuner())
    assert facts["reason"].endswith("by name put in the order of the data's")
    own = timm.create_model("test_resnet", num_classes=3)
    own.load_state_dict(load_file(tmp_path / "m" / "model.safetensors"))
    data, look = arrays(tmp_path), look_of(facts)
    got = outputs(restore(done_of(work, facts)), data.teacher_val, look, CPU)[1]
    want = outputs(own, data.teacher_val, look, CPU)[1]
    np.testing.assert_allclose(got, want[:, [1, 2, 0]], atol=1e-4)
    assert facts["val_top1"] == top1(got, data.val_labels)


@pytest.mark.parametrize("adapt_as", ["none", "zero_shot"])
def test_labels_that_do_not_match_are_named_and_nothing_is_trained(
    adapt_as: Any, tmp_path: Path
) -> None:
    name = saved(tmp_path / "m", classes=3, labels=["red", "greenish", "mauve"])
    tuner = Tuner()
    with pytest.raises(TeacherError) as caught:
        taught(tmp_path, TeacherSection(model=name, adapt=adapt_as), tuner)
    text = str(caught.value)
    assert '"green"' in text and '"blue"' in text and '"red" (' not in text
    assert "does not have 2 of the 3 classes" in text and "nothing was trained" in text
    assert tuner.calls == 0 and not list((tmp_path / "stage").iterdir())


def test_some_of_a_teachers_classes_are_a_zero_shot_head(tmp_path: Path) -> None:
    labels = ["sky, azure", "blue, navy", "x", "green", "crimson, red", "y"]
    name = saved(tmp_path / "m", labels=labels)
    facts, work = taught(tmp_path, TeacherSection(model=name, adapt="zero_shot"), Tuner())
    assert facts["adaptation"] == "zero-shot head" and "3 of its 6 classes" in facts["reason"]
    own = timm.create_model("test_resnet", num_classes=6)
    own.load_state_dict(load_file(tmp_path / "m" / "model.safetensors"))
    data, look = arrays(tmp_path), look_of(facts)
    got = outputs(restore(done_of(work, facts)), data.teacher_val, look, CPU)[1]
    want = outputs(own, data.teacher_val, look, CPU)[1][:, [4, 3, 1]]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_auto_tries_the_zero_shot_head_where_every_class_is_known(tmp_path: Path) -> None:
    """A teacher that learned these colours before: its own head ties with the probe, and is cheaper."""
    data, look = arrays(tmp_path), Look(40, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    folder = tmp_path / "m"
    saved(folder, labels=["a", "red", "b", "green", "c", "blue"])
    model = timm.create_model("test_resnet", num_classes=6)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    kept = data.train_labels.copy()
    data.train_labels[:] = 2 * kept + 1
    work = stages.Work(tmp_path / "before")
    Trainer(work, data, 60, lr=0.1)(model, look, ())
    data.train_labels[:] = kept
    save_file(model.state_dict(), folder / "model.safetensors")
    section = TeacherSection(model=f"local-dir:{folder}", epochs=0)
    facts, _ = taught(tmp_path, section, Tuner())
    assert facts["adaptation"] == "zero-shot head"
    assert facts["val_top1"] == pytest.approx(11 / 12) == facts["probe_val_top1"]
    assert (
        facts["reason"]
        == "teacher.epochs is 0; validation top-1 0.917, against 0.917 of the linear probe"
    )


def test_unnamed_classes_of_the_right_number_are_taken_with_a_warning(tmp_path: Path) -> None:
    for adapt_as in ("none", "zero_shot"):
        folder = tmp_path / adapt_as
        section = TeacherSection(model=saved(folder / "m", classes=3), adapt=adapt_as)  # type: ignore[arg-type]
        facts, _ = taught(folder, section, Tuner())
        assert "does not name its classes" in facts["reason"]
    section = TeacherSection(model=saved(tmp_path / "six"), adapt="zero_shot")
    with pytest.raises(TeacherError, match="does not say what its 6 classes are called"):
        taught(tmp_path, section, Tuner())


# Softness, and what is no number


def test_softness_is_that_of_the_stored_teacher(tmp_path: Path) -> None:
    section = TeacherSection(model=saved(tmp_path / "m"), adapt="probe")
    facts, work = taught(tmp_path, section, Tuner())
    data = arrays(tmp_path)
    model = restore(done_of(work, facts))
    logits = outputs(model, data.teacher_val, look_of(facts), CPU, fast=True)[1]
    found = calibration(logits, data.val_labels)
    assert facts["softness"] == pytest.approx(
        {
            "entropy": entropy(logits),
            "ece": found.ece,
            "confidence": found.confidence,
            "agreement": None,
        }
    )
    assert 0 < facts["softness"]["entropy"] < math.log(3)
    assert facts["flops"] > 1e6 and facts["combine"] == "single"


def test_entropy_is_nothing_when_certain_and_the_log_of_the_classes_when_not() -> None:
    assert entropy(np.array([[800.0, 0.0, -800.0]])) == 0.0
    assert entropy(np.zeros((5, 7))) == pytest.approx(math.log(7))
    with pytest.raises(ValueError, match="no images"):
        entropy(np.zeros((0, 3)))


def test_agreement_is_over_all_pairs() -> None:
    a, b, c = (
        np.eye(3, dtype=np.float32)[rows] for rows in ([0, 1, 2, 0], [0, 1, 2, 1], [0, 0, 0, 0])
    )
    assert agreement([a, b, c]) == pytest.approx((0.75 + 0.5 + 0.25) / 3)
    assert agreement([a]) is None


@pytest.mark.parametrize("part", ["features", "logits"])
@pytest.mark.parametrize("adapt_as", ["none", "zero_shot", "auto"])
def test_a_teacher_that_gives_no_numbers_is_named_and_nothing_is_trained(
    part: str, adapt_as: Any, tmp_path: Path
) -> None:
    name = saved(tmp_path / "m", classes=3, labels=NAMES)
    state = load_file(tmp_path / "m" / "model.safetensors")
    state["fc.bias" if part == "logits" else "bn1.weight"][1] = math.nan
    save_file(state, tmp_path / "m" / "model.safetensors")
    tuner = Tuner()
    with pytest.raises(TeacherError, match="not finite") as caught:
        taught(tmp_path, TeacherSection(model=name, adapt=adapt_as, epochs=1), tuner)
    assert name in str(caught.value) and part in str(caught.value)
    assert tuner.calls == 0 and not (tmp_path / "stage" / "teacher.safetensors").exists()


# Several teachers


def several(tmp_path: Path, combine: str = "ensemble", **more: Any) -> TeacherSection:
    """A large teacher that takes 48 px only, then a small one."""
    large = saved(tmp_path / "large", "vit_tiny_patch16_224", img_size=48)
    small = saved(tmp_path / "small", "test_resnet")
    return TeacherSection(model=large, others=[small], combine=combine, adapt="probe", **more)  # type: ignore[arg-type]


def test_an_ensemble_speaks_with_the_mean_of_probabilities(tmp_path: Path) -> None:
    facts, work = taught(tmp_path, several(tmp_path), Tuner())
    members = facts["members"]
    assert facts["combine"] == "ensemble" and [m["file"] for m in members] == [
        "teacher.safetensors", "teacher-1.safetensors",
    ]  # fmt: skip
    assert [m["look"]["size"] for m in members] == [48, 40]
    assert facts["params"] == sum(m["params"] for m in members)
    assert facts["flops"] == sum(m["flops"] for m in members)
    assert facts["model"] == " + ".join(m["model"] for m in members)
    assert facts["adaptation"] == "ensemble of 2" and facts["licence"] is None
    assert 0 <= facts["softness"]["agreement"] <= 1
    done, data = done_of(work, facts), arrays(tmp_path)
    whole = outputs(restore(done), data.teacher_val, look_of(facts), CPU, fast=True)[1]
    shares = []
    for i, member in enumerate(members):
        val = pupil.resized(data.teacher_val, look_of(member).size)
        logits = outputs(restore(done, i), val, look_of(member), CPU)[1]
        shares.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(np.exp(whole), np.mean(shares, axis=0), atol=0.02)
    assert facts["val_top1"] == pytest.approx(top1(whole, data.val_labels), abs=0.09)


def test_a_ladder_goes_from_few_parameters_to_many(tmp_path: Path) -> None:
    facts, work = taught(tmp_path, several(tmp_path, "ladder"), Tuner())
    params = [m["params"] for m in facts["members"]]
    assert params == sorted(params) and params[0] < params[1]
    assert facts["params"] == params[1] and "from few to many" in facts["reason"]
    assert facts["model"] == facts["members"][1]["model"]
    assert facts["licence"] is None, "that of one is unknown"
    last = restore(done_of(work, facts), 1)
    assert state_bytes(last) == work.path(facts["members"][1]["file"]).read_bytes()


def test_a_finished_teacher_is_kept_when_the_next_one_breaks(tmp_path: Path) -> None:
    """The second dies in its fine-tuning; of the first nothing is done again, and none of its checkpoint is used."""
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", seed=1)
    section = TeacherSection(model=first, others=[second], adapt="finetune", epochs=2)
    stage = tmp_path / "stage"
    begun: list[tuple[bool, bytes]] = []

    class Dying(Tuner):
        def __call__(
            self, model: nn.Module, look: Look, keep: tuple[int, ...]
        ) -> tuple[float, list[CurvePoint], float]:
            begun.append(((stage / "teacher.checkpoint").exists(), state_bytes(model)))
            (stage / "teacher.checkpoint").write_text("half a training")
            if self.calls == self.score:
                raise KeyboardInterrupt
            return super().__call__(model, look, keep)

    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path, section, Dying(1))
    assert [known for known, _ in begun] == [False, False]
    (stage / "tuned.txt").write_text(
        "teacher"
    )  # as if killed before the second began, with the first's file left
    facts, _ = taught(tmp_path, section, Dying(9))
    assert len(begun) == 3 and begun[2] == begun[1]
    assert [m["adaptation"] for m in facts["members"]] == ["fine-tuned"] * 2
    assert not (stage / "teacher.checkpoint").exists()


def test_the_checkpoint_of_a_broken_training_is_gone_on_with(tmp_path: Path) -> None:
    section = TeacherSection(model=saved(tmp_path / "m"), adapt="finetune", epochs=2)
    found: list[bool] = []

    class Dying(Tuner):
        def __call__(
            self, model: nn.Module, look: Look, keep: tuple[int, ...]
        ) -> tuple[float, list[CurvePoint], float]:
            mark = tmp_path / "stage" / "teacher.checkpoint"
            found.append(mark.exists())
            mark.write_text("half a training")
            if len(found) == 1:
                raise KeyboardInterrupt
            return super().__call__(model, look, keep)

    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path, section, Dying())
    taught(tmp_path, section, Dying())
    assert found == [False, True]


def test_two_sizes_of_which_one_cannot_be_trained_are_probed(tmp_path: Path) -> None:
    section = several(tmp_path).model_copy(update={"adapt": "finetune", "epochs": 1})
    tuner = Tuner()
    facts, _ = taught(tmp_path, section, tuner)
    assert tuner.calls == 1
    assert [m["adaptation"] for m in facts["members"]] == ["linear probe", "fine-tuned"]
    assert "48 px only" in facts["members"][0]["reason"]


# Early states


def test_early_states_of_fine_tuning_are_members_before_the_last(tmp_path: Path) -> None:
    work = stages.Work(tmp_path / "stage")
    work.folder.mkdir()
    data = arrays(tmp_path)
    section = TeacherSection(model=saved(tmp_path / "m"), adapt="finetune", epochs=8, checkpoints=3)
    facts, _ = taught(tmp_path, section, Trainer(work, data, 8))
    assert facts["combine"] == "checkpoints"
    assert [m["epoch"] for m in facts["members"]] == [2, 4, 6, None]
    assert [m["file"] for m in facts["members"]][::3] == [
        "teacher.epoch2.safetensors",
        "teacher.safetensors",
    ]
    done = done_of(work, facts)
    for i, member in enumerate(facts["members"]):
        assert state_bytes(restore(done, i)) == work.path(member["file"]).read_bytes()
        logits = outputs(restore(done, i), data.teacher_val, look_of(facts), CPU, fast=True)[1]
        assert member["softness"]["entropy"] == pytest.approx(entropy(logits))
    assert state_bytes(restore(done)) == work.path("teacher.safetensors").read_bytes()
    entropies = [m["softness"]["entropy"] for m in facts["members"]]
    assert len(set(entropies)) == 4


@pytest.mark.parametrize(
    ("epochs", "count", "kept"),
    [(8, 3, (2, 4, 6)), (2, 3, (1,)), (1, 5, ()), (10, 1, (5,)), (9, 0, ()), (5, 20, (1, 2, 3, 4))],
)
def test_kept_epochs_are_evenly_spaced_and_end_before_the_last(
    epochs: int, count: int, kept: tuple[int, ...], tmp_path: Path
) -> None:
    asked: list[tuple[int, ...]] = []

    class Asked(Tuner):
        def __call__(
            self, model: nn.Module, look: Look, keep: tuple[int, ...]
        ) -> tuple[float, list[CurvePoint], float]:
            asked.append(keep)
            return super().__call__(model, look, keep)

    section = TeacherSection(model=saved(tmp_path / "m"), epochs=epochs, checkpoints=count)
    facts, _ = taught(tmp_path, section, Asked(-1.0))
    assert asked == [kept]
    assert facts["combine"] == "single", "the probe stayed, so there are no early states"
