"""Asks TensorRT-RTX about files, in a process of its own: a builder that dies takes nothing else with it.

python -m edgedistill.deploy.rtx SM BATCH FILE ...     one line of JSON a file on standard output
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

MOST_REASONS = 3


def ask(data: bytes, sm: str, batch: int) -> dict[str, Any]:
    """What the parser and the builder say of an ONNX file, strongly typed, for batches of 1 to `batch`."""
    import tensorrt_rtx as trt

    said: list[str] = []

    class Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                said.append(text)

    found: dict[str, Any] = {"builder": f"TensorRT-RTX {trt.__version__}", "sm": sm}
    listener, began = Listener(), time.monotonic()
    builder = trt.Builder(listener)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, listener)
    if not parser.parse(data):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        return {**found, "reasons": _reasons(errors, said)}
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    capability = getattr(trt.ComputeCapability, f"SM{sm.replace('.', '')}")
    config.set_compute_capability(capability, 0)
    profile = builder.create_optimization_profile()
    source = network.get_input(0)
    first, *image = tuple(source.shape)
    least, most = (1, batch) if first < 0 else (first, first)
    profile.set_shape(source.name, (least, *image), (least, *image), (most, *image))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return {**found, "reasons": said[:MOST_REASONS] or ["the builder made no engine"]}
    return {
        **found,
        "reasons": [],
        "engine_bytes": len(memoryview(engine)),
        "seconds": time.monotonic() - began,
    }


def _reasons(errors: list[Any], said: list[str]) -> list[str]:
    found = [_words(error) for error in errors[:MOST_REASONS]] or said[:MOST_REASONS]
    return found or ["the parser gave no reason"]


def _words(error: Any) -> str:
    return f"{error.node_operator() or 'node'} {error.node_name()}: {error.desc()}"


def main() -> None:
    """Ask about each file, and print what was said."""
    sm, batch, *files = sys.argv[1:]
    for file in files:
        print(json.dumps(ask(Path(file).read_bytes(), sm, int(batch))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
