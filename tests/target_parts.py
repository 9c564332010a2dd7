"""Candidates, kept measurements and graphs that several tests build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper
from ontarget.machine import machine

from edgedistill.result import Candidate
from edgedistill.target.measured import AnchorRow, FittedModel, Measured, fingerprint


def make_candidate(**facts: Any) -> Candidate:
    """A candidate that fits; `facts` change or add fields."""
    asked: dict[str, Any] = {
        "model": "mobilenetv2_100",
        "input_size": 96,
        "precision": "float32",
        "pretrained": False,
        "params": 1,
        "macs": 1,
        "size_bytes": 1,
        "fits": "safe",
        "reason": "",
    }
    return Candidate(**(asked | facts))


def make_measured(
    device: str, kernel_s: float, precisions: Sequence[str] = ("float32",), **machine_facts: str
) -> Measured:
    """A measurement of this machine on which a network takes `kernel_s` seconds a kernel."""
    model = FittedModel(
        seconds={"kernels": kernel_s},
        band=(0.9, 1.1),
        median_error=0.05,
        p90_error=0.1,
        n=26,
        macs=(1e6, 1e9),
    )
    row = AnchorRow(model="resnet18", input_size=96, precision="float32", latency_s=1e-3, error=0.1)
    return Measured(
        device=device,
        created_utc="2026-01-01T00:00:00Z",
        version="0",
        fingerprint=fingerprint(machine()) | machine_facts,
        runtime="onnxruntime",
        threads=1,
        models=dict.fromkeys(precisions, model),
        anchors=[row],
    )


def make_onnx(
    nodes: Sequence[onnx.NodeProto],
    stored: Sequence[onnx.TensorProto],
    image: Sequence[int | str] = (1, 3, 8, 8),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model from `x`, of shape `image`, to `y`; nothing is checked."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, image)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(stored),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
