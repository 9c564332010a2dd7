"""Storing: every record of every view once, whole or not at all, by one process or by several."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter, namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from rich.console import Console

from edgedistill.data.views import Views
from edgedistill.errors import DocumentError, StoppedError, TeacherError
from edgedistill.nets import Look, forward, state_bytes
from edgedistill.progress import Face, silent
from edgedistill.rundir import Done, Work
from edgedistill.teacher import records, storing
from edgedistill.teacher.cache import INDEX, StoredTargets
from edgedistill.teacher.course import Course, Lesson, about_views
from edgedistill.teacher.lecturer import lecturers
from edgedistill.teacher.records import Content
from edgedistill.teacher.stage import restore
from edgedistill.teacher.storing import plan_storage, store
from tests.teacher.cache_parts import (
    CLASSES,
    IMAGES,
    ROWS,
    Formula,
    all_of,
    content,
    formulas,
    keep,
    reader,
)

HOME = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "SHARD_IMAGES", ROWS)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "seconds.json"
    }


# -- what is stored --------------------------------------------------------------------------------


def test_every_image_of_every_view_is_asked_for_once(tmp_path: Path) -> None:
    held, teacher = content(views=3), Formula()
    facts = store(Work(tmp_path), held, [teacher], silent())
    assert Counter(teacher.asked) == Counter((i, v) for v in range(3) for i in range(IMAGES))
    assert facts["passes"] == 3 * IMAGES and facts["missing"] == 0
    assert facts["bytes"] == sum(p.stat().st_size for p in tmp_path.glob("*.safetensors"))
    assert (facts["views"], facts["images"], facts["lessons"]) == (3, IMAGES, 3)
    assert json.loads(json.dumps(facts)) == facts


def test_each_teacher_of_a_ladder_tells_its_own_views(tmp_path: Path) -> None:
    """Five epochs over three views by two teachers: what is stored is what the epochs ask for, and no more."""
    lessons = tuple(Course(5, 3, 2).lessons())
    assert [(x.teacher, x.view) for x in lessons] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    held = replace(content(teachers=2), lessons=lessons)
    facts = store(Work(tmp_path), held, formulas(held), silent())
    assert facts["passes"] == 5 * IMAGES and facts["views"] == 3
    targets = reader(tmp_path, held)
    first, second = targets(Lesson(0, 1), np.arange(4)), targets(Lesson(1, 1), np.arange(4))
    assert first[0].shape == (4, 6) and second[0].shape == (4, 8)
    assert not torch.equal(first[1], second[1])


def test_storing_twice_gives_the_same_bytes_and_asks_no_teacher(tmp_path: Path) -> None:
    held = content()
    first = files(keep(tmp_path / "a", held))
    assert files(keep(tmp_path / "b", held)) == first
    teacher = Formula()
    facts = store(Work(tmp_path / "a"), held, [teacher], silent())
    assert teacher.asked == [] and facts["missing"] == 0
    assert files(tmp_path / "a") == first


def test_the_size_is_known_beforehand(tmp_path: Path) -> None:
    for top_k in (None, 2):
        held = content(views=3, images=1000, top_k=top_k)
        planned = plan_storage(held)
        assert planned.images == 3000
        folder = keep(tmp_path / str(top_k), replace(held, images=IMAGES))
        data = sum(
            len(raw) - 8 - int.from_bytes(raw[:8], "little")
            for name, raw in files(folder).items()
            if name != INDEX
        )
        assert data * 1000 == planned.bytes * IMAGES


# -- real networks ---------------------------------------------------------------------------------

CANVAS = np.random.default_rng(0).integers(0, 256, (11, 44, 44, 3), dtype=np.uint8)
LOOK = {"size": 40, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.2]}


def finished(folder: Path, seed: int = 0) -> tuple[Done, torch.nn.Module]:
    """A teacher stage that ended before, and its network."""
    folder.mkdir()
    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", num_classes=CLASSES).eval()
    (folder / "teacher.safetensors").write_bytes(state_bytes(model))
    facts = {
        "architecture": "test_resnet", "classes": CLASSES, "rebuild": {}, "look": LOOK, "features": 96,
    }  # fmt: skip
    return Done("04-teacher", folder, f"{seed}" * 64, facts, 1.0), model


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_records_are_what_the_teacher_says_of_the_views_that_the_student_sees(
    mix: str, tmp_path: Path
) -> None:
    done, model = finished(tmp_path / "teacher")
    views = Views(3, 0.7, True, 2, magnitude=5.0, erasing=0.5, mix=mix)
    found = lecturers(done, CANVAS, views, torch.device("cpu"))
    about = about_views(done, Done("03-pixels", tmp_path, "p" * 64, {}, 1.0), views.about(), None)
    assert [lecturer.features for lecturer in found] == [96]
    lessons = tuple(Course(2, 2).lessons())
    held = Content(lessons, 11, (96,), CLASSES, None, about)
    (tmp_path / "cache").mkdir()
    store(Work(tmp_path / "cache"), held, found, silent())
    targets, look = reader(tmp_path / "cache", held), Look(40, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
    index = np.array([7, 0, 10, 3])
    for lesson in lessons:
        with torch.inference_mode():
            cuts = [views.pixels(CANVAS, index, v, 40, torch.device("cpu")) for v in (0, 1)]
            said = [forward(model, look.normalise(cut)) for cut in cuts]
        for part, got in enumerate(targets(lesson, index)):
            want, other = said[lesson.view][part], said[1 - lesson.view][part]
            if part == 1:
                want, other = (z - z.amax(1, keepdim=True) for z in (want, other))
            assert float((got - want).abs().max()) < 0.03 * float(want.abs().max())
            assert float((got - want).abs().mean()) < 0.3 * float((got - other).abs().mean())


def test_the_stored_teacher_comes_back_with_its_weights(tmp_path: Path) -> None:
    done, model = finished(tmp_path / "t", 5)
    assert state_bytes(restore(done)) == state_bytes(model)


def test_what_stored_outputs_are_of_names_every_rule_of_the_views(tmp_path: Path) -> None:
    pixels = Done("03-pixels", tmp_path, "p" * 64, {}, 1.0)
    teacher = Done("04-teacher", tmp_path, "t" * 64, {}, 1.0)
    views = Views(3, 0.7, True, 2)
    base = about_views(teacher, pixels, views.about(), None)
    assert all(isinstance(value, str) for value in base.values())
    changes: list[dict[str, str]] = [
        about_views(replace(teacher, fingerprint="u"), pixels, views.about(), None),
        about_views(teacher, replace(pixels, fingerprint="q"), views.about(), None),
        about_views(teacher, pixels, views.about(), 10),
    ]
    for other in (
        {"seed": 4}, {"min_crop": 0.71}, {"flip": False}, {"magnitude": 1.0}, {"erasing": 0.1},
        {"mix": "mixup"}, {"mix_alpha": 0.2},
    ):  # fmt: skip
        changes.append(about_views(teacher, pixels, replace(views, **other).about(), None))
    for changed in changes:
        assert sum(changed[key] != base[key] for key in base) == 1
    assert about_views(teacher, pixels, replace(views, count=9).about(), None) == base
    held = replace(content(), about=base)
    keep(tmp_path / "cache", held)
    for changed in changes:
        with pytest.raises(DocumentError, match="are of something else"):
            StoredTargets(tmp_path / "cache", changed, held.lessons, IMAGES, CLASSES)


# -- what stops it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", [0, 1])
def test_a_number_that_is_none_is_named_and_nothing_of_it_is_stored(
    part: int, bad: float, tmp_path: Path
) -> None:
    class Broken(Formula):
        def __call__(self, index: Any, view: int) -> Any:
            both = super().__call__(index, view)
            if view == 1:
                both[part][index >= 13] = bad
            return both

    with pytest.raises(TeacherError) as caught:
        store(Work(tmp_path), content(), [Broken()], silent())
    text = str(caught.value)
    assert "not finite for view 1, first of image 13" in text and "another teacher" in text
    assert ("features", "logits")[part] in text
    assert sorted(files(tmp_path)) == [*(f"t0-v0000-s000{s}.safetensors" for s in range(3)),
                                       "t0-v0001-s0000.safetensors"]  # fmt: skip
    with pytest.raises(DocumentError):
        reader(tmp_path, content())


def test_a_disk_that_is_too_small_is_told_before_any_teacher_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, teacher = namedtuple("usage", "total used free"), Formula()
    held = content(images=10_000_000)
    monkeypatch.setattr(records, "SHARD_IMAGES", 8_192)
    free = plan_storage(held).bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2 * free, free, free))
    with pytest.raises(StoppedError) as caught:
        store(Work(tmp_path), held, [teacher], silent())
    text = str(caught.value)
    assert "440 MB more (2 views of 10,000,000 images) and the disk has 440 MB free" in text
    for word in ("distill.views", "distill.top_k", "distill.targets=live"):
        assert word in text
    assert teacher.asked == [] and caught.value.exit_code == 3


# -- what is said ----------------------------------------------------------------------------------


def told(tmp_path: Path, held: Content, part: tuple[int, int] = (0, 1)) -> list[str]:
    with (tmp_path / "told").open("w+") as file:
        face = Face(2, Console(file=file, width=200, soft_wrap=True))
        store(Work(tmp_path), held, formulas(held), face, part)
        file.seek(0)
        return [line.strip() for line in file.read().splitlines()]


def test_size_and_time_are_said_once_for_each_teacher(tmp_path: Path) -> None:
    (line,) = told(tmp_path, content(images=100))
    assert line.startswith("storing 2 views of 100 images: 0.0 MB, about 1 s")
    lines = told(tmp_path, content(teachers=2))
    assert [line.partition(":")[0] for line in lines] == [
        f"storing 2 views of 21 images, teacher {t} of 2" for t in (1, 2)
    ]
    assert told(tmp_path, content(teachers=2)) == []


def test_what_is_left_of_a_broken_try_is_said(tmp_path: Path) -> None:
    held = content(views=1)
    keep(tmp_path, held)
    (tmp_path / "t0-v0000-s0002.safetensors").unlink()
    (line,) = told(tmp_path, held)
    assert "storing 1 view of 21 images: 0.0 MB, 0.0 MB to do here, about" in line


def test_the_time_is_that_of_the_batches_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 s for the first batch, then 2 s each: 2,000 batches of 128 images are 67 minutes."""
    now = [0.0]
    monkeypatch.setattr(storing.time, "monotonic", lambda: now[0])
    said: list[str] = []
    face = silent()
    monkeypatch.setattr(face, "say", said.append)
    pace = storing._Pace(face, "storing", 2000 * 128)
    for seconds in (60, 2, 2, 2, 200, 200):
        now[0] += seconds
        pace.seen(128)
    assert said == ["    storing, about 67 min"]


