"""An ONNX graph as the kernels that a runtime is left with after its usual fusions.

One rule for all runtimes: a convolution or matrix product takes with it the padding before it and
the batch norm, activation and residual addition after it; element-wise steps of one tensor run as
one kernel; views (reshape, cast, quantize and the like) cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgedistill.errors import DocumentError

PRODUCTS = {
    *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"),
    *("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"),
}
VIEWS = {
    *("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"),
    *("QuantizeLinear", "DequantizeLinear"),
}
CLAMPS = {"Relu", "Clip", "LeakyRelu", "PRelu", "Min", "Max", "Neg", "Abs"}
HARD = {"HardSigmoid", "HardSwish"}
SMOOTH = {
    *("Sigmoid", "Elu", "Gelu", "Tanh", "Erf", "Softplus", "Mish", "Swish", "Selu", "Celu", "Exp"),
    *("Sqrt", "Pow"),
}
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "BatchNormalization"}
ELEMENTWISE = CLAMPS | HARD | SMOOTH | ARITHMETIC
POOLING = {
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"),
    *("ReduceMean", "ReduceMax", "ReduceSum"),
}
NORMALISATION = {
    *("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization"),
    *("GroupNormalization", "LpNormalization", "ReduceL2", "RMSNormalization"),
}


@dataclass(frozen=True)
class Node:
    """A node with what costing asks of its attributes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""
    group: int = 1
    transposed: bool = False
    stride: int = 1


@dataclass
class Kernel:
    """Nodes that run as one, the activations that they read, and those that they leave behind."""

    nodes: list[int] = field(default_factory=list)
    inputs: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)


@dataclass
class Graph:
    """A graph with its shapes. `constants` depend on no input; `weights` of them hold numbers."""

    nodes: list[Node]
    shapes: dict[str, tuple[int, ...]]
    constants: set[str]
    weights: set[str]
    params: int
    graph_inputs: list[str]
    graph_outputs: list[str]
    views: dict[str, str] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        """Dimensions of a tensor. Raises `DocumentError` when they could not be derived."""
        if name not in self.shapes:
            raise DocumentError(
                f'the shape of tensor "{name}" cannot be derived, so its cost is unknown. '
                "Export the graph with a fixed input size and without data-dependent shapes"
            )
        return self.shapes[name]

    def elements(self, name: str) -> int:
        """Number of elements of a tensor; an optional input that is left out has none."""
        return math.prod(self.shape(name)) if name else 0

    def root(self, name: str) -> str:
        """The tensor that a view looks at, or the tensor itself."""
        while name in self.views:
            name = self.views[name]
        return name


def kernels_of(graph: Graph) -> list[Kernel]:
    """The kernels in the order in which they run."""
    kernels: list[Kernel] = []
    made_by: dict[str, int] = {}
    readers = _readers(graph)
    padded: dict[str, str] = {}
    for index, node in enumerate(graph.nodes):
        if node.outputs[0] in graph.constants or node.outputs[0] in graph.views:
            continue
        live = [graph.root(n) for n in node.inputs if n and n not in graph.constants]
        if node.op == "Pad" and all(
            graph.nodes[r].op in PRODUCTS for r in readers[node.outputs[0]]
        ):
            padded[node.outputs[0]] = live[0]
            continue
        home = _fused_into(graph, node, live, made_by, kernels, readers)
        if home is None:
            home = len(kernels)
            kernels.append(Kernel())
        kernels[home].nodes.append(index)
        for name in live:
            if made_by.get(name) != home:
                kernels[home].inputs.add(padded.get(name, name))
        made_by.update(dict.fromkeys(node.outputs, home))
    _close(graph, kernels, made_by)
    return kernels


def _readers(graph: Graph) -> dict[str, set[int]]:
    """Nodes that read each tensor, through views."""
    readers: dict[str, set[int]] = {name: set() for node in graph.nodes for name in node.outputs}
    for index, node in enumerate(graph.nodes):
        if node.outputs and (node.outputs[0] in graph.views or node.outputs[0] in graph.constants):
            continue
        for name in node.inputs:
            if name and name not in graph.constants:
                readers.setdefault(graph.root(name), set()).add(index)
    return readers


def _fused_into(
    graph: Graph,
    node: Node,
    live: list[str],
    made_by: dict[str, int],
    kernels: list[Kernel],
    readers: dict[str, set[int]],
) -> int | None:
    """The kernel that takes `node` with it, or `None` when it starts its own."""
    homes = {made_by[name] for name in live if name in made_by}
    foreign = [name for name in live if name not in made_by]
    if node.op not in ELEMENTWISE or not homes:
        return None
    if len(homes) == 1 and not foreign:
        (home,) = homes
        return home if _can_grow(graph, kernels[home]) else None
    # A residual addition joins the product that made one side, when nothing else reads that side.
    latest = max(homes)
    sides = [name for name in live if made_by.get(name) == latest]
    is_product = graph.nodes[kernels[latest].nodes[0]].op in PRODUCTS
    alone = all(len(readers[name]) == 1 for name in sides)
    return latest if node.op == "Add" and is_product and alone else None


def _can_grow(graph: Graph, kernel: Kernel) -> bool:
    """Element-wise steps follow products and other such steps; pooling and copies stand alone."""
    first = graph.nodes[kernel.nodes[0]].op
    return first in PRODUCTS or first in ELEMENTWISE


def _close(graph: Graph, kernels: list[Kernel], made_by: dict[str, int]) -> None:
    """Outputs of a kernel: tensors that another kernel or the caller reads."""
    wanted = {name for kernel in kernels for name in kernel.inputs}
    wanted |= {graph.root(name) for name in graph.graph_outputs}
    for name, home in made_by.items():
        if name in wanted:
            kernels[home].outputs.add(name)
