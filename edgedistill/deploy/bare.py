"""A bare ONNX file as the smallest bundle, so that the kit can time it: an image classifier of anybody's, no weights
read by anything but the runtime.

Its pixels are noise and its classes have numbers for names: such a bundle says how fast a file is, and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ontarget.contract import ContractError, load_bundle
from ontarget.facts import Preprocess

from edgedistill.deploy.bundle import Packed, write_bundle
from edgedistill.errors import DocumentError
from edgedistill.result import Precision
from edgedistill.rundir import Work, now_utc

if TYPE_CHECKING:
    import onnx

IMAGES = 4
MOST_SIDE, MOST_CLASSES = 2048, 100_000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TAKES = (
    "edgedistill times image classifiers with one input, float (N, 3, S, S) or uint8 or int8 (N, S, S, 3), and one "
    "output (N, classes)"
)
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger")


def bare_bundle(file: Path, folder: Path) -> Path:
    """Write a bundle of the ONNX file into `folder` and return it, `folder/bundle`.

    External data goes into the one file. Raises `DocumentError` for what is no image classifier in ONNX.
    """
    from google.protobuf.message import EncodeError

    model = _whole(file)
    try:
        item, size, classes = _packed(file, model)
    except (ValueError, EncodeError) as error:
        raise DocumentError(f"{file} is no ONNX model: {str(error)[:200]}") from None
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    work = Work(folder / "bundle")
    work.folder.mkdir(parents=True, exist_ok=True)
    write_bundle(
        work, name=file.stem[:200] or "model", device="unknown", created_utc=now_utc(),
        classes=[f"class {i}" for i in range(classes)], preprocess=Preprocess(size, size, MEAN, STD),
        models=[item], chosen=item.name, golden_pixels=pixels, golden_logits={},
        licences={"teacher": None, "student": None, "data": None}, golden_words="noise",
    )  # fmt: skip
    try:
        load_bundle(work.folder)
    except ContractError as error:
        raise DocumentError(f"{file} cannot be timed by the kit: {error}") from None
    return work.folder


def _whole(file: Path) -> Any:
    """The model with all its weights in it."""
    import onnx
    from google.protobuf.message import DecodeError
    from ontarget.modelfile import fault_of

    from edgedistill.deploy.graphs import external_files

    try:
        model = onnx.load(str(file), load_external_data=False)
        external_files(file, model)
        return onnx.load(str(file))
    except FileNotFoundError:
        raise DocumentError(f"{file} does not exist") from None
    except (DecodeError, OSError, ValueError) as error:
        raise DocumentError(f"{file} is no ONNX model: {fault_of(file) or error}") from None


def _packed(file: Path, model: onnx.ModelProto) -> tuple[Packed, int, int]:
    """The file as the manifest names it, the side of its image, and how many classes."""
    import onnx

    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in held]
    outputs = list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise DocumentError(f"{file} has {len(inputs)} inputs and {len(outputs)} outputs; {TAKES}.")
    (given, dtype), (out, _) = _sizes(inputs[0]), _sizes(outputs[0])
    if len(given) != 4 or len(out) != 2 or not out[1]:
        raise DocumentError(f"{file} takes {given} and gives {out}; {TAKES}.")
    layout = {"UINT8": "uint8_nhwc", "INT8": "int8_nhwc"}.get(dtype, "float_nchw")
    image = given[1:] if layout == "float_nchw" else [given[3], *given[1:3]]
    known = ("UINT8", "INT8", "FLOAT", "FLOAT16")
    if image[0] != 3 or not image[1] or image[1] != image[2] or dtype not in known:
        raise DocumentError(f"{file} takes {dtype.lower()} of {given}; {TAKES}.")
    if not (0 < image[1] <= MOST_SIDE and 0 < out[1] <= MOST_CLASSES and given[0] >= 0):
        raise DocumentError(
            f"{file} takes {given} and gives {out}: at most {MOST_SIDE:,} pixels a side and {MOST_CLASSES:,} "
            "classes are timed."
        )
    names = (inputs[0].name, outputs[0].name)
    if not all(isinstance(name, str) for name in names):
        raise DocumentError(f"{file} is no ONNX model: the name of its input or output is no text")
    operators = {node.op_type for node in model.graph.node}
    stored = {onnx.TensorProto.DataType.Name(t.data_type) for t in model.graph.initializer}
    precision: Precision = "float32"
    if operators & set(_QUANTIZED):
        precision = "int8"
    elif dtype == "FLOAT16" or "FLOAT16" in stored:
        precision = "float16"
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    item = Packed(
        precision, model.SerializeToString(), precision, "onnxruntime", opset, layout,
        batch=given[0] or None, tensors=names,
        input_type={"FLOAT": "float32", "FLOAT16": "float16"}.get(dtype),
    )  # fmt: skip
    return item, int(image[1]), int(out[1])


def _sizes(value: Any) -> tuple[list[int], str]:
    """Sizes of an input or output, 0 for a free one, and its type."""
    import onnx

    kind = value.type.tensor_type
    sizes = [d.dim_value if d.HasField("dim_value") else 0 for d in kind.shape.dim]
    return sizes, onnx.TensorProto.DataType.Name(kind.elem_type)