def test_what_takes_some_seconds_only_is_a_detail(tmp_path: Path) -> None:
    with (tmp_path / "told").open("w+") as file:
        held, face = content(), Face(1, Console(file=file))
        store(Work(tmp_path), held, formulas(held), face)
        assert file.tell() == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 s"), (89, "89 s"), (100, "1.7 min"), (1500, "25 min"), (7200, "2.0 h")],
)
def test_times_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert storing._time(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(1e5, "0.1 MB"), (126e6, "126 MB"), (999.9e6, "1,000 MB"), (4.2e10, "42 GB")],
)
def test_sizes_are_said_as_people_say_them(count: int, text: str) -> None:
    assert storing._size(count) == text


# -- broken, and together --------------------------------------------------------------------------


def test_a_shard_that_a_broken_try_left_damaged_is_stored_anew(tmp_path: Path) -> None:
    held = content()
    first = files(keep(tmp_path, held))
    (tmp_path / INDEX).unlink()
    name = "t0-v0001-s0001.safetensors"
    raw = first[name]
    (tmp_path / name).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    teacher = Formula()
    store(Work(tmp_path), held, [teacher], silent())
    assert sorted(set(teacher.asked)) == [(image, 1) for image in range(8, 16)]
    assert files(tmp_path) == first


