"""A bare ONNX file as a bundle: anybody's classifier can be timed, whatever else it is is told, and nothing breaks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from ontarget.contract import load_bundle, load_golden

from edgedistill.deploy.bare import IMAGES, bare_bundle
from edgedistill.errors import DocumentError
from edgedistill.evidence.bench import Here
from edgedistill.progress import silent

FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8


def model(
    given_: tuple[Any, ...] = ("N", 3, 8, 8),
    kind: int = FLOAT,
    classes: Any = 5,
    more_inputs: int = 0,
    more_outputs: int = 0,
    name: str = "data",
    quantized: bool = False,
) -> onnx.ModelProto:
    """A mean over the picture and a product: pixels of any layout to scores."""
    axes = [2, 3] if kind not in (BYTE, TensorProto.INT8) else [1, 2]
    dtype = np.float16 if kind == HALF else np.float32
    count = classes if isinstance(classes, int) and classes > 0 else 5
    weight = numpy_helper.from_array(np.ones((3, count), dtype), "weight")
    floats = kind in (FLOAT, HALF)
    nodes = [] if floats else [helper.make_node("Cast", [name], ["cast"], to=FLOAT)]
    nodes.append(
        helper.make_node(
            "ReduceMean", [name if floats else "cast"], ["mean"], axes=axes, keepdims=0
        )
    )
    held = [weight]
    if quantized:
        held += [
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(np.uint8(0), "zero"),
        ]
        nodes += [
            helper.make_node("QuantizeLinear", ["mean", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        ]
    nodes.append(helper.make_node("MatMul", ["dq" if quantized else "mean", "weight"], ["scores"]))
    out = FLOAT if kind != HALF else HALF
    inputs = [helper.make_tensor_value_info(name, kind, list(given_))]
    inputs += [helper.make_tensor_value_info(f"more{i}", FLOAT, [1]) for i in range(more_inputs)]
    outputs = [helper.make_tensor_value_info("scores", out, [given_[0], classes])]
    outputs += [helper.make_tensor_value_info(f"mean{i}", out, [1, 3]) for i in range(more_outputs)]
    graph = helper.make_graph(nodes, "net", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(path: Path, made: onnx.ModelProto, **how: Any) -> Path:
    onnx.save(made, str(path), **how)
    return path


@pytest.mark.parametrize(
    ("made", "precision", "layout", "dtype", "batch"),
    [
        (model(), "float32", "float_nchw", "float32", None),
        (model((1, 3, 16, 16)), "float32", "float_nchw", "float32", 1),
        (model(kind=HALF), "float16", "float_nchw", "float16", None),
        (model(("N", 8, 8, 3), BYTE), "float32", "uint8_nhwc", "uint8", None),
        (model((4, 8, 8, 3), TensorProto.INT8), "float32", "int8_nhwc", "int8", 4),
        (model(quantized=True), "int8", "float_nchw", "float32", None),
    ],
)  # fmt: skip
def test_a_classifier_of_each_kind_is_told_by_its_graph_alone(
    made: onnx.ModelProto,
    precision: str,
    layout: str,
    dtype: str,
    batch: int | None,
    tmp_path: Path,
) -> None:
    bundle = load_bundle(bare_bundle(saved(tmp_path / "net.onnx", made), tmp_path / "out"))
    (found,) = bundle.models
    assert (found.precision, found.input.layout, found.input.dtype) == (precision, layout, dtype)
    assert (
        found.input.shape[0] == batch
        and found.input.name == "data"
        and found.output.name == "scores"
    )
    assert bundle.classes == tuple(f"class {i}" for i in range(5)) and bundle.device == "unknown"
    pixels = load_golden(bundle)[0]
    assert len(pixels) == IMAGES and pixels.std() > 50, (
        "noise, not a constant that a runtime might like"
    )


def test_the_kit_times_a_file_with_external_data_as_one_file(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "net.onnx",
        model(),
        save_as_external_data=True,
        location="net.data",
        size_threshold=0,
    )
    assert (tmp_path / "net.data").stat().st_size == 60
    bundle = bare_bundle(path, tmp_path / "out")
    arguments = ["bench", "--threads", "1", "--min-seconds", "0.01", "--min-runs", "11"]
    (row,) = Here().run(bundle, arguments, tmp_path / "kit.json", silent())["rows"]
    assert row["n"] >= 11 and row["p50_s"] > 0
    assert sorted(p.suffix for p in bundle.iterdir() if p.name.startswith("model")) == [".onnx"]


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "absent.data"])
def test_external_data_elsewhere_is_never_read(location: str, tmp_path: Path) -> None:
    made = model()
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 60)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    path = tmp_path / "in/net.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(DocumentError, match="which is not beside it"):
        bare_bundle(path, tmp_path / "out")
    assert not (tmp_path / "out/bundle/model.float32.onnx").exists()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (model(more_inputs=1), "2 inputs and 1 outputs"),
        (model(more_outputs=2), "1 inputs and 3 outputs"),
        (model(("N", 1, 8, 8)), "takes float of"),
        (model(("N", 3, 8, 16)), "takes float of"),
        (model(("N", 3, "H", "W")), "takes float of"),
        (model(("N", 8, 8, 3)), "takes float of"),
        (model(kind=TensorProto.INT64), "takes int64 of"),
        (model(("N", 3)), r"takes \[0, 3\]"),
        (model(classes="C"), r"gives \[0, 0\]"),
        (model(("N", 3, -1, -1)), "pixels a side"),
        (model(("N", 3, 2**40, 2**40)), "pixels a side"),
        (model(name="a\nb"), "cannot be timed by the kit"),
    ],
)  # fmt: skip
def test_what_is_no_classifier_of_pictures_is_told_with_what_would_be(
    made: onnx.ModelProto, words: str, tmp_path: Path
) -> None:
    with pytest.raises(DocumentError, match=words) as caught:
        bare_bundle(saved(tmp_path / "net.onnx", made), tmp_path / "out")
    assert "net.onnx" in str(caught.value)


def test_a_count_of_classes_beyond_reason_takes_no_memory(tmp_path: Path) -> None:
    made = model()
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2**40
    with pytest.raises(DocumentError, match="100,000 classes"):
        bare_bundle(saved(tmp_path / "net.onnx", made), tmp_path / "out")


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"not a model", b"PK\x03\x04" * 100, b"\x08" * 5000]
)
def test_what_is_no_model_is_told(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(DocumentError, match=r"net\.onnx"):
        bare_bundle(tmp_path / "net.onnx", tmp_path / "out")
    with pytest.raises(DocumentError, match="does not exist"):
        bare_bundle(tmp_path / "none.onnx", tmp_path / "out")


WHOLE = model().SerializeToString()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.none() | st.integers(0, len(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
)
def test_a_damaged_model_is_a_bundle_or_one_sentence(
    cut: int | None, changes: list[tuple[int, int]], tmp_path: Path
) -> None:
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    (tmp_path / "net.onnx").write_bytes(bytes(data[:cut]))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    try:
        load_bundle(bare_bundle(tmp_path / "net.onnx", tmp_path / "out"))
    except DocumentError as error:
        assert "net.onnx" in str(error)
