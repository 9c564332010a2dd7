"""`edgedistill export`: a run's student and one's own checkpoints become the bundle that a build ships."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import timm
import torch
from ontarget.arrays import load_golden
from ontarget.contract import Bundle, load_bundle
from torch import nn

from edgedistill.classnames import names_for, read_names
from edgedistill.errors import UsageError
from tests.build_parts import SMALL, Ran, make_images, tool
from tests.teacher_parts import head_of

NET = "test_efficientnet"
NAMES = ("trouser", "boot", "bag")
"""Not in the order of the folders."""
EPOCH = "1790000000"
FEW = ("--set", "export.parity_images=16", "--set", "quantize.calibration_images=16")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of three classes, most of them bags, and checkpoints that call every image a bag."""
    folder = tmp_path_factory.mktemp("export")
    make_images(folder / "data", 8)
    make_images(folder / "more", 24, {"bag": 8})
    for path in sorted((folder / "more" / "bag").iterdir())[8:]:
        path.rename(folder / "data" / "bag" / path.name)
    torch.manual_seed(0)
    model = timm.create_model(NET, num_classes=3)
    with torch.no_grad():
        head_of(model).bias.copy_(torch.tensor([0.0, 0.0, 50.0]))
    torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
    save(model, folder / "named", labels=NAMES)
    return folder


def save(model: nn.Module, folder: Path, labels: Any = None, **config: Any) -> Path:
    """A network in a folder, as timm saves it."""
    if labels is not None:
        config["label_names"] = list(labels)
    args = config.pop("model_args", None)
    timm.models.save_for_hf(
        model, folder, model_config=config or None, model_args=args, safe_serialization=True
    )
    return folder


def export(*arguments: object, size: int | None = 32) -> Ran:
    sizes = ["--input-size", size] if size else []
    return tool("export", *arguments, *sizes, *FEW, "-q")


def exported(out: Path, *arguments: object, size: int | None = 32) -> tuple[Bundle, Ran]:
    ran = export(*arguments, "--out", out, size=size)
    assert (ran.code, ran.err) == (0, ""), ran.err
    return load_bundle(out), ran


def fault(*arguments: object, size: int | None = 32) -> str:
    """The one paragraph that an export ends on."""
    ran = export(*arguments, size=size)
    assert (ran.code, ran.out) == (2, ""), ran.out
    assert ran.err.startswith("edgedistill: ") and ran.err.count("\n") == 1, ran.err
    return ran.err


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# A run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real build up to its bundle."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        ran = tool(
            "build", *SMALL, "--data", make_images(folder / "data"), "--out", folder / "run",
            "--until", "bundle",
        )  # fmt: skip
    assert ran.code == 0, ran.err
    return folder / "run"


