"""Image folders as users have them."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgedistill.data import scan as scan_module
from edgedistill.data.dataset import SPLITS, quiet
from edgedistill.data.scan import inspect, scan
from edgedistill.data.sources import open_source
from edgedistill.errors import DataError
from edgedistill.recipe import DataSection

LIMIT = 1_000_000


def picture(seed: int, width: int = 9, height: int = 7, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def classes(
    root: Path, n: int = 10, names: tuple[str, ...] = ("cat", "dog"), start: int = 0
) -> Path:
    for k, name in enumerate(names):
        for i in range(n):
            put(root / name / f"{i:03d}.png", encoded(picture(start + 1000 * k + i)))
    return root


def section(root: Path, **values: object) -> DataSection:
    return DataSection(source=str(root), **values)  # type: ignore[arg-type]


def names(root: Path, **values: object) -> dict[str, str]:
    return {s.path: s.reason for s in open_source(section(root, **values), 0).skipped}


def test_a_folder_without_splits_is_split_by_class(tmp_path: Path) -> None:
    data = open_source(section(classes(tmp_path / "pets", 20)), seed=0)
    assert data.name == "pets"
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val), len(data.test)) == (26, 6, 8)
    assert data.skipped == ()
    assert (data.duplicates, data.image_side, data.licence) == (0, 7, None)
    assert all(item.key.startswith(data.classes[item.label]) for item in data.train)
    again = open_source(section(tmp_path / "pets"), seed=0)
    assert again == data
    assert open_source(section(tmp_path / "pets"), seed=1).sha256 != data.sha256


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_given_splits_are_kept(tmp_path: Path, val: str) -> None:
    for k, (split, n) in enumerate((("train", 6), (val, 3), ("test", 2))):
        classes(tmp_path / split, n, start=50 * k)
    data = open_source(section(tmp_path), seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 6, 4)
    assert data.split == "train, val and test folders as given"
    assert all(item.key.startswith("test/") for item in data.test)


def test_a_missing_val_is_drawn_from_train(tmp_path: Path) -> None:
    classes(tmp_path / "train", 20)
    classes(tmp_path / "test", 4, start=50)
    data = open_source(section(tmp_path), seed=3)
    assert (len(data.train), len(data.val), len(data.test)) == (34, 6, 8)
    assert data.split == (
        "test as given; 15 % for val drawn from train by content, class by class (seed 3)"
    )


def test_bytes_of_a_test_image_are_dropped_from_train_and_named(tmp_path: Path) -> None:
    classes(tmp_path / "train", 6)
    classes(tmp_path / "val", 2, start=50)
    classes(tmp_path / "test", 2, start=70)
    leaked = (tmp_path / "test/cat/000.png").read_bytes()
    put(tmp_path / "train/cat/copy.png", leaked)
    put(tmp_path / "test/cat/copy.png", leaked)
    data = open_source(section(tmp_path), seed=0)
    assert len(data.train) == 12
    assert len(data.test) == 5
    assert data.duplicates == 2
    assert [(s.path, s.reason) for s in data.skipped] == [
        ("train/cat/copy.png", "the same bytes as test/cat/000.png")
    ]


def test_copies_in_an_unsplit_folder_stay_on_one_side(tmp_path: Path) -> None:
    classes(tmp_path, 8)
    for k in range(8):
        put(tmp_path / f"cat/copy{k}.png", (tmp_path / f"cat/{k:03d}.png").read_bytes())
    data = open_source(section(tmp_path), seed=0)
    sides = [{item.sha256 for item in data.items(s)} for s in SPLITS]
    assert sum(map(len, sides)) == 16
    assert len(set.union(*sides)) == 16
    assert data.duplicates == 8
    assert len(data.train) + len(data.val) + len(data.test) == 24


def test_one_content_under_two_classes_is_left_out_and_named(tmp_path: Path) -> None:
    classes(tmp_path, 10)
    put(tmp_path / "dog/cat.png", (tmp_path / "cat/000.png").read_bytes())
    assert names(tmp_path) == {
        "cat/000.png": "the same bytes stand under another class",
        "dog/cat.png": "the same bytes stand under another class",
    }
    with pytest.raises(DataError, match=r"2 of 21 files \(10%\).*stand under another class"):
        open_source(section(tmp_path, max_bad_fraction=0.05), seed=0)


ODD: dict[str, tuple[bytes, str]] = {
    "zero.jpg": (b"", "empty"),
    "text.png": (b"no image at all", "not an image"),
    "truncated.jpg": (encoded(picture(1, 99, 99), "JPEG")[:900], "truncated"),
    "half.png": (encoded(picture(2, 99, 99))[:4000], "truncated"),
    "wide.png": (encoded(picture(3, 1500, 900)), "too large"),
    "long.png": (encoded(picture(4, 510, 10)), "too long"),
}


def test_odd_files_are_counted_named_and_left_out(tmp_path: Path) -> None:
    classes(tmp_path, 20)
    for name, (data, _) in ODD.items():
        put(tmp_path / "cat" / name, data)
    found = names(tmp_path, max_bad_fraction=0.2, max_pixels=LIMIT)
    assert found.keys() == {f"cat/{name}" for name in ODD}
    for name, (_, reason) in ODD.items():
        assert reason in found[f"cat/{name}"], name


def test_too_many_bad_files_are_an_error_with_counts_and_first_names(tmp_path: Path) -> None:
    classes(tmp_path, 10)
    for k in range(8):
        put(tmp_path / f"dog/bad{k}.png", b"x" * (k + 1))
    with pytest.raises(DataError) as caught:
        open_source(section(tmp_path), seed=0)
    text = str(caught.value)
    assert "8 of 28 files (29%)" in text
    assert "dog/bad0.png (not an image" in text
    assert "and 3 more" in text
    assert "data.max_bad_fraction=0.30" in text
    assert len(open_source(section(tmp_path, max_bad_fraction=0.3), 0).skipped) == 8


def deep_png(path: Path) -> None:
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(values).save(path)


KINDS: dict[str, Callable[[Path], object]] = {
    "grey.png": lambda p: picture(1, mode="L").save(p),
    "deep.png": deep_png,
    "deep.tif": lambda p: deep_png(p),
    "one_bit.png": lambda p: picture(2, mode="1").save(p),
    "palette.gif": lambda p: picture(3, mode="P").save(p),
    "alpha_palette.png": lambda p: picture(4, mode="P").save(p, transparency=0),
    "alpha.png": lambda p: picture(5, mode="RGBA").save(p),
    "alpha_grey.png": lambda p: picture(6, mode="LA").save(p),
    "cmyk.jpg": lambda p: picture(7, mode="CMYK").save(p),
    "photo.webp": lambda p: picture(8).save(p),
    "bitmap.bmp": lambda p: picture(9).save(p),
    "lab.tif": lambda p: picture(10).convert("RGB").save(p),
    "wrong_suffix.txt": lambda p: picture(11).save(p, "JPEG"),
    "no_suffix": lambda p: picture(12).save(p, "PNG"),
    "UPPER.JPEG": lambda p: picture(13).save(p, "JPEG"),
    "one pixel.png": lambda p: picture(14, 1, 1).save(p),
    "ünïcode 名.png": lambda p: picture(15).save(p),
    "nested/deeper/x.png": lambda p: picture(16).save(p),
}


def test_every_kind_of_image_is_taken_and_reads_as_rgb(tmp_path: Path) -> None:
    classes(tmp_path, 3)
    for name, save in KINDS.items():
        path = tmp_path / "cat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path)
    data = open_source(section(tmp_path), seed=0)
    assert data.skipped == ()
    items = [*data.train, *data.val, *data.test]
    assert {f"cat/{name}" for name in KINDS} <= {item.key for item in items}
    assert {data.read(item).mode for item in items} == {"RGB"}


def test_a_turned_photograph_is_read_upright(tmp_path: Path) -> None:
    classes(tmp_path, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, 40, 20).save(tmp_path / "cat" / "turned.jpg", exif=exif)
    data = open_source(section(tmp_path), seed=0)
    item = next(i for i in [*data.train, *data.val, *data.test] if "turned" in i.key)
    assert data.read(item).size == (20, 40)


def test_hidden_and_system_files_are_ignored(tmp_path: Path) -> None:
    classes(tmp_path, 4)
    for name in (".DS_Store", "cat/.hidden.png", "cat/Thumbs.db", "__MACOSX/cat/x.png", ".git/x"):
        put(tmp_path / name, b"junk")
    data = open_source(section(tmp_path), seed=0)
    assert data.classes == ("cat", "dog")
    assert data.skipped == ()


def test_files_outside_the_class_folders_are_named_but_are_not_bad(tmp_path: Path) -> None:
    classes(tmp_path / "train", 4)
    classes(tmp_path / "extra", 2)
    for name in ("README.md", "train/labels.csv"):
        put(tmp_path / name, b"text")
    found = names(tmp_path, max_bad_fraction=0.0)
    assert set(found.values()) == {"outside the class folders"}
    assert {"README.md", "train/labels.csv", "extra/cat/000.png"} <= found.keys()


def test_links_inside_are_followed_and_links_that_leave_are_named(tmp_path: Path) -> None:
    root = classes(tmp_path / "data", 10)
    secret = put(tmp_path / "secret.png", encoded(picture(99)))
    (root / "cat/leaves.png").symlink_to(secret)
    (root / "cat/nowhere.png").symlink_to(root / "missing.png")
    (root / "cat/itself.png").symlink_to(root / "cat/itself.png")
    (root / "cat/folder").symlink_to(tmp_path)
    (root / "cat/inside.png").symlink_to(root / "cat/001.png")
    os.mkfifo(root / "cat/pipe.png")
    found = names(root, max_bad_fraction=0.3)
    assert {path: reason.split(";")[0] for path, reason in found.items()} == {
        "cat/leaves.png": "a link that leaves the data folder",
        "cat/nowhere.png": "a link that leads nowhere",
        "cat/itself.png": "a link that leads nowhere",
        "cat/folder": "a link to a folder",
        "cat/pipe.png": "not a regular file",
    }
    assert open_source(section(root, max_bad_fraction=0.3), 0).duplicates == 1


def test_a_data_folder_may_itself_be_a_link(tmp_path: Path) -> None:
    classes(tmp_path / "real", 4)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(open_source(section(tmp_path / "link"), 0).train) == 4


def test_a_class_folder_that_is_a_link_is_an_error_and_not_a_lost_class(tmp_path: Path) -> None:
    root = classes(tmp_path / "data", 4)
    classes(tmp_path / "far", 4, ("bird",))
    (root / "bird").symlink_to(tmp_path / "far/bird")
    with pytest.raises(DataError, match=r"bird in .* a link to a folder"):
        open_source(section(root), seed=0)


def test_names_that_are_not_text_are_escaped(tmp_path: Path) -> None:
    classes(tmp_path, 4)
    folder = os.fsencode(tmp_path / "cat")
    for name, content in ((b"\xff.png", encoded(picture(77))), (b"\xfe\n.png", b"junk")):
        with open(folder + b"/" + name, "wb") as file:
            file.write(content)
    data = open_source(section(tmp_path, max_bad_fraction=0.5), seed=0)
    assert [s.path for s in data.skipped] == ["cat/\\udcfe\\n.png"]
    assert len(data.train) + len(data.val) + len(data.test) == 9
    for item in [*data.train, *data.val, *data.test]:
        data.read(item)
    data.document().model_dump_json()


def test_an_image_that_changes_later_is_an_error(tmp_path: Path) -> None:
    data = open_source(section(classes(tmp_path, 4)), seed=0)
    first, second = data.train[:2]
    put(tmp_path / first.key, encoded(picture(12345)))
    (tmp_path / second.key).unlink()
    with pytest.raises(DataError, match=r"changed since.*its content is another one"):
        data.read(first)
    with pytest.raises(DataError, match=r"changed since.*No such file"):
        data.read(second)


def test_a_second_scan_decodes_only_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = classes(tmp_path / "data", 5), tmp_path / "index.json"
    put(root / "cat/bad.png", b"x")
    decoded: list[Path] = []

    def counting(path: Path, max_pixels: int) -> scan_module.Facts:
        decoded.append(path)
        return inspect(path, max_pixels)

    monkeypatch.setattr(scan_module, "inspect", counting)
    chosen = section(root, max_bad_fraction=0.5)
    first = open_source(chosen, 0, cache)
    assert len(decoded) == 11
    decoded.clear()
    assert open_source(chosen, 0, cache) == first
    assert decoded == []
    put(root / "dog/new.png", encoded(picture(500)))
    put(root / "cat/000.png", encoded(picture(501, 30, 30)))
    (root / "cat/bad.png").unlink()
    changed = open_source(chosen, 0, cache)
    assert sorted(path.name for path in decoded) == ["000.png", "new.png"]
    assert changed == open_source(chosen, 0)
    decoded.clear()
    open_source(section(root, max_bad_fraction=0.5, max_pixels=500), 0, cache)
    assert len(decoded) == 11


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: '{"files": []}',
        lambda text: text.replace("edgedistill.index/1", "edgedistill.index/9"),
        lambda text: text.replace("null]", "null, 3]"),
        lambda text: text.replace(", 9, 7, null", ', "9", 7, null'),
        lambda text: json.dumps({**json.loads(text), "files": {"cat/000.png": None}}),
    ],
)
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: Callable[[str], str]) -> None:
    root, cache = classes(tmp_path / "data", 3), tmp_path / "index.json"
    expected = open_source(section(root), 0, cache)
    whole = cache.read_text()
    cache.write_text(damage(whole))
    assert open_source(section(root), 0, cache) == expected
    assert cache.read_text() == whole


def test_an_index_that_cannot_be_written_does_not_stop_the_build(tmp_path: Path) -> None:
    root = classes(tmp_path / "data", 3)
    data = open_source(section(root), 0, tmp_path / "missing" / "index.json")
    assert len(data.train) == 2


def test_pillows_warnings_stay_off_the_screen(tmp_path: Path) -> None:
    tags = bytearray(encoded(picture(1, 24, 24), "TIFF"))
    at = int.from_bytes(tags[4:8], "little")  # the directory; the second entry's count becomes huge
    for k in range(int.from_bytes(tags[at : at + 2], "little")):
        entry = at + 2 + 12 * k
        if int.from_bytes(tags[entry : entry + 2], "little") in (273, 279):
            tags[entry + 4 : entry + 8] = b"\xff\xff\xff\x0f"
    put(tmp_path / "any", bytes(tags))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        inspect(tmp_path / "any", LIMIT)
        assert shown
        shown.clear()
        scan(tmp_path, ["any"], LIMIT)
        assert shown == []


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_source(section(classes(tmp_path, 4)), 0, progress=lambda *now: seen.append(now))
    assert seen == [(k, 8) for k in range(1, 9)]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(
            st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO"]),
            st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
            st.integers(0, 300),
        ),
    )
)
def test_no_bytes_break_a_scan(
    tmp_path: Path, case: bytes | tuple[str, list[tuple[int, int]], int]
) -> None:
    if isinstance(case, bytes):
        data = case
    else:
        kind, edits, cut = case
        broken = bytearray(encoded(picture(1, 24, 24), kind))
        for place, value in edits:
            broken[place % len(broken)] = value
        data = bytes(broken[: len(broken) - cut or None])
    path = put(tmp_path / "any", data)
    facts = scan(tmp_path, ["any"], LIMIT)["any"]
    assert (facts.sha256 is None) == (facts.reason is not None)
    with quiet():
        assert facts == inspect(path, LIMIT)
    if facts.sha256 is None:
        assert facts.reason
        assert "\n" not in facts.reason


def test_a_bomb_is_left_out_without_being_unpacked(tmp_path: Path) -> None:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = bytearray(encoded(picture(1)))
    png[16:29] = head
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    path = put(tmp_path / "bomb.png", bytes(png))
    assert "too large" in (inspect(path, 100_000_000).reason or "")
