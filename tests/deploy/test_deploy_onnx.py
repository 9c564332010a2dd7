"""Exported files: the opset they say, the numbers of the torch network, and graphs that a device can take."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import timm
import torch
from onnx import TensorProto, helper
from torch import nn

from edgedistill.deploy.onnx import (
    CONTENT,
    INPUT_NAME,
    OUTPUT_NAME,
    content_hash,
    export_float32,
    fixed_batch,
    fold_padding,
    opset_of,
    sealed,
    to_float16,
)
from edgedistill.folding import folded
from edgedistill.nets import Look, bn_layers, outputs, state_bytes

LOOK = Look(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CPU = torch.device("cpu")
STUDENTS = [
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_050",
    "tf_efficientnet_lite0",
]
WAYS = [("uint8_nhwc", 17), ("float_nchw", 13)]
CLASSES = 7
SHAPE_WORK = {"Pad", "Shape", "Gather", "Range", "ConstantOfShape", "Slice", "If", "Unsqueeze"}
ABOUT = {"edgedistill.model": "tiny", "edgedistill.classes": json.dumps(["a\n", 'b"', "ü"])}


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """Soft coloured blobs with a little grain, (n, 64, 64, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 4, 4, 3)).repeat(16, axis=1).repeat(16, axis=2)
    grain = rng.integers(-30, 30, (n, 64, 64, 3))
    return np.asarray(np.clip(coarse + grain, 0, 255), dtype=np.uint8)


