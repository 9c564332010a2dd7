"""What an ONNX file holds: its bytes by layer, and its operators.

A weight belongs to the node that uses it, through the nodes that only reshape or dequantize it: the bytes of a
quantized convolution are those of its kernel, scales and zero points. Graphs in the branches of an If or a Loop and
functions count too. No weight is looked at: external data files are only sized, and a file of a gigabyte takes no
longer than a small one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
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
MOST_DEPTH = 50
"""Graphs in one another."""
LFS_POINTER = b"version https://git-lfs"
ONNX_DOMAINS = ("", "ai.onnx")
_TEXTS = {"STRING", "UNDEFINED"}
_WIDTHS = {
    "DOUBLE": 64, "INT64": 64, "UINT64": 64, "COMPLEX64": 64, "COMPLEX128": 128,
    "FLOAT16": 16, "BFLOAT16": 16, "INT16": 16, "UINT16": 16, "INT8": 8, "UINT8": 8, "BOOL": 8,
    "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2,
}  # fmt: skip
"""Bits of a number by its type; all that begin with FLOAT8 have 8, the others 32."""


@dataclass(frozen=True)
class _Weight:
    """A tensor that a graph holds: the bytes of its values, and how many they are."""

    name: str
    size_bytes: int
    count: int


def graph_facts(path: Path) -> GraphFacts:
    """The facts of the ONNX file at `path`. Raises `DocumentError` for what is none, is cut off, or lacks data that
    it names.
    """
    return facts_and_files(path)[0]


def facts_and_files(path: Path) -> tuple[GraphFacts, list[Path]]:
    """The same, and the external data files that it names."""
    model = _read(path)
    outside = _external(path, model)
    sizes = {name: place.stat().st_size for name, place in outside.items()}
    try:
        graphs = list(_graphs(model.graph))
        nodes = [node for graph in graphs for node in graph.node]
        nodes += [node for function in model.functions for node in function.node]
        _require_text(nodes)
        layers = _layers(graphs, sizes)
        opset = next((o.version for o in model.opset_import if o.domain in ONNX_DOMAINS), 0)
        if opset < 1:
            raise ValueError("it names no opset: it is cut off, or no whole model")
        facts = GraphFacts(
            size_bytes=path.stat().st_size + sum(p.stat().st_size for p in set(outside.values())),
            opset=opset,
            params=sum(layer.params for layer in layers),
            operators=dict(sorted(Counter(map(_operator, nodes)).items())),
            layers=sorted(layers, key=lambda layer: (-layer.size_bytes, layer.name)),
        )
    except ValueError as error:
        raise DocumentError(f"{path} is no ONNX model that can be used: {error}") from None
    return facts, sorted(set(outside.values()))


def _layers(graphs: list[onnx.GraphProto], sizes: dict[str, int]) -> list[Layer]:
    """Every node that computes with weights, with what belongs to it."""
    readers: dict[str, list[Any]] = {}
    for graph in graphs:
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
    layers: dict[int, Layer] = {}
    for graph in graphs:
        for weight in _weights(graph, sizes):
            node = _user(weight.name, readers)
            if node is None:
                continue
            known = layers.get(id(node)) or Layer(
                name=node.name or f"{node.op_type} {len(layers)}",
                operator=_operator(node), size_bytes=0, params=0,
            )  # fmt: skip
            params = weight.count if _is_weight(weight.name, readers) else 0
            layers[id(node)] = Layer(
                name=known.name,
                operator=known.operator,
                size_bytes=known.size_bytes + weight.size_bytes,
                params=known.params + params,
            )
    return list(layers.values())


def _require_text(nodes: list[onnx.NodeProto]) -> None:
    """protobuf gives a name that is no UTF-8 as bytes. Raises ValueError for one."""
    for node in nodes:
        if not all(isinstance(text, str) for text in (node.name, node.op_type, node.domain)):
            raise ValueError(
                f"the name of a node is no text: {node.name!r:.80} {node.op_type!r:.80}"
            )


def _operator(node: onnx.NodeProto) -> str:
    """An operator's name, with its domain where that is not ONNX's own."""
    return node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}.{node.op_type}"


def _graphs(graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    """A graph and every graph in it. Raises ValueError where they go too deep."""
    if depth > MOST_DEPTH:
        raise ValueError(f"its graphs lie deeper than {MOST_DEPTH} in one another")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g, depth + 1)
            for inner in attribute.graphs:
                yield from _graphs(inner, depth + 1)


def _weights(graph: onnx.GraphProto, sizes: dict[str, int]) -> Iterator[_Weight]:
    """Every tensor that the graph itself holds, by the name under which nodes read it."""
    for tensor in graph.initializer:
        yield _weight(tensor.name, tensor, sizes)
    for sparse in graph.sparse_initializer:
        parts = [_weight("", part, sizes) for part in (sparse.values, sparse.indices)]
        yield _Weight(sparse.values.name, sum(p.size_bytes for p in parts), parts[0].count)
    for node in graph.node:
        constant = node.op_type == "Constant" and node.attribute and node.output
        if constant and node.attribute[0].HasField("t"):
            yield _weight(node.output[0], node.attribute[0].t, sizes)


def external_files(path: Path, model: onnx.ModelProto) -> list[Path]:
    """The external data files that a graph names, each once. Raises `DocumentError` for one that is missing or lies
    outside the file's folder.
    """
    return sorted(set(_external(path, model).values()))


def _external(path: Path, model: onnx.ModelProto) -> dict[str, Path]:
    """The external data files of a graph by the names that it has for them."""
    names: dict[str, None] = {}
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                names[entry.value] = None
    folder = path.resolve().parent
    found = {}
    for name in names:
        try:
            place = (folder / name).resolve()
            there = place.is_relative_to(folder) and place.is_file()
        except (OSError, TypeError, ValueError):
            there = False
        if not there:
            raise DocumentError(
                f"{path} keeps weights in {name[:200]!r}, which is not beside it: copy the whole model, with the files "
                "that it names."
            )
        found[name] = place
    return found


def _read(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError
    from ontarget.modelfile import fault_of

    try:
        if not 0 < path.stat().st_size <= MOST_FILE_BYTES:
            raise DocumentError(f"{path} is empty, or larger than an ONNX file can be")
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise DocumentError(
                    f"{path} is a Git LFS pointer, not the model: fetch it with  git lfs pull  (lfs: true for "
                    "actions/checkout)"
                )
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise DocumentError(f"{path} does not exist") from None
    except (DecodeError, OSError, ValueError) as error:
        fault = fault_of(path)
        if fault is None or "external data" in fault:
            fault = "it is cut off or damaged"
            fault += f" ({error})" if str(error) else ""
        raise DocumentError(f"{path} is no ONNX model: {fault}") from None
    if not model.HasField("graph") or not model.graph.node:
        raise DocumentError(f"{path} is no ONNX model: it holds no graph")
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a graph and of the graphs in it."""
    for inner in _graphs(graph):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


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


