"""A bundle of one real file of a few hundred bytes with the real kit: the mean colour of a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgedistill.deploy.stage import Shape, pack, packed, preprocess_of
from edgedistill.rundir import Work

SIZE = 8
COLOURS = ("red", "green", "blue")
PIXELS = np.random.default_rng(0).integers(0, 256, (24, SIZE, SIZE, 3), dtype=np.uint8)
LABELS = (np.arange(24) % 3).astype(np.int64)


def small_model(gain: float = 1.0) -> bytes:
    """The ONNX file."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
    ]
    weight = numpy_helper.from_array(gain * np.eye(3, dtype=np.float32), "weight")
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [weight],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def small_bundle(
    folder: Path, classes: Sequence[str] = COLOURS, device: str = "host", gain: float = 1.0
) -> Path:
    """Write it, with an evaluation set beside it; the folder of the bundle."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = Shape(
        "uint8_nhwc", tuple(classes), preprocess_of(SIZE, (0.5,) * 3, (0.5,) * 3), 17, "onnxruntime"
    )
    pack(
        Work(folder), name="small", device=device, created_utc="2026-11-01T00:00:00Z", shape=shape,
        models=[packed("float32", small_model(gain), shape)], chosen="float32", golden=PIXELS[:2],
        licences={}, evalset=(PIXELS, LABELS, 24),
    )  # fmt: skip
    return folder / "bundle"


def two_models(folder: Path) -> Path:
    """A whole bundle of two files, of which the second one cannot be loaded."""
    bundle = small_bundle(folder)
    tree = json.loads((bundle / "manifest.json").read_text())
    data = (bundle / tree["models"][0]["file"]).read_bytes().replace(b"ReduceMean", b"NoSuchOper")
    (bundle / "model.other.onnx").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    other = {**tree["models"][0], "name": "other", "file": "model.other.onnx", "sha256": sha256}
    tree["models"].append(other)
    (bundle / "manifest.json").write_text(json.dumps(tree))
    return bundle
