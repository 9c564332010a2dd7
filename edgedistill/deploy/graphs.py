"""What an ONNX file holds: its bytes by layer, and its operators.

A weight belongs to the node that uses it, through the nodes that only reshape or dequantize it: the bytes of a
quantized convolution are those of its kernel, scales and zero points. Reads no weights, so external data files are
only sized, and a file of a gigabyte takes no longer than a small one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import DocumentError
from edgedistill.latencyresult import GraphFacts, Layer

if TYPE_CHECKING:
    import onnx

MOST_FILE_BYTES = 2_147_483_647
"""What a protocol buffer can hold."""
PASSES_ON = frozenset(
    ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)  # fmt: skip
"""Operators through which a weight is followed to the layer that computes with it, so many at most."""
MOST_STEPS = 16


def graph_facts(path: Path) -> GraphFacts:
    """The facts of the ONNX file at `path`. Raises `DocumentError` for what is none, or lacks data that it names."""
    model = _read(path)
    readers = _readers(model.graph.node)
    layers: dict[int, Layer] = {}
    for name, tensor in _constants(model.graph):
        node = _user(name, readers)
        if node is None:
            continue
        known = layers.get(id(node)) or Layer(
            name=node.name or f"{node.op_type} {len(layers)}",
            operator=node.op_type, size_bytes=0, params=0,
        )  # fmt: skip
        layers[id(node)] = Layer(
            name=known.name,
            operator=known.operator,
            size_bytes=known.size_bytes + _bytes(tensor),
            params=known.params + (_count(tensor) if _is_weight(name, readers) else 0),
        )
    outside = [place.stat().st_size for place in external_files(path, model)]
    return GraphFacts(
        size_bytes=path.stat().st_size + sum(outside),
        opset=next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        params=sum(layer.params for layer in layers.values()),
        operators=dict(sorted(Counter(n.op_type for n in model.graph.node).items())),
        layers=sorted(layers.values(), key=lambda layer: (-layer.size_bytes, layer.name)),
    )


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every tensor that the graph holds, by the name under which nodes read it."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            yield node.output[0], node.attribute[0].t


def external_files(path: Path, model: onnx.ModelProto) -> list[Path]:
    """The external data files that a graph names, each once. Raises `DocumentError` for one that is missing or lies
    outside the file's folder.
    """
    names: dict[str, None] = {}
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                names[entry.value] = None
    folder = path.resolve().parent
    found = []
    for name in names:
        place = (folder / name).resolve()
        if not place.is_relative_to(folder) or not place.is_file():
            raise DocumentError(
                f"{path} keeps weights in {name!r}, which is not beside it: copy the whole model, with the files "
                "that it names."
            )
        found.append(place)
    return found


def _read(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError
    from ontarget.modelfile import fault_of

    try:
        if not 0 < path.stat().st_size <= MOST_FILE_BYTES:
            raise DocumentError(f"{path} is empty, or larger than an ONNX file can be")
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise DocumentError(f"{path} does not exist") from None
    except (DecodeError, OSError, ValueError) as error:
        fault = fault_of(path) or f"it cannot be read ({error})"
        raise DocumentError(f"{path} is no ONNX model: {fault}") from None
    if not model.HasField("graph") or not model.graph.node:
        raise DocumentError(f"{path} is no ONNX model: it holds no graph")
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph and of the graphs in it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _readers(nodes: Any) -> dict[str, list[Any]]:
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _user(name: str, readers: dict[str, list[Any]]) -> Any:
    """The first node that computes with a tensor, through those that pass it on; `None` where nobody reads it."""
    for _ in range(MOST_STEPS):
        nodes = readers.get(name)
        if not nodes:
            return None
        if nodes[0].op_type not in PASSES_ON or not nodes[0].output:
            return nodes[0]
        name = nodes[0].output[0]
    return None


def _is_weight(name: str, readers: dict[str, list[Any]]) -> bool:
    """Whether a tensor is a weight, and not the scale or zero point of one or the axes of a reshape."""
    return all(n.op_type not in PASSES_ON or n.input[0] == name for n in readers.get(name, ()))


def _count(tensor: onnx.TensorProto) -> int:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count


def _bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a tensor's values, from its shape and type alone."""
    import onnx

    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    bits = {"DOUBLE": 64, "INT64": 64, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128}
    small = {"FLOAT16": 16, "BFLOAT16": 16, "INT16": 16, "UINT16": 16, "INT8": 8, "UINT8": 8}
    small |= {"BOOL": 8, "INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2, "FLOAT4E2M1": 4}
    width = bits.get(name) or small.get(name) or (8 if name.startswith("FLOAT8") else 32)
    return (_count(tensor) * width + 7) // 8
