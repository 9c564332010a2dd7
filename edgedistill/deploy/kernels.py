"""INT8 graphs in terms of what onnxruntime has INT8 kernels for: no tensor goes back to float on the way.

Squeeze-and-excitation takes a mean over the map, for which there is a kernel only as GlobalAveragePool. A hard gate,
clip(alpha x + beta, 0, 1), has none: the sum of the quantized x with a scale of alpha times its own and of beta,
quantized from 0 to at most 1, is the same, as quantizing saturates where the gate does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from edgedistill.deploy.onnx import drop_unread

LEVELS = 255
OFF_TIES = 1 + 1e-4
"""What beta is multiplied by: 0.5 of 255 steps lies halfway between two, and every x of 0 would be rounded up on one
machine and down on another."""
MAP = ([2, 3], [-2, -1])
"""How the axes of a map (N, C, H, W) are written."""


def pool_maps(model: onnx.ModelProto) -> None:
    """Write each mean over a map as GlobalAveragePool, in place; tensors and nodes keep their names."""
    known = onnx.shape_inference.infer_shapes(model).graph
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in (*known.value_info, *known.input)}
    axes = {
        tensor.name: onnx.numpy_helper.to_array(tensor).tolist()
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1
    }
    for node in model.graph.node:
        about = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if (
            node.op_type == "ReduceMean"
            and list(about.get("axes", axes.get(node.input[-1], ()))) in MAP
            and about.get("keepdims", 1)
            and ranks.get(node.input[0]) == 4
        ):
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
            del node.input[1:]  # axes, from opset 18 on


def gates(model: onnx.ModelProto) -> list[str]:
    """The outputs of hard gates; quantized from 0 to 1 they can be written as sums."""
    return [node.output[0] for node in model.graph.node if node.op_type == "HardSigmoid"]


def add_gates(model: onnx.ModelProto) -> None:
    """Write each hard gate between quantized tensors of uint8 as a sum, in place; alpha and beta are over 0."""
    graph = model.graph
    values = {t.name: t for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source = makers.get(node.input[0]) if node.input else None
        users = readers.get(node.output[0], [])
        if (
            node.op_type == "HardSigmoid"
            and min(_slope(node)) > 0
            and source is not None
            and source.op_type == "DequantizeLinear"
            and _levels(source, values) is not None
            and [user.op_type for user in users] == ["QuantizeLinear"]
            and _saturates(users[0], values)
        ):
            nodes.extend(_sum(node, source, graph, values))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)


def _slope(gate: onnx.NodeProto) -> tuple[float, float]:
    """Alpha and beta; the operator's defaults are those of ONNX."""
    about = {a.name: a.f for a in gate.attribute}
    return about.get("alpha", 0.2), about.get("beta", 0.5)


def _levels(
    node: onnx.NodeProto, values: Mapping[str, onnx.TensorProto]
) -> tuple[float, int] | None:
    """Scale and zero point of a tensor that is quantized to uint8 with one scale, else `None`."""
    scale, zero = (values.get(name) for name in node.input[1:3])
    if scale is None or zero is None or scale.dims or zero.data_type != onnx.TensorProto.UINT8:
        return None
    return float(onnx.numpy_helper.to_array(scale)), int(onnx.numpy_helper.to_array(zero))


def _saturates(node: onnx.NodeProto, values: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether quantizing clips at 0 and at 1 or before."""
    found = _levels(node, values)
    return found is not None and found[1] == 0 and LEVELS * found[0] <= 1 + 1e-6


def _sum(
    gate: onnx.NodeProto,
    source: onnx.NodeProto,
    graph: onnx.GraphProto,
    values: Mapping[str, onnx.TensorProto],
) -> Iterator[onnx.NodeProto]:
    """What stands in the place of a gate whose input is dequantized by `source`."""
    alpha, beta = _slope(gate)
    scale, name = float(onnx.numpy_helper.to_array(values[source.input[1]])), gate.output[0]
    constants = {
        "steeper": np.float32(alpha * scale),
        "middle": np.float32(OFF_TIES * beta / LEVELS),
        "full": np.uint8(LEVELS),
        "zero": np.uint8(0),
    }
    steeper, middle, full, zero = (f"{name}_{what}_constant" for what in constants)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), f"{name}_{what}_constant")
        for what, value in constants.items()
    )
    make = onnx.helper.make_node
    yield make("DequantizeLinear", [source.input[0], steeper, source.input[2]], [f"{name}_steeper"])
    yield make("DequantizeLinear", [full, middle, zero], [f"{name}_middle"])
    yield make("Add", [f"{name}_steeper", f"{name}_middle"], [name], name=gate.name or name)