def _weight(name: str, tensor: onnx.TensorProto, sizes: dict[str, int]) -> _Weight:
    """A tensor by its shape and type alone. Raises ValueError where its file holds other than these say."""
    import onnx

    count = 1
    for dim in tensor.dims:
        if dim < 0:
            raise ValueError(f"the tensor {tensor.name[:80]!r} has a size of {dim}")
        count *= dim
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    if kind in _TEXTS:
        return _Weight(name, sum(map(len, tensor.string_data)), count)
    needed = (count * _WIDTHS.get(kind, 8 if kind.startswith("FLOAT8") else 32) + 7) // 8
    held = _held(tensor, sizes)
    if held is not None and held != needed:
        raise ValueError(
            f"the tensor {tensor.name[:80]!r} takes {needed:,} bytes by its shape, and {held:,} are there: it is cut "
            "off or damaged"
        )
    if held is None and count and not _typed(tensor):
        raise ValueError(
            f"the tensor {tensor.name[:80]!r} holds no values: it is cut off or damaged"
        )
    return _Weight(name, needed, count)


def _held(tensor: onnx.TensorProto, sizes: dict[str, int]) -> int | None:
    """Bytes that are there of a tensor's values; `None` for values that protobuf keeps as numbers."""
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return len(tensor.raw_data) if tensor.HasField("raw_data") else None
    where = {entry.key: entry.value for entry in tensor.external_data}
    start, size = int(where.get("offset", "0")), sizes.get(where.get("location", ""), 0)
    end = start + int(where["length"]) if "length" in where else size
    return min(end, size) - start if start >= 0 else -1


def _typed(tensor: onnx.TensorProto) -> bool:
    """Whether protobuf keeps any numbers of a tensor."""
    return any(
        len(getattr(tensor, f"{kind}_data"))
        for kind in ("float", "int32", "int64", "double", "uint64")
    )
