"""WebDataset shards, sound and hostile."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from data_parts import images, opened, png, reasons, samples, section, tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_iterator

from edgedistill.data import shards as shards_module
from edgedistill.data.dataset import labels
from edgedistill.data.scan import inspect_bytes
from edgedistill.data.sources import open_source
from edgedistill.data.tarindex import Wanted, read_index, split_name
from edgedistill.errors import DataError

LIMIT = 1_000_000


def write_with_the_library(folder: Path, n: int = 24, per_shard: int = 8) -> Path:
    folder.mkdir()
    pattern = str(folder / "pets-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=per_shard, verbose=0) as sink:  # type: ignore[attr-defined]
        for k in range(n):
            image = Image.open(io.BytesIO(png(k)))
            sink.write({"__key__": f"{k:06d}", "png": image, "cls": k % 3, "json": {"id": k}})
    return folder


def test_shards_that_the_library_wrote_are_read_in_place(tmp_path: Path) -> None:
    root = write_with_the_library(tmp_path / "pets")
    data = opened(root)
    assert (data.name, data.classes) == ("pets", ("0", "1", "2"))
    assert sum(map(len, (data.train, data.val, data.test))) == 24
    assert data.skipped == ()
    for item in (*data.train, *data.val, *data.test):
        k = int(item.key.rpartition("/")[2].partition(".")[0])
        assert item.label == k % 3
        wanted = np.asarray(Image.open(io.BytesIO(png(k))).convert("RGB"))
        assert np.array_equal(np.asarray(data.read(item)), wanted)
    assert opened(root / "pets-{000000..000002}.tar").sha256 == data.sha256
    assert sorted(p.name for p in root.iterdir()) == [f"pets-{k:06d}.tar" for k in range(3)]


def test_one_file_is_a_source_of_its_own(tmp_path: Path) -> None:
    assert opened(tar(tmp_path / "pets-000.tar", samples(12))).name == "pets"


@given(st.text(alphabet="ab./_-\n é", max_size=24))
@settings(max_examples=300)
def test_samples_are_named_as_the_library_names_them(name: str) -> None:
    theirs, suffix = base_plus_ext(name)
    if "\n" not in name:
        assert split_name(name) == (theirs, (suffix or "").lower())


def test_samples_are_grouped_as_the_library_groups_them(tmp_path: Path) -> None:
    members = [
        ("a/1.jpg", png(1)), ("a/1.cls", b"0"), ("__meta__", b"x"), ("b/1.cls", b"1"),
        ("b/1.seg.png", png(2)), ("b/1.JPG", png(3)), ("2.json", b"{}"), ("2.png", png(4)),
        ("noise", b""), (".hidden", b""), ("c.d/3.png", png(5)), ("c.d/3.cls", b"1"),
    ]  # fmt: skip
    path = tar(tmp_path / "x.tar", members)
    with path.open("rb") as file:
        found = [{**m, "__url__": "x"} for m in tar_file_iterator(file)]
    theirs = {sample["__key__"]: set(sample) for sample in group_by_keys(found)}
    index = read_index(path, Wanted(labelled=False))
    assert {s.key for s in index.samples} == set(theirs) == {"a/1", "b/1", "2", "c.d/3"}
    assert {s.image for s in index.samples} == {"a/1.jpg", "b/1.JPG", "2.png", "c.d/3.png"}
    assert (index.bad, index.damage) == ([], None)


@pytest.mark.parametrize(
    "names",
    [
        ("train-0.tar", "val-0.tar", "test-0.tar"),
        ("train/0.tar", "valid/0.tar", "test/0.tar"),
        ("pets-train-000.tar", "pets-validation-000.tar", "pets-test-000.tar"),
    ],
)
def test_splits_are_those_of_the_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for k, name in enumerate(names):
        tar(tmp_path / "pets" / name, samples(6 - k, start=100 * k))
    data = opened(tmp_path / "pets")
    assert (len(data.train), len(data.val), len(data.test)) == (6, 5, 4)
    assert data.split == "train, val and test by the names of the shards"
    assert all(item.key.startswith(names[1]) for item in data.val)


def test_a_split_for_some_shards_only_is_refused(tmp_path: Path) -> None:
    tar(tmp_path / "train-0.tar", samples(6))
    tar(tmp_path / "more.tar", samples(6, 50))
    with pytest.raises(DataError, match=r"more\.tar has none"):
        opened(tmp_path)
    (tmp_path / "train-0.tar").rename(tmp_path / "val-0.tar")
    (tmp_path / "more.tar").unlink()
    with pytest.raises(DataError, match="has files for val, but none for train"):
        opened(tmp_path)


def test_class_names_beside_the_shards_name_the_numbers(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", samples(12))
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n")
    assert opened(tmp_path / "a.tar").classes == ("cat", "dog")
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["cow", "hen"]}))
    assert opened(tmp_path).classes == ("cow", "hen")
    (tmp_path / "dataset.json").write_text(json.dumps({"wids_version": 1}))
    assert opened(tmp_path).classes == ("0", "1")


@pytest.mark.parametrize("text", ["cat\ncat\n", "", "\xff"], ids=["twice", "nothing", "not UTF-8"])
def test_class_names_that_cannot_be_used_are_refused(tmp_path: Path, text: str) -> None:
    tar(tmp_path / "a.tar", samples(12))
    (tmp_path / "classes.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"classes\.txt"):
        opened(tmp_path)


def test_a_label_outside_the_classes_is_named(tmp_path: Path) -> None:
    members = [*samples(24), ("x.png", png(900)), ("x.cls", b"2")]
    members += [("y.png", png(901)), ("y.cls", b"bird")]
    tar(tmp_path / "a.tar", members)
    (tmp_path / "classes.txt").write_text("cat\ndog")
    data = opened(tmp_path)
    assert reasons(data) == {
        "a.tar/x.png": "its label 2 is none of the 2 classes",
        "a.tar/y.png": "its label bird is none of the 2 classes",
    }


def test_labels_come_from_json_by_their_key_and_may_be_words(tmp_path: Path) -> None:
    members = []
    for k in range(12):
        about = {"label": k % 2, "kind": ["dog", "cat"][k % 2]}
        members += [(f"{k}.jpg", png(k, kind="JPEG")), (f"{k}.json", json.dumps(about).encode())]
    tar(tmp_path / "a.tar", members)
    assert opened(tmp_path).classes == ("0", "1")
    named = opened(tmp_path, label_column="kind")
    assert named.classes == ("cat", "dog")
    assert {item.label for item in named.train if int(item.key[6:].split(".")[0]) % 2} == {0}
    with pytest.raises(DataError, match=r'0 \(its \.json has no "breed"\)'):
        opened(tmp_path, label_column="breed")


def test_numbers_are_classes_in_numerical_order(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", samples(44, classes=11))
    assert opened(tmp_path).classes == tuple(map(str, range(11)))


def hostile(path: Path) -> dict[str, str]:
    """Writes a shard with every fault in it; gives what must be left out, with a word of the reason."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, data: bytes = b"", **facts: object) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in facts.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))

        for name, data in samples(100):
            add(name, data)
        for name in ("../../out", "/etc/out", "a/../../out", "b\\..\\out"):
            add(f"{name}.png", png(900))
        add("ln.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("hl.png", type=tarfile.LNKTYPE, linkname="00000.png")
        add("fifo.png", type=tarfile.FIFOTYPE)
        add("two.png", png(901))
        add("two.jpg", png(902, kind="JPEG"))
        add("two.cls", b"1")
        add("nolabel.png", png(903))
        add("noimage.cls", b"1")
        add("empty.png", png(904))
        add("empty.cls", b" ")
        add("deep.png", png(905))
        add("deep.json", b"[" * 100_000)
        add("text.png", b"no picture")
        add("text.cls", b"1")
        add("zero.png")
        add("zero.cls", b"0")
        add("00000.png", png(906))
        add("00000.cls", b"1")
        add("bytes.png", png(907))
        add("bytes.cls", b"\xff\xfe")
        add("float.png", png(908))
        add("float.json", b'{"label": 0.5}')
    return {
        "../../out.png": "leaves the shard", "/etc/out.png": "leaves the shard",
        "a/../../out.png": "leaves the shard", "b\\..\\out.png": "leaves the shard",
        "ln.png": "link", "hl.png": "link", "fifo.png": "not a plain file", "two": "2 images",
        "nolabel": "no label", "noimage": "no image", "empty": "its .cls is empty",
        "deep": "cannot be read", "text.png": "not an image", "zero.png": "empty file",
        "00000": "stands in the shard before", "bytes": "cannot be read", "float": 'no "label"',
    }  # fmt: skip


def test_what_is_wrong_in_a_shard_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    bad = hostile(root / "a.tar")
    data = opened(root, max_bad_fraction=0.2)
    found = reasons(data)
    assert set(found) == {f"a.tar/{name}" for name in bad}
    for name, words in bad.items():
        assert words in found[f"a.tar/{name}"]
    assert len(data.train) + len(data.val) + len(data.test) == 100
    assert data.document().skipped == len(bad)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "a.tar"]
    with pytest.raises(DataError, match=r"17 of 117 files \(15%\).*max_bad_fraction = 0\.1"):
        opened(root)


