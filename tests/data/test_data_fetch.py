"""Shards by address: fetched once, whole or not at all, then read like local ones."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import tempfile
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from data_parts import images, opened, samples, section, tar

from edgedistill.data.fetch import fetch_shards
from edgedistill.data.sources import open_source
from edgedistill.errors import DataError, StoppedError
from edgedistill.pipeline import sweep


class _Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of files called `cut...` it announces all and sends half."""

    asked: list[str]

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        """Send a file."""
        self.asked.append(self.path)
        name = self.path.partition("?")[0]
        if not name.startswith("/cut"):
            super().do_GET()
            return
        data = (Path(self.directory) / name[1:]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder behind an address, and the paths that were asked for."""
    asked: list[str] = []
    kind = type("_Own", (_Files,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(kind, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, emptied afterwards."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()


def test_shards_come_over_http_once_with_their_class_names(tmp_path: Path) -> None:
    for k in range(2):
        tar(tmp_path / "web" / f"pets-{k}.tar", samples(8, 10 * k))
    (tmp_path / "web" / "classes.txt").write_text("cat\ndog")
    cache, told = tmp_path / "run" / "cache" / "images.json", []
    with served(tmp_path / "web") as (base, asked):
        source = section(f"{base}/pets-{{0..1}}.tar?key=secret")
        first = open_source(source, 0, cache, None, told.append)
        count = len(asked)
        assert count > 0
        assert open_source(source, 0, cache, None, told.append) == first
        assert len(asked) == count
    assert first.classes == ("cat", "dog")
    assert first.source == f"{base}/pets-{{0..1}}.tar"
    assert "secret" not in repr(first) + str(told)
    local = opened(tmp_path / "web")
    shas = [{item.sha256 for item in data.test} for data in (first, local)]
    assert shas[0] == shas[1]
    size = sum(p.stat().st_size for p in (tmp_path / "web").glob("*.tar")) / 1e6
    assert told[0].startswith(f"fetching 2 shards, {size:,.1f} MB, into {cache.parent}")
    assert told[-1] == f"fetched 2 shards, {size:,.1f} MB"
    assert not list(cache.parent.rglob("*.tmp"))


def test_a_transfer_that_breaks_leaves_nothing_and_the_rest_goes_on(tmp_path: Path) -> None:
    tar(tmp_path / "web" / "a.tar", samples(8))
    tar(tmp_path / "web" / "cut.tar", samples(200))
    folder = tmp_path / "cache"
    with served(tmp_path / "web") as (base, _):
        with pytest.raises(DataError, match=r"cut\.tar could not be fetched .*same command again"):
            fetch_shards([f"{base}/a.tar", f"{base}/cut.tar"], folder, print)
        assert [p.name for p in folder.rglob("*") if p.is_file()] == ["a.tar"]
        with pytest.raises(DataError, match=r"none\.tar could not be fetched"):
            fetch_shards([f"{base}/none.tar"], folder, print)


def test_any_file_system_of_fsspec_will_do(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    for split, n in (("train", 8), ("val", 4), ("test", 4)):
        path = tar(tmp_path / "x.tar", samples(n, {"train": 0, "val": 50, "test": 90}[split]))
        memory.pipe(f"/pets/{split}/000.tar", path.read_bytes())
    data = opened("memory://pets/{train,val,test}/000.tar")
    assert (len(data.train), len(data.val), len(data.test)) == (8, 4, 4)
    assert data.name == "pets"


def test_no_answer_is_a_paragraph(tmp_path: Path) -> None:
    with served(tmp_path) as (base, _):
        pass
    for source in (f"{base}/a.tar", "memory://nothing/a.tar"):
        with pytest.raises(DataError, match="could not be fetched") as caught:
            opened(source)
        assert "\n" not in str(caught.value)


def test_a_file_system_that_is_not_installed_is_named() -> None:
    for source in ("s3://bucket/a.tar", "nonsense://x/a.tar"):
        with pytest.raises(DataError, match=r"s3fs|rotocol not known"):
            opened(source)


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    tmp_path: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/a.tar", tar(tmp_path / "a.tar", samples(8)).read_bytes())
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000))
    with pytest.raises(StoppedError, match=r"the disk has 0\.0 MB free"):
        fetch_shards(["memory://a.tar"], tmp_path / "cache", print)
    assert not list((tmp_path / "cache").rglob("*.tar"))


def test_a_name_from_an_address_stays_in_the_cache(
    tmp_path: Path, memory: fsspec.AbstractFileSystem
) -> None:
    memory.pipe("/a b/..%2f..%2fx.tar", tar(tmp_path / "a.tar", samples(2)).read_bytes())
    [path] = fetch_shards(["memory://a b/..%2f..%2fx.tar"], tmp_path / "cache", print)
    assert path.resolve().is_relative_to(tmp_path / "cache")
    assert path.parent.name == "a_b"


def test_what_a_killed_transfer_left_is_swept_before_the_next_build(tmp_path: Path) -> None:
    left = tmp_path / "cache" / "shards" / "0" / "pets" / ".a.tar.77.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    (left.parent / "b.tar").write_bytes(b"whole")
    sweep(tmp_path)
    assert [p.name for p in left.parent.iterdir()] == ["b.tar"]


def test_nothing_is_written_for_data_that_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a folder was made")

    tar(tmp_path / "x" / "a.tar", samples(12))
    images(tmp_path / "pets" / "cat", 6)
    images(tmp_path / "pets" / "dog", 6, 50)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", never)
    for name in ("x", "pets"):
        assert len(opened(tmp_path / name).train) > 0
