"""Images without labels: beside the labelled ones, and never one that is tested on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_parts import images, opened, png, reasons, samples, section, tar

from edgedistill.data.dataset import UNLABELLED, Dataset
from edgedistill.data.pixels import read_pixels
from edgedistill.data.sources import check_source, open_source
from edgedistill.data.stage import Sizes, open_arrays, prepare
from edgedistill.errors import DataError
from edgedistill.rundir import Work


def pets(root: Path) -> Path:
    """Two classes of ten pictures."""
    images(root / "cat", 10)
    images(root / "dog", 10, 100)
    return root


def test_any_image_below_a_folder_counts_whatever_it_is_called(tmp_path: Path) -> None:
    plain = opened(pets(tmp_path / "pets"))
    images(tmp_path / "more" / "a" / "b", 3, 200)
    images(tmp_path / "more", 2, 300)
    (tmp_path / "more" / "notes.txt").write_text("what these are")
    (tmp_path / "more" / "5.jpg").write_bytes(png(400))
    data = opened(tmp_path / "pets", unlabelled=str(tmp_path / "more"))
    assert [item.key for item in data.unlabelled] == [
        "300.png", "301.png", "5.jpg", "a/b/200.png", "a/b/201.png", "a/b/202.png",
    ]  # fmt: skip
    assert {item.label for item in data.unlabelled} == {UNLABELLED}
    assert (data.train, data.val, data.test) == (plain.train, plain.val, plain.test)
    assert (data.image_side, data.classes) == (plain.image_side, plain.classes)
    assert reasons(data) == {"unlabelled: notes.txt": "not an image of a known format"}
    assert np.asarray(data.read(data.unlabelled[3])).shape == (6, 6, 3)
    document = data.document()
    assert (document.unlabelled, document.train, document.per_class_train) == (6, 12, [6, 6])
    assert plain.document().unlabelled == 0


def test_what_is_tested_on_is_no_material_and_copies_teach_nothing(tmp_path: Path) -> None:
    plain = opened(pets(tmp_path / "pets"))
    more = tmp_path / "more"
    images(more, 2, 500)
    (more / "again.png").write_bytes(png(500))
    for split in ("train", "val", "test"):
        item = plain.items(split)[0]  # type: ignore[arg-type]
        (more / f"{split}.png").write_bytes((tmp_path / "pets" / item.key).read_bytes())
    data = opened(tmp_path / "pets", unlabelled=str(more))
    assert [item.key for item in data.unlabelled] == ["500.png", "501.png"]
    found = reasons(data)
    for split in ("train", "val", "test"):
        twin = plain.items(split)[0].key  # type: ignore[arg-type]
        assert found[f"unlabelled: {split}.png"] == f"the same bytes as {split}: {twin}"
    assert data.duplicates == plain.duplicates + 4
    assert not {i.sha256 for i in data.unlabelled} & {i.sha256 for i in (*data.val, *data.test)}


def test_they_can_be_capped_by_seed(tmp_path: Path) -> None:
    pets(tmp_path / "pets")
    images(tmp_path / "more", 30, 500)

    def taken(seed: int, most: int | None) -> set[str]:
        source = section(tmp_path / "pets", unlabelled=str(tmp_path / "more"), max_unlabelled=most)
        return {item.key for item in open_source(source, seed).unlabelled}

    assert len(taken(0, None)) == 30
    assert len(taken(0, 10)) == 10
    assert taken(0, 5) < taken(0, 10)
    assert taken(0, 10) != taken(1, 10)


def test_the_hash_sees_them_and_is_the_old_one_without_them(tmp_path: Path) -> None:
    plain = opened(pets(tmp_path / "pets"))
    images(tmp_path / "more", 3, 500)
    first = opened(tmp_path / "pets", unlabelled=str(tmp_path / "more"))
    images(tmp_path / "more", 1, 900)
    second = opened(tmp_path / "pets", unlabelled=str(tmp_path / "more"))
    assert len({plain.sha256, first.sha256, second.sha256}) == 3
    assert opened(tmp_path / "pets").sha256 == plain.sha256


def test_shards_without_labels_are_material_too(tmp_path: Path) -> None:
    pets(tmp_path / "pets")
    members = [(f"{k}.jpg", png(500 + k, kind="JPEG")) for k in range(4)]
    tar(tmp_path / "more" / "train-0.tar", members)
    tar(tmp_path / "more" / "rest.tar", samples(3, 900))
    cache = tmp_path / "run" / "cache" / "images.json"
    source = section(tmp_path / "pets", unlabelled=str(tmp_path / "more"), image_column="png")
    data = open_source(source, 0, cache)
    assert len(data.unlabelled) == 7
    assert {item.label for item in data.unlabelled} == {UNLABELLED}
    assert sorted(p.name for p in cache.parent.iterdir()) == [
        "images.json", "unlabelled-images.json",
    ]  # fmt: skip


def test_rows_without_labels_are_material_too(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pets(tmp_path / "pets")
    pq.write_table(pa.table({"picture": [png(k) for k in range(700, 705)]}), tmp_path / "x.parquet")
    data = opened(tmp_path / "pets", unlabelled=str(tmp_path / "x.parquet"), label_column="kind")
    assert len(data.unlabelled) == 5
    assert np.asarray(data.read(data.unlabelled[0])).shape == (6, 6, 3)


def test_material_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    pets(tmp_path / "pets")
    images(tmp_path / "same", 10)
    (tmp_path / "empty").mkdir()
    whole = png(1, 60)
    images(tmp_path / "broken", 4, 600)
    for k in range(2):
        (tmp_path / "broken" / f"cut{k}.png").write_bytes(whole[: 3_000 + k])
    (tmp_path / "labels.csv").write_text("path,label\n")
    for name, words in (
        ("empty", "no image that can be used: there is no image below it"),
        ("broken", r"2 of 6 images \(33%\).*cut0\.png \(damaged"),
        ("labels.csv", "give a folder with images anywhere below it"),
        ("gone", "does not exist"),
    ):
        with pytest.raises(DataError, match=words):
            opened(tmp_path / "pets", unlabelled=str(tmp_path / name))
    with pytest.raises(DataError, match="stands in the data set already"):
        opened(tmp_path / "pets", unlabelled=str(tmp_path / "same"))
    with pytest.raises(DataError, match="does not exist"):
        check_source(section(tmp_path / "pets", unlabelled=str(tmp_path / "gone")))


def prepared(data: Dataset, folder: Path) -> dict[str, object]:
    """Stage 03's arrays."""
    folder.mkdir()
    return prepare(Work(folder), data, Sizes(6, 6, 6), lambda *_: None)


