"""INT8 for the runtime that the device uses. There is no one INT8 file: what is fast on x86, TensorRT cannot read.

    x86         uint8 activations, int8 weights per channel (onnxruntime's fastest kernels), weights of 7 bits: without
                VNNI these kernels add two products at 16 bits and saturate
    arm         the same with weights of 8 bits
    tensorrt    int8 both, symmetric, no quantized bias, convolutions and matrix products only
                (its parser refuses DequantizeLinear on an int32 bias)

The classifier stays in float where that costs little: one weight that is large for a feature that is nearly always 0
takes the precision of all others of its class. Calibration images come from the training split only.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgedistill.deploy.onnx import INPUT_NAME, sealed
from edgedistill.target.students import HEAD_SHARE

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
CALIBRATION_BATCH = 32
WIDER = 3
"""Bytes more of a weight in float than in INT8."""


class _Reader:
    """Feeds calibration batches to onnxruntime, as its `CalibrationDataReader` asks.

    All batches are of one size, because its histogram methods fail on a shorter last one.
    """

    def __init__(self, inputs: npt.NDArray[Any]) -> None:
        self._inputs = inputs
        self._size = next(n for n in range(CALIBRATION_BATCH, 0, -1) if len(inputs) % n == 0)
        self._batches = self._walk()

    def _walk(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        for start in range(0, len(self._inputs), self._size):
            yield {INPUT_NAME: self._inputs[start : start + self._size]}

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        """The next batch, or `None` at the end."""
        return next(self._batches, None)

    def rewind(self) -> None:
        """Start again from the first batch."""
        self._batches = self._walk()


def options_for(flavour: str) -> dict[str, Any]:
    """Arguments of `quantize_static` for a device's `int8_flavour`."""
    from onnxruntime.quantization import QuantFormat, QuantType

    if flavour == "tensorrt":
        return {
            "quant_format": QuantFormat.QDQ,
            "activation_type": QuantType.QInt8,
            "weight_type": QuantType.QInt8,
            "op_types_to_quantize": ["Conv", "Gemm"],
            "extra_options": {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
            },
        }
    return {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "reduce_range": flavour == "x86",
    }


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


def quantize(
    float32: bytes,
    calibration: npt.NDArray[Any],
    flavour: str,
    method: str,
    metadata: Mapping[str, str],
) -> bytes:
    """The INT8 file of a float32 one. `calibration` holds model inputs (N, ...); the result is deterministic."""
    from onnxruntime.quantization import CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not len(calibration):
        raise ValueError("calibration needs images")
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="edgedistill-int8-") as name,
            contextlib.redirect_stdout(io.StringIO()),  # the calibrators print their progress
        ):
            folder = Path(name)
            (folder / "float32.onnx").write_bytes(float32)
            quant_pre_process(
                str(folder / "float32.onnx"), str(folder / "ready.onnx"), skip_symbolic_shape=True
            )
            ready = onnx.load(str(folder / "ready.onnx"))
            quantize_static(
                str(folder / "ready.onnx"),
                str(folder / "int8.onnx"),
                _Reader(np.ascontiguousarray(calibration)),
                per_channel=True,
                nodes_to_exclude=[*_before_first_product(ready), *_small_classifier(ready)],
                calibrate_method=CalibrationMethod[METHODS[method]],
                **options_for(flavour),
            )
            proto = onnx.load(str(folder / "int8.onnx"))
    finally:
        logger.setLevel(level)
    proto.producer_name, proto.producer_version = "edgedistill", ""
    return sealed(proto, metadata)
