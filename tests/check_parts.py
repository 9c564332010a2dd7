"""What the tests of the gate share: small ONNX classifiers, and run folders whose tables say which images are right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from evidence_parts import CLOTHES, confusion
from evidence_samples import make_result
from onnx import TensorProto, helper, numpy_helper
from ontarget.facts import Preprocess

from edgedistill import metrics
from edgedistill.deploy.bundle import Packed, write_bundle
from edgedistill.files import sha256_file
from edgedistill.result import Precision, Result
from edgedistill.rundir import Work, now_utc

SIZE = 8


def classifier(
    channels: Sequence[int] = (8, 16),
    *,
    seed: int = 0,
    act: str = "Relu",
    names: Sequence[str] = (),
) -> onnx.ModelProto:
    """Convolutions of 3x3 with `act` between them, then the mean and a product: (N, 3, 8, 8) to (N, 3)."""
    rng = np.random.default_rng(seed)
    nodes, weights, before, last = [], [], "images", 3
    for i, width in enumerate(channels):
        kernel = rng.normal(size=(width, last, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        name = names[i] if i < len(names) else f"/model/blocks/blocks.{i}/conv/Conv"
        nodes.append(helper.make_node("Conv", [before, f"w{i}"], [f"c{i}"], name, pads=[1] * 4))
        nodes.append(helper.make_node(act, [f"c{i}"], [f"a{i}"], f"/model/act{i}/{act}"))
        before, last = f"a{i}", width
    weights.append(numpy_helper.from_array(rng.normal(size=(last, 3)).astype(np.float32), "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [before], ["pooled"], "/model/pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "/model/flat"),
        helper.make_node("MatMul", ["flat", "head"], ["logits"], "/model/head/MatMul"),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def write(path: Path, model: onnx.ModelProto | None = None, *, beside: bool = False) -> Path:
    """Save a model, its weights in `path`.data where they shall lie beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(
        model if model is not None else classifier(), str(path), save_as_external_data=beside,
        location=f"{path.name}.data" if beside else None, size_threshold=0,
    )  # fmt: skip
    return path


def bundle_of(
    folder: Path,
    models: Mapping[Precision, onnx.ModelProto],
    chosen: Precision,
    device: str = "host",
) -> Path:
    """A bundle of several models. Nothing is quantized: a name tells a file from its neighbours."""
    packed = [
        Packed(name, m.SerializeToString(), name, "onnxruntime", 17, "float_nchw", input_type="float32")
        for name, m in models.items()
    ]  # fmt: skip
    folder.mkdir(parents=True)
    write_bundle(
        Work(folder), name=folder.name, device=device, created_utc=now_utc(), classes=list("abc"),
        preprocess=Preprocess(SIZE, SIZE, (0.5,) * 3, (0.5,) * 3), models=packed, chosen=chosen,
        golden_pixels=np.zeros((2, SIZE, SIZE, 3), np.uint8), golden_logits={},
        licences={"teacher": None, "student": None, "data": None}, golden_words="none",
    )  # fmt: skip
    return folder


def scored_run(
    folder: Path,
    *,
    lost: int = 0,
    won: int = 0,
    order: int = 0,
    drop_images: int = 0,
    model: onnx.ModelProto | None = None,
    latency: Sequence[Mapping[str, Any]] | None = None,
    classes: Sequence[str] = CLOTHES,
) -> Path:
    """A run folder of 2,000 test images of ten classes, 1,839 right: one ONNX file, result.json and its tables.

    `lost` images that were right are wrong and `won` the other way; `order` shuffles the test images, and the first
    `drop_images` of them are others than those of another run.
    """
    table = confusion(len(classes))
    rows = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    labels, pred = (np.array(part) for part in zip(*rows, strict=True))
    right, wrong = np.flatnonzero(labels == pred), np.flatnonzero(labels != pred)
    pred[right[:lost]] = (labels[right[:lost]] + 1) % len(classes)
    pred[wrong[:won]] = labels[wrong[:won]]
    shas = [
        hashlib.sha256(f"{i} {drop_images if i < drop_images else 0}".encode()).hexdigest()
        for i in range(len(rows))
    ]
    turn = np.random.default_rng(order).permutation(len(rows)) if order else np.arange(len(rows))
    logits = np.eye(len(classes), dtype=np.float32)[pred[turn]]

    bundle = folder / "bundle"
    path = write(bundle / "model.float16.onnx", model)
    (folder / "tables").mkdir()
    split = "".join(f"test\t{labels[i]}\t{shas[i]}\tx/{i}.png\n" for i in turn)
    (folder / "tables" / "split.tsv").write_text(f"train\t0\t{'0' * 64}\ty\n{split}", "utf-8")
    np.savez_compressed(folder / "tables" / "files.npz", logits_float16=logits, logits_int8=logits)
    result = json.loads(make_result(classes=classes).dumps())
    result["confusion"] = metrics.confusion(pred, labels, len(classes)).tolist()
    result["tables"] = {
        name: {
            "path": f"tables/{file}",
            "sha256": sha256_file(folder / "tables" / file),
            "what": "",
        }
        for name, file in (("file_logits", "files.npz"), ("split", "split.tsv"))
    }
    artifact = next(a for a in result["artifacts"] if a["name"] == result["chosen"])
    artifact["top1"] = metrics.proportion(pred == labels).model_dump(mode="json")
    artifact |= {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
    if latency is not None:
        artifact["latency"] = list(latency)
    text = Result.model_validate(result).dumps()
    (folder / "result.json").write_text(text, "utf-8")
    return folder
