"""INT8 files: each flavour runs, keeps the classes, and holds what its runtime takes."""

from __future__ import annotations

import copy
import logging
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import timm
import torch
from deploy_parts import CPU, LOOK, pictures, trained
from onnx import TensorProto

from edgedistill.deploy.onnx import (
    CONTENT,
    INPUT_NAME,
    OUTPUT_NAME,
    content_hash,
    export_float32,
    opset_of,
)
from edgedistill.deploy.quantize import options_for, quantize
from edgedistill.deploy.ranges import METHODS

FLAVOURS = ["x86", "arm", "tensorrt"]
LAYOUTS = ["uint8_nhwc", "float_nchw"]
ABOUT = {"edgedistill.model": "tiny"}


@cache
def float32(layout: str) -> bytes:
    return export_float32(trained(), LOOK, layout, 17, ABOUT)


def inputs(pixels: np.ndarray, layout: str) -> np.ndarray:
    if layout == "uint8_nhwc":
        return pixels
    return LOOK.tensor(pixels, CPU).contiguous().numpy()


@cache
def int8(layout: str, flavour: str) -> bytes:
    return quantize(float32(layout), inputs(pictures(48, 77), layout), flavour, "minmax", ABOUT)


def run(data: bytes, batch: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0])


def constants(graph: Any) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_each_flavour_runs_and_mostly_agrees_with_float32(flavour: str, layout: str) -> None:
    pixels = pictures(96, 99)
    batch = inputs(pixels, layout)
    want, got = run(float32(layout), batch), run(int8(layout, flavour), batch)
    assert got.dtype == np.float32 and got.shape == want.shape
    assert (want.argmax(1) == np.arange(96) % 4).mean() >= 0.95
    assert (got.argmax(1) == want.argmax(1)).mean() >= 0.95
    assert np.abs(got - want).mean() < 0.05 * np.abs(want).max()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_int8_is_smaller_and_keeps_the_input_opset_and_metadata(flavour: str) -> None:
    for layout in LAYOUTS:
        model = onnx.load_model_from_string(int8(layout, flavour))
        plain = onnx.load_model_from_string(float32(layout))
        assert model.graph.input[0] == plain.graph.input[0]
        assert model.graph.output[0].type == plain.graph.output[0].type
        assert opset_of(model) == 17
        about = {p.key: p.value for p in model.metadata_props}
        assert about == {**ABOUT, CONTENT: content_hash(model)}
        assert model.producer_name == "edgedistill"
        onnx.checker.check_model(model, full_check=True)
    assert len(int8("uint8_nhwc", flavour)) < 0.6 * len(float32("uint8_nhwc"))


def products(graph: onnx.GraphProto, layout: str) -> list[onnx.NodeProto]:
    """The convolutions of the network; the one that normalises pixels comes first, in float."""
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return convolutions[1:] if layout == "uint8_nhwc" else convolutions


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_pixels_are_normalised_in_float(flavour: str) -> None:
    graph = onnx.load_model_from_string(int8("uint8_nhwc", flavour)).graph
    first = next(node for node in graph.node if node.op_type == "Conv")
    made_by = {name: node for node in graph.node for name in node.output}
    assert made_by[first.input[0]].op_type == "Transpose"
    assert made_by[made_by[first.input[0]].input[0]].op_type == "Cast"
    stored = {t.name: t for t in graph.initializer}
    assert stored[first.input[1]].data_type == TensorProto.FLOAT


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tensorrt_file_is_symmetric_and_has_no_quantized_bias(layout: str) -> None:
    graph = onnx.load_model_from_string(int8(layout, "tensorrt")).graph
    values = constants(graph)
    made_by = {name: node for node in graph.node for name in node.output}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = values[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any()
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            assert values[node.input[0]].dtype == np.int8
    assert TensorProto.INT32 not in {t.data_type for t in graph.initializer}
    for node in products(graph, layout):
        assert made_by[node.input[0]].op_type == "DequantizeLinear"
        assert made_by[node.input[1]].op_type == "DequantizeLinear"


def test_the_tensorrt_file_quantizes_what_convolutions_read_and_nothing_else() -> None:
    graph = onnx.load_model_from_string(int8("uint8_nhwc", "tensorrt")).graph
    read_by: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, set()).add(node.op_type)
    for node in (n for n in graph.node if n.op_type == "QuantizeLinear"):
        after = next(n for n in graph.node if n.input[:1] == node.output[:1]).output[0]
        assert read_by[after] & {"Conv", "Gemm"}


@pytest.mark.parametrize("flavour", ["x86", "arm"])
def test_the_cpu_files_have_bytes_as_activations_and_weights_per_channel(flavour: str) -> None:
    graph = onnx.load_model_from_string(int8("uint8_nhwc", flavour)).graph
    values = constants(graph)
    kinds = {values[n.input[2]].dtype for n in graph.node if n.op_type == "QuantizeLinear"}
    assert kinds == {np.dtype(np.uint8)}
    made_by = {name: node for node in graph.node for name in node.output}
    for conv in products(graph, "uint8_nhwc"):
        weights = made_by[conv.input[1]]
        assert values[weights.input[0]].dtype == np.int8
        assert values[weights.input[1]].size == values[weights.input[0]].shape[0]


