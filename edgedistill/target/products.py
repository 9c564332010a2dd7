"""Convolutions and matrix products: how many multiply-accumulates, and of what kind."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgedistill.errors import DocumentError
from edgedistill.target.graph import Graph, Node


@dataclass(frozen=True)
class Product:
    """Multiply-accumulates of one kind (`cost.KINDS`), input channels a group, and width of the window."""

    kind: str
    macs: int
    channels_in: int
    window: int


def product(graph: Graph, node: Node) -> Product:
    """MACs of one node of `graph.PRODUCTS`. Raises `DocumentError` for one that multiplies a scalar."""
    if node.op in ("Conv", "ConvInteger", "QLinearConv"):
        weight = node.inputs[3] if node.op == "QLinearConv" else node.inputs[1]
        return _convolution(graph, node.inputs[0], weight, node.outputs[0], node.group)
    if node.op == "ConvTranspose":
        kernel = graph.shape(node.inputs[1])
        count = graph.elements(node.inputs[0]) * math.prod(kernel[1:])
        kind = "dense" if node.group == 1 else "grouped"
        return Product(kind, count, kernel[0] // max(node.group, 1), kernel[-1])
    return _matrix_product(graph, node)


def _convolution(graph: Graph, image: str, weight: str, out: str, group: int) -> Product:
    """MACs of a convolution: output elements times channels per group times window."""
    kernel, shape = graph.shape(weight), graph.shape(image)
    count = graph.elements(out) * math.prod(kernel[1:])
    window = math.prod(kernel[2:])
    if group > 1:
        kind = "depthwise" if kernel[1] == 1 else "grouped"
    elif window > 1:
        kind = "dense"
    else:
        kind = "fully_connected" if math.prod(shape[2:]) == 1 else "pointwise"
    return Product(kind, count, kernel[1], kernel[-1] if len(kernel) > 2 else 1)


def _matrix_product(graph: Graph, node: Node) -> Product:
    """MACs of a matrix product: output elements times the summed axis.

    Of a stored matrix it is a convolution of 1x1, or fully connected where it makes one vector.
    """
    shape, out = graph.shape(node.inputs[0]), node.outputs[0]
    if not shape:
        raise DocumentError(
            f'the {node.op} that makes "{out}" multiplies a scalar, which is not valid'
        )
    summed = shape[0] if node.transposed else shape[-1]
    second = node.inputs[3] if node.op == "QLinearMatMul" else node.inputs[1]
    count = graph.elements(out) * summed
    if second not in graph.constants:
        return Product("attention", count, summed, 1)
    made = graph.shape(out)
    single = bool(made) and math.prod(made) == made[-1]
    return Product("fully_connected" if single else "pointwise", count, summed, 1)
