"""The convolutions and matrix products of a graph: where its time goes, and what INT8 is about."""

from __future__ import annotations

import math

import onnx

KINDS = ("Conv", "Gemm", "MatMul")


def products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Convolutions and matrix products, in the order of the graph."""
    return [node for node in graph.node if node.op_type in KINDS]


def macs(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates for one image of each product with stored weights, by the name of its node."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.output]
    }
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    found = {}
    for node in products(graph):
        made, weight = shapes.get(node.output[0]), weights.get(node.input[1])
        if made is None or weight is None:
            continue
        if node.op_type == "Conv":
            found[node.name] = math.prod(made[1:]) * math.prod(weight[1:])
        else:
            found[node.name] = math.prod(weight) * math.prod(made[1:-1])
    return found
