"""Reading stored targets: rows as they were asked for, and nothing that is of something else or was changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_tensors

from edgedistill.errors import DocumentError, TeacherError
from edgedistill.teacher import cache, records
from edgedistill.teacher.cache import (
    INDEX,
    JoinedTargets,
    LiveTargets,
    StoredTargets,
    read_index,
)
from edgedistill.teacher.course import Lesson
from edgedistill.teacher.records import ABOUT
from tests.teacher.cache_parts import (
    ABOUT as WHAT,
)
from tests.teacher.cache_parts import (
    CLASSES,
    IMAGES,
    ROWS,
    WIDTH,
    Formula,
    content,
    forge,
    formulas,
    keep,
    reader,
)

FIRST = "t0-v0000-s0000.safetensors"
MIDDLE = "t0-v0001-s0001.safetensors"


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "SHARD_IMAGES", ROWS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that stays as it is; tests that damage one make their own, or mend it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "SHARD_IMAGES", ROWS)
        yield keep(tmp_path_factory.mktemp("cache"), content())


# -- rows ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("top_k", [None, 2])
def test_rows_come_in_the_order_in_which_they_are_asked_for(
    top_k: int | None, teachers: int, tmp_path: Path
) -> None:
    held = content(top_k=top_k, teachers=teachers)
    targets, order = reader(keep(tmp_path, held), held), np.random.default_rng(0)
    assert targets.widths == held.widths and targets.classes == CLASSES
    for lesson in (*held.lessons, *reversed(held.lessons)):
        teacher = formulas(held)[lesson.teacher]
        for size in (1, 2, 30):
            index = order.integers(0, IMAGES, size)
            features, logits = targets(lesson, index)
            want, z = teacher(index, lesson.view)
            assert features.dtype == logits.dtype == torch.float32
            assert features.shape == want.shape and logits.shape == (size, CLASSES)
            assert float((features - want).abs().max()) <= 4 * 2**-11
            assert torch.equal(logits.argmax(1), z.argmax(1))
            if top_k is None:
                assert float((logits - (z - z.amax(1, keepdim=True))).abs().max()) < 0.01


@pytest.mark.parametrize("teachers", [1, 2])
def test_outputs_of_synthetic_images_stand_behind_the_others_with_fewer_views(
    teachers: int, tmp_path: Path
) -> None:
    real, few = content(views=4, teachers=teachers), 2
    made = content(views=few, images=13, teachers=teachers)
    first, then = (reader(keep(tmp_path / name, c), c) for name, c in (("a", real), ("b", made)))
    joined = JoinedTargets(first, then, IMAGES, few)
    assert joined.widths == first.widths and joined.classes == CLASSES
    index = np.array([IMAGES + 12, 0, IMAGES - 1, IMAGES, 5])
    for lesson in real.lessons:
        features, logits = joined(lesson, index)
        own, other = (
            first(lesson, index[[1, 2, 4]]),
            then(Lesson(lesson.teacher, lesson.view % few), index[[0, 3]] - IMAGES),
        )
        for got, a, b in ((features, own[0], other[0]), (logits, own[1], other[1])):
            assert torch.equal(got[[1, 2, 4]], a) and torch.equal(got[[0, 3]], b)
        for part in (index[[1, 2]], index[[0, 3]]):
            assert len(joined(lesson, part)[0]) == 2


def test_features_beyond_float16_come_back_with_their_size(tmp_path: Path) -> None:
    class Loud(Formula):
        def __call__(self, index: Any, view: int) -> Any:
            features, logits = super().__call__(index, view)
            return features * (1e6 if int(index[0]) < ROWS else 1.0), logits

    from edgedistill.progress import silent
    from edgedistill.rundir import Work
    from edgedistill.teacher.storing import store

    held = content()
    store(Work(tmp_path), held, [Loud()], silent())
    index = np.array([20, 3, 9])
    features, _ = reader(tmp_path, held)(Lesson(0, 1), index)
    want = Formula()(index, 1)[0] * torch.tensor([1.0, 1e6, 1.0])[:, None]
    assert torch.allclose(features, want, rtol=2**-10, atol=2e-3)


def test_a_shard_is_hashed_once_and_only_when_it_is_opened(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    real = cache.sha256_file
    monkeypatch.setattr(cache, "sha256_file", lambda p: hashed.append(p.name) or real(p))
    targets = reader(whole, content())
    assert hashed == []
    for view in (1, 0, 1):
        targets(Lesson(0, view), np.array([9, 10]))
    assert hashed == [MIDDLE, "t0-v0000-s0001.safetensors"]


# -- damage ----------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.data())
def test_one_byte_changed_anywhere_in_a_shard_is_found_and_named(
    whole: Path, data: st.DataObject
) -> None:
    path = whole / MIDDLE
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    bits = data.draw(st.integers(1, 255))
    path.write_bytes(raw[:at] + bytes([raw[at] ^ bits]) + raw[at + 1 :])
    try:
        targets = reader(whole, content())
        targets(Lesson(0, 0), np.array([9]))
        targets(Lesson(0, 1), np.array([0]))
        with pytest.raises(DocumentError) as caught:
            targets(Lesson(0, 1), np.array([0, 9]))
    finally:
        path.write_bytes(raw)
    text = str(caught.value)
    assert str(path) in text and "damaged" in text and "Nothing was trained on it" in text
    assert "\n" not in text


@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "gone", "folder", "another"])
def test_a_cut_missing_or_exchanged_shard_is_named(damage: str, tmp_path: Path) -> None:
    folder = keep(tmp_path / "cache", content())
    path = folder / MIDDLE
    raw = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        other = (folder / FIRST).read_bytes()
        path.write_bytes(
            {"cut": raw[:-1], "longer": raw + b"\0", "empty": b"", "another": other}[damage]
        )
    with pytest.raises(DocumentError) as caught:
        reader(folder, content())(Lesson(0, 1), np.array([9]))
    assert str(path) in str(caught.value)
    assert ("missing" if damage == "gone" else "damaged") in str(caught.value)


def test_a_shard_of_another_view_is_refused_even_when_the_index_was_made_to_fit(
    tmp_path: Path,
) -> None:
    folder = keep(tmp_path, content())
    forge(folder, MIDDLE, (folder / "t0-v0000-s0001.safetensors").read_bytes())
    with pytest.raises(DocumentError, match="header is that of another shard"):
        reader(folder, content())(Lesson(0, 1), np.array([9]))


def parts(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def joined(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


HOSTILE = {
    "huge": lambda h, d: (2**62).to_bytes(8, "little") + b"{}" + d,
    "no json": lambda h, d: joined(b"\xff" * 64, d),
    "deep": lambda h, d: joined(b"[" * 5_000 + b"]" * 5_000, d),
    "no metadata": lambda h, d: joined(
        json.dumps({k: v for k, v in h.items() if k != "__metadata__"}).encode(), d
    ),
    "deep metadata": lambda h, d: joined(
        json.dumps({**h, "__metadata__": {ABOUT: "[" * 40_000}}).encode(), d
    ),
    "list metadata": lambda h, d: joined(
        json.dumps({**h, "__metadata__": {ABOUT: "[1]"}}).encode(), d
    ),
    "overlap": lambda h, d: joined(
        json.dumps({**h, "features": h["logits"], "logits": h["logits"]}).encode(), d
    ),
    "beyond": lambda h, d: joined(
        json.dumps({**h, "logits": {**h["logits"], "data_offsets": [0, 10**9]}}).encode(), d
    ),
    "shape": lambda h, d: joined(
        json.dumps({**h, "logits": {**h["logits"], "shape": [CLASSES, ROWS]}}).encode(), d
    ),
    "negative": lambda h, d: joined(
        json.dumps({**h, "logits": {**h["logits"], "shape": [-ROWS, -CLASSES]}}).encode(), d
    ),
    "type": lambda h, d: joined(
        json.dumps({**h, "logits": {**h["logits"], "dtype": "BF16"}}).encode(), d
    ),
    "odd type": lambda h, d: joined(
        json.dumps({**h, "logits": {**h["logits"], "dtype": "F6_E2M3"}}).encode(), d
    ),
    "name": lambda h, d: joined(
        json.dumps({("x" if k == "logits" else k): v for k, v in h.items()}).encode(), d
    ),
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_a_hostile_header_is_refused_even_when_the_index_was_made_to_fit(
    kind: str, tmp_path: Path
) -> None:
    folder = keep(tmp_path, content())
    header, data = parts((folder / MIDDLE).read_bytes())
    forge(folder, MIDDLE, HOSTILE[kind](header, data))
    with pytest.raises(DocumentError, match=MIDDLE):
        reader(folder, content())(Lesson(0, 1), np.array([9]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("scale", scale) for scale in (0.0, -1.0, float("inf"), float("nan"), "2", None, True)),
        *(("arithmetic", words) for words in ("float64", None, [], {})),
    ],
)
def test_a_scale_or_an_arithmetic_that_is_none_is_refused(
    key: str, value: object, tmp_path: Path
) -> None:
    folder = keep(tmp_path, content())
    header, data = parts((folder / MIDDLE).read_bytes())
    mark = {**json.loads(header["__metadata__"][ABOUT]), key: value}
    header["__metadata__"][ABOUT] = json.dumps(mark)
    forge(folder, MIDDLE, joined(json.dumps(header).encode(), data))
    with pytest.raises(DocumentError, match=f"the {key} is"):
        reader(folder, content())(Lesson(0, 1), np.array([9]))


def test_a_class_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    held = content(top_k=2)
    folder = keep(tmp_path, held)
    with cache.safe_open(folder / MIDDLE, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["classes"].view(torch.int16)[3, 1] = CLASSES
    forge(folder, MIDDLE, save_tensors(tensors, metadata))
    with pytest.raises(DocumentError, match="classes beyond 5"):
        reader(folder, held)(Lesson(0, 1), np.array([9]))


@settings(max_examples=200)
@given(raw=st.binary(max_size=400))
def test_whatever_stands_in_the_header_no_other_error_leaves(whole: Path, raw: bytes) -> None:
    path, index = whole / MIDDLE, whole / INDEX
    shard, kept = path.read_bytes(), index.read_bytes()
    try:
        forge(whole, MIDDLE, joined(raw, parts(shard)[1]))
        with pytest.raises(DocumentError, match=MIDDLE):
            reader(whole, content())(Lesson(0, 1), np.array([9]))
    finally:
        path.write_bytes(shard)
        index.write_bytes(kept)


# -- of something else -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", list(WHAT))
def test_what_is_of_something_else_is_refused_with_what_differs(key: str, whole: Path) -> None:
    """Another teacher, other images, another number of kept logits, another seed of the views."""
    wanted = {**WHAT, key: "another"}
    with pytest.raises(DocumentError) as caught:
        StoredTargets(whole, wanted, content().lessons, IMAGES, CLASSES)
    assert f"{key} was {WHAT[key]}, expected another." in str(caught.value)


def test_what_one_side_does_not_say_differs_too(whole: Path) -> None:
    for wanted, words in (
        ({**WHAT, "views.mix": "mixup"}, "views.mix was not said, expected mixup"),
        ({k: v for k, v in WHAT.items() if k != "pixels"}, "expected nothing"),
    ):
        with pytest.raises(DocumentError, match=words):
            StoredTargets(whole, wanted, content().lessons, IMAGES, CLASSES)


def test_another_number_of_images_or_classes_is_refused(whole: Path) -> None:
    lessons = content().lessons
    with pytest.raises(DocumentError, match="images was 21, expected 22"):
        StoredTargets(whole, WHAT, lessons, IMAGES + 1, CLASSES)
    with pytest.raises(DocumentError, match="classes was 5, expected 6"):
        StoredTargets(whole, WHAT, lessons, IMAGES, CLASSES + 1)


def test_views_that_were_not_stored_are_named(whole: Path) -> None:
    lessons = [*content().lessons, Lesson(0, 2), Lesson(1, 0)]
    with pytest.raises(DocumentError, match="lack 2 of the 4 views, the first is view 2 of tea"):
        StoredTargets(whole, WHAT, lessons, IMAGES, CLASSES)
    StoredTargets(whole, WHAT, [Lesson(0, 1)], IMAGES, CLASSES)


# -- the index -------------------------------------------------------------------------------------


def test_the_index_says_what_every_shard_is(whole: Path) -> None:
    doc = json.loads((whole / INDEX).read_text("utf-8"))
    assert doc["schema"] == "edgedistill.targets/1" and doc["about"] == WHAT
    assert (doc["images"], doc["classes"], doc["widths"]) == (IMAGES, CLASSES, [WIDTH])
    assert [e["rows"] for e in doc["shards"]] == [8, 8, 5] * 2
    for entry in doc["shards"]:
        path = whole / entry["name"]
        assert entry["bytes"] == path.stat().st_size
        assert entry["sha256"] == cache.sha256_file(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["shards"].pop(1),
        lambda d: d["shards"].pop(),
        lambda d: d["shards"].clear(),
        lambda d: d["shards"].append(d["shards"][0]),
        lambda d: d["shards"].reverse(),
        lambda d: d["shards"][0].update(name="../../secret.safetensors"),
        lambda d: d["shards"][0].update(name=MIDDLE),
        lambda d: d["shards"][0].update(rows=9),
        lambda d: d["shards"][0].update(rows=-8),
        lambda d: d["shards"][0].update(rows=0),
        lambda d: d["shards"][0].update(teacher=1),
        lambda d: d["shards"][0].update(sha256="no"),
        lambda d: d.update(images=20),
        lambda d: d.update(widths=[]),
        lambda d: d.update(widths=[0]),
        lambda d: d.update(schema="edgedistill.targets/2"),
        lambda d: d.update(top_k=0),
        lambda d: d.update(more=1),
        lambda d: d.update(about=[]),
    ],
)
def test_an_index_that_does_not_hold_together_is_refused(change: Any, tmp_path: Path) -> None:
    folder = keep(tmp_path, content())
    assert len(read_index(folder).shards) == 6
    doc = json.loads((folder / INDEX).read_text("utf-8"))
    change(doc)
    (folder / INDEX).write_text(json.dumps(doc), "utf-8")
    with pytest.raises(DocumentError, match=INDEX):
        reader(folder, content())


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_an_index_that_is_none_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(raw)
    with pytest.raises(DocumentError, match=INDEX):
        read_index(tmp_path)


def test_a_folder_without_an_index_is_no_cache(tmp_path: Path) -> None:
    keep(tmp_path, content())
    (tmp_path / INDEX).unlink()
    with pytest.raises(DocumentError, match=r"index\.json does not exist"):
        reader(tmp_path, content())


# -- live ------------------------------------------------------------------------------------------


def test_a_live_teacher_says_what_a_cache_would(whole: Path) -> None:
    live, stored = LiveTargets([Formula()], CLASSES), reader(whole, content())
    assert live.widths == stored.widths and live.classes == stored.classes
    index = np.array([20, 0, 8])
    for lesson in content().lessons:
        for now, then in zip(live(lesson, index), stored(lesson, index), strict=True):
            assert now.dtype == then.dtype
            assert float((now - then).abs().max()) < 0.01


def test_what_a_live_teacher_says_takes_part_in_a_gradient() -> None:
    class Inferring(Formula):
        def __call__(self, index: Any, view: int) -> Any:
            with torch.inference_mode():
                return super().__call__(index, view)

    features, logits = LiveTargets([Inferring()], CLASSES)(Lesson(0, 0), np.arange(4))
    weight = torch.ones(1, requires_grad=True)
    ((features.sum() + logits.sum()) * weight).sum().backward()
    ((weight * features) * (weight * features)).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("part", [0, 1])
def test_a_live_teacher_that_gives_no_numbers_is_named(part: int) -> None:
    class Broken(Formula):
        def __call__(self, index: Any, view: int) -> Any:
            both = super().__call__(index, view)
            both[part][index == 7] = float("inf")
            return both

    live = LiveTargets([Formula(), Broken()], CLASSES)
    live(Lesson(0, 5), np.array([3, 7]))
    live(Lesson(1, 5), np.array([3, 6]))
    with pytest.raises(TeacherError, match="not finite for view 5, first of image 7") as caught:
        live(Lesson(1, 5), np.array([3, 7]))
    assert ("features", "logits")[part] in str(caught.value)
