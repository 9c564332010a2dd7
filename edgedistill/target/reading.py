"""Reads an ONNX file's graph: in order, batch set to 1, shapes inferred, constants and views found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.errors import DocumentError
from edgedistill.target.graph import VIEWS, Graph, Node

if TYPE_CHECKING:
    import onnx

SMALL = 256
"""Elements of a constant that is worth evaluating: paddings, shapes, axes."""
MAX_ROUNDS = 64
"""Rounds of evaluating shapes and inferring what follows from them."""


def read_graph(model: onnx.ModelProto) -> Graph:
    """Parse a model: batch set to 1, shapes inferred, constants found. Raises `DocumentError`."""
    import onnx
    from onnx import shape_inference

    _refuse_disorder(model.graph)
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


def _refuse_disorder(graph: onnx.GraphProto) -> None:
    """The standard wants each tensor written once and before it is read; otherwise views could go in circles."""
    made = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    made |= {v.name for v in graph.input}
    for node in graph.node:
        missing = next((name for name in node.input if name and name not in made), None)
        if missing is not None:
            raise DocumentError(
                f"the ONNX graph is not in order: a node {node.op_type} reads tensor "
                f'"{missing[:80]}", which nothing before it makes'
            )
        for name in filter(None, node.output):
            if name in made:
                raise DocumentError(f'the ONNX graph makes tensor "{name[:80]}" twice')
            made.add(name)


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