@pytest.mark.parametrize("flavour", ["x86", "tensorrt"])
def test_quantizing_twice_gives_the_same_bytes(flavour: str) -> None:
    layout = "uint8_nhwc"
    again = quantize(
        float32(layout), inputs(pictures(48, 77), layout), flavour, "minmax", dict(ABOUT)
    )
    assert again == int8(layout, flavour)


def test_the_ranges_are_those_of_the_images_that_were_given() -> None:
    """The input's own scale and zero point are worked out from the calibration array by hand."""
    batch = inputs(pictures(40, 3), "float_nchw")
    batch = np.clip(batch, -0.75, 0.25)
    graph = onnx.load_model_from_string(
        quantize(float32("float_nchw"), batch, "x86", "minmax", ABOUT)
    ).graph
    values = constants(graph)
    first = next(n for n in graph.node if INPUT_NAME in n.input)
    assert first.op_type == "QuantizeLinear"
    scale = (float(batch.max()) - float(batch.min())) / 255
    assert float(values[first.input[1]]) == pytest.approx(scale, rel=1e-4)
    assert int(values[first.input[2]]) == round(-float(batch.min()) / scale)


def test_every_image_counts_also_those_after_the_first_batch() -> None:
    batch = inputs(pictures(40, 3), "float_nchw") * 0.1
    batch[-1] *= 10
    graph = onnx.load_model_from_string(
        quantize(float32("float_nchw"), batch, "tensorrt", "minmax", ABOUT)
    ).graph
    first = next(n for n in graph.node if INPUT_NAME in n.input)
    want = float(np.abs(batch).max()) / 127
    assert float(constants(graph)[first.input[1]]) == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_method_of_calibration_keeps_the_classes(method: str) -> None:
    plain, pixels = float32("uint8_nhwc"), pictures(48, 99)
    data = quantize(plain, pictures(37, 77), "x86", method, ABOUT)
    want, got = run(plain, pixels), run(data, pixels)
    assert (got.argmax(1) == want.argmax(1)).mean() >= 0.9


def test_without_images_there_is_no_calibration() -> None:
    with pytest.raises(ValueError, match="needs images"):
        quantize(float32("uint8_nhwc"), pictures(0), "x86", "minmax", ABOUT)


def test_the_callers_logging_is_as_it_was() -> None:
    logger, level = logging.getLogger(), logging.getLogger().level
    logger.setLevel(logging.WARNING)
    try:
        quantize(float32("uint8_nhwc"), pictures(2), "x86", "minmax", ABOUT)
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(level)


def weights_of(flavour: str) -> list[np.ndarray]:
    """The quantized weights of the convolutions."""
    graph = onnx.load_model_from_string(int8("uint8_nhwc", flavour)).graph
    values = constants(graph)
    made_by = {name: node for node in graph.node for name in node.output}
    return [values[made_by[conv.input[1]].input[0]] for conv in products(graph, "uint8_nhwc")]


def test_weights_for_x86_have_seven_bits_so_that_no_kernel_saturates() -> None:
    assert all(np.abs(w.astype(int)).max() <= 64 for w in weights_of("x86"))
    assert all(np.abs(w.astype(int)).max() >= 127 for w in weights_of("arm"))
    assert options_for("x86") != options_for("arm") != options_for("tensorrt")


def kinds_of(data: bytes) -> set[str]:
    """What stands before the last matrix product's weights: DequantizeLinear where it is INT8."""
    graph = onnx.load_model_from_string(data).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    gemm = [node for node in graph.node if node.op_type == "Gemm"][-1]
    return {made_by.get(gemm.input[1], "float")}


@pytest.mark.parametrize("flavour", ["x86", "arm"])
def test_a_small_classifier_stays_in_float_and_a_large_one_does_not(flavour: str) -> None:
    assert kinds_of(int8("float_nchw", flavour)) == {"float"}
    model = timm.create_model("test_efficientnet", num_classes=2000).eval()
    data = export_float32(model, LOOK, "float_nchw", 17, {})
    large = quantize(data, inputs(pictures(8), "float_nchw"), flavour, "minmax", {})
    assert kinds_of(large) == {"DequantizeLinear"}


def test_one_large_weight_of_a_feature_that_is_nearly_always_0_costs_no_class() -> None:
    """As the linear probe of a pretrained network leaves it: it took the precision of all others of its class."""
    model: Any = copy.deepcopy(trained())
    pixels = pictures(96, 99)
    with torch.no_grad():
        model.bn2.weight[0] = model.bn2.bias[0] = 1e-5  # the feature is never more than 1e-4
        model.classifier.weight[:, 0] = 500 * model.classifier.weight.abs().max()
    data = export_float32(model, LOOK, "uint8_nhwc", 17, {})
    want = run(data, pixels)
    got = run(quantize(data, pictures(48, 77), "x86", "minmax", {}), pixels)
    assert (got.argmax(1) == want.argmax(1)).mean() >= 0.95
