"""What a network costs, read from its ONNX graph: one line a kernel, and the sums.

The graph alone is the source, so the numbers are those of the file that ships. `onnx` is imported
inside the functions: planning reads a table and needs none of this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.errors import DocumentError
from edgedistill.target.graph import (
    ARITHMETIC,
    ELEMENTWISE,
    HARD,
    NORMALISATION,
    POOLING,
    PRODUCTS,
    SMOOTH,
    VIEWS,
    Graph,
    Kernel,
    Node,
    kernels_of,
)
from edgedistill.target.products import product
from edgedistill.target.reading import read_graph

if TYPE_CHECKING:
    import onnx

KINDS = (
    *("depthwise", "pointwise", "dense", "grouped"),
    *("fully_connected", "squeeze_excite", "attention"),
)
"""Kinds of multiply-accumulates. `dense` is a convolution with a window and one group; a 1x1
convolution of a 1x1 map is `fully_connected`, which is what it computes, or `squeeze_excite` where
its result scales a larger map; `attention` multiplies two activations."""

KERNEL_KINDS = (*KINDS, "elementwise", "pooling", "normalisation", "movement")
"""What a kernel does. `movement` only copies: concatenation, transposition, slices, resizing."""


@dataclass(frozen=True)
class KernelCost:
    """One kernel for one image: what it computes and what it moves, in elements.

    `channels_in` is the length of each sum without the window, `channels_out` and `pixels` are
    those of the output, `groups` those of a convolution, `window` is the side of the filter (0
    where there is none). `hard`,
    `smooth` and `arithmetic` count the element-wise steps that are fused behind the product, or
    that the kernel consists of: hard gates (h-swish), smooth functions (SiLU, GELU), additions and
    products. Clamps (ReLU) are not counted: no runtime pays for them.
    """

    kind: str
    macs: int
    read: int
    written: int
    weights: int
    channels_in: int
    channels_out: int
    groups: int
    pixels: int
    window: int
    stride: int
    hard: int
    smooth: int
    arithmetic: int


@dataclass(frozen=True)
class Cost:
    """What one image costs, in elements rather than bytes: the precision decides their width.

    `params` is what the file stores, `peak_act_elements` the most activation elements alive at
    once, `operators` the ONNX operators that the graph has.
    """

    kernels: tuple[KernelCost, ...]
    params: int
    peak_act_elements: int
    operators: frozenset[str] = frozenset()

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(k.macs for k in self.kernels)

    @property
    def macs_by_kind(self) -> Mapping[str, int]:
        """Multiply-accumulates of each kind that occurs."""
        sums = dict.fromkeys(KINDS, 0)
        for kernel in self.kernels:
            if kernel.macs:
                sums[kernel.kind] += kernel.macs
        return {kind: macs for kind, macs in sums.items() if macs}

    @property
    def weight_elements(self) -> int:
        """What one inference reads of the weights; a shared weight counts at each use."""
        return sum(k.weights for k in self.kernels)

    @property
    def read_elements(self) -> int:
        """Activations that kernels read."""
        return sum(k.read for k in self.kernels)

    @property
    def written_elements(self) -> int:
        """Activations that kernels write."""
        return sum(k.written for k in self.kernels)

    @property
    def act_elements(self) -> int:
        """Activations that kernels read plus those that they write."""
        return self.read_elements + self.written_elements

    @property
    def layers(self) -> int:
        """Kernels that are left after the usual fusions."""
        return len(self.kernels)


def cost_of_graph(model: onnx.ModelProto) -> Cost:
    """The `Cost` of one image through `model`; a symbolic batch axis counts as 1.

    Raises `DocumentError` for a graph whose shapes cannot be derived.
    """
    try:
        return _cost(read_graph(model))
    except (IndexError, OverflowError) as error:
        raise DocumentError(f"the ONNX graph has a node without its tensors: {error}") from None


def cost_of_file(path: Path) -> Cost:
    """The `Cost` of an ONNX file. Raises `DocumentError` for one that cannot be read or costed."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # the parser of protocol buffers raises its own kinds
        text = " ".join(str(error).split())[:200]
        raise DocumentError(f"the ONNX file {path} cannot be read: {text}") from None
    return cost_of_graph(model)


def cost_of_kernels(graph: Graph, kernels: Sequence[Kernel]) -> tuple[KernelCost, ...]:
    """Each kernel of a graph."""
    readers = _readers(graph)
    return tuple(_kernel(graph, kernel, readers) for kernel in kernels)


def _cost(graph: Graph) -> Cost:
    kernels = kernels_of(graph)
    return Cost(
        kernels=cost_of_kernels(graph, kernels),
        params=graph.params,
        peak_act_elements=_peak(graph, kernels),
        operators=frozenset(node.op for node in graph.nodes if node.op != "Constant"),
    )


def _kernel(graph: Graph, kernel: Kernel, readers: Mapping[str, Sequence[Node]]) -> KernelCost:
    nodes = [graph.nodes[index] for index in kernel.nodes]
    first = nodes[0]
    sums = [product(graph, node) for node in nodes if node.op in PRODUCTS]
    kind, channels_in, window = _kind(first), 0, 0
    if sums:
        kind, channels_in, window = sums[0].kind, sums[0].channels_in, sums[0].window
        if kind == "fully_connected" and _scales_a_map(graph, first, readers):
            kind = "squeeze_excite"
    shape = graph.shape(first.outputs[0])
    channels_out, pixels = _channels_and_pixels(shape, first.op)
    return KernelCost(
        kind=kind,
        macs=sum(s.macs for s in sums),
        read=sum(graph.elements(name) for name in kernel.inputs),
        written=sum(graph.elements(name) for name in kernel.outputs),
        weights=sum(graph.elements(n) for node in nodes for n in node.inputs if n in graph.weights),
        channels_in=channels_in,
        channels_out=channels_out,
        groups=first.group,
        pixels=pixels,
        window=window,
        stride=first.stride,
        hard=sum(node.op in HARD for node in nodes),
        smooth=sum(node.op in SMOOTH for node in nodes),
        arithmetic=sum(node.op in ARITHMETIC for node in nodes),
    )


def _kind(node: Node) -> str:
    """What a kernel without a product does."""
    if node.op in ELEMENTWISE:
        return "elementwise"
    if node.op in POOLING:
        return "pooling"
    return "normalisation" if node.op in NORMALISATION else "movement"


def _channels_and_pixels(shape: tuple[int, ...], op: str) -> tuple[int, int]:
    """Channels and positions of an output (N, C, H, W), or of a matrix (..., M, N)."""
    if len(shape) >= 4 and op not in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return shape[1], math.prod(shape[2:])
    channels = shape[-1] if shape else 1
    return channels, math.prod(shape) // channels if channels else 0


def _readers(graph: Graph) -> dict[str, list[Node]]:
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    return readers


def _scales_a_map(graph: Graph, node: Node, readers: Mapping[str, Sequence[Node]]) -> bool:
    """Whether what `node` makes of a vector ends as the factor of a larger map."""
    seen: set[str] = set()
    ahead = [node.outputs[0]]
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        for reader in readers.get(name, ()):
            out = reader.outputs[0]
            spatial = graph.shape(out)[2:]
            if reader.op == "Mul" and math.prod(spatial) > 1:
                return True
            if reader.op in ELEMENTWISE | VIEWS | PRODUCTS and math.prod(spatial) == 1:
                ahead.append(out)
    return False


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
