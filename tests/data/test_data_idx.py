"""idx files, whole and damaged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.data.idx import FASHION_CLASSES, read_idx
from edgedistill.data.sources import open_source
from edgedistill.errors import DataError
from edgedistill.recipe import DataSection

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx(array: np.ndarray) -> bytes:
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def pictures(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 4), dtype=np.uint8)


def write(folder: Path, n: int = 30, n_test: int = 0, zipped: bool = False) -> Path:
    for stem, count, seed in (("train", n, 0), ("t10k", n_test, 1)):
        if count:
            for kind, data in (
                ("images-idx3", idx(pictures(count, seed))),
                ("labels-idx1", idx(np.arange(count) % 3)),
            ):
                name = f"{stem}-{kind}-ubyte"
                if zipped:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(data))
                else:
                    (folder / name).write_bytes(data)
    return folder


def section(folder: Path, **values: object) -> DataSection:
    return DataSection(source=str(folder), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("zipped", [False, True])
def test_pixels_and_labels_come_back_as_they_were_written(tmp_path: Path, zipped: bool) -> None:
    data = open_source(section(write(tmp_path, 30, 9, zipped)), seed=0)
    assert data.classes == ("0", "1", "2")
    assert (len(data.test), data.image_side) == (9, 4)
    assert len(data.train) + len(data.val) == 30
    for split, images in (("test", pictures(9, 1)), ("train", pictures(30, 0))):
        for item in data.items(split):  # type: ignore[arg-type]
            row = int(item.key.rpartition("/")[2])
            assert item.label == row % 3
            picture = np.asarray(data.read(item))
            assert (picture == images[row][..., None]).all()
            assert picture.shape == (5, 4, 3)


def test_test_is_drawn_too_when_there_is_none(tmp_path: Path) -> None:
    data = open_source(section(write(tmp_path, 60)), seed=0)
    assert (len(data.train), len(data.val), len(data.test)) == (39, 9, 12)
    assert data.split.startswith("15 % for val and 20 % for test drawn from train")


def test_labels_that_do_not_start_at_zero_are_classes_by_their_number(tmp_path: Path) -> None:
    write(tmp_path, 30)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(30) % 2 * 4 + 3))
    data = open_source(section(tmp_path), seed=0)
    assert data.classes == ("3", "7")
    assert {item.label for item in data.train} == {0, 1}


def cut(path: Path, n: int) -> None:
    path.write_bytes(path.read_bytes()[:n])


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated data": (lambda f: cut(f / IMAGES, 300), "is truncated.*600 bytes.*284 bytes"),
    "truncated header": (lambda f: cut(f / IMAGES, 9), "ends within its header"),
    "empty": (lambda f: cut(f / LABELS, 0), "begins with nothing"),
    "wrong magic": (
        lambda f: (f / IMAGES).write_bytes(b"PK\3\4" + b"x" * 99),
        "begins with 504b0304",
    ),
    "too long": (
        lambda f: (f / LABELS).write_bytes((f / LABELS).read_bytes() + b"x"),
        "is too long.*30 bytes",
    ),
    "fewer labels": (lambda f: (f / LABELS).write_bytes(idx(np.zeros(29))), "30 images.*29 labels"),
    "swapped": (lambda f: (f / IMAGES).replace(f / LABELS), "has no train-images"),
    "labels as images": (
        lambda f: (f / IMAGES).write_bytes((f / LABELS).read_bytes()),
        "must hold images",
    ),
    "no labels": (lambda f: (f / LABELS).unlink(), "has no train-labels-idx1-ubyte"),
    "terabytes announced": (
        lambda f: (f / IMAGES).write_bytes(b"\0\0\x08\x03" + b"\xff" * 12),
        "bytes of data, more than the",
    ),
    "no images": (
        lambda f: [
            (f / IMAGES).write_bytes(idx(pictures(0))),
            (f / LABELS).write_bytes(idx(np.zeros(0))),
        ],
        "has no images",
    ),
    "broken gzip": (
        lambda f: (f / IMAGES).write_bytes(b"\x1f\x8b\x08\0garbage here"),
        "cannot be read",
    ),
    "one class": (lambda f: (f / LABELS).write_bytes(idx(np.zeros(30))), "one class only"),
    "a test class that train lacks": (
        lambda f: [
            (f / "t10k-images-idx3-ubyte").write_bytes(idx(pictures(2, 5))),
            (f / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 9]))),
        ],
        "no usable training image.* for class 9",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_set_is_one_paragraph(tmp_path: Path, name: str) -> None:
    damage, expected = DAMAGES[name]
    damage(write(tmp_path))
    with pytest.raises(DataError, match=expected) as caught:
        open_source(section(tmp_path), seed=0)
    assert "\n" not in str(caught.value)


def test_images_above_the_pixel_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.max_pixels = 19"):
        open_source(section(write(tmp_path), max_pixels=19), seed=0)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([False, True]),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4),
    st.integers(0, 90),
)
def test_any_mutation_is_an_array_or_a_data_error(
    tmp_path: Path, zipped: bool, edits: list[tuple[int, int]], length: int
) -> None:
    whole = idx(pictures(3))
    data = bytearray(gzip.compress(whole) if zipped else whole)
    for place, value in edits:
        data[place % len(data)] = value
    path = tmp_path / "x"
    path.write_bytes(bytes(data[: len(data) - length if length < 20 else None]))
    try:
        assert read_idx(path).dtype == np.uint8
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_full_fashion_mnist_is_known_by_its_content() -> None:
    data = open_source(section(DEBIAN), seed=0)
    assert data.classes == FASHION_CLASSES
    assert (len(data.train), len(data.val), len(data.test)) == (51_000, 9_000, 10_000)
    assert data.licence is not None
    assert data.licence.startswith("MIT")
    assert (data.duplicates, data.skipped) == (0, ())
