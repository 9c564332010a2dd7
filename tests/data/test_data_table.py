"""A CSV of paths and labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_parts import images, opened, png, reasons, section
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.data.dataset import labels
from edgedistill.data.sources import open_source
from edgedistill.errors import DataError, EdgedistillError


def table(root: Path, n: int = 12, head: str = "path,label", name: str = "labels.csv") -> Path:
    """A table of `n` pictures of two classes."""
    images(root / "all", n)
    rows = [f"all/{k}.png,{('cat', 'dog')[k % 2]}" for k in range(n)]
    (root / name).write_text("\n".join([head, *rows]) + "\n")
    return root / name


@pytest.mark.parametrize("head", ["path,label", "file,class", "Filename,Label", " image , label"])
def test_paths_and_labels_are_found_by_their_usual_names(tmp_path: Path, head: str) -> None:
    data = opened(table(tmp_path / "pets", head=head))
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert sum(map(len, (data.train, data.val, data.test))) == 12
    for item in data.train:
        assert data.classes[item.label] == ("cat", "dog")[int(item.key[4:].split(".")[0]) % 2]
        assert data.read(item).size == (6, 6)


def test_tabs_semicolons_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    first = opened(table(tmp_path))
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "excel.csv").write_bytes(
        text.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig")
    )
    (tmp_path / "windows.csv").write_text(text.replace("/", "\\"))
    for name in ("labels.tsv", "excel.csv", "windows.csv"):
        assert opened(tmp_path / name).sha256 == first.sha256


def test_the_table_may_say_the_splits(tmp_path: Path) -> None:
    images(tmp_path, 12)
    words = ["train"] * 6 + ["Validation"] * 3 + ["test"] * 3
    rows = [f"{k}.png,{k % 2},{word}" for k, word in enumerate(words)]
    (tmp_path / "x.csv").write_text("\n".join(["path,label,split", *rows, "0.png,0,extra"]))
    data = opened(tmp_path / "x.csv")
    assert (len(data.train), len(data.val), len(data.test)) == (6, 3, 3)
    assert data.split == "train, val and test by the table"
    assert data.classes == ("0", "1")
    assert reasons(data)["0.png"] == 'line 14: its split is "extra"; allowed: train, val and test'


def test_numbers_sort_as_numbers_and_names_may_stand_beside(tmp_path: Path) -> None:
    images(tmp_path, 33)
    rows = [f"{k}.png,{k % 11}" for k in range(33)]
    (tmp_path / "x.csv").write_text("\n".join(["path,label", *rows]))
    assert opened(tmp_path / "x.csv").classes == tuple(map(str, range(11)))
    (tmp_path / "classes.txt").write_text("\n".join(f"kind {k}" for k in range(11)))
    assert opened(tmp_path / "x.csv").classes[10] == "kind 10"


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    path = table(tmp_path, 40)
    path.write_text(path.read_text() + "all/gone.png,cat\nall/none.png,dog\n")
    data = opened(path)
    assert reasons(data) == {
        f"all/{name}.png": "cannot be read: No such file or directory" for name in ("gone", "none")
    }
    with pytest.raises(DataError, match=r"2 of 42 files .*all/gone\.png"):
        opened(path, max_bad_fraction=0.01)


def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "in", 40)
    (tmp_path / "out.png").write_bytes(png(99))
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out.png")
    away = ["../out.png", f"{tmp_path}/out.png", "link.png", "all/../../out.png", "/etc/passwd"]
    path.write_text(path.read_text() + "".join(f"{name},cat\n" for name in away))
    found = reasons(opened(path, max_bad_fraction=0.2))
    assert set(found) == set(away)
    assert all("its path leaves the folder of the table" in reason for reason in found.values())


def test_a_path_under_two_labels_is_left_out_and_a_repeated_row_too(tmp_path: Path) -> None:
    path = table(tmp_path, 40)
    path.write_text(path.read_text() + "all/0.png,dog\n./all/1.png,dog\nall/2.png,\n,cat\n")
    data = opened(path, max_bad_fraction=0.2)
    assert reasons(data) == {
        "all/0.png": "line 42: the same path stands under another label",
        "./all/1.png": "line 43: the same path stands in line 3",
        "all/2.png": "line 44: no label",
        "(empty)": "line 45: no path",
    }
    keys = [item.key for item in (*data.train, *data.val, *data.test)]
    assert "all/0.png" not in keys
    assert keys.count("all/1.png") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column of paths .* Its header says: nothing"),
        ("a,b\n1,2\n", r"no column of paths \(path, file, .* Its header says: a, b\. .*data\.image_col"),
        ("path,file,label\n", "several columns of paths"),
        ("path,x\n", "no column of labels"),
        ('path,label\n"a,b\n', "cannot be read as a table: line 2"),
        ("path,label\n", "no image that can be used: it has no rows"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        opened(tmp_path / "x.csv")


def test_columns_may_be_named(tmp_path: Path) -> None:
    path = table(tmp_path, head="where,what")
    data = opened(path, image_column="where", label_column="what")
    assert data.classes == ("cat", "dog")
    with pytest.raises(DataError, match='no column called "Where"'):
        opened(path, image_column="Where")


def test_text_in_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("path,label\nä.png,grün\n".encode("latin-1"))
    with pytest.raises(DataError, match="no text in UTF-8"):
        opened(tmp_path / "x.csv")


def test_an_untouched_table_is_not_decoded_again(tmp_path: Path) -> None:
    path, cache = table(tmp_path / "data"), tmp_path / "images.json"
    first = open_source(section(path), 0, cache)
    before = cache.stat().st_mtime_ns
    assert open_source(section(path), 0, cache) == first
    assert cache.stat().st_mtime_ns == before
    assert labels(first.train).tolist() == [item.label for item in first.train]


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_no_text_is_more_than_a_fault_of_the_table(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_bytes(("path,label,split\n" + text).encode("utf-8"))
    with pytest.raises(EdgedistillError) as caught:
        opened(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)
