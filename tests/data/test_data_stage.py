"""Every split as arrays on disk: the very pixels of the device, made once, kept when a try breaks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from ontarget.arrays import load_evalset
from ontarget.facts import Preprocess
from ontarget.preprocess import to_pixels
from PIL import Image

from edgedistill.data import stage as room
from edgedistill.data.dataset import Dataset, labels
from edgedistill.data.pixels import pixels_bytes, write_pixels
from edgedistill.data.sources import open_source
from edgedistill.data.stage import Sizes, canvas_side, extend, open_arrays, prepare
from edgedistill.errors import DataError, StoppedError
from edgedistill.recipe import DataSection
from edgedistill.rundir import Work, is_disk_full

SIZES = Sizes(canvas=27, student=20, teacher=24)


def pictures(root: Path, n: int = 48) -> None:
    """Odd shapes, modes and an EXIF turn, in two classes."""
    for k in range(n):
        path = root / ("cat" if k % 2 else "dog") / f"{k:02}.{'jpg' if k % 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(k)
        shape = (int(rng.integers(10, 60)), int(rng.integers(10, 60)), 3)
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 1 + k % 8
        if k % 5 == 0:
            image = image.convert("L")
        image.save(path, exif=exif)


def dataset(root: Path) -> Dataset:
    if not root.exists():
        pictures(root)
    return open_source(DataSection(source=str(root)), seed=0)


def work(folder: Path) -> Work:
    folder.mkdir(parents=True, exist_ok=True)
    return Work(folder)


def nothing(done: int, total: int) -> None:
    """A progress function that does not care."""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_every_array_is_bit_equal_to_what_the_kit_makes_of_the_original(tmp_path: Path) -> None:
    root = tmp_path / "images"
    data = dataset(root)
    facts = prepare(work(tmp_path / "s"), data, SIZES, nothing)
    found = open_arrays(tmp_path / "s")
    assert facts == {"canvas": 27, "student": 20, "teacher": 24}
    parts = [
        (found.train, data.train, 27), (found.val, data.val, 20), (found.test, data.test, 20),
        (found.teacher_val, data.val, 24), (found.teacher_test, data.test, 24),
    ]  # fmt: skip
    for array, items, side in parts:
        assert array.shape == (len(items), side, side, 3) and array.dtype == np.uint8
        for row, item in zip(array, items, strict=True):
            assert np.array_equal(row, to_pixels(root / item.key, Preprocess(side, side)))
    for split in ("train", "val", "test"):
        own = getattr(found, f"{split}_labels")
        assert own.dtype == np.int64 and np.array_equal(own, labels(data.items(split)))


def test_a_teacher_of_the_same_size_shares_the_students_pixels(tmp_path: Path) -> None:
    data = dataset(tmp_path / "images")
    prepare(work(tmp_path / "s"), data, Sizes(20, 20, 20), nothing)
    assert not list((tmp_path / "s").glob("teacher-*"))
    found = open_arrays(tmp_path / "s")
    assert found.teacher_val is found.val and found.teacher_test is found.test


def test_the_test_images_are_an_evaluation_set_that_the_kit_reads(tmp_path: Path) -> None:
    data = dataset(tmp_path / "images")
    prepare(work(tmp_path / "s"), data, SIZES, nothing)
    pixels, truth = load_evalset(tmp_path / "s" / "test")
    assert np.array_equal(pixels, open_arrays(tmp_path / "s").test)
    assert np.array_equal(truth, labels(data.test))
    about = json.loads((tmp_path / "s" / "test" / "evalset.json").read_text())
    assert about["n"] == about["of"] == len(data.test)


def test_arrays_are_mapped_and_what_is_done_to_them_never_reaches_the_disk(tmp_path: Path) -> None:
    prepare(work(tmp_path / "s"), dataset(tmp_path / "images"), SIZES, nothing)
    before, found = contents(tmp_path / "s"), open_arrays(tmp_path / "s")
    for array in (found.train, found.val, found.test, found.teacher_val, found.teacher_test):
        assert isinstance(array, np.memmap)
        array[:] = 255 - array[:]
        del array
    del found
    assert contents(tmp_path / "s") == before


def test_progress_counts_the_images_of_every_array(tmp_path: Path) -> None:
    data, seen = dataset(tmp_path / "images"), list[tuple[int, int]]()
    prepare(work(tmp_path / "s"), data, SIZES, lambda done, total: seen.append((done, total)))
    ends = [total for done, total in seen if done == total]
    val, test = len(data.val), len(data.test)
    assert ends == [len(data.train), val, test, val, test]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
def test_a_broken_try_keeps_what_it_finished_and_ends_in_the_same_files(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(tmp_path / "images")
    prepare(work(tmp_path / "whole"), data, SIZES, nothing)
    folder, real, made = work(tmp_path / "s"), write_pixels, list[str]()

    def dying(*args: Any, **more: Any) -> None:
        if len(made) == at:
            args[4].write_bytes(b"half of an array")
            raise Killed
        made.append(args[4].name)
        real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(room, "write_pixels", dying)
        with pytest.raises(Killed):
            prepare(folder, data, SIZES, nothing)
    names = ["train.npy", "val.npy", "test/pixels.npy", "teacher-val.npy", "teacher-test.npy"]
    assert [folder.has(name) for name in names] == [k < at for k in range(5)]
    before = {name: folder.path(name).stat().st_mtime_ns for name in names[:at]}
    prepare(folder, data, SIZES, nothing)
    assert {name: folder.path(name).stat().st_mtime_ns for name in names[:at]} == before
    assert contents(folder.folder) == contents(tmp_path / "whole")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_is_too_small_stops_before_it_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder = dataset(tmp_path / "images"), work(tmp_path / "s")
    needed = sum(
        pixels_bytes(n, side)
        for n, side in (
            (len(data.train), 27), (len(data.val), 20), (len(data.test), 20), (len(data.val), 24),
            (len(data.test), 24),
        )
    )  # fmt: skip
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, needed - 1))
    with pytest.raises(StoppedError) as caught:
        prepare(folder, data, SIZES, nothing)
    text = str(caught.value)
    assert "free" in text and "--set data.max_train=" in text and "the same command" in text
    assert "\n" not in text and caught.value.exit_code == 3
    assert contents(folder.folder) == {}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, needed))
    prepare(folder, data, SIZES, nothing)


def test_what_is_finished_already_needs_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder = dataset(tmp_path / "images"), work(tmp_path / "s")
    prepare(folder, data, SIZES, nothing)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 0))
    prepare(folder, data, SIZES, nothing)


def test_a_disk_that_fills_up_is_told_as_such_and_keeps_the_finished_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder, real = dataset(tmp_path / "images"), work(tmp_path / "s"), write_pixels

    def full(*args: Any, **more: Any) -> None:
        if args[4].name.startswith(".pixels"):
            raise OSError(28, "No space left on device")
        real(*args, **more)

    monkeypatch.setattr(room, "write_pixels", full)
    with pytest.raises(OSError, match="No space") as caught:
        prepare(folder, data, SIZES, nothing)
    assert is_disk_full(caught.value)
    assert folder.has("train.npy") and folder.has("val.npy")


def test_an_image_that_changed_since_it_was_scanned_is_named(tmp_path: Path) -> None:
    data = dataset(tmp_path / "images")
    (tmp_path / "images" / data.val[3].key).write_bytes(b"no longer a picture")
    with pytest.raises(DataError) as caught:
        prepare(work(tmp_path / "s"), data, SIZES, nothing)
    assert data.val[3].key in str(caught.value)


@pytest.mark.parametrize(
    ("student", "teacher", "image", "want"),
    [
        (64, 96, 28, 96),
        (64, 96, 96, 96),
        (96, 64, 500, 110),
        (64, 96, 97, 110),
        (224, 224, 4000, 256),
    ],
)
def test_the_canvas_has_a_margin_only_where_images_have_more_to_give(
    student: int, teacher: int, image: int, want: int
) -> None:
    assert canvas_side(student, teacher, image) == want


def test_synthetic_images_stand_behind_the_others_and_nothing_else_changes(tmp_path: Path) -> None:
    before, after = work(tmp_path / "before"), work(tmp_path / "after")
    prepare(before, dataset(tmp_path / "images"), SIZES, nothing)
    more = np.random.default_rng(0).integers(0, 256, (5, 27, 27, 3), dtype=np.uint8)
    extend(after, before.folder, [more[:2], more[2:]], np.array([1, 0, 1, 1, 0]))
    own, found = open_arrays(before.folder), open_arrays(after.folder)
    assert found.own == len(own.train) == own.own and len(found.train) == found.own + 5
    assert np.array_equal(found.train[: found.own], own.train)
    assert np.array_equal(found.train[found.own :], more)
    assert found.train_labels.tolist() == [*own.train_labels.tolist(), -1, -1, -1, -1, -1]
    assert found.asked.tolist() == [1, 0, 1, 1, 0] and own.asked.tolist() == []
    assert found.labelled == own.labelled
    (before.folder / "fingerprint").write_text("of stage 03")
    extend(after, before.folder, [more], np.array([1, 0, 1, 1, 0]))
    (before.folder / "fingerprint").unlink()
    changed = {"train.npy", "train-labels.npy", "train-asked.npy"}
    first, second = contents(before.folder), contents(after.folder)
    assert {k: v for k, v in second.items() if k not in changed} == {
        k: v for k, v in first.items() if k not in changed
    }


def test_a_broken_try_is_written_over_and_the_first_arrays_stay_as_they_are(tmp_path: Path) -> None:
    before, after = work(tmp_path / "before"), work(tmp_path / "after")
    prepare(before, dataset(tmp_path / "images"), SIZES, nothing)
    first = contents(before.folder)
    more = np.zeros((3, 27, 27, 3), np.uint8)
    for count in (3, 2):
        extend(after, before.folder, [more[:count]], np.zeros(count, np.int64))
    assert len(open_arrays(after.folder).train) == len(open_arrays(before.folder).train) + 2
    assert contents(before.folder) == first


def test_a_disk_that_is_too_small_for_more_images_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = work(tmp_path / "before")
    prepare(before, dataset(tmp_path / "images"), SIZES, nothing)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(StoppedError, match="Free some space"):
        extend(work(tmp_path / "after"), before.folder, [], np.zeros(0, np.int64))