def test_a_run_is_exported_to_the_very_bundle_that_its_build_ships(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    ran = tool("export", run, "--out", tmp_path / "out")
    assert ran.code == 0 and "INT8: calibrating on 32 training images" in ran.err
    assert contents(tmp_path / "out") == contents(run / "bundle")
    assert "* float32: the natural precision of the device" in ran.out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_run_is_exported_for_another_device_as_that_takes_it(run: Path, tmp_path: Path) -> None:
    found, _ = exported(tmp_path / "out", run, "--device", "raspberry-pi-5", size=None)
    assert found.device == "raspberry-pi-5"
    assert found.model("int8").flavour == "arm"
    assert found.classes == ("bag", "boot", "trouser")


def test_a_run_keeps_its_split_and_its_network(run: Path) -> None:
    assert "leave --seed out" in fault(run, "--seed", 1, size=None)
    assert "leave --model and --licence out" in fault(run, "--model", NET, size=None)


def test_a_run_that_has_trained_nothing_yet_says_how_to_go_on(run: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    (half / "stages").mkdir(parents=True)
    (half / "recipe.yaml").write_bytes((run / "recipe.yaml").read_bytes())
    assert "edgedistill build" in fault(half, size=None)
    for name in ("01-data", "03-pixels", "04-teacher", "07-start", "08-plain"):
        (half / "stages" / name).symlink_to(run / "stages" / name)
    text = fault(half, size=None)
    assert "no finished stage 09-distilled" in text and f"--out {half}" in text


# A checkpoint without images


def test_without_images_there_is_no_int8_and_the_golden_images_are_said_to_be_others(
    here: Path, tmp_path: Path
) -> None:
    found, ran = exported(tmp_path / "out", here / "named", "--device", "raspberry-pi-5")
    assert [model.name for model in found.models] == ["float32", "float16"]
    assert found.chosen == "float32" and found.classes == NAMES
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["golden"]["images"].startswith("the built-in sample")
    assert "- no INT8 file:" in ran.out and "--data" in ran.out
    assert f"python3 {tmp_path}/out/ontarget.pyz check {tmp_path}/out" in ran.out
    assert load_golden(found)[0].shape == (10, 32, 32, 3)
    assert tool("bundle", "verify", tmp_path / "out").code == 0


def test_the_same_checkpoint_gives_the_same_bytes_in_another_process(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    words = ("weights.pth", "--model", NET, "--input-size", "32", "--data", "data")
    monkeypatch.chdir(here)
    assert tool("export", *words, "--out", tmp_path / "a").code == 0
    done = subprocess.run(
        [sys.executable, "-m", "edgedistill", "export", *words, "--out", str(tmp_path / "b")],
        capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert load_bundle(tmp_path / "a").created_utc == "2026-09-21T14:13:20Z"


def test_a_time_that_is_no_number_is_refused(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("yesterday", "-1", "9" * 12, "1e9"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
        assert "SOURCE_DATE_EPOCH is a whole number" in fault(
            here / "named", "--out", tmp_path / "x"
        )
    assert list(tmp_path.iterdir()) == []


def test_what_the_checkpoint_says_of_images_stands_in_the_bundle_and_can_be_set(
    here: Path, tmp_path: Path
) -> None:
    found, _ = exported(tmp_path / "a", here / "named", "--precision", "float32")
    cfg = timm.get_pretrained_cfg(NET)
    own = found.preprocess
    assert (own.resize, own.crop) == (int(32 / cfg.crop_pct), 32)
    assert (own.mean, own.std) == (tuple(cfg.mean), tuple(cfg.std))
    found, _ = exported(
        tmp_path / "b", here / "named", "--precision", "float32", "--resize", 40,
        "--mean", 0.1, 0.2, 0.3, "--std", 1, 0.5, 0.25, "--batch", 2, "--licence", "MIT",
        "--opset", 18,
    )  # fmt: skip
    assert (found.preprocess.resize, found.preprocess.mean) == (40, (0.1, 0.2, 0.3))
    assert found.preprocess.std == (1, 0.5, 0.25)
    assert found.licences == {"teacher": None, "student": "MIT", "data": None}
    assert [(m.name, m.opset, m.input.shape[0]) for m in found.models] == [("float32", 18, 2)]


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = timm.create_model(NET, num_classes=3)
    with torch.no_grad():
        head_of(model).weight[0, 0] = torch.nan
    text = fault(save(model, tmp_path / "net"), "--out", tmp_path / "out")
    assert "outputs that are not finite on real images" in text


def test_int8_alone_needs_images(here: Path, tmp_path: Path) -> None:
    text = fault(here / "named", "--precision", "int8", "--out", tmp_path / "out")
    assert "INT8" in text and "--data" in text
    assert list(tmp_path.iterdir()) == []


# A checkpoint with images of its classes


def test_files_are_scored_on_validation_images_whose_classes_stand_elsewhere_in_the_head(
    here: Path, tmp_path: Path
) -> None:
    data = ("--data", here / "data", "--set", "data.val_fraction=0.25")
    found, ran = exported(tmp_path / "a", here / "named", *data, "--device", "x86-cpu")
    assert found.classes == NAMES
    assert [m.name for m in found.models] == ["float32", "float16", "int8"]
    assert re.search(r"^top-1 of 10 validation images, by the kit$", ran.out, re.MULTILINE)
    assert ran.out.count(" 60.00 %") == 3, "6 of 10 are bags, the third output"
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfTrouser \r\nBOOT\r\nBag\r\n\r\n")
    found, ran = exported(
        tmp_path / "b", here / "weights.pth", "--model", NET, *data, "--labels",
        tmp_path / "names.txt", "--precision", "int8",
    )  # fmt: skip
    assert found.classes == ("Trouser", "BOOT", "Bag") and found.chosen == "int8"
    assert ran.out.count(" 60.00 %") == 1 and "* int8: the only file" in ran.out


def test_a_checkpoint_without_names_gets_those_of_the_data(here: Path, tmp_path: Path) -> None:
    found, ran = exported(
        tmp_path / "out", here / "weights.pth", "--model", NET, "--data", here / "data",
        "--precision", "float16", "--precision", "float32",
    )  # fmt: skip
    assert found.classes == ("bag", "boot", "trouser")
    assert "- the model does not name its classes" in ran.out
    said = {p.key: p.value for p in onnx.load(found.models[0].path).metadata_props}
    assert said["edgedistill.model"] == NET
    assert str(here) not in json.dumps(said) + (tmp_path / "out/manifest.json").read_text()


def test_names_are_matched_or_refused() -> None:
    assert names_for("m", 3, NAMES, ("bag", "boot"), "s").rows == (2, 1)
    assert names_for("m", 2, None, None, "").outputs == ("class 0", "class 1")
    with pytest.raises(UsageError, match='does not have 1 of the 2 classes of s: "boat"'):
        names_for("m", 3, NAMES, ("bag", "boat"), "s")
    with pytest.raises(UsageError, match="m has 3 outputs and s 2 classes"):
        names_for("m", 3, None, ("bag", "boot"), "s")


def test_a_file_of_names_is_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    for raw, words in (
        (b"a\nb\nc\n", "names 3 classes, and the model has 2 outputs"),
        (b"", "names 1 classes"),
        (b"a\n\n\nb", "names 4 classes"),
        (b"\na\n", "line 1 is empty"),
        (b"\xff\xfe", "cannot be read"),
    ):
        path.write_bytes(raw)
        with pytest.raises(UsageError, match=words):
            read_names(path, 2)
    with pytest.raises(UsageError, match="cannot be read"):
        read_names(tmp_path, 2)
    path.write_bytes(b"T-shirt/top\na b\n\n")
    assert read_names(path, 2) == ("T-shirt/top", "a b")


# The place


def test_an_older_bundle_stays_until_the_new_one_is_whole(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    exported(out, here / "named", "--precision", "float32")
    older = contents(out)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr("edgedistill.deploy.stage.pack", full)
        assert export(here / "named", "--out", out).code == 3
    assert contents(out) == older
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    found, _ = exported(out, here / "named", "--precision", "float16")
    assert [m.name for m in found.models] == ["float16"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_ones_own_is_never_written_to(here: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert "is no bundle that is whole" in fault(here / "named", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# Faults


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("test_efficientne", f'did you mean "{NET}"?'),
        ("bundled:efficientnet_lite3", "efficientnet_lite2"),
        ("nowhere.pth", "checkpoint nowhere.pth does not exist"),
        ("weights.pth", "give its timm name with --model"),
        ("weights.pth --model test_efficientnt", f'did you mean "{NET}"?'),
        ("weights.pth --model resnet18", "is of another architecture than ResNet"),
        ("data", "is a folder that is neither a run"),
        ("data/bag/000.jpg", "is no checkpoint file"),
        ("named --model resnet18", "Leave --model out"),
        ("named --device jetsn", 'unknown device "jetsn"; did you mean "jetson"?'),
        ("named --data nowhere", "data source nowhere does not exist"),
        ("named --data builtin:fashion-mnist", "does not have 8 of the 10 classes"),
        ("weights.pth --model test_efficientnet --data builtin:fashion-mnist",
         "has 3 outputs and builtin:fashion-mnist 10 classes"),
        ("named --resize 20", "--resize 20 is less than the input size"),
        ("named --std 0 1 1", "--std takes three numbers above 0"),
        ("named --set quantize.metod=x", "quantize.metod  unknown key"),
    ],
)  # fmt: skip
def test_a_fault_is_one_paragraph_and_writes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, words: str, text: str
) -> None:
    monkeypatch.chdir(here)
    before = sorted(here.iterdir())
    ran = export(*words.split())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("edgedistill: ") and "Traceback" not in ran.err
    assert text in ran.err
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("test_resnet", {"num_classes": 0}, "is no classifier"),
        ("test_resnet", {"num_classes": 1}, "is no classifier"),
        ("test_resnet", {"num_classes": 3, "in_chans": 1}, "three finite numbers, one a colour"),
        ("vit_tiny_patch16_224", {"num_classes": 3}, "takes images of 224 px and no others"),
        ("test_vit", {"num_classes": 3}, "cannot be made into ONNX at opset 17"),
    ],
)
def test_a_network_that_no_bundle_can_hold_is_refused(
    tmp_path: Path, name: str, args: dict[str, int], text: str
) -> None:
    folder = save(timm.create_model(name, **args), tmp_path / "net", model_args=args)
    assert text in fault(folder, "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
