"""What a data source may be, and the words for what it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedistill import result
from edgedistill.data.dataset import labels
from edgedistill.data.sources import open_source
from edgedistill.errors import DataError, UsageError
from edgedistill.recipe import DataSection


def section(source: object, **values: object) -> DataSection:
    return DataSection(source=str(source), **values)  # type: ignore[arg-type]


def images(folder: Path, n: int, start: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(start, start + n):
        values = np.random.default_rng(k).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{k}.png")


def one_class(root: Path) -> None:
    images(root / "cat", 5)


def three_images(root: Path) -> None:
    images(root / "cat", 2)
    images(root / "dog", 1, 10)


def only_junk(root: Path) -> None:
    for name in ("cat/a.jpg", "cat/b.jpg", "dog/c.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"junk {name}")


def flat(root: Path) -> None:
    images(root, 4)


def empty_classes(root: Path) -> None:
    (root / "cat").mkdir(parents=True)
    (root / "dog").mkdir()


def an_empty_class(root: Path) -> None:
    images(root / "cat", 4)
    (root / "new folder").mkdir()


def kaggle(root: Path) -> None:
    images(root / "train", 4)
    images(root / "test", 4, 10)


def no_train(root: Path) -> None:
    images(root / "val" / "cat", 3)
    images(root / "test" / "cat", 3, 10)


def two_vals(root: Path) -> None:
    for k, split in enumerate(("train", "val", "valid")):
        images(root / split / "cat", 3, 10 * k)


def class_missing_in_train(root: Path) -> None:
    for k, name in enumerate(("cat", "dog")):
        images(root / "train" / name, 5, 100 * k)
    images(root / "test" / "cat", 3, 300)
    images(root / "test" / "bird", 3, 400)


FAULTS: dict[Callable[[Path], None], str] = {
    one_class: r"one class only \(cat, 5 images\)",
    three_images: r"3 in all, .* at least 3 different .* cat \(2\), dog \(1\)",
    only_junk: r"no image that can be used: all 3 files in it fail: cat/a\.jpg \(not an image",
    flat: "4 files, but no folder",
    empty_classes: "its folders are empty",
    an_empty_class: "no usable training image .* for class new folder",
    kaggle: "train has no class folders",
    no_train: "has test, val, but no train folder",
    two_vals: "has val and valid, which mean the same",
    class_missing_in_train: "no usable training image .* for class bird",
}


@pytest.mark.parametrize("make", FAULTS, ids=lambda make: make.__name__)
def test_a_folder_that_cannot_be_used_says_why(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=FAULTS[make]) as caught:
        open_source(section(tmp_path), seed=0)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_folder_says_what_it_is(tmp_path: Path) -> None:
    archive = tmp_path / "flowers.zip"
    archive.write_bytes(b"PK")
    for source, words in (
        (tmp_path / "missing", "does not exist"),
        (archive, "is a file that cannot be read as data"),
        (archive / "inside", "does not exist|cannot be read"),
        ("x" * 5000, "cannot be read: File name too long"),
        ("https://example.org/data", "is an address"),
        ("", "is no path"),
        ("a\0b", "is no path"),
        ("fashion-mnist", 'called "builtin:fashion-mnist"'),
    ):
        with pytest.raises(DataError, match=words):
            open_source(section(source), seed=0)


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds nothing\. It must have one folder for each class"):
        open_source(section(tmp_path), seed=0)


def test_an_unknown_built_in_set_names_the_nearest() -> None:
    with pytest.raises(UsageError, match='did you mean "fashion-mnist"'):
        open_source(section("builtin:fashion-mnits"), seed=0)


def test_classes_called_train_and_car_are_classes(tmp_path: Path) -> None:
    for k, name in enumerate(("train", "car", "test")):
        images(tmp_path / name, 4, 10 * k)
    assert open_source(section(tmp_path), 0).classes == ("car", "test", "train")


def test_training_images_can_be_capped_and_the_cap_is_said(tmp_path: Path) -> None:
    images(tmp_path / "cat", 20)
    images(tmp_path / "dog", 10, 50)
    whole = open_source(section(tmp_path), 0)
    data = open_source(section(tmp_path, max_train=6), 0)
    assert np.bincount(labels(data.train)).tolist() == [4, 2]
    assert set(data.train) <= set(whole.train)
    assert (data.val, data.test) == (whole.val, whole.test)
    assert data.split.endswith("; train capped at 6 of 19")
    assert data.sha256 != whole.sha256
    assert open_source(section(tmp_path, max_train=20), 0) == whole
    with pytest.raises(UsageError, match="max_train is 1, and there are 2 classes"):
        open_source(section(tmp_path, max_train=1), 0)


def test_the_hash_sees_content_and_labels(tmp_path: Path) -> None:
    images(tmp_path / "a" / "cat", 5)
    images(tmp_path / "a" / "dog", 5, 50)
    images(tmp_path / "b" / "cat", 5)
    images(tmp_path / "b" / "cow", 5, 50)
    first = open_source(section(tmp_path / "a"), 0)
    assert first.sha256 != open_source(section(tmp_path / "b"), 0).sha256
    images(tmp_path / "a" / "dog", 1, 90)
    assert first.sha256 != open_source(section(tmp_path / "a"), 0).sha256


def test_a_licence_in_the_recipe_is_kept(tmp_path: Path) -> None:
    images(tmp_path / "cat", 4)
    images(tmp_path / "dog", 4, 50)
    assert open_source(section(tmp_path, licence="CC0-1.0"), 0).licence == "CC0-1.0"


def test_the_document_counts_what_the_data_set_holds(tmp_path: Path) -> None:
    images(tmp_path / "cat", 10)
    images(tmp_path / "dog", 10, 50)
    (tmp_path / "cat" / "bad.png").write_bytes(b"x")
    data = open_source(section(tmp_path), 0)
    document = data.document()
    assert isinstance(document, result.Data)
    assert (document.train, document.val, document.test, document.skipped) == (12, 4, 4, 1)
    assert document.per_class_train == [6, 6]
    assert [skipped.path for skipped in document.skipped_files] == ["cat/bad.png"]
    assert data.document(most_skipped=0).skipped_files == []
