"""One measurement in a process of its own: a request on stdin, a reply as the last line of stdout,
both JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ontarget import power
from ontarget.conditions import between, look
from ontarget.contract import (
    Bundle,
    ContractError,
    Model,
    load_bundle,
    load_golden,
    load_images,
    require_packed,
)
from ontarget.machine import affinity, limit_memory, peak_rss_bytes, require_room
from ontarget.measure import Measurement, Timing, measure
from ontarget.opening import ENGINE, open_session, prepare
from ontarget.operators import operator_times, placement
from ontarget.percentiles import PERCENTILES
from ontarget.preprocess import to_input
from ontarget.session import PROVIDERS, ProviderError, Session, SessionError
from ontarget.whole import EndToEnd, pictures


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
    bundle, timing = load_bundle(request["bundle"]), Timing(**request["timing"])
    model, provider = bundle.model(request["model"]), request["provider"]
    digest = require_packed(model)
    if provider == "cpu":
        limit_memory()
    inputs, source = inputs_of(bundle, model, request["batch"], request["images"])
    encoded: list[bytes] = []
    if request["end_to_end"]:
        encoded, source = pictures(bundle, _folder(request["pictures"]))
    prepare(provider)
    empty = peak_rss_bytes()
    started = time.perf_counter()
    session = open_session(model, provider, request["threads"], True, request.get("engine"))
    load_s = time.perf_counter() - started
    with session:
        whole = EndToEnd(session, model, bundle, encoded) if encoded else None
        run: Callable[[], object] = whole or session.bound(inputs)
        before = look()
        result = measure(run, timing)
        parts = whole.medians(result.n) if whole else {}
        after, notes = between(before, look())
        session.run(inputs)  # what was timed has the shape that it should have
        peak, ran = peak_rss_bytes(), _runs_on(session)
        energy = _energy(run) if request["energy"] else None
    placed = _placed(model, inputs, request) if provider != ENGINE else {}
    row = {
        "model": model.name,
        "file": model.file,
        "sha256": digest,
        **ran,
        "batch": len(inputs),
        "inputs": source,
        "tier": timing.tier,
        "arrival": "back_to_back" if timing.fps is None else "paced",
        "fps": timing.fps,
        "scope": "end_to_end" if whole else "model",
        "parts_s": parts,
        **_times(result),
        "load_s": load_s,
        "peak_rss_bytes": None if peak is None or empty is None else peak - empty,
        "empty_rss_bytes": empty,
        "placement": placed,
        "energy": energy,
        "before": {**before.shown, "busy": None},
        "after": after,
        "stable": False if notes else result.stable,
        "warnings": [*result.warnings, *notes],
    }
    if request.get("operators"):
        row["operators"] = operator_times(model, inputs, provider, request["threads"])
    return row


def _runs_on(session: Session) -> dict[str, Any]:
    return {
        "runtime": session.runtime,
        "runtime_version": session.version,
        "provider": session.provider,
        "threads": session.threads,
        "affinity": affinity(),
    }


def _times(result: Measurement) -> dict[str, Any]:
    """What the samples say, and they themselves."""
    quantiles = np.quantile(result.samples_s, np.linspace(0, 1, 101))
    return {
        **{name + "_s": result.upper.get(name) for name, _ in PERCENTILES},
        "low": result.lower,
        "mean_s": result.mean_s,
        "max_s": result.max_s,
        "quantiles_s": [round(float(value), 9) for value in quantiles],
        "n": result.n,
        "late": result.late,
        "samples_s": [round(sample, 9) for sample in result.samples_s],
        "first_run_s": result.first_run_s,
        "warmup_runs": result.warmup_runs,
        "warmup_s": result.warmup_s,
        "cv": result.cv,
        "drift": result.drift,
    }


def _energy(run: Callable[[], object]) -> dict[str, Any] | None:
    meter = power.sensor()
    found = power.energy_of(run, meter) if meter is not None else None
    return None if found is None else asdict(found)


def _placed(model: Model, inputs: np.ndarray, request: dict[str, Any]) -> dict[str, int]:
    """Nodes by provider. Raises ProviderError where any of them went to the CPU and should not have."""
    wanted = PROVIDERS[request["provider"]]
    if request["provider"] == "cpu" and request["timing"]["tier"] == "quick":
        return {}
    placed = placement(model, inputs, request["provider"], request["threads"])
    strangers = placed.get(PROVIDERS["cpu"], 0) if request["provider"] != "cpu" else 0
    if strangers:
        raise ProviderError(
            f"{strangers} of {sum(placed.values())} nodes of {model.file} ran on the CPU and not on {wanted}: the "
            "time would be that of both. Use --provider cpu, or another model of the bundle.",
            fell_back=True,
        )
    return placed


def _folder(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def inputs_of(
    bundle: Bundle, model: Model, batch: int, images: str | None = None
) -> tuple[np.ndarray, str]:
    """One batch of real images as the graph takes them, and where they come from.

    Raises ContractError where the graph takes batches of another size only.
    """
    fixed = model.input.shape[0]
    if fixed is not None and fixed != batch:
        raise ContractError(
            f"{model.file} takes batches of {fixed} only, not of {batch}: use --batch {fixed}."
        )
    require_room(batch, bundle.preprocess.crop, np.dtype(model.input.dtype).itemsize)
    if images:
        pixels, source = load_images(images, bundle.preprocess.crop), "given images"
    else:
        pixels, source = load_golden(bundle)[0], "golden images"
    chosen = np.arange(batch) % len(pixels)
    return to_input(np.array(pixels[chosen]), model, bundle.preprocess), source