def test_their_pixels_stand_after_the_labelled_ones(tmp_path: Path) -> None:
    pets(tmp_path / "pets")
    images(tmp_path / "more", 5, 500)
    data = opened(tmp_path / "pets", unlabelled=str(tmp_path / "more"))
    prepared(data, tmp_path / "stage")
    arrays = open_arrays(tmp_path / "stage")
    assert (len(arrays.train), arrays.labelled) == (17, 12)
    assert arrays.train_labels.tolist() == [item.label for item in data.train] + [-1] * 5
    for row, item in enumerate((*data.train, *data.unlabelled)):
        assert np.array_equal(arrays.train[row], read_pixels(data, item, 6, 6))
    canvas, truth = arrays.labelled_train
    assert len(canvas) == len(truth) == 12
    assert Counter(truth.tolist()) == {0: 6, 1: 6}
    prepared(opened(tmp_path / "pets"), tmp_path / "plain")
    plain = open_arrays(tmp_path / "plain")
    assert np.array_equal(plain.train, canvas)
    assert plain.labelled == len(plain.train)


def test_every_view_of_the_data_says_how_many_there_are(tmp_path: Path) -> None:
    from evidence_samples import make_result

    from edgedistill.evidence.report import html, markdown
    from edgedistill.evidence.view.model_card import model_card

    result = make_result()
    assert "without labels" not in html(result) + markdown(result) + model_card(result)
    more = result.model_copy(update={"data": result.data.model_copy(update={"unlabelled": 1234})})
    assert "1,234 more images" in html(more)
    assert "1,234 more images without labels" in markdown(more)
    assert "1,234 more images without labels" in model_card(more)