@cache
def student(name: str) -> nn.Module:
    """A random network whose BatchNorm statistics are those of real activations."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=CLASSES)
    for layer in bn_layers(model):
        layer.momentum = 0.5
    model.train()
    with torch.no_grad():
        for k in range(6):
            model(LOOK.tensor(pictures(16, k), CPU))
    return model.eval()


@cache
def exact(name: str) -> tuple[np.ndarray, float]:
    """Logits in float64 of the test pictures, and how far torch's own float32 is from them.

    A random network makes small differences large, so what an export may differ by is measured, not guessed.
    """
    pixels, model = pictures(24, 99), copy.deepcopy(student(name)).double()
    with torch.inference_mode():
        want = model(LOOK.tensor(pixels, CPU).double()).numpy()
    own = outputs(student(name), pixels, LOOK, CPU)[1]
    return want, float(np.abs(own - want).max())


@cache
def exported(name: str, layout: str, opset: int) -> bytes:
    return export_float32(student(name), LOOK, layout, opset, ABOUT)


@cache
def halved(name: str, layout: str, opset: int) -> bytes:
    return to_float16(exported(name, layout, opset), ABOUT)


def inputs(pixels: np.ndarray, layout: str, dtype: str = "float32") -> np.ndarray:
    if layout == "uint8_nhwc":
        return pixels
    return LOOK.tensor(pixels, CPU).contiguous().numpy().astype(dtype)


def run(data: bytes, batch: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0])


def graph_of(data: bytes) -> Any:
    return onnx.load_model_from_string(data).graph


def kinds(data: bytes) -> list[str]:
    return [node.op_type for node in graph_of(data).node]


@pytest.mark.parametrize(("layout", "opset"), WAYS)
@pytest.mark.parametrize("name", STUDENTS)
def test_the_float32_file_computes_what_the_network_computes(
    name: str, layout: str, opset: int
) -> None:
    want, noise = exact(name)
    got = run(exported(name, layout, opset), inputs(pictures(24, 99), layout))
    assert got.dtype == np.float32 and got.shape == (24, CLASSES)
    assert np.abs(got - want).max() <= max(4 * noise, 1e-5 * np.abs(want).max())
    assert noise < 1e-4 * np.abs(want).max()
    assert (got.argmax(1) == want.argmax(1)).all()


@pytest.mark.parametrize(("layout", "opset"), WAYS)
@pytest.mark.parametrize("name", STUDENTS)
def test_the_file_has_the_opset_asked_for_and_carries_its_weights(
    name: str, layout: str, opset: int
) -> None:
    model = onnx.load_model_from_string(exported(name, layout, opset))
    assert opset_of(model) == opset
    assert [o.domain for o in model.opset_import] in ([""], ["ai.onnx"])
    assert not [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    onnx.checker.check_model(model, full_check=True)
    assert not model.doc_string and model.producer_name == "edgedistill"


@pytest.mark.parametrize(("layout", "opset"), WAYS)
@pytest.mark.parametrize("name", STUDENTS)
def test_no_padding_shape_arithmetic_or_batchnorm_is_left(
    name: str, layout: str, opset: int
) -> None:
    found = kinds(exported(name, layout, opset))
    assert not SHAPE_WORK & set(found)
    assert "BatchNormalization" not in found
    convolutions = sum(isinstance(m, nn.Conv2d) for m in student(name).modules())
    normalisation = int(layout == "uint8_nhwc")
    assert found.count("Conv") == convolutions + normalisation


@pytest.mark.parametrize("name", STUDENTS)
def test_pixels_are_cast_first_and_normalised_inside(name: str) -> None:
    graph = graph_of(exported(name, "uint8_nhwc", 17))
    source = graph.input[0]
    assert source.name == INPUT_NAME
    assert source.type.tensor_type.elem_type == TensorProto.UINT8
    readers = [node for node in graph.node if INPUT_NAME in node.input]
    assert [node.op_type for node in readers] == ["Cast"]


@pytest.mark.parametrize(("layout", "opset"), WAYS)
@pytest.mark.parametrize("half", [False, True])
def test_shapes_are_written_out_with_a_free_batch(layout: str, opset: int, half: bool) -> None:
    make = halved if half else exported
    graph = graph_of(make("mobilenetv3_small_050", layout, opset))
    (source,), (sink,) = graph.input, graph.output
    dims = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (source, sink)
    ]
    image = [64, 64, 3] if layout == "uint8_nhwc" else [3, 64, 64]
    assert dims == [["N", *image], ["N", CLASSES]]
    assert (source.name, sink.name) == (INPUT_NAME, OUTPUT_NAME)


@pytest.mark.parametrize("name", STUDENTS)
def test_any_batch_gives_the_same_logits_for_the_same_image(name: str) -> None:
    pixels = pictures(5, 7)
    for data, tolerance in (
        (exported(name, "uint8_nhwc", 17), 1e-5),
        (halved(name, "uint8_nhwc", 17), 1e-2),
    ):
        together = run(data, pixels)
        alone = np.concatenate([run(data, pixels[k : k + 1]) for k in range(5)])
        assert np.abs(together - alone).max() <= tolerance * np.abs(together).max()


@pytest.mark.parametrize("half", [False, True])
def test_a_file_of_one_batch_gives_the_same_logits_and_takes_no_other(half: bool) -> None:
    data = (halved if half else exported)("mobilenetv2_050", "uint8_nhwc", 17)
    four, pixels = fixed_batch(data, 4), pictures(4, 7)
    assert np.array_equal(run(four, pixels), run(data, pixels))
    graph = graph_of(four)
    dims = [v.type.tensor_type.shape.dim[0].dim_value for v in (*graph.input, *graph.output)]
    assert dims == [4, 4] and {
        d.dim_param for v in graph.value_info for d in v.type.tensor_type.shape.dim
    } == {""}
    with pytest.raises(Exception, match="invalid dimensions"):
        run(four, pictures(3, 7))
    assert fixed_batch(data, 4) == four
    properties = onnx.load_model_from_string(four).metadata_props
    about = {p.key: p.value for p in properties}
    assert about == {**ABOUT, CONTENT: content_hash(onnx.load_model_from_string(four))}


@pytest.mark.parametrize(("layout", "opset"), WAYS)
@pytest.mark.parametrize("name", STUDENTS)
def test_float16_stays_close_and_has_the_right_types(name: str, layout: str, opset: int) -> None:
    data, pixels = halved(name, layout, opset), pictures(16, 5)
    model = onnx.load_model_from_string(data)
    source = model.graph.input[0].type.tensor_type.elem_type
    assert source == (TensorProto.UINT8 if layout == "uint8_nhwc" else TensorProto.FLOAT16)
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    weights = [t for t in model.graph.initializer if len(t.dims) == 4]
    assert weights and {t.data_type for t in weights} == {TensorProto.FLOAT16}
    assert opset_of(model) == opset
    assert len(data) < 0.6 * len(exported(name, layout, opset))
    want = outputs(student(name), pixels, LOOK, CPU)[1]
    got = run(data, inputs(pixels, layout, "float16"))
    assert got.dtype == np.float32
    assert np.abs(got - want).max() <= 4e-2 * np.abs(want).max()
    assert np.abs(got - want).mean() <= 2e-2 * np.abs(want).max()


@pytest.mark.parametrize("half", [False, True])
def test_the_file_says_what_it_is(half: bool) -> None:
    make = halved if half else exported
    model = onnx.load_model_from_string(make("mobilenetv2_050", "uint8_nhwc", 17))
    about = {p.key: p.value for p in model.metadata_props}
    assert about == {**ABOUT, CONTENT: content_hash(model)}


@pytest.mark.parametrize(("layout", "opset"), WAYS)
def test_two_exports_are_the_same_bytes(layout: str, opset: int) -> None:
    name = "tf_efficientnet_lite0"
    again = export_float32(student(name), LOOK, layout, opset, dict(reversed(ABOUT.items())))
    assert again == exported(name, layout, opset)
    assert to_float16(again, ABOUT) == halved(name, layout, opset)


@pytest.mark.parametrize("name", STUDENTS)
def test_exporting_leaves_the_network_as_it_was(name: str) -> None:
    model = student(name)
    before, training = state_bytes(model), model.training
    prepared = folded(model, 64)
    assert state_bytes(model) == before and model.training == training
    x = LOOK.tensor(pictures(4, 3), CPU)
    with torch.inference_mode():
        want, got = model(x), prepared(x)
    assert float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())


def test_a_network_in_training_mode_is_exported_as_it_infers() -> None:
    name = "mobilenetv2_050"
    model = student(name)
    model.train()
    try:
        data = export_float32(model, LOOK, "uint8_nhwc", 17, ABOUT)
    finally:
        model.eval()
    assert data == exported(name, "uint8_nhwc", 17)


@pytest.mark.parametrize("size", [33, 70])
def test_tensorflows_padding_is_fixed_right_at_odd_sizes_too(size: int) -> None:
    model = student("tf_efficientnet_lite0")
    prepared = folded(model, size)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want, got = model(x), prepared(x)
    assert float((got - want).abs().max()) <= 1e-4 * float(want.abs().max())
    data = export_float32(model, Look(size, LOOK.mean, LOOK.std), "float_nchw", 17, {})
    assert not SHAPE_WORK & set(kinds(data))
    ours = run(data, x.numpy())
    assert np.abs(ours - want.numpy()).max() <= 1e-4 * float(want.abs().max())


# Folding a padding into a convolution, on graphs made by hand


def padded(
    pads: list[int], mode: str = "constant", value: float | None = None, taps: int = 1
) -> Any:
    """Pad then a 3 x 3 convolution; `taps` is how many nodes read what was padded."""
    weight = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    consts = [
        onnx.numpy_helper.from_array(weight, "w"),
        onnx.numpy_helper.from_array(np.array(pads, dtype=np.int64), "pads"),
    ]
    names = ["x", "pads"]
    if value is not None:
        consts.append(onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), "value"))
        names.append("value")
    nodes = [
        helper.make_node("Pad", names, ["p"], mode=mode),
        helper.make_node("Conv", ["p", "w"], ["y"], pads=[1, 0, 0, 1]),
    ]
    sinks = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if taps == 2:
        nodes.append(helper.make_node("Relu", ["p"], ["z"]))
        sinks.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 6, 7])
    graph = helper.make_graph(nodes, "g", [source], sinks, consts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def first_output(model: Any) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((1, 2, 6, 7)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["y"], {"x": x})[0])


@pytest.mark.parametrize("value", [None, 0.0])
@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 3, 0], [0] * 8])
def test_a_zero_padding_before_a_convolution_is_folded(
    pads: list[int], value: float | None
) -> None:
    model = padded(pads, value=value)
    want = first_output(model)
    assert fold_padding(model.graph) == 1
    assert [n.op_type for n in model.graph.node] == ["Conv"]
    assert np.allclose(first_output(model), want, atol=1e-6)


@pytest.mark.parametrize(
    ("pads", "mode", "value", "taps"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], "reflect", None, 1),
        ([0, 0, 1, 1, 0, 0, 1, 1], "edge", None, 1),
        ([0, 0, 1, 1, 0, 0, 1, 1], "constant", 1.0, 1),
        ([0, 0, -1, 0, 0, 0, 0, 0], "constant", None, 1),
        ([0, 0, 1, 1, 0, 0, 1, 1], "constant", None, 2),
    ],
)
def test_any_other_padding_is_left_alone(
    pads: list[int], mode: str, value: float | None, taps: int
) -> None:
    model = padded(pads, mode, value, taps)
    before = model.SerializeToString()
    assert fold_padding(model.graph) == 0
    assert model.SerializeToString() == before


def test_sealing_twice_changes_nothing() -> None:
    data = exported("mobilenetv2_050", "uint8_nhwc", 17)
    assert sealed(onnx.load_model_from_string(data), ABOUT) == data
