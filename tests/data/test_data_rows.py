"""Data sets of rows: Parquet files and folders of `save_to_disk`, made here by the library itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_parts import opened, png, reasons, section

from edgedistill.data import hfdata
from edgedistill.data.hfdata import RowStore
from edgedistill.data.scan import inspect_bytes
from edgedistill.data.sources import open_source
from edgedistill.errors import DataError

NAMES = datasets.ClassLabel(names=["cat", "dog"])


@pytest.fixture(autouse=True)
def _no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield


def rows(n: int, start: int = 0, label: Any = NAMES, **more: Any) -> datasets.Dataset:
    """A data set of `n` pictures in two classes; `more` are columns of one value."""
    columns = {"image": [{"bytes": png(k), "path": None} for k in range(start, start + n)]}
    features = {"image": datasets.Image(), "label": label}
    values = [k % 2 for k in range(n)]
    if getattr(label, "dtype", "") == "string":
        values = [("cat", "dog")[k] for k in values]
    columns["label"] = values
    for name, (feature, value) in more.items():
        columns[name], features[name] = [value] * n, feature
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def saved(folder: Path, **splits: datasets.Dataset) -> Path:
    """A folder of `save_to_disk`."""
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def test_a_folder_of_save_to_disk_is_read_with_its_classes_and_splits(tmp_path: Path) -> None:
    root = saved(tmp_path / "pets", train=rows(8), validation=rows(4, 50), test=rows(4, 90))
    data = opened(root)
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert (len(data.train), len(data.val), len(data.test)) == (8, 4, 4)
    assert data.split == "train, val and test splits as given"
    assert [item.label for item in data.train] == [k % 2 for k in range(8)]
    assert data.train[3].key == "train/00000003"
    assert data.read(data.train[3]).tobytes() == _pixels(3)


def _pixels(seed: int) -> bytes:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(png(seed))).convert("RGB").tobytes()


def test_one_table_is_split_by_content_like_a_folder(tmp_path: Path) -> None:
    rows(20).save_to_disk(str(tmp_path / "pets"))
    data = opened(tmp_path / "pets")
    assert (len(data.train), len(data.val), len(data.test)) == (12, 4, 4)
    assert "drawn from train by content" in data.split


def test_parquet_files_are_read_by_name_and_by_folder(tmp_path: Path) -> None:
    (tmp_path / "pets" / "data").mkdir(parents=True)
    rows(8).to_parquet(str(tmp_path / "pets/data/train-00000-of-00001.parquet"))
    rows(4, 50).to_parquet(str(tmp_path / "pets/data/test-00000-of-00001.parquet"))
    cache = tmp_path / "run" / "cache" / "images.json"
    data = open_source(section(tmp_path / "pets"), 0, cache)
    assert data.classes == ("cat", "dog")
    assert (len(data.train) + len(data.val), len(data.test)) == (8, 4)
    assert (cache.parent / "rows").is_dir()
    one = opened(tmp_path / "pets/data/train-00000-of-00001.parquet")
    assert sum(map(len, (one.train, one.val, one.test))) == 8


@pytest.mark.parametrize("shape", ["bytes", "struct"])
@pytest.mark.parametrize("label", [["a", "b"], [10, 9]])
def test_parquet_of_other_tools_is_read_by_the_types_of_its_columns(
    tmp_path: Path, shape: str, label: list[Any]
) -> None:
    pictures = [png(k) for k in range(12)]
    image = pictures if shape == "bytes" else [{"bytes": p, "path": "x.png"} for p in pictures]
    pq.write_table(
        pa.table({"picture": image, "kind": label * 6, "weight": [0.5] * 12}),
        tmp_path / "x.parquet",
    )
    data = opened(tmp_path / "x.parquet")
    assert data.classes == (("a", "b") if label[0] == "a" else ("9", "10"))
    assert data.read(data.train[0]).size == (6, 6)


def test_columns_that_are_not_clear_are_listed(tmp_path: Path) -> None:
    mask = {"mask": (datasets.Image(), {"bytes": png(999), "path": None})}
    rows(12, **mask).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(
        DataError,
        match=r"2 columns of images.*image \(Image\), label \(ClassLabel\), mask \(Image\).*data\.image_col",
    ):
        opened(tmp_path / "two")
    assert opened(tmp_path / "two", image_column="image").classes == ("cat", "dog")
    with pytest.raises(DataError, match="no column 'picture' of images"):
        opened(tmp_path / "two", image_column="picture")
    plain = rows(12, label=datasets.Value("int64"), id=(datasets.Value("string"), "x"))
    plain.rename_column("label", "kind").save_to_disk(str(tmp_path / "three"))
    with pytest.raises(DataError, match=r"2 columns that may be the labels.*id \(string\)"):
        opened(tmp_path / "three")
    assert opened(tmp_path / "three", label_column="kind").classes == ("0", "1")
    plain.save_to_disk(str(tmp_path / "four"))
    assert opened(tmp_path / "four").classes == ("0", "1")
    plain.remove_columns(["label", "id"]).save_to_disk(str(tmp_path / "five"))
    with pytest.raises(DataError, match="no column of labels"):
        opened(tmp_path / "five")


def test_words_are_labels_too(tmp_path: Path) -> None:
    rows(12, label=datasets.Value("string")).save_to_disk(str(tmp_path / "x"))
    assert opened(tmp_path / "x").classes == ("cat", "dog")


def test_a_split_without_labels_or_of_another_name_is_left_out_and_named(tmp_path: Path) -> None:
    hidden = rows(4, 50).remove_columns("label")
    hidden = hidden.add_column("label", [-1] * 4).cast_column("label", NAMES)
    root = saved(tmp_path / "x", train=rows(12), test=hidden, unsupervised=rows(4, 90))
    data = opened(root)
    assert reasons(data) == {
        "test": "no row of this split has a label",
        "unsupervised": "this split is not used: its name is none of train, val, test",
    }
    assert len(data.test) > 0


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    root = saved(tmp_path / "x", easy=rows(4), hard=rows(4, 50))
    with pytest.raises(DataError, match="has the splits easy, hard, and none of them is called"):
        opened(root)


def test_bad_rows_are_named(tmp_path: Path) -> None:
    pictures: list[bytes | None] = [png(k) for k in range(40)]
    pictures[3], pictures[4] = None, b"no picture"
    labels = ["cat", "dog"] * 20
    labels[5] = None  # type: ignore[call-overload]
    labels[6] = "  "
    pq.write_table(pa.table({"image": pictures, "label": labels}), tmp_path / "x.parquet")
    assert reasons(opened(tmp_path / "x.parquet")) == {
        "train/00000003": "cannot be read: the row is empty",
        "train/00000004": "not an image of a known format",
        "train/00000005": "no label",
        "train/00000006": "no label",
    }


def test_a_row_that_names_a_file_of_this_machine_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    images = [{"bytes": png(k), "path": None} for k in range(40)]
    images[7] = {"bytes": None, "path": str(tmp_path / "secret.png")}
    pq.write_table(pa.table({"image": images, "label": [0, 1] * 20}), tmp_path / "x.parquet")
    found = reasons(opened(tmp_path / "x.parquet"))
    words = "cannot be read: the row names a file and holds no image"
    assert found == {"train/00000007": words}


def test_a_row_of_a_hub_may_name_a_file_in_the_cache_of_the_hub_only(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(2))
    paths = ["hub/a.png", "b.png", "hub/../b.png"]
    table = [{"image": {"bytes": None, "path": str(tmp_path / p)}} for p in paths]
    keys = {str(k): ("train", k) for k in range(3)}
    store = RowStore("x", 10_000, "image", {"train": table}, keys, tmp_path / "hub")
    assert store.look("0").sha256 == inspect_bytes(png(1), 10_000).sha256
    assert store.look("1").sha256 is None
    assert store.look("2").sha256 is None


@pytest.mark.parametrize("name", ["../../x.arrow", "/etc/passwd", "a/b.arrow", None, ".."])
def test_a_saved_folder_that_names_files_outside_itself_is_refused(
    tmp_path: Path, name: str | None
) -> None:
    rows(4).save_to_disk(str(tmp_path / "x"))
    state = tmp_path / "x" / "state.json"
    state.write_text(
        json.dumps({**json.loads(state.read_text()), "_data_files": [{"filename": name}]})
    )
    with pytest.raises(DataError, match="which lies outside of it"):
        opened(tmp_path / "x")
    (tmp_path / "x" / "dataset_dict.json").write_text(json.dumps({"splits": ["../y"]}))
    with pytest.raises(DataError, match="which lies outside of it"):
        opened(tmp_path / "x")


def test_damaged_files_are_a_paragraph(tmp_path: Path) -> None:
    rows(12).to_parquet(str(tmp_path / "x.parquet"))
    whole = (tmp_path / "x.parquet").read_bytes()
    for k, data in enumerate((whole[:-30], b"", b"PAR1 and no more")):
        (tmp_path / f"{k}.parquet").write_bytes(data)
        with pytest.raises(DataError, match="cannot be read as a Parquet file") as caught:
            opened(tmp_path / f"{k}.parquet")
        assert "\n" not in str(caught.value)
    rows(12).save_to_disk(str(tmp_path / "x"))
    [arrow] = (tmp_path / "x").glob("*.arrow")
    for data in (arrow.read_bytes()[:200], b""):
        arrow.write_bytes(data)
        with pytest.raises(DataError, match=r"a folder of datasets\.save_to_disk"):
            opened(tmp_path / "x")


def test_a_hub_that_does_not_answer_is_a_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"hf-dataset:nobody/nothing could not be loaded.*\.parquet"
    ) as caught:
        opened("hf-dataset:nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_second_start_decodes_nothing_and_changed_files_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(12).to_parquet(str(tmp_path / "x.parquet"))
    decoded: list[int] = []

    def counting(data: bytes, max_pixels: int) -> object:
        decoded.append(len(data))
        return inspect_bytes(data, max_pixels)

    monkeypatch.setattr(hfdata, "inspect_bytes", counting)
    cache, source = tmp_path / "run" / "cache" / "images.json", section(tmp_path / "x.parquet")
    first = open_source(source, 0, cache)
    assert (len(decoded), open_source(source, 0, cache)) == (12, first)
    assert len(decoded) == 12
    rows(14, 50).to_parquet(str(tmp_path / "x.parquet"))
    assert open_source(source, 0, cache).sha256 != first.sha256
    assert len(decoded) == 26


def test_bars_and_log_lines_stay_away_and_come_back(tmp_path: Path, capfd: Any) -> None:
    datasets.enable_progress_bars()
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    level = datasets.logging.get_verbosity()
    with pytest.raises(DataError):
        opened(tmp_path / "x.parquet")
    assert "".join(capfd.readouterr()) == ""
    assert datasets.logging.get_verbosity() == level
    assert not datasets.utils.are_progress_bars_disabled()
