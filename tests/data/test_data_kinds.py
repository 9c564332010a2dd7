"""What a source is, told from its name and its content."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from data_parts import images, png, samples, section, tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.data.kinds import expand, locate, short_name, shown_url
from edgedistill.data.sources import check_source
from edgedistill.errors import DataError, EdgedistillError, MissingExtraError, UsageError


def test_a_folder_is_what_it_holds(tmp_path: Path) -> None:
    tar(tmp_path / "s" / "train" / "0.tar", samples(1))
    (tmp_path / "s" / "logs").mkdir()
    (tmp_path / "s" / "logs" / "a.txt").write_text("x")
    found = locate(str(tmp_path / "s"))
    assert (found.kind, found.files) == ("shards", ("train/0.tar",))
    (tmp_path / "p" / "data").mkdir(parents=True)
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        (tmp_path / "p" / "data" / name).write_bytes(b"")
    assert locate(str(tmp_path / "p")).kind == "parquet"
    images(tmp_path / "f" / "cat", 1)
    tar(tmp_path / "f" / "cat.tar", samples(1))
    assert locate(str(tmp_path / "f")).kind == "folder"
    (tmp_path / "s" / "x.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"both shards \(train/0\.tar\) and Parquet files"):
        locate(str(tmp_path / "s"))


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.jpg", "x"])
def test_a_file_of_another_kind_gets_the_list_of_what_is_allowed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(png(1))
    with pytest.raises(DataError, match=r"WebDataset shards .*\.parquet.*hf-dataset.*\.csv"):
        locate(str(tmp_path / name))


def test_a_pattern_stands_for_files_that_must_be_there(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for k in range(2):
            tar(tmp_path / split / f"{k:03}.tar", samples(1))
    found = locate(f"{tmp_path}/{{train,val}}/{{000..001}}.tar")
    assert found.files == ("train/000.tar", "train/001.tar", "val/000.tar", "val/001.tar")
    with pytest.raises(DataError, match=r"1 of the 3 files .* train/002\.tar|train/002\.tar"):
        locate(f"{tmp_path}/train/{{000..002}}.tar")


@pytest.mark.parametrize(
    "pattern", ["{0..999999999}.tar", "{0..9999}{0..9999}.tar", "{0..1", "{" * 5 + "}", "{0..99999999999999}"]
)  # fmt: skip
def test_no_pattern_is_too_large_or_too_odd(pattern: str) -> None:
    try:
        assert len(expand(pattern)) < 10
    except DataError as error:
        assert "pattern" in str(error)


def test_a_name_on_a_hub_has_its_parts() -> None:
    found = locate("hf-dataset:owner/pets:small@v1.0")
    assert (found.kind, found.name, found.config, found.revision) == (
        "hub", "owner/pets", "small", "v1.0",
    )  # fmt: skip
    assert locate("hf-dataset:owner/pets").config is None
    for wrong in ("hf-dataset:", "hf-dataset:a/b/c", "hf-dataset:a b"):
        with pytest.raises(UsageError, match="Write hf-dataset:OWNER/NAME"):
            locate(wrong)


def test_what_is_secret_in_an_address_is_not_shown() -> None:
    url = "https://me:word@host.org/pets/train-{000..002}.tar?X-Signature=abc#x"
    assert shown_url(url) == "https://host.org/pets/train-{000..002}.tar"
    assert locate(url).shown == shown_url(url)
    with pytest.raises(DataError) as caught:
        locate("https://me:word@host.org/pets.zip?sig=abc")
    assert "https://host.org/pets.zip is an address" in str(caught.value)
    assert not {"word", "abc"} & set(str(caught.value).replace("=", " ").split())


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/x/pets/train-{000..012}.tar", "pets"),
        ("/x/pets/{000..012}.tar", "pets"),
        ("https://host.org/pets/shards/000.tar?sig=1", "pets"),
        ("/x/pets/labels.csv", "pets"),
        ("hf-dataset:owner/pets:small@main", "pets"),
        ("/x/flowers102", "flowers102"),
        ("pets-train-00000-of-00007.parquet", "pets-train"),
        (".", "data"),
        ("", "data"),
    ],
)
def test_a_source_has_a_name_that_says_something(source: str, name: str) -> None:
    assert short_name(source) == name


@pytest.mark.parametrize(
    ("make", "module"),
    [
        ("https://host.org/a.tar", "fsspec"),
        ("{}/a-{{0..1}}.tar", "braceexpand"),
        ("hf-dataset:owner/name", "datasets"),
        ("{}/a.parquet", "datasets"),
    ],
)
def test_a_missing_package_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: str, module: str
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    real = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == module else real(name, *rest)

    monkeypatch.setattr("edgedistill.data.kinds.find_spec", without)
    with pytest.raises(MissingExtraError, match=r'pip install "edgedistill\[data\]"'):
        check_source(section(make.format(tmp_path)))


def test_shards_without_a_pattern_need_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedistill.data.kinds.find_spec", lambda _: None)
    check_source(section(tar(tmp_path / "a.tar", samples(2))))


@given(st.text(max_size=60) | st.from_regex(r"[a-z0-9]{0,5}://[a-z\[\]{},.@:?/]{0,30}(\.tar)?"))
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_no_text_is_more_than_a_fault_of_the_user(text: str) -> None:
    short_name(text)
    try:
        locate(text)
    except EdgedistillError as error:
        assert "\n" not in str(error)
