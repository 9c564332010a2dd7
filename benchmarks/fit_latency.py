"""Fits the latency terms of the device profiles on published measurements, and prints them.

    latency = overhead * kernels + MACs / rate + bytes / bandwidth

by non-negative least squares on the relative error. A row that the first fit misses by more than a
factor of two is dropped once, and counted. Errors are leave-one-out over the rows kept. Needs
scipy; both tables are given as paths:

    python benchmarks/fit_latency.py published_latency.csv model_costs.csv
"""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Rows = list[dict[str, str]]
Array = NDArray[np.float64]

# device, runtime, precision of the table, bytes an element
SETS = (
    ("rpi4b", "TFLite 2.7.1 (ruy)", "fp32", 4),
    ("rpi4b", "TFLite 2.7.1 (ruy)", "int8", 1),
    ("rk3588s (Firefly)", "TFLite 2.11 (ruy)", "fp32", 4),
    ("rk3588s (Firefly)", "TFLite 2.11 (ruy)", "int8", 1),
    ("aws-c5.4xlarge", "TFLite xnnpack (cTuning)", "fp32", 4),
    ("aws-c5.4xlarge", "TFLite xnnpack (cTuning)", "int8", 1),
    ("jetson-nano", "torch2trt TensorRT", "fp16", 2),
    ("jetson-agx-xavier", "torch2trt TensorRT", "fp16", 2),
    ("jetson-xavier-nx", "TensorRT hw (no IO)", "fp16", 2),
)
NAMES = {
    "mobilenet_v3_large": "mobilenet_v3_large_1.0_224",
    "mobilenet_v3_small": "mobilenet_v3_small_1.0_224",
    "regnetY200": "timm:regnety_002",
    "regnetY400": "timm:regnety_004",
    "regnetY600": "timm:regnety_006",
    "efficientnet_b0": "timm:efficientnet_b0",
}
# Published latencies of AGX Orin (TensorRT, fp16) that have known costs.
ORIN_ANCHORS = (
    ("efficientvit_b2", "224", "timm:efficientvit_b2_224"),
    ("mobilevit_s", "256", "timm:mobilevit_s_256"),
)


@dataclass(frozen=True)
class Fit:
    """Seconds a kernel, a MAC and a byte (zero where the fit found none), and the errors."""

    terms: Array
    n: int
    dropped: int
    errors: Array


def cost_key(model: str) -> str:
    """Name in the table of costs of a name in the table of latencies."""
    if m := re.match(r"mobilenet-v([12])-(?:precision_\w+?-)?([\d.]+)-(\d+)", model):
        return f"mobilenet_v{m[1]}_{m[2]}_{m[3]}"
    if m := re.match(r"efficientnet-(?:\w+-)?lite(\d)", model):
        return f"efficientnet_lite{m[1]}"
    pattern = (
        r"mobilenet-v3-(?:precision_\w+?-)?(large|small)(-minimalistic)?(?:-224|_224_([\d.]+))"
    )
    if m := re.match(pattern, model):
        return f"mobilenet_v3_{m[1]}_{'min_' if m[2] else ''}{m[3] or '1.0'}_224"
    return NAMES.get(model, "tv:" + model.removesuffix("_bn"))


def design(cost: dict[str, str], width: int) -> list[float]:
    """Kernels, MACs and bytes of one network."""
    elements = float(cost["act_elems_M"]) + float(cost["params_M"])
    return [float(cost["layers"]), float(cost["macs_M"]) * 1e6, elements * 1e6 * width]


def solve(a: Array, y: Array) -> Array:
    """Non-negative terms that minimise the squared relative error."""
    scale = a.max(axis=0)
    terms, _ = nnls((a / scale) / y[:, None], np.ones(len(y)))
    return np.asarray(terms / scale)


def fit(a: Array, y: Array) -> Fit:
    """Fit, drop what is off by more than a factor of two, fit again; errors are leave-one-out."""
    ratio = a @ solve(a, y) / y
    keep = (ratio > 0.5) & (ratio < 2)
    a, y = a[keep], y[keep]
    held = [np.arange(len(y)) != i for i in range(len(y))]
    errors = [abs(a[i] @ solve(a[m], y[m]) / y[i] - 1) for i, m in enumerate(held)]
    return Fit(solve(a, y), len(y), int((~keep).sum()), np.array(errors))


def show(label: str, result: Fit) -> None:
    """One line: terms and errors."""
    overhead, per_mac, per_byte = result.terms
    rate = f"{1e-9 / per_mac:8.1f} GMAC/s" if per_mac else "   no rate term"
    bandwidth = f"{1e-9 / per_byte:7.2f} GB/s" if per_byte else "no bandwidth term"
    median, p90 = np.quantile(result.errors, [0.5, 0.9])
    print(
        f"{label:58} n={result.n} dropped={result.dropped}  {overhead * 1e6:5.1f} us/kernel  "
        f"{rate}  {bandwidth}  error median {median:.0%} p90 {p90:.0%}"
    )


def orin_overhead(latencies: Rows, costs: dict[str, dict[str, str]]) -> None:
    """Overhead left on AGX Orin, with rate and bandwidth scaled from AGX Xavier by data sheets."""
    rate, bandwidth = 4.3e12 * 42.6 / 11.3, 90e9 * 204.8 / 136.5
    for model, size, key in ORIN_ANCHORS:
        for row in latencies:
            same = (row["device"], row["model"], row["input_size"]) == (
                "jetson-agx-orin",
                model,
                size,
            )
            if same and row["precision"].startswith("fp16"):
                kernels, macs, moved = design(costs[key], 2)
                rest = float(row["latency_ms"]) / 1e3 - macs / rate - moved / bandwidth
                print(f"AGX Orin, {model} {size}: {rest / kernels * 1e6:.1f} us/kernel")


def main(latency_path: Path, cost_path: Path) -> None:
    """Print every fit."""
    with latency_path.open(newline="") as file:
        latencies = list(csv.DictReader(file))
    with cost_path.open(newline="") as file:
        costs = {row["key"]: row for row in csv.DictReader(file)}
    for device, runtime, precision, width in SETS:
        rows = [
            (costs[cost_key(r["model"])], float(r["latency_ms"]) / 1e3)
            for r in latencies
            if (r["device"], r["runtime"], r["precision"]) == (device, runtime, precision)
            and cost_key(r["model"]) in costs
            and not (r["model"].startswith("densenet") and "xavier" in device)
        ]
        a = np.array([design(cost, width) for cost, _ in rows])
        show(f"{device}, {runtime}, {precision}", fit(a, np.array([y for _, y in rows])))
    orin_overhead(latencies, costs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
