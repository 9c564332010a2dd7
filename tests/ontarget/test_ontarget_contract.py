"""A manifest is hostile until parsed: only ContractError comes out, and it names the field."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ontarget.contract import (
    Bundle,
    ContractError,
    load_bundle,
    load_evalset,
    load_golden,
    load_images,
    read_labels,
    require_packed,
    verify_hashes,
    write_labels,
)


def test_a_sound_bundle_is_read_whole(shared: Any) -> None:
    bundle = load_bundle(shared.folder)
    assert (bundle.name, bundle.device, bundle.chosen) == ("tiny", "host", "bytes")
    assert bundle.classes == ("red", "green", "blue\nsky", "back\\slash")
    assert bundle.preprocess.mean == (0.5, 0.4, 0.3)
    assert [m.name for m in bundle.models] == ["bytes", "floats", "float16"]
    assert bundle.model().name == "bytes"
    assert bundle.model("floats").input.layout == "float_nchw"
    assert bundle.model("floats").input.shape == (None, 3, 8, 8)
    assert bundle.licences == {"teacher": "Apache-2.0", "student": None, "data": "MIT"}
    assert verify_hashes(bundle) == []
    with pytest.raises(ContractError, match="bytes, floats, float16"):
        bundle.model("nothing")


def _set(*path: Any) -> Callable[[Any], Callable[[dict[str, Any]], None]]:
    def with_value(value: Any) -> Callable[[dict[str, Any]], None]:
        def edit(document: dict[str, Any]) -> None:
            target: Any = document
            for key in path[:-1]:
                target = target[key]
            if value is KeyError:
                del target[path[-1]]
            else:
                target[path[-1]] = value

        return edit

    return with_value


M0 = ("models", 0)
BAD = [
    (_set("schema")("edgedistill.bundle/2"), "edgedistill.bundle/2"),
    (_set("schema")(KeyError), "schema"),
    (_set("name")("a\x1b[2Jb"), '"name"'),
    (_set("name")(""), '"name"'),
    (_set("device")(7), '"device"'),
    (_set("classes")([]), '"classes"'),
    (_set("classes")(["a", ""]), '"classes"'),
    (_set("classes")(["a", 3]), '"classes"'),
    (_set("classes")(["a", "\ud800", "c", "d"]), '"classes"'),
    (_set("classes")(["a", "b"]), "2 classes"),
    (_set("preprocess")([]), '"preprocess"'),
    (_set("preprocess", "crop")(True), "preprocess.crop"),
    (_set("preprocess", "crop")(0), "preprocess.crop"),
    (_set("preprocess", "resize")(7), "preprocess.resize"),
    (_set("preprocess", "resample")("nearest"), "preprocess.resample"),
    (_set("preprocess", "color")("BGR"), "preprocess.color"),
    (_set("preprocess", "mean")([0.5, 0.5]), "preprocess.mean"),
    (_set("preprocess", "mean")([0.5, "x", 0.5]), "preprocess.mean"),
    (_set("preprocess", "std")([0.5, 0, 0.5]), "preprocess.std"),
    (_set("chosen")("int8"), '"chosen"'),
    (_set("models")({}), '"models"'),
    (_set("models")([]), '"models"'),
    (_set("models")([1]), "models[0]"),
    (_set(*M0, "name")("floats"), "two models"),
    (_set(*M0, "name")("../x"), "models[0].name"),
    (_set(*M0, "file")("/etc/passwd"), "not a plain path"),
    (_set(*M0, "file")("../manifest.json"), "not a plain path"),
    (_set(*M0, "file")("a/../../x"), "not a plain path"),
    (_set(*M0, "file")("C:\\x.onnx"), "not a plain path"),
    (_set(*M0, "file")("a\x00b"), "models[0].file"),
    (_set(*M0, "file")("x" * 900), "cannot be reached"),
    (_set(*M0, "file")("."), "not a plain path"),
    (_set(*M0, "file")("missing.onnx"), "is named but is not in"),
    (_set(*M0, "sha256")("ABC"), "models[0].sha256"),
    (_set(*M0, "size_bytes")(-1), "models[0].size_bytes"),
    (_set(*M0, "size_bytes")(1.5), "models[0].size_bytes"),
    (_set(*M0, "size_bytes")(1 << 31), "models[0].size_bytes"),
    (_set(*M0, "precision")("float8"), "models[0].precision"),
    (_set(*M0, "runtime")(None), "models[0].runtime"),
    (_set(*M0, "opset")("17"), "models[0].opset"),
    (_set(*M0, "input", "layout")("nhwc"), "models[0].input.layout"),
    (_set(*M0, "input", "dtype")("float32"), "models[0].input.dtype"),
    (_set(*M0, "input", "shape")([None, 3, 8, 8]), "models[0].input.shape"),
    (_set(*M0, "input", "shape")([None, 9, 9, 3]), "models[0].input.shape"),
    (_set(*M0, "output", "shape")([None, 5]), "models[0].output.shape"),
    (_set(*M0, "output", "dtype")("int64"), "models[0].output.dtype"),
    (_set("golden")(KeyError), '"golden"'),
    (_set("golden", "file")("../golden.npz"), "not a plain path"),
    (_set("golden", "n")(0), "golden.n"),
    (_set("labels", "file")("nope.txt"), "is named but is not in"),
    (_set("labels", "sha256")(KeyError), "labels.sha256"),
    (_set("licences")(KeyError), '"licences"'),
    (_set("licences", "teacher")(["x"]), "licences.teacher"),
]


@pytest.mark.parametrize(("edit", "words"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_wrong_field_is_refused_and_named(made: Any, edit: Any, words: str) -> None:
    made.rewrite(edit)
    with pytest.raises(ContractError) as caught:
        load_bundle(made.folder)
    text = str(caught.value)
    assert words in text
    assert text.isprintable()
    assert len(text) < 1200


def test_unknown_keys_are_left_for_a_later_version(made: Any) -> None:
    made.rewrite(lambda d: d.update(future=1))
    assert load_bundle(made.folder).name == "tiny"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1]", "must hold a JSON object"),
        (b'{"a": 1, "a": 2}', "key appears twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": ' + b"1" * 5000 + b"}", "more than 20 digits"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'"' + b"x" * 16_000_001, "larger than 16000000"),
    ],
    ids=["empty", "binary", "list", "twice", "nan", "digits", "deep", "large"],
)
def test_a_manifest_that_is_not_plain_json_is_refused(made: Any, raw: bytes, words: str) -> None:
    (made.folder / "manifest.json").write_bytes(raw)
    with pytest.raises(ContractError, match=words):
        load_bundle(made.folder)


def test_a_folder_without_a_manifest_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no manifest\.json"):
        load_bundle(tmp_path)
    with pytest.raises(ContractError, match=r"no manifest\.json"):
        load_bundle(tmp_path / "nowhere")
    with pytest.raises(ContractError, match="not a bundle"):
        load_bundle("a\0b")


def test_a_link_that_leaves_the_folder_is_refused_and_one_that_stays_is_not(made: Any) -> None:
    outside = made.folder.parent / "outside.onnx"
    model = made.folder / "model.bytes.onnx"
    shutil.copy(model, outside)
    model.rename(made.folder / "real.onnx")
    model.symlink_to("real.onnx")
    assert verify_hashes(load_bundle(made.folder)) == []
    model.unlink()
    model.symlink_to(outside)
    with pytest.raises(ContractError, match="link that leaves"):
        load_bundle(made.folder)
    model.unlink()
    model.symlink_to("model.bytes.onnx")
    with pytest.raises(ContractError):
        load_bundle(made.folder)


def test_changed_bytes_are_found_by_their_hash(made: Any) -> None:
    with (made.folder / "model.floats.onnx").open("ab") as file:
        file.write(b"\0")
    (made.folder / "labels.txt").write_text("red\n")
    text = "\n".join(verify_hashes(load_bundle(made.folder)))
    assert "model.floats.onnx is not the file that was packed" in text
    assert "labels.txt is not the file" in text
    assert "the label file and the manifest's classes differ" in text
    assert "model.bytes.onnx" not in text


def test_a_file_is_not_read_beyond_the_size_that_was_packed(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in ("MAX_GOLDEN_BYTES", "MAX_LABEL_BYTES"):
        monkeypatch.setattr(f"ontarget.contract.{most}", 1 << 20)
    bundle = load_bundle(made.folder)
    for name in ("model.bytes.onnx", "golden.npz", "labels.txt"):
        with (made.folder / name).open("r+b") as file:
            file.truncate(1 << 41)  # a hole: it takes no room on the disk, and hours to read
    text = "\n".join(verify_hashes(bundle))
    for name in ("model.bytes.onnx", "golden.npz", "labels.txt"):
        assert f"{name} is not the file that was packed" in text
    with pytest.raises(ContractError, match="sha256 differs"):
        require_packed(bundle.model())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        found += _paths(inner, (*path, key))
    return found


@settings(max_examples=250)
@given(data=st.data())
def test_a_mutated_manifest_is_a_bundle_or_a_contract_error(shared: Any, data: Any) -> None:
    folder = shared.folder.parent / "fuzz"
    if not folder.exists():
        shutil.copytree(shared.folder, folder)
    document = copy.deepcopy(shared.manifest())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(document)))
        value = data.draw(JSON)
        if not path:
            document = value
            break
        target = document
        for key in path[:-1]:
            target = target[key]
        if data.draw(st.booleans()) or isinstance(target, list):
            target[path[-1]] = value
        else:
            del target[path[-1]]
    (folder / "manifest.json").write_text(json.dumps(document))
    try:
        bundle = load_bundle(folder)
    except ContractError as error:
        assert str(error).isprintable()
    else:
        assert isinstance(bundle, Bundle)
        verify_hashes(bundle)
        with contextlib.suppress(ContractError):
            load_golden(bundle)


@settings(max_examples=100)
@given(raw=st.binary(max_size=200))
def test_random_bytes_are_never_more_than_a_contract_error(shared: Any, raw: bytes) -> None:
    folder = shared.folder.parent / "bytes"
    folder.mkdir(exist_ok=True)
    for name in ("manifest.json", "evalset.json", "x.npy"):
        (folder / name).write_bytes(raw)
    for read in (load_bundle, load_evalset, lambda f: load_images(f / "x.npy")):
        with pytest.raises(ContractError):
            read(folder)


@settings(max_examples=100)
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
def test_any_class_names_come_back_from_the_label_file(shared: Any, names: list[str]) -> None:
    path = shared.folder.parent / "labels.txt"
    write_labels(path, names)
    assert read_labels(path) == names
    assert path.read_bytes().count(b"\n") == len(names)


def test_labels_are_escaped_as_the_readme_says(tmp_path: Path) -> None:
    write_labels(tmp_path / "l.txt", ["a\nb", "c\\n", "d\r"])
    assert (tmp_path / "l.txt").read_bytes() == b"a\\nb\nc\\\\n\nd\\r\n"
    (tmp_path / "l.txt").write_bytes(b"a\\x\n")
    with pytest.raises(ContractError, match="unknown escape"):
        read_labels(tmp_path / "l.txt")
    (tmp_path / "l.txt").write_bytes(b"\xff\n")
    with pytest.raises(ContractError, match="UTF-8"):
        read_labels(tmp_path / "l.txt")


def test_golden_outputs_are_read_by_model(shared: Any) -> None:
    pixels, logits = load_golden(load_bundle(shared.folder))
    assert pixels.shape == (5, 8, 8, 3)
    assert sorted(logits) == ["bytes", "float16", "floats"]
    assert logits["bytes"].shape == (5, 4)


def _golden(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def _pickled(path: Path) -> None:
    np.savez(path, pixels=np.array([{"a": 1}], dtype=object))


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pixels.npy", b"\0" * ((1 << 20) + 1))


def _huge_header(path: Path) -> None:
    head = "{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000000, 8, 8, 3), }"
    raw = b"\x93NUMPY\x01\x00" + (len(head) + 1).to_bytes(2, "little") + head.encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pixels.npy", raw)


PIXELS = np.zeros((5, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(b"no zip"), "damaged"),
        (_golden(other=PIXELS), "damaged"),
        (_golden(pixels=PIXELS.astype(np.float32)), "pixels must be uint8"),
        (_golden(pixels=PIXELS[:, :7]), "pixels must be uint8"),
        (_golden(pixels=PIXELS, logits_bytes=np.zeros((5, 3), np.float32)), "logits_bytes"),
        (_golden(pixels=PIXELS, logits_bytes=np.full((5, 4), np.nan, np.float32)), "finite"),
        (_pickled, "damaged"),
        (_huge_header, "damaged"),
        (_bomb, "unpacks to"),
    ],
    ids=["text", "absent", "float", "small", "classes", "nan", "pickle", "header", "bomb"],
)
def test_a_damaged_golden_file_is_refused(
    made: Any, monkeypatch: pytest.MonkeyPatch, write: Any, words: str
) -> None:
    monkeypatch.setattr("ontarget.arrays.MAX_GOLDEN_BYTES", 1 << 20)
    bundle = load_bundle(made.folder)
    write(made.folder / "golden.npz")
    with pytest.raises(ContractError, match=words):
        load_golden(bundle)


def test_an_evaluation_set_is_mapped_and_not_read(shared: Any) -> None:
    pixels, labels = load_evalset(shared.evalset)
    assert isinstance(pixels, np.memmap)
    assert np.array_equal(pixels, shared.pixels)
    assert np.array_equal(labels, shared.labels)


def _evalset(edit: Callable[[Path, dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        document = json.loads((folder / "evalset.json").read_text())
        edit(folder, document)
        (folder / "evalset.json").write_text(json.dumps(document))

    return apply


def _link(folder: Path, _: dict[str, Any]) -> None:
    target = folder.parent / "elsewhere.npy"
    os.replace(folder / "pixels.npy", target)
    (folder / "pixels.npy").symlink_to(target)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_evalset(lambda f, d: d.update(schema="x")), "schema"),
        (_evalset(lambda f, d: d.update(n=0)), '"n"'),
        (_evalset(lambda f, d: d.update(n=39)), "39 images"),
        (_evalset(lambda f, d: d.update(of=3)), '"of"'),
        (_evalset(lambda f, d: d.update(pixels_sha256="0" * 64)), "sha256 differs"),
        (_evalset(lambda f, d: (f / "labels.npy").unlink()), "not in"),
        (_evalset(_link), "link that leaves"),
        (lambda f: (f / "evalset.json").unlink(), "--evalset FOLDER"),
    ],
    ids=["schema", "none", "count", "of", "hash", "missing", "link", "no-json"],
)
def test_a_damaged_evaluation_set_is_refused(made: Any, edit: Any, words: str) -> None:
    edit(made.evalset)
    with pytest.raises(ContractError, match=words):
        load_evalset(made.evalset)


def test_images_of_another_kind_are_refused(tmp_path: Path) -> None:
    for array in (np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 9, 3), np.uint8), np.zeros(3)):
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(ContractError, match=r"\(N, S, S, 3\)"):
            load_images(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ContractError, match="the bundle takes 9 px"):
        load_images(tmp_path / "x.npy", 9)
    np.savez(tmp_path / "z.npz", a=np.zeros(1))
    with pytest.raises(ContractError, match=r"not a \.npy file"):
        load_images(tmp_path / "z.npz")
    with pytest.raises(ContractError, match="cannot be read"):
        load_images(tmp_path / "none.npy")
