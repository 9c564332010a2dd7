"""A tiny real bundle: two ONNX graphs of the same function, one on bytes and one on floats."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ontarget.arrays import write_labels

SIZE = 8
CLASSES = ["red", "green", "blue\nsky", "back\\slash"]
MEAN, STD = [0.5, 0.4, 0.3], [0.5, 0.25, 0.2]
WEIGHT = np.array([[3, -1, -1, 0], [-1, 3, -1, 0], [-1, -1, 3, 0.5]], dtype=np.float32)
Edit = Callable[[dict[str, Any]], None]


def _graph(layout: str, dtype: str = "float32", batch: int | None = None) -> onnx.ModelProto:
    """uint8_nhwc: Cast, normalise, Transpose, pool, Gemm; float_nchw: pool, Gemm."""
    kind = TensorProto.FLOAT if dtype == "float32" else TensorProto.FLOAT16
    weights = [numpy_helper.from_array(WEIGHT.astype(dtype), "weight")]
    nodes = []
    rows = "N" if batch is None else batch
    shape: list[Any] = [rows, 3, SIZE, SIZE]
    source, pooled_from = kind, "images"
    if layout == "uint8_nhwc":
        source, shape = TensorProto.UINT8, [rows, SIZE, SIZE, 3]
        weights.append(numpy_helper.from_array((np.array(MEAN) * 255).astype(dtype), "mean"))
        weights.append(numpy_helper.from_array((np.array(STD) * 255).astype(dtype), "std"))
        nodes = [
            helper.make_node("Cast", ["images"], ["float"], to=kind),
            helper.make_node("Sub", ["float", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["normal"]),
            helper.make_node("Transpose", ["normal"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        pooled_from = "planes"
    nodes += [
        helper.make_node("GlobalAveragePool", [pooled_from], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weight"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", source, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, len(CLASSES)])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def truth(pixels: np.ndarray) -> np.ndarray:
    """The logits that both graphs compute, in float64."""
    normal = (pixels / 255.0 - np.array(MEAN)) / np.array(STD)
    return np.asarray(normal.mean(axis=(1, 2)) @ WEIGHT.astype(np.float64))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _entry(
    folder: Path, name: str, layout: str, precision: str, batch: int | None
) -> dict[str, Any]:
    file = f"model.{name}.onnx"
    graph_type = "float16" if precision == "float16" else "float32"
    onnx.save(_graph(layout, graph_type, batch), str(folder / file))
    nhwc = layout == "uint8_nhwc"
    return {
        "name": name,
        "file": file,
        "sha256": sha256(folder / file),
        "size_bytes": (folder / file).stat().st_size,
        "precision": precision,
        "runtime": "onnxruntime",
        "opset": 17,
        "input": {
            "name": "images",
            "layout": layout,
            "dtype": "uint8" if nhwc else graph_type,
            "shape": [batch, SIZE, SIZE, 3] if nhwc else [batch, 3, SIZE, SIZE],
        },
        "output": {"name": "logits", "dtype": "float32", "shape": [None, len(CLASSES)]},
    }


@dataclass
class MadeBundle:
    """A bundle on disk; `rewrite` changes its manifest."""

    folder: Path
    evalset: Path
    pixels: np.ndarray
    labels: np.ndarray

    def manifest(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return document

    def rewrite(self, edit: Edit) -> None:
        document = self.manifest()
        edit(document)
        (self.folder / "manifest.json").write_text(json.dumps(document))


def write_evalset(folder: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "labels.npy", labels)
    document = {
        "schema": "edgedistill.evalset/1",
        "n": len(labels),
        "of": len(labels) + 5,
        "pixels_sha256": sha256(folder / "pixels.npy"),
        "labels_sha256": sha256(folder / "labels.npy"),
    }
    (folder / "evalset.json").write_text(json.dumps(document))


def build(root: Path, batch: int | None = None) -> MadeBundle:
    folder = root / "bundle"
    folder.mkdir()
    rng = np.random.default_rng(7)
    golden = rng.integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    models = [
        _entry(folder, "bytes", "uint8_nhwc", "float32", batch),
        _entry(folder, "floats", "float_nchw", "float32", batch),
        _entry(folder, "float16", "uint8_nhwc", "float16", batch),
    ]
    logits = truth(golden).astype(np.float32)
    want: dict[str, Any] = {"logits_" + m["name"]: logits for m in models}
    np.savez(folder / "golden.npz", pixels=golden, **want)
    write_labels(folder / "labels.txt", CLASSES)
    manifest = {
        "schema": "edgedistill.bundle/1",
        "name": "tiny",
        "created_utc": "2026-11-01T00:00:00Z",
        "edgedistill": "0.1.0",
        "device": "host",
        "classes": CLASSES,
        "preprocess": {
            "resize": 10,
            "crop": SIZE,
            "resample": "bicubic",
            "color": "RGB",
            "mean": MEAN,
            "std": STD,
        },
        "chosen": "bytes",
        "models": models,
        "golden": {"file": "golden.npz", "sha256": sha256(folder / "golden.npz"), "n": 5},
        "labels": {"file": "labels.txt", "sha256": sha256(folder / "labels.txt")},
        "licences": {"teacher": "Apache-2.0", "student": None, "data": "MIT"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    pixels = rng.integers(0, 256, (40, SIZE, SIZE, 3), dtype=np.uint8)
    labels = truth(pixels).argmax(axis=1).astype(np.int64)
    labels[:4] = (labels[:4] + 1) % len(CLASSES)
    write_evalset(root / "evalset", pixels, labels)
    return MadeBundle(folder, root / "evalset", pixels, labels)


@pytest.fixture
def made(tmp_path: Path) -> MadeBundle:
    """A fresh bundle that the test may damage; 36 of its 40 evaluation labels are right."""
    return build(tmp_path)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> MadeBundle:
    """One bundle for all tests that only read."""
    return build(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the CUDA driver, as a shared library."""
    if shutil.which("cc") is None:
        pytest.skip("a C compiler is not installed")
    path = tmp_path_factory.mktemp("cuda") / "libcuda.so"
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Werror",
        "-o",
        path,
        Path(__file__).parent / "fake_cuda.c",
    ]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
