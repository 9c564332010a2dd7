"""Export: one ONNX file that takes pixels, checked after each step against the torch model on real images.

torch's TorchScript exporter (`dynamo=False`) is used on purpose: the newer one leaves opset 18 where 17 is asked for.
Dynamic "same" padding is fixed to the input size first and then folded into the convolutions; onnxslim takes out what
is constant (dangling constants, the shape arithmetic of attention).
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnxslim
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from edgedistill.folding import folded
from edgedistill.nets import Look

INPUT_NAME = "images"
OUTPUT_NAME = "logits"
CONTENT = "edgedistill.content_sha256"
"""The metadata's key of `content_hash`."""
SHAPE_ARITHMETIC = ("Cast", "Concat", "ConstantOfShape", "Reshape", "Slice", "Transpose")


class _Deployed(nn.Module):
    """The network as it ships: takes uint8 pixels (N, S, S, 3), or float images (N, 3, S, S) already normalised.

    The normalisation is a convolution of one pixel and one channel: a product and a sum with three numbers fall into
    onnxruntime's slowest kind of broadcast once its INT8 layout puts channels last.
    """

    def __init__(self, model: nn.Module, look: Look, layout: str) -> None:
        super().__init__()
        self.model, self.layout = model, layout
        scale, shift = look.scale_and_shift()
        self.register_buffer("scale", scale.view(3, 1, 1, 1))
        self.register_buffer("shift", shift.flatten())

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "uint8_nhwc":
            x = x.float().permute(0, 3, 1, 2)
            x = F.conv2d(x, self.scale, self.shift, groups=3)  # type: ignore[arg-type]
        logits: Tensor = self.model(x)
        return logits


def export_float32(
    model: nn.Module, look: Look, layout: str, opset: int, metadata: Mapping[str, str]
) -> bytes:
    """The float32 ONNX file of a network, dynamic in the batch, weights inside, BatchNorm folded.

    Raises `AssertionError` when the exporter leaves another opset than asked for.
    """
    net = _Deployed(folded(model, look.size), look, layout).eval()
    module: Any
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # the exporter has no such operator before opset 14
    if layout == "uint8_nhwc":
        image = torch.zeros(2, look.size, look.size, 3, dtype=torch.uint8)
    else:
        image = torch.zeros(2, 3, look.size, look.size)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (image,), file, dynamo=False, opset_version=opset,  # type: ignore[arg-type]
            input_names=[INPUT_NAME], output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "N"}, OUTPUT_NAME: {0: "N"}},
        )  # fmt: skip
    proto = onnx.load_model_from_string(file.getvalue())
    assert opset_of(proto) == opset, f"asked for opset {opset}, got {opset_of(proto)}"
    fold_padding(proto.graph)
    _pin_shapes(proto, layout, look.size)
    proto = onnxslim.slim(proto)
    proto.doc_string = ""
    proto.producer_name, proto.producer_version = "edgedistill", ""
    return sealed(proto, metadata)


def opset_of(proto: onnx.ModelProto) -> int:
    """The opset of the standard operators that a file really has."""
    return next(int(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx"))


def fold_padding(graph: onnx.GraphProto) -> int:
    """Merge every zero padding that only one convolution reads into that convolution; returns how many."""
    values = _constants(graph)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    folded = 0
    for pad in [n for n in graph.node if n.op_type == "Pad"]:
        users = readers.get(pad.output[0], [])
        pads = _spatial_pads(pad, values)
        if pads is None or len(users) != 1 or users[0].op_type != "Conv":
            continue
        conv = users[0]
        own = next((a for a in conv.attribute if a.name == "pads"), None)
        merged = [a + b for a, b in zip(list(own.ints) if own else [0] * 4, pads, strict=True)]
        if own is not None:
            conv.attribute.remove(own)
        conv.attribute.append(onnx.helper.make_attribute("pads", merged))
        conv.input[0] = pad.input[0]
        graph.node.remove(pad)
        folded += 1
    drop_unread(graph)
    return folded


def _constants(graph: onnx.GraphProto) -> dict[str, Any]:
    """Every value that does not depend on the input: constants, and the small arithmetic on them."""
    values: dict[str, Any] = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type in SHAPE_ARITHMETIC and all(n in values or not n for n in node.input):
            run = ReferenceEvaluator(node).run(None, {n: values[n] for n in node.input if n})
            values[node.output[0]] = run[0]
    return values


def _spatial_pads(pad: onnx.NodeProto, values: Mapping[str, Any]) -> list[int] | None:
    """`[top, left, bottom, right]` of a constant zero padding of an image, else `None`."""
    mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
    if mode != b"constant" or len(pad.input) < 2 or pad.input[1] not in values:
        return None
    if len(pad.input) > 2 and pad.input[2] and np.any(values.get(pad.input[2], 1)):
        return None
    pads = [int(v) for v in values[pad.input[1]]]
    if len(pads) != 8 or any(pads[i] for i in (0, 1, 4, 5)) or min(pads) < 0:
        return None
    return [pads[2], pads[3], pads[6], pads[7]]


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes and initialisers that nothing reads, back to front."""
    wanted = {o.name for o in graph.output}
    for node in reversed(list(graph.node)):
        if any(name in wanted for name in node.output):
            wanted.update(node.input)
        else:
            graph.node.remove(node)
    for tensor in [t for t in graph.initializer if t.name not in wanted]:
        graph.initializer.remove(tensor)


def _pin_shapes(proto: onnx.ModelProto, layout: str, size: int) -> None:
    """Write the full input and output shapes; the batch is free and called N."""
    image = [size, size, 3] if layout == "uint8_nhwc" else [3, size, size]
    for value, dims in ((proto.graph.input[0], image), (proto.graph.output[0], None)):
        shape = value.type.tensor_type.shape
        shape.dim[0].Clear()
        shape.dim[0].dim_param = "N"
        for dim, length in zip(shape.dim[1:], dims or [], strict=False):
            dim.Clear()
            dim.dim_value = length


def fixed_batch(data: bytes, batch: int) -> bytes:
    """The same file for batches of `batch` images alone, for runtimes and accelerators that want static shapes."""
    proto = onnx.load_model_from_string(data)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        dim.dim_value = batch
    del proto.graph.value_info[:]
    return sealed(proto, {prop.key: prop.value for prop in proto.metadata_props})


def to_float16(float32: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same graph computing in float16; pixels stay uint8 (a float input becomes float16), logits float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto = onnx.load_model_from_string(float32)
    layout_is_float = proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        half = convert_float_to_float16(proto, keep_io_types=[OUTPUT_NAME], op_block_list=[])
    if layout_is_float:
        kind = half.graph.input[0].type.tensor_type.elem_type
        assert kind == onnx.TensorProto.FLOAT16, "a float input becomes float16"
    return sealed(half, metadata)


def content_hash(proto: onnx.ModelProto) -> str:
    """The sha256 of a model without its metadata: graph, weights and opsets."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.metadata_props[:]
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def sealed(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The checked model with its metadata, as bytes; the same model always gives the same bytes."""
    used = {node.domain for node in proto.graph.node}
    for entry in [o for o in proto.opset_import if o.domain not in used]:
        proto.opset_import.remove(entry)
    del proto.metadata_props[:]
    proto = onnx.shape_inference.infer_shapes(proto)
    about = {**metadata, CONTENT: content_hash(proto)}
    onnx.helper.set_model_props(proto, dict(sorted(about.items())))
    onnx.checker.check_model(proto, full_check=True)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
