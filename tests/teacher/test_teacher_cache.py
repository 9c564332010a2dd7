"""Stored teacher outputs: those of the very views, and nothing that was changed on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edgedistill.distill.trainer import Views, cut
from edgedistill.errors import DocumentError, TeacherError
from edgedistill.nets import Ints, Look, forward, state_bytes
from edgedistill.progress import silent
from edgedistill.rundir import Done, Work
from edgedistill.teacher.cache import StoredTargets, store_view, view_file
from edgedistill.teacher.stage import about_views, restore, store

LOOK = Look(40, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
VIEWS = Views(seed=3, min_crop=0.7, flip=True, count=2)
CPU = torch.device("cpu")
N, CLASSES = 11, 5
ABOUT = {"teacher": "a" * 64, "seed": "3", "min_crop": "0.7", "flip": "True"}
CANVAS = np.random.default_rng(0).integers(0, 256, (N, 44, 44, 3), dtype=np.uint8)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = timm.create_model("test_resnet", num_classes=CLASSES)
    return model.eval()


def view_of(index: Ints, view: int) -> Tensor:
    return cut(CANVAS, index, view, VIEWS, LOOK, CPU)


def kept(folder: Path, view: int = 0, about: dict[str, str] = ABOUT, n: int = N) -> Path:
    data = store_view(network(), view_of, n, view, about, CPU, lambda _: None, batch=4)
    path = folder / view_file(view)
    path.write_bytes(data)
    return path


def test_stored_records_are_what_the_teacher_says_of_the_same_views(tmp_path: Path) -> None:
    for view in (0, 1):
        kept(tmp_path, view)
    read, model = StoredTargets(tmp_path, ABOUT, N), network()
    for view, index in ((0, [3, 0, 10]), (1, [10, 9]), (0, [7])):
        rows = np.array(index)
        features, logits = read(view, rows)
        with torch.inference_mode():
            want = forward(model, view_of(rows, view))
            other = forward(model, view_of(rows, 1 - view))
        for got, fresh, wrong in zip((features, logits), want, other, strict=True):
            assert got.dtype == torch.float32 and got.shape == fresh.shape
            scale = float(fresh.abs().max())
            assert float((got - fresh).abs().max()) < 0.03 * scale  # bfloat16 keeps 8 bits
            assert float((got - fresh).abs().mean()) < 0.5 * float((got - wrong).abs().mean())


def test_a_file_says_what_it_is_of_and_features_take_half_precision(tmp_path: Path) -> None:
    with safe_open(kept(tmp_path, 1), framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        assert {k: about[k] for k in ABOUT} == ABOUT and about["view"] == "1"
        assert file.get_tensor("features").dtype == torch.float16
        assert file.get_tensor("logits").dtype == torch.float32
        assert file.get_tensor("logits").shape == (N, CLASSES)


def test_storing_twice_gives_the_same_bytes_and_counts_every_image(tmp_path: Path) -> None:
    seen: list[int] = []
    model = network()
    a = store_view(model, view_of, N, 0, ABOUT, CPU, seen.append, batch=4)
    assert seen == [4, 4, 3]
    assert a == store_view(model, view_of, N, 0, ABOUT, CPU, seen.append, batch=4)
    assert not model.training


@pytest.mark.parametrize("where", ["features", "logits", "header", "about"])
def test_a_changed_byte_is_found_and_the_file_is_named(where: str, tmp_path: Path) -> None:
    path = kept(tmp_path)
    raw = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    at = {
        "features": header + 4 * N * CLASSES + 1, "logits": header + 1, "header": 20,
        "about": raw.index(b'seed') + 9,
    }[where]  # fmt: skip
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DocumentError) as caught:
        StoredTargets(tmp_path, ABOUT, N)(0, np.array([0]))
    text = str(caught.value)
    assert str(path) in text and "Remove the folder" in text
    assert "\n" not in text


def test_every_single_byte_of_a_record_is_guarded(tmp_path: Path) -> None:
    """A step through the whole file: no byte can change without an error or with other numbers."""
    path = kept(tmp_path, n=3)
    raw = path.read_bytes()
    want = StoredTargets(tmp_path, ABOUT, 3)(0, np.arange(3))
    for at in range(8, len(raw), 97):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :])
        try:
            got = StoredTargets(tmp_path, ABOUT, 3)(0, np.arange(3))
        except DocumentError:
            continue
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), at


@pytest.mark.parametrize("key", [*ABOUT, "view"])
def test_records_of_another_teacher_seed_or_view_are_refused(key: str, tmp_path: Path) -> None:
    if key == "view":
        kept(tmp_path, 1).rename(tmp_path / view_file(0))
    else:
        kept(tmp_path, 0, {**ABOUT, key: "something else"})
    with pytest.raises(DocumentError, match="are of other views") as caught:
        StoredTargets(tmp_path, ABOUT, N)(0, np.array([0]))
    assert view_file(0) in str(caught.value)


def test_records_of_more_or_fewer_images_are_refused(tmp_path: Path) -> None:
    kept(tmp_path)
    for count in (N - 1, N + 1):
        with pytest.raises(DocumentError, match=f"for {N} images, this run needs"):
            StoredTargets(tmp_path, ABOUT, count)(0, np.array([0]))


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "gone", "other tensors", "noise"])
def test_a_truncated_or_foreign_file_is_named(damage: str, tmp_path: Path) -> None:
    path = kept(tmp_path)
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "other tensors":
        save_file({"logits": torch.zeros(N, CLASSES)}, path, {**ABOUT, "view": "0"})
    else:
        cuts = {"cut": raw[:-1], "header": raw[:9], "empty": b"", "noise": b"\xff" * 100}
        path.write_bytes(cuts[damage])
    with pytest.raises(DocumentError) as caught:
        StoredTargets(tmp_path, ABOUT, N)(0, np.array([0]))
    assert str(path) in str(caught.value) and "cannot be read" in str(caught.value)


@pytest.mark.parametrize("part", ["features", "logits"])
def test_a_teacher_that_gives_no_numbers_is_refused(part: str) -> None:
    model: Any = network()
    with torch.no_grad():
        (model.fc.weight if part == "logits" else model.bn1.weight).fill_(float("nan"))
    with pytest.raises(TeacherError, match="not finite for view 7") as caught:
        store_view(model, view_of, N, 7, ABOUT, CPU, lambda _: None)
    assert "another teacher" in str(caught.value)


def finished(folder: Path, model: nn.Module) -> Done:
    """A teacher stage that ended before."""
    folder.mkdir()
    (folder / "teacher.safetensors").write_bytes(state_bytes(model))
    facts = {
        "architecture": "test_resnet", "classes": CLASSES, "rebuild": {}, "look": {"size": 32},
    }  # fmt: skip
    return Done("04-teacher", folder, "a" * 64, facts, 1.0)


def test_a_broken_try_goes_on_at_the_next_view_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    done = finished(tmp_path / "teacher", network())
    about = about_views(done, 3, 0.7, True)
    assert about == ABOUT
    whole, broken = Work(tmp_path / "whole"), Work(tmp_path / "broken")
    facts = store(whole, done, N, 3, about, view_of, silent())
    assert facts["shapes"] == {"features": [N, 96], "logits": [N, CLASSES]}
    asked: list[int] = []

    def dying(index: Ints, view: int) -> Tensor:
        asked.append(view)
        if view == 2:
            raise KeyboardInterrupt
        return view_of(index, view)

    with pytest.raises(KeyboardInterrupt):
        store(broken, done, N, 3, about, dying, silent())
    assert asked == [0, 1, 2]
    assert [broken.has(view_file(v)) for v in range(3)] == [True, True, False]
    asked.clear()

    def sound(index: Ints, view: int) -> Tensor:
        asked.append(view)
        return view_of(index, view)

    again = store(broken, done, N, 3, about, sound, silent())
    assert asked == [2] and again == facts
    for view in range(3):
        name = view_file(view)
        assert whole.path(name).read_bytes() == broken.path(name).read_bytes()


def test_the_stored_teacher_comes_back_with_its_weights(tmp_path: Path) -> None:
    model = network(5)
    assert state_bytes(restore(finished(tmp_path / "t", model))) == state_bytes(model)
