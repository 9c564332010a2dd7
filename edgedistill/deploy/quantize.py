"""INT8 for the runtime that the device uses. There is no one INT8 file: what is fast on x86, TensorRT cannot read.

    x86         uint8 activations, int8 weights per channel (onnxruntime's fastest kernels), weights of 7 bits: without
                VNNI these kernels add two products at 16 bits and saturate
    arm         the same with weights of 8 bits
    tensorrt    int8 both, symmetric, no quantized bias, convolutions and matrix products only
                (its parser refuses DequantizeLinear on an int32 bias)

For onnxruntime means over maps and hard gates are written as what it has INT8 kernels for (`kernels.py`).

The classifier stays in float where that costs little: one weight that is large for a feature that is nearly always 0
takes the precision of all others of its class. Calibration images come from the training split only.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgedistill.deploy.kernels import add_gates, gates, pool_maps
from edgedistill.deploy.onnx import sealed
from edgedistill.deploy.ranges import MERGED, observe, ranges
from edgedistill.target.students import HEAD_SHARE

WIDER = 3
"""Bytes more of a weight in float than in INT8."""


def options_for(flavour: str) -> dict[str, Any]:
    """How onnxruntime's quantizer makes the file of a flavour; `operators` of `None`: all that it knows."""
    from onnxruntime.quantization import QuantType

    if flavour == "tensorrt":
        return {
            "activation_type": QuantType.QInt8,
            "weight_type": QuantType.QInt8,
            "reduce_range": False,
            "operators": ["Conv", "Gemm"],
            "extra": {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"],
            },
        }
    return {
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "reduce_range": flavour == "x86",
        "operators": None,
        "extra": {},
    }


def kept_in_float(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that no INT8 file has in INT8."""
    return [*_before_first_product(model), *_small_classifier(model)]


def _before_first_product(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that prepare the pixels, the normalisation among them: they stay in float.

    Quantized, they rounded the pixels twice more, and took longer than the network itself at 224 px.
    """
    names: list[str] = []
    for node in model.graph.node:
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        normalises = group == 3 and all(
            a.ints == [1, 1] for a in node.attribute if a.name == "kernel_shape"
        )
        if node.op_type in ("Conv", "Gemm", "MatMul") and not normalises:
            break
        names.append(node.name)
    return names


def _small_classifier(model: onnx.ModelProto) -> list[str]:
    """The name of the last matrix product, where it is little of the file."""
    weights = {t.name: math.prod(t.dims) for t in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type in ("Gemm", "MatMul")]
    if not products or products[-1].input[1] not in weights:
        return []
    more = WIDER * weights[products[-1].input[1]]
    return [products[-1].name] if more <= HEAD_SHARE * sum(weights.values()) else []


def prepared(float32: bytes) -> onnx.ModelProto:
    """The graph that is observed and quantized: as the runtime would run it, with all shapes written down."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="edgedistill-int8-") as name, _quiet():
        source, ready = Path(name) / "float32.onnx", Path(name) / "ready.onnx"
        source.write_bytes(float32)
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        return onnx.load(str(ready))


def quantized(
    model: onnx.ModelProto,
    limits: Mapping[str, tuple[float, float]],
    flavour: str,
    metadata: Mapping[str, str],
    float_nodes: Sequence[str] = (),
    only: Sequence[str] = (),
) -> bytes:
    """The INT8 file of a prepared graph with the range of each tensor; the same bytes for the same arguments.

    `float_nodes` stay in float; with `only`, all others do.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if onnxruntime := flavour != "tensorrt":
        pool_maps(copy)
    kept = [*kept_in_float(copy), *float_nodes]
    options = options_for(flavour)
    found = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in limits.items()
    }
    if onnxruntime:
        whole = TensorData(lowest=np.float32(0), highest=np.float32(1))
        found |= dict.fromkeys(gates(copy), whole)
    for node in copy.graph.node:
        if node.op_type in MERGED and node.output[0] in found:
            found.setdefault(node.input[0], found[node.output[0]])
    with _quiet():
        quantizer = QDQQuantizer(
            copy, True, options["reduce_range"], options["weight_type"], options["activation_type"],
            TensorsData(CalibrationMethod.MinMax, found),
            list(only), kept, options["operators"] or sorted({*QLinearOpsRegistry, *QDQRegistry}),
            options["extra"],
        )  # fmt: skip
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    proto = quantizer.model.model
    if onnxruntime:
        add_gates(proto)
    proto.producer_name, proto.producer_version = "edgedistill", ""
    return sealed(proto, metadata)


def quantize(
    float32: bytes,
    calibration: npt.NDArray[Any],
    flavour: str,
    method: str,
    metadata: Mapping[str, str],
) -> bytes:
    """The INT8 file of a float32 one by one method alone. `calibration` holds model inputs (N, ...)."""
    if not len(calibration):
        raise ValueError("calibration needs images")
    model = prepared(float32)
    return quantized(model, ranges(observe(model, calibration), method), flavour, metadata)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's quantizer says on the way what it does; none of it is for the user."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
