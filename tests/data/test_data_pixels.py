"""Pixel files."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from ontarget.preprocess import decode, resize_crop
from PIL import Image

from edgedistill.data.pixels import open_pixels, pixels_bytes, write_pixels
from edgedistill.data.sources import open_source
from edgedistill.errors import DataError
from edgedistill.recipe import DataSection


def folder(root: Path) -> DataSection:
    for k in range(40):
        path = root / ("cat" if k % 2 else "dog") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(k)
        shape = (int(random.integers(10, 60)), int(random.integers(10, 60)), 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return DataSection(source=str(root))


def test_pixels_are_bit_equal_to_the_kit_and_in_order(tmp_path: Path) -> None:
    data = open_source(folder(tmp_path / "data"), seed=0)
    items = data.train[::-1]
    seen: list[tuple[int, int]] = []
    path = tmp_path / "pixels.npy"
    write_pixels(data, items, 20, 16, path, lambda *now: seen.append(now))
    pixels = open_pixels(path)
    assert (pixels.shape, pixels.dtype) == ((len(items), 16, 16, 3), np.dtype(np.uint8))
    for row, item in zip(pixels, items, strict=True):
        assert (row == resize_crop(decode(tmp_path / "data" / item.key), 20, 16)).all()
    assert path.stat().st_size == pixels_bytes(len(items), 16)
    assert seen[-1] == (len(items), len(items))
    assert np.array_equal(np.load(path), pixels)


def test_built_in_images_are_bit_equal_too(tmp_path: Path) -> None:
    data = open_source(DataSection(), seed=0)
    write_pixels(data, data.val[:50], 72, 64, tmp_path / "p.npy")
    pixels = open_pixels(tmp_path / "p.npy")
    assert (pixels[7] == resize_crop(data.read(data.val[7]), 72, 64)).all()


def test_no_images_make_an_empty_file(tmp_path: Path) -> None:
    data = open_source(DataSection(), seed=0)
    write_pixels(data, [], 8, 8, tmp_path / "p.npy")
    assert open_pixels(tmp_path / "p.npy").shape == (0, 8, 8, 3)
    assert (tmp_path / "p.npy").stat().st_size == pixels_bytes(0, 8)


@pytest.mark.parametrize(("n", "crop"), [(1, 1), (12345, 64), (100_000, 288)])
def test_the_announced_size_is_that_of_numpys_own_file(n: int, crop: int, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    shape = (n, crop, crop, 3)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    del array
    assert path.stat().st_size == pixels_bytes(n, crop)


def test_a_changed_image_is_a_data_error(tmp_path: Path) -> None:
    data = open_source(folder(tmp_path / "data"), seed=0)
    (tmp_path / "data" / data.train[3].key).write_bytes(b"")
    with pytest.raises(DataError, match="changed since the folder was read"):
        write_pixels(data, data.train, 20, 16, tmp_path / "p.npy")


def test_a_crop_larger_than_the_resize_is_our_own_fault(tmp_path: Path) -> None:
    data = open_source(DataSection(), seed=0)
    with pytest.raises(ValueError, match="crop"):
        write_pixels(data, data.val[:1], 16, 17, tmp_path / "p.npy")


def test_a_full_disk_is_an_error_and_not_a_killed_process(tmp_path: Path) -> None:
    data = open_source(DataSection(), seed=0)
    child = os.fork()
    if child == 0:  # the limit on file size stands in for a full disk: write(2) fails the same way
        code = 9
        try:
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            write_pixels(data, data.val[:100], 32, 32, tmp_path / "p.npy")
        except OSError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