def test_data_image_column_says_which_of_two_images_counts(tmp_path: Path) -> None:
    members = []
    for k in range(12):
        members += [(f"{k}.png", png(k)), (f"{k}.depth.png", png(0)), (f"{k}.jpg", png(99))]
        members += [(f"{k}.cls", str(k % 2).encode())]
    tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"2 images \(\.jpg, \.png\); data\.image_column says"):
        opened(tmp_path)
    assert all(i.key.endswith(".png") for i in opened(tmp_path, image_column="png").train)


def test_a_huge_member_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = png(1) + b"\0" * 2_000_000
    tar(tmp_path / "a.tar", [*samples(30), ("big.png", big), ("big.cls", b"0")])
    monkeypatch.setattr("edgedistill.data.scan._FILE_SLACK_BYTES", 1_000)
    data = opened(tmp_path, max_pixels=100)
    assert reasons(data) == {
        "a.tar/big.png": f"too large: {len(big):,} bytes, at most 1,800 are read"
    }
    with (tmp_path / "b.tar").open("wb") as file:
        file.write((tmp_path / "a.tar").read_bytes())
    label = ("x.cls", b"0" * 1_000_001)
    tar(tmp_path / "a.tar", [*samples(30), ("x.png", png(99)), label])
    (tmp_path / "b.tar").unlink()
    assert "at most 1,000,000 are read" in reasons(opened(tmp_path))["a.tar/x"]


