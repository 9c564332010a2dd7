"""What a network costs, read from its ONNX graph: MACs by kind, weights, moved elements, kernels.

The graph alone is the source, so the numbers are those of the file that ships. `onnx` is imported
inside the functions: planning reads a table and needs none of this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgedistill.errors import DocumentError
from edgedistill.target.graph import Graph, Kernel, kernels_of, read_graph

if TYPE_CHECKING:
    import onnx

KINDS = ("depthwise", "pointwise", "dense", "grouped", "fully_connected", "attention")
"""Kinds of multiply-accumulates. `dense` is a convolution with a window and one group; a 1x1
convolution of a 1x1 map is `fully_connected`, which is what it computes; `attention` multiplies
two activations."""


@dataclass(frozen=True)
class Cost:
    """What one image costs, in elements rather than bytes: the precision decides their width.

    `params` is what the file stores, `weight_elements` what one inference reads (a shared weight
    counts at each use), `act_elements` the activations that kernels read plus those that they
    write, `layers` the kernels that are left after the usual fusions, and `peak_act_elements` the
    most activation elements alive at once.
    """

    macs: int
    macs_by_kind: Mapping[str, int]
    params: int
    weight_elements: int
    act_elements: int
    layers: int
    peak_act_elements: int


@dataclass
class _Sums:
    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    weights: int = 0
    moved: int = 0


def cost_of_graph(model: onnx.ModelProto) -> Cost:
    """The `Cost` of one image through `model`; a symbolic batch axis counts as 1.

    Raises `DocumentError` for a graph whose shapes cannot be derived.
    """
    try:
        return _cost(read_graph(model))
    except (IndexError, OverflowError) as error:
        raise DocumentError(f"the ONNX graph has a node without its tensors: {error}") from None


def _cost(graph: Graph) -> Cost:
    kernels = kernels_of(graph)
    sums = _Sums()
    for kernel in kernels:
        for index in kernel.nodes:
            kind, macs = _macs(graph, index)
            sums.kinds[kind] += macs
            sums.weights += sum(
                graph.elements(name) for name in _weights_read(graph, graph.nodes[index].inputs)
            )
        sums.moved += sum(graph.elements(name) for name in kernel.inputs | kernel.outputs)
    return Cost(
        macs=sum(sums.kinds.values()),
        macs_by_kind={kind: count for kind, count in sums.kinds.items() if count},
        params=graph.params,
        weight_elements=sums.weights,
        act_elements=sums.moved,
        layers=len(kernels),
        peak_act_elements=_peak(graph, kernels),
    )


def _weights_read(graph: Graph, inputs: tuple[str, ...]) -> list[str]:
    """Constant inputs of a node that are tensors of numbers to compute with, not shapes or axes."""
    return [name for name in inputs if name in graph.weights]


def _macs(graph: Graph, index: int) -> tuple[str, int]:
    node = graph.nodes[index]
    if node.op in ("Conv", "ConvInteger", "QLinearConv"):
        weight = node.inputs[3] if node.op == "QLinearConv" else node.inputs[1]
        return _conv_macs(graph, node.inputs[0], weight, node.outputs[0], node.group)
    if node.op == "ConvTranspose":
        kernel = graph.shape(node.inputs[1])
        count = graph.elements(node.inputs[0]) * math.prod(kernel[1:])
        return ("dense" if node.group == 1 else "grouped"), count
    if node.op in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"):
        return _matmul_macs(graph, node.op, node.inputs, node.outputs[0], node.transposed)
    return "dense", 0


def _conv_macs(graph: Graph, image: str, weight: str, out: str, group: int) -> tuple[str, int]:
    """MACs of a convolution: output elements times channels per group times window."""
    kernel, shape = graph.shape(weight), graph.shape(image)
    count = graph.elements(out) * math.prod(kernel[1:])
    window = math.prod(kernel[2:])
    if group > 1:
        return ("depthwise" if kernel[1] == 1 else "grouped"), count
    if window > 1:
        return "dense", count
    return ("fully_connected" if math.prod(shape[2:]) == 1 else "pointwise"), count


def _matmul_macs(
    graph: Graph, op: str, inputs: tuple[str, ...], out: str, transposed: bool
) -> tuple[str, int]:
    """MACs of a matrix product: output elements times the summed axis."""
    shape = graph.shape(inputs[0])
    if not shape:
        raise DocumentError(f'the {op} that makes "{out}" multiplies a scalar, which is not valid')
    summed = shape[0] if transposed else shape[-1]
    second = inputs[3] if op == "QLinearMatMul" else inputs[1]
    kind = "fully_connected" if second in graph.constants else "attention"
    return kind, graph.elements(out) * summed


def _peak(graph: Graph, kernels: list[Kernel]) -> int:
    """The most elements alive at once, with every tensor freed after its last reader."""
    last: dict[str, int] = {}
    for step, kernel in enumerate(kernels):
        for name in kernel.inputs:
            last[graph.root(name)] = step
    for name in graph.graph_outputs:
        last[graph.root(name)] = len(kernels)
    alive = {graph.root(name): graph.elements(name) for name in graph.graph_inputs}
    peak = sum(alive.values())
    for step, kernel in enumerate(kernels):
        alive.update({graph.root(name): graph.elements(name) for name in kernel.outputs})
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > step}
    return peak
