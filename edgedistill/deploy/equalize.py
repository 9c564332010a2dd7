"""Two changes of a float graph that leave what it computes alone and make INT8 lose less.

Equalisation: a channel whose values are small has few of the 256 levels of its tensor. What a convolution makes is
divided channel by channel, and the next one multiplies back (Nagel et al., Data-Free Quantization Through Weight
Equalization and Bias Correction, 2019, section 4.1). With one scale of weights for each output channel, a depthwise
convolution takes this for nothing, and all channels get one range; for a dense one the square root is taken.

Bias correction: rounded weights move the mean of what they make; the mean of the difference, from the mean input of
each channel, is taken off the bias (section 4.2 there).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper

from edgedistill.deploy.ranges import Seen

Array = npt.NDArray[np.float64]
LEAST = 1 / 64
"""A channel is stretched this many times at most (its inverse)."""


@dataclass(frozen=True)
class Pair:
    """Two convolutions, `tensor` the only thing between them: nothing or a Relu stands there."""

    first: onnx.NodeProto
    second: onnx.NodeProto
    tensor: str


def pairs(graph: onnx.GraphProto) -> list[Pair]:
    """Convolutions with a bias that only another one reads, through a Relu at most: scales pass through both."""
    made = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    found = []
    for second in graph.node:
        if second.op_type != "Conv":
            continue
        tensor = second.input[0]
        before = made.get(tensor)
        relu = before is not None and before.op_type == "Relu"
        first = made.get(before.input[0]) if relu and before is not None else before
        between = [tensor, *([first.output[0]] if relu and first is not None else [])]
        alone = all(readers[name] == 1 and name not in outputs for name in between)
        if first is not None and first.op_type == "Conv" and len(first.input) == 3 and alone:
            found.append(Pair(first, second, tensor))
    return found


def equalized(model: onnx.ModelProto, seen: Mapping[str, Seen]) -> onnx.ModelProto:
    """The same function with channels of like ranges between every pair of convolutions."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in found.graph.initializer}
    for pair in pairs(found.graph):
        peaks = seen[pair.tensor].peaks if pair.tensor in seen else None
        names = [*pair.first.input[1:3], pair.second.input[1]]
        if peaks is None or any(name not in tensors for name in names) or not peaks.max() > 0:
            continue
        share = peaks / peaks.max()
        dense = group_of(pair.second) == 1
        share = np.clip(np.sqrt(share) if dense else share, LEAST, 1)
        weight, bias, after = (_values(tensors[name]) for name in names)
        _store(tensors[names[0]], weight / share[:, None, None, None])
        _store(tensors[names[1]], bias / share)
        wide = share[None, :, None, None] if dense else _spread(share, after)
        _store(tensors[names[2]], after * wide)
    return found


def _spread(share: Array, weight: Array) -> Array:
    """Scales of input channels as a grouped convolution's weights `(O, I / groups, kH, kW)` read them."""
    groups = len(share) // weight.shape[1]
    each = share.reshape(groups, weight.shape[1])
    return np.repeat(each, weight.shape[0] // groups, axis=0)[:, :, None, None]


def corrected(
    model: onnx.ModelProto, int8: onnx.ModelProto, seen: Mapping[str, Seen]
) -> onnx.ModelProto:
    """The float graph with biases that make up for the rounding of the weights in `int8`."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in found.graph.initializer}
    rounded = _dequantized(int8.graph)
    for node in found.graph.node:
        if node.op_type != "Conv" or len(node.input) != 3 or node.input[1] not in rounded:
            continue
        means = seen[node.input[0]].means if node.input[0] in seen else None
        if means is None or node.input[2] not in tensors:
            continue
        weight = _values(tensors[node.input[1]])
        moved = (rounded[node.input[1]] - weight).sum((2, 3))  # (O, I / groups)
        groups = group_of(node)
        inputs = np.repeat(means.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        bias = tensors[node.input[2]]
        _store(bias, _values(bias) - (moved * inputs).sum(1))
    return found


def _dequantized(graph: onnx.GraphProto) -> dict[str, Array]:
    """What the weights of an INT8 graph are after rounding, by the name they had."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0].endswith("_quantized"):
            whole = _values(tensors[node.input[0]])
            if whole.ndim != 4:
                continue
            scale, zero = (_values(tensors[name]).reshape(-1, 1, 1, 1) for name in node.input[1:3])
            found[node.input[0].removesuffix("_quantized")] = (whole - zero) * scale
    return found


def group_of(conv: onnx.NodeProto) -> int:
    """The groups of a convolution."""
    return next((int(a.i) for a in conv.attribute if a.name == "group"), 1)


def _values(tensor: onnx.TensorProto) -> Array:
    return np.asarray(onnx.numpy_helper.to_array(tensor), np.float64)


def _store(tensor: onnx.TensorProto, values: Array) -> None:
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
