"""INT8 that never leaves integers: the pixels themselves are the quantized tensor that the first convolution reads.

With `x = pixel * scale + shift` for each channel, the scale of one channel over the mean scale goes into the
convolution's weights, and what the common zero point leaves of the shift into its bias. Where the convolution pads, it
pads with the zero point instead of each channel's own: exact inside, a little off at the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from ontarget.facts import Preprocess
from ontarget.preprocess import scale_and_shift

from edgedistill.deploy.onnx import INPUT_NAME

PLANES, NORMAL = "planes", "normal"


@dataclass(frozen=True)
class Start:
    """The first nodes of a graph that takes bytes: those that prepare the pixels, and the convolution after them."""

    before: tuple[onnx.NodeProto, ...]
    conv: onnx.NodeProto


def start_of(graph: onnx.GraphProto) -> Start | None:
    """Cast, Transpose, normalisation and first convolution in this order, each read once; else `None`."""
    nodes = list(graph.node[:4])
    if [node.op_type for node in nodes] != ["Cast", "Transpose", "Conv", "Conv"]:
        return None
    chain = [INPUT_NAME, *(node.output[0] for node in nodes[:3])]
    readers = [name for node in graph.node for name in node.input]
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    if any(node.input[0] != name for node, name in zip(nodes, chain, strict=True)):
        return None
    if any(readers.count(name) != 1 for name in chain) or len(nodes[3].input) != 3:
        return None
    if (
        weights.get(nodes[2].input[1]) != [3, 1, 1, 1]
        or weights.get(nodes[3].input[1], [0, 0])[1] != 3
    ):
        return None
    return Start(tuple(nodes[:3]), nodes[3])


def takes_integers(model: onnx.ModelProto) -> bool:
    """Whether `integer_input` can be had of a float32 file."""
    return start_of(model.graph) is not None


def integer_input(model: onnx.ModelProto, preprocess: Preprocess, signed: bool) -> onnx.ModelProto:
    """A float32 file as one that dequantizes its pixels: uint8, or `signed`, int8 of pixel - 128.

    Raises `ValueError` where the graph does not begin as `export_float32` leaves it.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    start = start_of(graph)
    if start is None:
        raise ValueError("the graph does not begin with pixels, a normalisation and a convolution")
    scales, shifts = (
        part.astype(np.float64) for part in scale_and_shift(preprocess.mean, preprocess.std)
    )
    scale = float(scales.mean())
    zero = 128 if signed else int(np.clip(np.round((-shifts / scales).mean()), 0, 255))
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weight, bias = (tensors[name] for name in start.conv.input[1:])
    values = onnx.numpy_helper.to_array(weight).astype(np.float64)
    rest = (shifts + scales * zero)[None, :, None, None]
    more = onnx.numpy_helper.to_array(bias).astype(np.float64) + (values * rest).sum((1, 2, 3))
    _replace(weight, values * (scales / scale)[None, :, None, None])
    _replace(bias, more)
    for name in start.before[2].input[1:]:
        graph.initializer.remove(tensors[name])
    for node in start.before:
        graph.node.remove(node)
    kind = np.int8 if signed else np.uint8
    for name, value in (
        ("pixel_scale", np.array(scale, np.float32)),
        ("pixel_zero", np.array(0 if signed else zero, kind)),
    ):
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    make = onnx.helper.make_node
    planes = make("Transpose", [INPUT_NAME], [PLANES], name=PLANES, perm=[0, 3, 1, 2])
    normal = make("DequantizeLinear", [PLANES, "pixel_scale", "pixel_zero"], [NORMAL], name=NORMAL)
    graph.node.insert(0, planes)
    graph.node.insert(1, normal)
    start.conv.input[0] = NORMAL
    if signed:
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(found)


def _replace(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    name = tensor.name
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), name))
