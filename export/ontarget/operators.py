"""Where the time of a model goes: seconds of every operator, where the runtime tells them.

ONNX Runtime writes a trace of each run. Timing every operator costs some microseconds each, so
these times say where a latency comes from; how long it is, an undisturbed session says.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import numpy as np

from ontarget.contract import Model
from ontarget.session import OrtSession

RUNS = 25
SUFFIX = "_kernel_time"


def operator_times(
    model: Model, inputs: np.ndarray, provider: str, threads: int, runs: int = RUNS
) -> list[dict[str, Any]]:
    """Median seconds of each operator over `runs` runs after one that is not counted.

    Each is `{"name", "operator", "seconds"}`, in the order in which they ran; the names are those
    of ONNX Runtime, which come from the nodes and tensors of the file. Raises SessionError.
    """
    events = _trace(model, inputs, provider, threads, runs)
    times: dict[str, list[float]] = {}
    operators: dict[str, str] = {}
    for name, event in events:
        times.setdefault(name, []).append(float(event["dur"]) * 1e-6)
        operators[name] = str(event["args"]["op_name"])
    return [
        {
            "name": name,
            "operator": operators[name],
            "seconds": float(np.median(seconds[1:] or seconds)),
        }
        for name, seconds in times.items()
    ]


def placement(model: Model, inputs: np.ndarray, provider: str, threads: int) -> dict[str, int]:
    """How many nodes of the graph, as the runtime planned it, ran on each provider. Raises SessionError."""
    found: dict[str, set[str]] = {}
    for name, event in _trace(model, inputs, provider, threads, 0):
        found.setdefault(str(event["args"].get("provider", "unknown")), set()).add(name)
    return {key: len(names) for key, names in sorted(found.items())}


def _trace(
    model: Model, inputs: np.ndarray, provider: str, threads: int, runs: int
) -> list[tuple[str, dict[str, Any]]]:
    """Every run of every node, by its name, of `runs` + 1 runs of the model."""
    with tempfile.TemporaryDirectory(prefix="ontarget-") as folder:
        prefix = os.path.join(folder, "trace")
        with OrtSession(model, provider, threads, trace=prefix) as session:
            for _ in range(runs + 1):
                session.run(inputs)
            path = session.end_trace()
        with open(path, encoding="utf-8") as file:
            events = json.load(file)
    return [
        (str(event["name"])[: -len(SUFFIX)], event)
        for event in events
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(SUFFIX)
    ]
