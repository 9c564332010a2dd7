"""One measurement in a process of its own: a request on stdin, a reply as the last line of stdout,
both JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from ontarget.contract import (
    Bundle,
    ContractError,
    Model,
    load_bundle,
    load_golden,
    load_images,
    require_packed,
)
from ontarget.machine import limit_memory, peak_rss_bytes, require_room
from ontarget.measure import measure
from ontarget.opening import open_session, prepare
from ontarget.operators import operator_times
from ontarget.preprocess import to_input
from ontarget.session import ProviderError, SessionError


def main() -> int:
    """Serve the one request of stdin. A fault of the bundle or the provider is a reply, not a
    traceback.
    """
    request = json.loads(sys.stdin.read())
    try:
        reply = {"ok": True, "row": bench_one(request)}
    except (ContractError, SessionError) as error:
        code = 3 if isinstance(error, ProviderError) and error.fell_back else 2
        reply = {"ok": False, "text": str(error), "exit_code": code}
    except MemoryError:
        reply = {"ok": False, "text": "out of memory", "exit_code": 3}
    print("\n" + json.dumps(reply, allow_nan=False), flush=True)
    return 0


def bench_one(request: dict[str, Any]) -> dict[str, Any]:
    """The row of one model on one provider with one count of threads, measured in this very
    process.
    """
    bundle = load_bundle(request["bundle"])
    model = bundle.model(request["model"])
    digest = require_packed(model)
    if request["provider"] == "cpu":
        limit_memory()
    inputs, source = _inputs(bundle, model, request)
    prepare(request["provider"])
    empty = peak_rss_bytes()
    started = time.perf_counter()
    session = open_session(
        model, request["provider"], request["threads"], True, request.get("engine")
    )
    load_s = time.perf_counter() - started
    with session:
        result = measure(
            lambda: session.run(inputs),
            min_seconds=request["min_seconds"],
            min_runs=request["min_runs"],
            warmup_seconds=request["warmup_seconds"],
            max_seconds=request["max_seconds"],
            load_s=load_s,
        )
        provider, threads = session.provider, session.threads
        peak = peak_rss_bytes()
    operators = None
    if request.get("operators"):
        operators = operator_times(model, inputs, request["provider"], request["threads"])
    row = {
        "model": model.name,
        "file": model.file,
        "sha256": digest,
        "runtime": session.runtime,
        "runtime_version": session.version,
        "provider": provider,
        "threads": threads,
        "batch": len(inputs),
        "inputs": source,
        "p50_s": result.p50_s,
        "p90_s": result.p90_s,
        "p99_s": result.p99_s,
        "mean_s": result.mean_s,
        "max_s": result.max_s,
        "n": result.n,
        "samples_s": [round(sample, 9) for sample in result.samples_s],
        "load_s": load_s,
        "first_run_s": result.first_run_s,
        "peak_rss_bytes": None if peak is None or empty is None else peak - empty,
        "empty_rss_bytes": empty,
        "cv": result.cv,
        "drift": result.drift,
        "stable": result.stable,
        "warnings": list(result.warnings),
    }
    if operators is not None:
        row["operators"] = operators
    return row


def _inputs(bundle: Bundle, model: Model, request: dict[str, Any]) -> Any:
    """One batch of real images as the graph takes them, and where they come from."""
    batch = request["batch"]
    fixed = model.input.shape[0]
    if fixed is not None and fixed != batch:
        raise ContractError(
            f"{model.file} takes batches of {fixed} only, not of {batch}: use --batch {fixed}."
        )
    require_room(batch, bundle.preprocess.crop, np.dtype(model.input.dtype).itemsize)
    if request["images"]:
        pixels, source = load_images(request["images"], bundle.preprocess.crop), "given images"
    else:
        pixels, source = load_golden(bundle)[0], "golden images"
    chosen = np.arange(batch) % len(pixels)
    return to_input(np.array(pixels[chosen]), model, bundle.preprocess), source
