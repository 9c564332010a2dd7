"""An ONNX graph as the kernels that a runtime is left with after its usual fusions.

One rule for all runtimes: a convolution or matrix product takes with it the padding before it and
the batch norm, activation and residual addition after it; element-wise steps of one tensor run as
one kernel; views (reshape, cast, quantize and the like) cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.errors import DocumentError

if TYPE_CHECKING:
    import onnx

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

SMALL = 256
"""Elements of a constant that is worth evaluating: paddings, shapes, axes."""
MAX_ROUNDS = 64
"""Rounds of evaluating shapes and inferring what follows from them."""


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


def read_graph(model: onnx.ModelProto) -> Graph:
    """Parse a model: batch set to 1, shapes inferred, constants found. Raises `DocumentError`."""
    import onnx
    from onnx import shape_inference

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    _set_batch_to_one(fixed)
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        for _ in range(MAX_ROUNDS):
            _fold_small_constants(fixed, shapes)
            fixed = shape_inference.infer_shapes(fixed, strict_mode=False, data_prop=True)
            known = _known_shapes(fixed.graph)
            asks = any(node.op_type == "Shape" for node in fixed.graph.node)
            if len(known) == len(shapes) or not asks:
                break
            shapes = known
    except (onnx.onnx_cpp2py_export.shape_inference.InferenceError, ValueError, RuntimeError) as e:
        text = " ".join(str(e).split())[:200]
        raise DocumentError(f"the shapes of the ONNX graph do not hold: {text}") from None
    graph, shapes = fixed.graph, known
    constants = {t.name for t in graph.initializer}
    numbers = {t.name for t in graph.initializer if _is_number(t)}
    params = sum(math.prod(t.dims) for t in model.graph.initializer if _is_number(t))
    nodes: list[Node] = []
    for node in graph.node:
        tensors = [a.t for a in node.attribute if a.name == "value" and a.HasField("t")]
        if node.op_type == "Constant" and tensors:
            shapes[node.output[0]] = tuple(tensors[0].dims)
            if _is_number(tensors[0]):
                numbers.add(node.output[0])
                params += math.prod(tensors[0].dims)
        nodes.append(_node(node))
    inputs = [v.name for v in graph.input if v.name not in constants]
    result = Graph(
        nodes, shapes, constants, numbers, params, inputs, [v.name for v in graph.output]
    )
    _spread_constants(result)
    return result


def _known_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Every tensor whose dimensions are all known."""
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        dims = value.type.tensor_type.shape.dim
        known = value.type.tensor_type.HasField("shape")
        if known and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(int(d.dim_value) for d in dims)
    return shapes


def _set_batch_to_one(model: onnx.ModelProto) -> None:
    """Bind the first axis of each input, and drop what was stated about tensors behind it."""
    stored = {t.name for t in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in stored and dims and not dims[0].dim_value:
            dims[0].Clear()
            dims[0].dim_value = 1
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _fold_small_constants(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Evaluate what is made of small constants and known shapes (paddings, targets of a reshape).

    A node that cannot be evaluated is left as it is: if its value matters, the shape behind it
    stays unknown.
    """
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    values = {
        t.name: numpy_helper.to_array(t)
        for t in model.graph.initializer
        if math.prod(t.dims) <= SMALL and not t.external_data
    }
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
            dims = np.array(shapes[node.input[0]], np.int64)
            _keep(model, values, node.output[0], dims)
            continue
        if node.domain or any(name not in values for name in node.input if name):
            continue
        tensors = [a.t for a in node.attribute if a.HasField("t")]
        if any(math.prod(t.dims) > SMALL for t in tensors):
            continue
        try:
            feeds = {name: values[name] for name in node.input if name}
            outputs = ReferenceEvaluator(node).run(None, feeds)
        except Exception:  # an evaluator of any operator raises anything
            continue
        for name, value in zip(node.output, outputs, strict=False):
            if getattr(value, "size", SMALL + 1) <= SMALL:
                if node.op_type == "Constant":
                    values[name] = value
                else:
                    _keep(model, values, name, value)


def _keep(model: onnx.ModelProto, values: dict[str, Any], name: str, value: Any) -> None:
    """Store an evaluated tensor in the model, once."""
    from onnx import numpy_helper

    if name not in values:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    values[name] = value


def _is_number(tensor: onnx.TensorProto) -> bool:
    """A stored tensor to compute with: one or more axes, and not of an index type."""
    index_types = {tensor.INT64, tensor.BOOL, tensor.STRING}
    return len(tensor.dims) > 0 and tensor.data_type not in index_types


def _node(node: onnx.NodeProto) -> Node:
    numbers = {a.name: int(a.i) for a in node.attribute}
    strides = [max(a.ints) for a in node.attribute if a.name == "strides" and a.ints]
    return Node(
        op=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        name=node.name,
        group=numbers.get("group", 1),
        transposed=node.op_type == "Gemm" and bool(numbers.get("transA", 0)),
        stride=int(strides[0]) if strides else 1,
    )


def _spread_constants(graph: Graph) -> None:
    """What is made of constants or of known shapes is a constant; note what is a view of what."""
    for node in graph.nodes:
        live = [name for name in node.inputs if name and name not in graph.constants]
        if not live or node.op in ("Shape", "Size"):
            graph.constants.update(node.outputs)
            if node.inputs and node.inputs[0] in graph.weights and node.op in VIEWS | {"Transpose"}:
                graph.weights.update(node.outputs)
        elif node.op in VIEWS:
            graph.views[node.outputs[0]] = live[0]


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
