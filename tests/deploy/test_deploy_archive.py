"""A bundle as one file: the same bytes every time, and no archive writes outside its folder or fills the disk."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from edgedistill.deploy import archive
from edgedistill.deploy.archive import (
    known_files,
    opened,
    pack_archive,
    read_bundle,
    require_place,
    sizes_of,
    strangers,
)
from edgedistill.errors import DocumentError, UsageError
from tests.bundle_parts import FILE, make_bundle

MOST_REST = 300_000
Members = Callable[[tarfile.TarFile], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")}


# Packing


def test_the_same_bundle_gives_the_same_archive_whatever_its_name_modes_and_times(
    whole: Path, bundle: Path, tmp_path: Path
) -> None:
    other = bundle.rename(tmp_path / "another name")
    for path in other.iterdir():
        path.chmod(0o600)
        os.utime(path, (1, 1))
    pack_archive(whole, tmp_path / "a.tar.gz")
    pack_archive(other, tmp_path / "b.tar.gz")
    packed = (tmp_path / "a.tar.gz").read_bytes()
    assert packed == (tmp_path / "b.tar.gz").read_bytes()
    assert packed[4:8] == bytes(4) and packed[3] == 0, "gzip holds neither a time nor a name"
    with tarfile.open(tmp_path / "a.tar.gz") as found:
        members = found.getmembers()
    assert [m.name for m in members] == sorted(m.name for m in members)
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 0)}
    assert {m.name for m in members if m.mode == 0o755} == {
        "bundle/ontarget.pyz", "bundle/build_engine.sh",
    }  # fmt: skip
    assert {m.mode for m in members} == {0o755, 0o644}


def test_an_archive_gives_back_every_byte_and_goes_when_it_was_looked_at(
    whole: Path, tmp_path: Path
) -> None:
    pack_archive(whole, tmp_path / "a.tar.gz")
    with opened(tmp_path / "a.tar.gz") as folder:
        assert contents(folder) == contents(whole)
    assert not folder.exists()
    with opened(whole) as folder:
        assert folder == whole


def test_what_goes_with_the_models_is_at_most_300_kb(whole: Path) -> None:
    sizes = sizes_of(read_bundle(whole))
    assert sizes.models == sum(p.stat().st_size for p in whole.glob("*.onnx"))
    assert sizes.whole == sum(p.stat().st_size for p in whole.iterdir())
    assert 40_000 < sizes.rest <= MOST_REST


def test_what_does_not_belong_to_a_bundle_is_named_and_not_packed(
    bundle: Path, tmp_path: Path
) -> None:
    assert strangers(bundle) == []
    (bundle / "notes").mkdir()
    (bundle / "notes" / "secret.txt").write_text("x")
    (bundle / "link").symlink_to(bundle / "labels.txt")
    assert strangers(bundle) == ["link", "notes", "notes/secret.txt"]
    pack_archive(bundle, tmp_path / "a.tar.gz")
    with opened(tmp_path / "a.tar.gz") as folder:
        assert sorted(contents(folder)) == known_files(read_bundle(bundle))


def test_a_damaged_bundle_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    raw = bytearray((bundle / FILE).read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle / FILE).write_bytes(raw)
    (bundle / "README.md").unlink()
    (bundle / "build_engine.sh").unlink()
    (bundle / "build_engine.sh").symlink_to("/etc/hostname")
    with pytest.raises(DocumentError, match="is not as it was packed") as caught:
        pack_archive(bundle, tmp_path / "a.tar.gz")
    for word in (FILE, "README.md is missing", "build_engine.sh is missing or a link"):
        assert word in str(caught.value)
    assert not (tmp_path / "a.tar.gz").exists()


def test_an_archive_replaces_an_archive_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    mine = tmp_path / "thesis.tex"
    mine.write_text("mine")
    for place in (mine, tmp_path, whole / "a.tar.gz"):
        with pytest.raises(UsageError, match="--out"):
            pack_archive(whole, place)
    assert mine.read_text() == "mine" and not (whole / "a.tar.gz").exists()
    place = tmp_path / "a.tar.gz"
    place.write_bytes(gzip.compress(b"older"))
    pack_archive(whole, place)
    with opened(place) as folder:
        assert (folder / FILE).is_file()


# The place of a bundle


def test_a_bundle_is_written_where_nothing_or_an_older_bundle_is(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "new", tmp_path / "empty", bundle):
        require_place(place)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    (tmp_path / "link").symlink_to(bundle)
    (tmp_path / "file").write_text("x")
    for name, words in (
        ("mine", "is no bundle that is whole"), ("link", "is no folder"), ("file", "is no folder"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            require_place(tmp_path / name)
    (bundle / "engine.trt").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"more in it than was packed \(engine.trt\)"):
        require_place(bundle)


# Hostile archives


def archive_of(path: Path, fill: Members) -> Path:
    with tarfile.open(path, "w:gz") as found:
        fill(found)
    return path


def add(found: tarfile.TarFile, name: str, data: bytes = b"x", **values: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in values.items():
        setattr(info, key, value)
    found.addfile(info, io.BytesIO(data[: info.size]))


def _special(kind: bytes, target: str = "") -> Members:
    return lambda found: add(found, "bundle/x", b"", type=kind, linkname=target)


def _named(name: str) -> Members:
    return lambda found: add(found, name)


def _twice(found: tarfile.TarFile) -> None:
    for _ in range(2):
        add(found, "bundle/manifest.json")


def _many(found: tarfile.TarFile) -> None:
    for number in range(archive.MOST_FILES + 1):
        add(found, f"bundle/{number}")


def _through_a_link(found: tarfile.TarFile) -> None:
    add(found, "bundle/here", b"", type=tarfile.SYMTYPE, linkname="/tmp")
    add(found, "bundle/here/file")


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (_named("../escaped"), "a place outside"),
        (_named("bundle/../../escaped"), "a place outside"),
        (_named("/tmp/escaped"), "a place outside"),
        (_named("..\\escaped"), "a place outside"),
        (_named("c:escaped"), "a place outside"),
        (_named("bundle/\x1b[2J"), "a name that no file"),
        (_named("bundle/" + "a" * 500), "a name that no file"),
        (_special(tarfile.SYMTYPE, "/etc/passwd"), "neither a plain file"),
        (_special(tarfile.SYMTYPE, "labels.txt"), "neither a plain file"),
        (_special(tarfile.LNKTYPE, "bundle/labels.txt"), "neither a plain file"),
        (_special(tarfile.CHRTYPE), "neither a plain file"),
        (_special(tarfile.BLKTYPE), "neither a plain file"),
        (_special(tarfile.FIFOTYPE), "neither a plain file"),
        (_through_a_link, "neither a plain file"),
        (_twice, "it is there twice"),
        (_many, "more than 200 files"),
    ],
)
def test_a_hostile_archive_is_refused_and_writes_nothing_outside(
    tmp_path: Path, fill: Members, words: str
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = archive_of(inner / "a.tar.gz", fill)
    with pytest.raises(DocumentError, match=words) as caught, opened(path):
        pass
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["inner", "a.tar.gz"]
    assert not Path("/tmp/escaped").exists()


def test_an_archive_that_grows_beyond_measure_is_refused_before_it_is_unpacked(
    tmp_path: Path,
) -> None:
    path = archive_of(
        tmp_path / "bomb.tar.gz", lambda found: add(found, "bundle/x", bytes(40_000_000))
    )
    assert path.stat().st_size < 100_000
    with pytest.raises(DocumentError, match="unpacks to more than"), opened(path):
        pass


def test_a_size_that_a_header_only_claims_is_refused(tmp_path: Path) -> None:
    path = archive_of(
        tmp_path / "a.tar.gz", lambda found: add(found, "bundle/x", b"x" * 512, size=512)
    )
    raw = bytearray(gzip.decompress(path.read_bytes()))
    info = tarfile.TarInfo("bundle/x")
    info.size = 10**12
    raw[:512] = info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(gzip.compress(bytes(raw)))
    with pytest.raises(DocumentError, match="unpacks to more than"), opened(path):
        pass


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_is_a_bomb_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("bundle/x")
    info.type, info.size = kind, 200_000_000
    raw = info.tobuf(tarfile.GNU_FORMAT) + bytes(info.size)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(raw, 1))
    tracemalloc.start()
    try:
        with (
            pytest.raises(DocumentError, match="a header of 200,000,000 bytes"),
            opened(tmp_path / "a.tar.gz"),
        ):
            pass
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_what_is_no_archive_is_one_paragraph(whole: Path, tmp_path: Path) -> None:
    packed = tmp_path / "a.tar.gz"
    pack_archive(whole, packed)
    data = packed.read_bytes()
    for name, raw, words in (
        ("cut", data[: len(data) // 2], "is damaged"),
        ("text", b"Dear Sir or Madam", "neither a folder nor"),
        ("empty", b"", "neither a folder nor"),
        ("gzip", gzip.compress(b"no archive" * 100), "is damaged"),
        ("magic", b"\x1f\x8b" + bytes(100), "is damaged"),
    ):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(DocumentError, match=words) as caught, opened(tmp_path / name):
            pass
        assert "\n" not in str(caught.value)
    with pytest.raises(DocumentError, match="does not exist"), opened(tmp_path / "nowhere"):
        pass
