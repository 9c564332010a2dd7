"""What ships and why, and the folder around it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from ontarget.arrays import load_evalset, load_golden, read_labels
from ontarget.contract import load_bundle, verify_hashes
from ontarget.score import check_golden

from edgedistill.deploy.bundle import (
    Packed,
    beside_bytes,
    kit_bytes,
    npz_bytes,
    write_evalset,
)
from edgedistill.deploy.onnx import export_float32, to_float16
from edgedistill.deploy.quantize import quantize
from edgedistill.deploy.stage import (
    Option,
    ParityError,
    Shape,
    check_parity,
    choose,
    evaluate_options,
    kit_logits,
    metadata,
    model_inputs,
    pack,
    packed,
    preprocess_of,
    publish,
)
from edgedistill.nets import Look, outputs
from edgedistill.result import Precision
from edgedistill.rundir import Work

CLASSES = ('T-shirt "large"', "two\nlines", "back\\slash", "naïve 'ü' \t tab")
LOOK = Look(32, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
CPU = torch.device("cpu")
ALL: tuple[Precision, ...] = ("float32", "float16", "int8")


# The choice


def option(
    precision: Precision, size: int, top1: float = 0.9, latency: float | None = 0.004
) -> Option:
    return Option(precision, size, top1, latency)


FLOAT32 = option("float32", 1000, 0.9, 0.008)
FLOAT16 = option("float16", 520, 0.9, 0.004)
INT8 = option("int8", 300, 0.895, 0.003)


def test_int8_takes_the_place_of_the_natural_file_when_it_pays() -> None:
    chosen, reasons = choose([FLOAT32, FLOAT16, INT8], "float16", ALL, 0.01)
    assert chosen == "int8"
    assert set(reasons) == set(ALL)
    assert "0.0 MB instead of 0.0 MB, loses 0.5 points on validation" in reasons["int8"]
    assert "3.00 ms predicted instead of 4.00 ms" in reasons["int8"]
    assert reasons["float16"] == "int8 is smaller and fast enough, see there"
    assert reasons["float32"] == "not smaller than float16"


def test_int8_that_loses_nothing_says_so() -> None:
    for better in (0.9, 0.91):
        _, reasons = choose([FLOAT32, FLOAT16, replace(INT8, val_top1=better)], "float16", ALL, 0.0)
        assert "loses nothing" in reasons["int8"]


@pytest.mark.parametrize(
    ("int8", "runs", "allowed", "why"),
    [
        (INT8, ("float16", "float32"), 0.01, "the device has no fast int8"),
        (replace(INT8, size_bytes=520), ALL, 0.01, "not smaller than float16"),
        (
            replace(INT8, val_top1=0.88),
            ALL,
            0.01,
            "loses 2.0 points on validation, 1.0 are allowed",
        ),
        (replace(INT8, latency_s=None), ALL, 0.01, "no latency prediction for int8"),
        (replace(INT8, latency_s=0.0041), ALL, 0.01, "expected to be slower: 4.10 ms predicted"),
    ],
)
def test_int8_stays_behind_with_the_reason(
    int8: Option, runs: tuple[Precision, ...], allowed: float, why: str
) -> None:
    chosen, reasons = choose([FLOAT32, FLOAT16, int8], "float16", runs, allowed)
    assert chosen == "float16"
    assert why in reasons["int8"]
    assert reasons["float16"] == "the natural precision of the device"


def test_a_natural_file_without_a_prediction_is_not_beaten_on_faith() -> None:
    blind = replace(FLOAT16, latency_s=None)
    chosen, reasons = choose([FLOAT32, blind, INT8], "float16", ALL, 0.01)
    assert chosen == "float16" and "measure it there" in reasons["int8"]


def test_a_file_that_tensorrt_refuses_does_not_ship() -> None:
    options = [FLOAT32, FLOAT16, INT8]
    chosen, reasons = choose(options, "float16", ALL, 0.01, {"int8": "Pad p: no"})
    assert chosen == "float16"
    assert reasons["int8"] == "TensorRT's parser or builder refuses it (Pad p: no)"
    chosen, reasons = choose(options, "float16", ALL, 0.01, {"float16": "x", "int8": "y"})
    assert chosen == "float32" and "refuses it (x)" in reasons["float16"]
    assert reasons["float32"].startswith("float16 is refused by TensorRT's parser")
    every = dict.fromkeys(ALL, "no")
    chosen, reasons = choose(options, "float16", ALL, 0.01, every)
    assert chosen == "float32" and reasons["float32"].startswith("no file is left")


def test_the_whole_allowed_drop_is_allowed() -> None:
    int8, natural = replace(INT8, val_top1=0.875), replace(FLOAT16, val_top1=0.9375)
    assert choose([FLOAT32, natural, int8], "float16", ALL, 0.0625)[0] == "int8"
    assert choose([FLOAT32, natural, int8], "float16", ALL, 0.0624)[0] == "float16"


def test_what_was_measured_is_told_as_measured() -> None:
    files = [replace(FLOAT32, measured=True), replace(INT8, measured=True)]
    chosen, reasons = choose(files, "float32", ("float32", "int8"), 0.01)
    assert chosen == "int8" and "3.00 ms measured here instead of 8.00 ms" in reasons["int8"]
    slow = replace(files[1], latency_s=0.009)
    chosen, reasons = choose([files[0], slow], "float32", ("float32", "int8"), 0.01)
    assert chosen == "float32"
    assert reasons["int8"] == "slower: 9.00 ms measured here, 8.00 ms in float32"


def test_equal_speed_pays_only_where_the_natural_file_is_too_large() -> None:
    options = [FLOAT32, FLOAT16, replace(INT8, latency_s=0.0039)]
    for limit, chosen in ((None, "float16"), (520, "float16"), (519, "int8")):
        found, reasons = choose(options, "float16", ALL, 0.01, {}, limit)
        assert found == chosen
        assert ("does not pay: 3.90 ms predicted, 4.00 ms" in reasons["int8"]) == (
            chosen == "float16"
        )


def test_where_float32_is_natural_float16_does_not_replace_it() -> None:
    chosen, reasons = choose([FLOAT32, FLOAT16, INT8], "float32", ("float32", "int8"), 0.01)
    assert chosen == "int8"
    assert reasons["float16"] == "the device has no fast float16"


def test_a_natural_precision_that_was_not_made_falls_back_to_float32() -> None:
    chosen, reasons = choose([FLOAT32, FLOAT16], "int8", ALL, 0.01)
    assert chosen == "float32" and set(reasons) == {"float32", "float16"}


def test_a_refused_file_that_the_device_does_not_run_fast_is_no_matter_of_the_builder() -> None:
    made = [FLOAT32, FLOAT16, replace(FLOAT16, precision="int8", size_bytes=1)]
    _, reasons = choose(made, "float16", ("float16", "float32"), 0.01, {"int8": "a zero point"})
    assert reasons["int8"] == "the device has no fast int8"


# Real files


@dataclass(frozen=True)
class Made:
    shape: Shape
    items: list[Packed]
    pixels: Any
    reference: Any


def shape_of(layout: str) -> Shape:
    return Shape(layout, CLASSES, preprocess_of(32, LOOK.mean, LOOK.std), 17, "onnxruntime")


def make(layout: str) -> Made:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=len(CLASSES)).eval()
    shape = shape_of(layout)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    about = metadata(shape, "test_resnet", {"teacher": None, "data": "MIT"})
    data = export_float32(model, LOOK, layout, 17, about)
    items = [packed("float32", data, shape), packed("float16", to_float16(data, about), shape)]
    batch = model_inputs(items[0], pixels, shape)
    items.append(packed("int8", quantize(data, batch, "x86", "minmax", about), shape))
    return Made(shape, items, pixels, outputs(model, pixels, LOOK, CPU)[1])


@pytest.fixture(scope="module")
def bytes_in() -> Made:
    return make("uint8_nhwc")


@pytest.fixture(scope="module")
def floats_in() -> Made:
    return make("float_nchw")


def test_the_kit_gives_torchs_logits_for_both_inputs(
    bytes_in: Made, floats_in: Made, tmp_path: Path
) -> None:
    for made in (bytes_in, floats_in):
        scale = np.abs(made.reference).max()
        for item, tolerance in zip(made.items, (1e-5, 2e-2, 0.3), strict=True):
            got = kit_logits(item, made.pixels, made.shape, Work(tmp_path))
            assert np.abs(got - made.reference).max() <= tolerance * scale
    assert list(tmp_path.iterdir()) == []
    assert [i.input_dtype() for i in floats_in.items] == ["float32", "float16", "float32"]
    assert [i.input_dtype() for i in bytes_in.items] == ["uint8"] * 3


def test_a_float32_file_that_computes_something_else_is_refused(bytes_in: Made) -> None:
    item, reference = bytes_in.items[0], bytes_in.reference
    found = check_parity(item, reference.copy(), reference)
    assert (found["max_abs"], found["top1_agreement"], found["n"]) == (0.0, 1.0, 20)
    wrong = reference.copy()
    wrong[3, 1] += 0.01 * np.abs(reference).max() + 0.01
    with pytest.raises(ParityError, match="differs from the trained model") as caught:
        check_parity(item, wrong, reference)
    assert "--set export.opset=13" in str(caught.value)
    assert check_parity(bytes_in.items[1], wrong, reference)["max_abs"] > 0


def test_options_are_scored_on_what_the_files_say(bytes_in: Made, tmp_path: Path) -> None:
    labels = bytes_in.reference.argmax(1).astype(np.int64)
    labels[:5] = (labels[:5] + 1) % 4
    scores = evaluate_options(
        bytes_in.items[:1], bytes_in.pixels, labels, bytes_in.shape, Work(tmp_path)
    )
    assert scores == {"float32": 0.75}


def test_each_file_says_how_it_is_used(bytes_in: Made) -> None:
    for item in bytes_in.items:
        model = onnx.load_model_from_string(item.data)
        about = {p.key: p.value for p in model.metadata_props}
        assert json.loads(about["edgedistill.classes"]) == list(CLASSES)
        assert json.loads(about["edgedistill.preprocess"])["mean"] == [0.5, 0.4, 0.3]
        assert json.loads(about["edgedistill.licences"]) == {"teacher": None, "data": "MIT"}
        assert about["edgedistill.input"] == "uint8_nhwc"


# The bundle


def bundle(made: Made, folder: Path, evalset: Any = None) -> Work:
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(folder)
    facts = pack(
        work, name="tiny", device="host", created_utc="2026-11-01T00:00:00Z", shape=made.shape,
        models=made.items, chosen="int8", golden=made.pixels[:3],
        licences={"teacher": "apache-2.0", "student": None, "data": "MIT"}, evalset=evalset,
    )  # fmt: skip
    files = list((folder / "bundle").iterdir())
    assert facts["bundle_bytes"] == sum(p.stat().st_size for p in files)
    return work


@pytest.fixture(scope="module")
def shipped(bytes_in: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    labels = (np.arange(20) % 4).astype(np.int64)
    return bundle(bytes_in, folder, (bytes_in.pixels[:12], labels[:12], 20)).folder


def kit(shipped: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(shipped / "bundle" / "ontarget.pyz"), *arguments],
        capture_output=True, text=True, timeout=120, cwd=shipped / "bundle", check=False,
    )  # fmt: skip


def test_the_bundle_holds_what_ships_and_nothing_else(shipped: Path) -> None:
    assert sorted(p.name for p in (shipped / "bundle").iterdir()) == [
        "README.md", "build_engine.sh", "golden.npz", "labels.txt", "manifest.json",
        "model.float16.onnx", "model.float32.onnx", "model.int8.onnx", "ontarget.pyz",
    ]  # fmt: skip
    assert (shipped / "bundle" / "ontarget.pyz").stat().st_mode & 0o111
    assert (shipped / "bundle" / "build_engine.sh").stat().st_mode & 0o111
    assert beside_bytes("README.md").startswith(b"#")


def test_the_manifest_is_one_that_the_kit_reads(shipped: Path, bytes_in: Made) -> None:
    found = load_bundle(shipped / "bundle")
    assert found.classes == CLASSES
    assert (found.chosen, found.device, found.name) == ("int8", "host", "tiny")
    assert found.preprocess == bytes_in.shape.preprocess
    assert [m.name for m in found.models] == ["float32", "float16", "int8"]
    assert {m.input.shape for m in found.models} == {(None, 32, 32, 3)}
    assert found.licences == {"teacher": "apache-2.0", "student": None, "data": "MIT"}
    assert verify_hashes(found) == []
    assert tuple(read_labels(shipped / "bundle" / "labels.txt")) == CLASSES


def test_golden_outputs_are_those_of_each_file_itself(shipped: Path, bytes_in: Made) -> None:
    found = load_bundle(shipped / "bundle")
    pixels, golden = load_golden(found)
    assert np.array_equal(pixels, bytes_in.pixels[:3])
    assert set(golden) == {"float32", "float16", "int8"}
    assert not np.array_equal(golden["float32"], golden["int8"])
    for row in check_golden(found):
        assert row.ok and row.error is not None and row.error < 1e-5, row


def test_a_float_input_is_described_and_checked_too(floats_in: Made, tmp_path: Path) -> None:
    found = load_bundle(bundle(floats_in, tmp_path).folder / "bundle")
    assert [m.input.dtype for m in found.models] == ["float32", "float16", "float32"]
    assert {m.input.shape for m in found.models} == {(None, 3, 32, 32)}
    assert all(row.ok for row in check_golden(found))
    assert not (tmp_path / "evalset").exists()


def test_the_packed_kit_tells_what_is_in_the_bundle(shipped: Path) -> None:
    done = kit(shipped, "info", ".")
    assert done.returncode == 0, done.stderr
    assert "tiny for host" in done.stdout and "4 classes" in done.stdout
    assert "int8 *" in done.stdout


def test_the_packed_kit_checks_and_scores_the_bundle(shipped: Path, tmp_path: Path) -> None:
    done = kit(shipped, "check", ".")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok    ") == 4
    done = kit(shipped, "eval", ".", "--json", str(tmp_path / "eval.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "eval.json").read_text())["eval"]
    assert [(row["model"], row["n"]) for row in rows] == [
        ("float32", 12), ("float16", 12), ("int8", 12),
    ]  # fmt: skip


def test_the_packed_kit_notices_another_file(bytes_in: Made, tmp_path: Path) -> None:
    folder = bundle(bytes_in, tmp_path).folder
    path = folder / "bundle" / "model.int8.onnx"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    done = kit(folder, "check", ".")
    assert done.returncode == 1 and "model.int8.onnx" in done.stdout


def test_packing_again_over_a_broken_try_gives_the_same_files(
    shipped: Path, bytes_in: Made, tmp_path: Path
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "litter.onnx").write_bytes(b"half")
    again = bundle(bytes_in, tmp_path).folder / "bundle"
    names = sorted(p.name for p in (shipped / "bundle").iterdir())
    assert sorted(p.name for p in again.iterdir()) == names
    for name in names:
        assert (again / name).read_bytes() == (shipped / "bundle" / name).read_bytes(), name


def test_the_kit_is_one_executable_file_of_the_same_bytes_every_time(tmp_path: Path) -> None:
    data = kit_bytes()
    assert data == kit_bytes() and data.startswith(b"#!/usr/bin/env python3\n")
    assert len(data) < 200_000
    path = tmp_path / "ontarget.pyz"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-I", str(path), "--version"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("ontarget ")


def test_the_kit_in_a_bundle_needs_neither_torch_nor_edgedistill(shipped: Path) -> None:
    code = (
        "import sys, runpy\n"
        "sys.modules['torch'] = sys.modules['edgedistill'] = sys.modules['onnx'] = None\n"
        "sys.argv = ['ontarget.pyz', 'check', '.']\n"
        "runpy.run_path('ontarget.pyz', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        cwd=shipped / "bundle", check=False, env={"PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_npz_of_the_same_arrays_is_the_same_bytes_whatever_the_clock_and_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.array([1, 2], dtype=np.uint8)
    first = npz_bytes({"a": a, "b": b})
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert npz_bytes({"b": b, "a": np.asfortranarray(a)}) == first
    (tmp_path / "x.npz").write_bytes(first)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert np.array_equal(found["a"], a) and np.array_equal(found["b"], b)


# The evaluation set


def test_the_evaluation_set_says_how_much_of_the_test_split_it_is(shipped: Path) -> None:
    pixels, labels = load_evalset(shipped / "evalset")
    assert pixels.shape == (12, 32, 32, 3) and labels.tolist() == [0, 1, 2, 3] * 3
    about = json.loads((shipped / "evalset" / "evalset.json").read_text())
    assert (about["n"], about["of"]) == (12, 20)


def test_an_evaluation_set_is_the_same_bytes_every_time(bytes_in: Made, tmp_path: Path) -> None:
    labels = np.zeros(20, dtype=np.int64)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_evalset(Work(tmp_path / name), bytes_in.pixels, labels, 20)
    for file in ("pixels.npy", "labels.npy", "evalset.json"):
        one, two = (tmp_path / name / "evalset" / file for name in ("a", "b"))
        assert one.read_bytes() == two.read_bytes()


# Where a person looks for it


def staged(folder: Path, text: str, evalset: bool = True) -> Path:
    for name in ("bundle", "evalset") if evalset else ("bundle",):
        (folder / name).mkdir(parents=True)
        (folder / name / "file.txt").write_text(text)
        (folder / name / "other.txt").write_text("same")
    return folder


def test_publishing_copies_both_folders_and_leaves_no_litter(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".bundle.tmp").mkdir()
    (run / ".bundle.tmp" / "half").write_text("of a killed try")
    publish(staged(tmp_path / "stage", "one"), run)
    assert (run / "bundle" / "file.txt").read_text() == "one"
    assert (run / "evalset" / "file.txt").read_text() == "one"
    assert sorted(p.name for p in run.iterdir()) == ["bundle", "evalset"]
    assert sorted(p.name for p in (run / "bundle").iterdir()) == ["file.txt", "other.txt"]


def test_publishing_the_same_again_touches_nothing(tmp_path: Path) -> None:
    run, stage = tmp_path / "run", staged(tmp_path / "stage", "one")
    run.mkdir()
    publish(stage, run)
    before = [(p, p.stat().st_ino, p.stat().st_mtime_ns) for p in sorted(run.rglob("*"))]
    publish(stage, run)
    assert [(p, p.stat().st_ino, p.stat().st_mtime_ns) for p in sorted(run.rglob("*"))] == before


@pytest.mark.parametrize("damage", ["changed", "missing", "more", "a file"])
def test_what_differs_is_replaced_whole(damage: str, tmp_path: Path) -> None:
    run, stage = tmp_path / "run", staged(tmp_path / "stage", "one")
    run.mkdir()
    publish(stage, run)
    target = run / "bundle"
    if damage == "changed":
        (target / "file.txt").write_text("two")
    elif damage == "missing":
        (target / "file.txt").unlink()
    elif damage == "more":
        (target / "more.txt").write_text("litter")
    else:
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
        target.write_text("not a folder")
    publish(stage, run)
    assert sorted(p.name for p in target.iterdir()) == ["file.txt", "other.txt"]
    assert (target / "file.txt").read_text() == "one"


def test_an_evaluation_set_that_is_no_longer_wanted_goes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    publish(staged(tmp_path / "one", "one"), run)
    publish(staged(tmp_path / "two", "one", evalset=False), run)
    assert not (run / "evalset").exists() and (run / "bundle").is_dir()


def test_a_copy_that_fails_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    publish(staged(tmp_path / "one", "one"), run)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", full)
    with pytest.raises(OSError, match="No space"):
        publish(staged(tmp_path / "two", "two"), run)
    assert (run / "bundle" / "file.txt").read_text() == "one"