def test_shards_of_something_else_are_stored_anew(tmp_path: Path) -> None:
    keep(tmp_path, content(about={**content().about, "teacher": "c" * 64}))
    held, teacher = content(), Formula(seed=1)
    store(Work(tmp_path), held, [teacher], silent())
    assert len(teacher.asked) == 2 * IMAGES
    assert float(reader(tmp_path, held)(Lesson(0, 0), np.array([0]))[0].abs().sum()) > 0


def process(folder: Path, part: int, of: int, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.teacher.storing_process", str(folder), str(part), str(of), str(pause)],
        cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def shards(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("t*.safetensors")}


def test_killed_at_work_it_goes_on_without_a_gap_or_a_double(tmp_path: Path) -> None:
    held = content(views=4)
    want = files(keep(tmp_path / "unbroken", held))
    folder = tmp_path / "killed"
    folder.mkdir()
    running = process(folder, 0, 1, 0.2)
    deadline = time.monotonic() + 60
    while len(shards(folder)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.kill()
    running.communicate()
    kept = shards(folder)
    assert 4 <= len(kept) < 12 and not (folder / INDEX).exists()
    times = {name: (folder / name).stat().st_mtime_ns for name in kept}
    for litter in folder.glob(".*.tmp"):  # what the run folder does when a stage starts again
        litter.unlink()
    teacher = Formula()
    store(Work(folder), held, [teacher], silent())
    assert files(folder) == want
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == times
    numbers = {(s.lesson.view, i) for s in held.shards() if s.name not in kept
               for i in range(s.first, s.first + s.rows)}  # fmt: skip
    assert sorted(teacher.asked) == sorted((image, view) for view, image in numbers)


def test_two_processes_store_one_cache_without_talking(tmp_path: Path) -> None:
    """This one and another, at the same time; whoever comes last writes the index."""
    held = content(views=4)
    want = files(keep(tmp_path / "alone", held))
    folder = tmp_path / "together"
    folder.mkdir()
    running = process(folder, 0, 2, 0.1)
    while not shards(folder) and running.poll() is None:
        time.sleep(0.01)
    teacher = Formula()
    facts = store(Work(folder), held, [teacher], silent(), (1, 2))
    assert facts["missing"] > 0 and len(teacher.asked) == 2 * IMAGES
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out.strip()) == (0, "0"), err
    assert files(folder) == want
    same = zip(all_of(reader(folder, held)), all_of(reader(tmp_path / "alone", held)), strict=True)
    assert all(np.array_equal(a, b) for a, b in same)


def test_parts_are_disjoint_whatever_is_there_already(tmp_path: Path) -> None:
    """A part that starts late, or again, never takes what another part is at."""
    held = content(views=4)
    teachers = [Formula() for _ in range(3)]
    facts = [
        store(Work(tmp_path), held, [teachers[part]], silent(), (part, 3)) for part in (2, 0, 1)
    ]
    assert [f["missing"] for f in facts] == [8, 4, 0]
    asked = Counter(pair for teacher in teachers for pair in teacher.asked)
    assert set(asked.values()) == {1} and len(asked) == 4 * IMAGES
    assert (tmp_path / INDEX).exists()
