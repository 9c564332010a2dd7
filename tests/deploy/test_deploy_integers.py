"""Pixels as the quantized tensor: the same network, but for the border of what it pads."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import timm
import torch
from torch import nn

from edgedistill.deploy.integers import integer_input, takes_integers
from edgedistill.deploy.onnx import INPUT_NAME, OUTPUT_NAME, export_float32
from edgedistill.deploy.quantize import prepared, quantized
from edgedistill.deploy.ranges import observe, ranges
from edgedistill.deploy.stage import preprocess_of
from edgedistill.nets import Look

SIZE = 32
EVEN = ((128 / 255,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PIXELS = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
Means = tuple[tuple[float, float, float], tuple[float, float, float]]


class Stem(nn.Module):
    """One convolution and its map (N, 8 x 16 x 16), so that border and inside can be told apart."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.conv(x).flatten(1)
        return made


def exported(model: nn.Module, means: Means, layout: str = "uint8_nhwc") -> onnx.ModelProto:
    look = Look(SIZE, *means)
    return onnx.load_model_from_string(export_float32(model.eval(), look, layout, 17, {}))


def run(model: onnx.ModelProto, fed: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: fed})[0])


def fed(signed: bool) -> np.ndarray:
    return (PIXELS.astype(np.int16) - 128).astype(np.int8) if signed else PIXELS


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("means", [EVEN, IMAGENET])
def test_without_padding_the_network_is_the_same(means: Means, signed: bool) -> None:
    plain = exported(Stem(0), means)
    want = run(plain, PIXELS)
    got = run(integer_input(plain, preprocess_of(SIZE, *means), signed), fed(signed))
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("signed", [False, True])
def test_where_all_channels_have_one_zero_point_the_border_is_the_same_too(signed: bool) -> None:
    plain = exported(Stem(1), EVEN)
    want = run(plain, PIXELS)
    got = run(integer_input(plain, preprocess_of(SIZE, *EVEN), signed), fed(signed))
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("signed", [False, True])
def test_with_means_of_their_own_only_the_padded_border_differs(signed: bool) -> None:
    plain = exported(Stem(1), IMAGENET)
    want = run(plain, PIXELS).reshape(6, 8, 16, 16)
    integer = integer_input(plain, preprocess_of(SIZE, *IMAGENET), signed)
    got = run(integer, fed(signed)).reshape(6, 8, 16, 16)
    off = np.abs(got - want).max((0, 1)) > 1e-4
    assert off[0].any() and off[:, 0].any()
    assert not off[1:, 1:].any()


@cache
def student() -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = timm.create_model("mobilenetv3_small_050", num_classes=4)
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(16, 3, SIZE, SIZE))
    return net.eval()


@pytest.mark.parametrize(
    ("signed", "flavour"), [(False, "x86"), (False, "arm"), (True, "tensorrt")]
)
def test_the_first_convolution_reads_the_pixels_and_no_float_image_exists(
    signed: bool, flavour: str
) -> None:
    plain = exported(student(), IMAGENET)
    assert takes_integers(plain)
    model = prepared(
        integer_input(plain, preprocess_of(SIZE, *IMAGENET), signed).SerializeToString()
    )
    limits = ranges(observe(model, fed(signed)), "minmax")
    graph = onnx.load_model_from_string(quantized(model, limits, flavour, {})).graph
    reads = {name: node for node in graph.node for name in node.input}
    moved = reads[INPUT_NAME]
    taken = reads[moved.output[0]]
    assert moved.op_type == "Transpose" and taken.op_type == "DequantizeLinear"
    assert reads[taken.output[0]].op_type == "Conv"
    kind = onnx.TensorProto.INT8 if signed else onnx.TensorProto.UINT8
    assert graph.input[0].type.tensor_type.elem_type == kind
    zero = next(t for t in graph.initializer if t.name == taken.input[2])
    assert onnx.numpy_helper.to_array(zero).shape == () and zero.data_type == kind


def test_a_graph_that_takes_floats_or_begins_otherwise_is_refused() -> None:
    floats = exported(student(), IMAGENET, "float_nchw")
    assert not takes_integers(floats)
    with pytest.raises(ValueError, match="does not begin"):
        integer_input(floats, preprocess_of(SIZE, *IMAGENET), False)


def test_the_graph_that_was_given_stays_as_it_is() -> None:
    plain = exported(Stem(1), IMAGENET)
    before = plain.SerializeToString()
    integer_input(plain, preprocess_of(SIZE, *IMAGENET), True)
    assert plain.SerializeToString() == before