@pytest.mark.parametrize("at", [100, 513, 2_000, 10_000])
def test_a_cut_shard_is_named_and_alone_refused(tmp_path: Path, at: int) -> None:
    whole = tar(tmp_path / "one" / "a.tar", samples(12)).read_bytes()
    (tmp_path / "one" / "a.tar").write_bytes(whole[:at])
    with pytest.raises(DataError, match=r"1 of 1 shards .* no whole archives.*a\.tar \(damaged or"):
        opened(tmp_path / "one")


def test_one_cut_shard_of_many_is_named_and_what_it_still_holds_is_used(tmp_path: Path) -> None:
    for k in range(12):
        tar(tmp_path / f"{k:02}.tar", samples(6, start=10 * k))
    whole = (tmp_path / "05.tar").read_bytes()
    (tmp_path / "05.tar").write_bytes(whole[: 6 * 1024 + 512 + 20])
    data = opened(tmp_path)
    found = reasons(data)
    assert set(found) == {"05.tar", "05.tar/00053.png"}
    assert found["05.tar/00053.png"].startswith("cut off")
    assert "damaged or truncated after 7 members" in found["05.tar"]
    assert sum(map(len, (data.train, data.val, data.test))) == 12 * 6 - 3


def test_a_header_that_was_changed_is_damage_and_no_end(tmp_path: Path) -> None:
    for k in range(20):
        tar(tmp_path / f"{k:02}.tar", samples(6, start=10 * k))
    data = bytearray((tmp_path / "03.tar").read_bytes())
    data[2 * 1024 + 150] ^= 0xFF
    (tmp_path / "03.tar").write_bytes(data)
    assert "a damaged header" in reasons(opened(tmp_path))["03.tar"]


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a zip" * 200, b"\x1f\x8b" + b"x" * 2000], ids=str
)
def test_what_is_no_tar_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"no whole archives.*a\.tar"):
        opened(tmp_path)


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_no_bytes_break_the_index(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(tar(tmp_path / "whole.tar", samples(3)).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        block = data.draw(st.integers(0, len(whole) // 512 - 1)) * 512
        at = block + data.draw(st.sampled_from((0, 99, 124, 130, 135, 148, 156, 257, 345, 482)))
        some = data.draw(st.binary(min_size=1, max_size=12))
        whole[at : at + len(some)] = some
        if data.draw(st.booleans()):  # a checksum that fits, so that the header is believed
            head = (
                bytes(whole[block : block + 148])
                + b" " * 8
                + bytes(whole[block + 156 : block + 512])
            )
            whole[block + 148 : block + 156] = b"%06o\0 " % sum(head)
    path = tmp_path / "x.tar"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    index = read_index(path, Wanted())
    for sample in index.samples:
        assert 0 <= sample.place[0] <= sum(sample.place) <= path.stat().st_size


def test_a_negative_size_ends_the_reading(tmp_path: Path) -> None:
    """A size below zero in a pax header sends tarfile backwards, for ever (CVE-2025-8194)."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"size": "-2048"}
        archive.addfile(info)
    assert read_index(path, Wanted()).damage is not None


def test_a_long_name_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2 << 30)
    assert "a header of 1073741824 bytes" in str(read_index(path, Wanted()).damage)


def test_the_same_bytes_under_two_labels_and_copies_are_found(tmp_path: Path) -> None:
    members = [*samples(40), ("x.png", png(1)), ("x.cls", b"0"), ("y.png", png(2)), ("y.cls", b"0")]
    tar(tmp_path / "a.tar", members)
    data = opened(tmp_path)
    words = "the same bytes stand under another class"
    assert reasons(data) == {"a.tar/00001.png": words, "a.tar/x.png": words}
    assert data.duplicates == 1


def test_a_second_start_decodes_nothing_and_a_changed_shard_all_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(3):
        tar(tmp_path / f"{k}.tar", samples(6, start=10 * k))
    decoded: list[int] = []

    def counting(data: bytes, max_pixels: int) -> object:
        decoded.append(len(data))
        return inspect_bytes(data, max_pixels)

    monkeypatch.setattr(shards_module, "inspect_bytes", counting)
    cache = tmp_path / "run" / "cache" / "images.json"
    first = open_source(section(tmp_path), 0, cache)
    assert len(decoded) == 18
    assert open_source(section(tmp_path), 0, cache) == first
    assert len(decoded) == 18
    tar(tmp_path / "1.tar", samples(7, start=40))
    assert open_source(section(tmp_path), 0, cache).sha256 != first.sha256
    assert len(decoded) == 25


@pytest.mark.parametrize("change", [lambda p: p.unlink(), lambda p: tar(p, samples(30, 50))])
def test_a_shard_that_changed_since_is_named(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    path = tar(tmp_path / "a.tar", samples(12))
    data = opened(tmp_path)
    change(path)
    with pytest.raises(DataError, match=r"a\.tar/000.*changed since the shards were read"):
        data.read(data.train[0])


def test_an_archive_beside_class_folders_is_no_shard(tmp_path: Path) -> None:
    images(tmp_path / "cat", 6)
    images(tmp_path / "dog", 6, 50)
    tar(tmp_path / "flowers.tar", samples(4))
    data = opened(tmp_path)
    assert data.classes == ("cat", "dog")
    assert reasons(data) == {"flowers.tar": "outside the class folders"}


def test_labels_of_all_splits_are_kept(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", samples(60, classes=3))
    data = opened(tmp_path)
    assert np.bincount(labels(data.train)).tolist() == [13, 13, 13]
