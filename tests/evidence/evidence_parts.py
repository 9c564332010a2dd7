"""Parts of the sample result: names, pictures, confusion, arms, files, plan."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

from PIL import Image, ImageDraw

from edgedistill.result import Gain, Proportion, Status

CLOTHES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Boot",
)
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</style><script>alert(2)</script>",
    'quote" onmouseover="alert(3)',
    "pipe | and \\| and `tick` ``two``",
    "bidi \u202egnp.exe\u2066 \u200f",
    "line\nbreak\r\ttab \x1b[31m bell\x07",
    "[link](javascript:alert(4)) @someone www.example.org",
    "{{ 7 * 7 }} {% raw %} ${7} $(id)",
    "| --- | **bold** _under_ # head",
    "трусы \u05e9\u05dc\u05d5\u05dd 猫 🥾",
)
_SHAPES = {
    0: [
        (6, 5),
        (11, 4),
        (17, 4),
        (22, 5),
        (26, 11),
        (22, 13),
        (20, 11),
        (20, 25),
        (8, 25),
        (8, 11),
        (6, 13),
        (2, 11),
    ],
    1: [(9, 2), (19, 2), (21, 26), (16, 26), (14, 10), (12, 26), (7, 26)],
    3: [(11, 2), (17, 2), (16, 10), (21, 26), (7, 26), (12, 10)],
    7: [(2, 12), (8, 13), (15, 9), (20, 15), (26, 17), (26, 21), (2, 21)],
    8: [(4, 11), (9, 11), (9, 6), (19, 6), (19, 11), (24, 11), (24, 24), (4, 24)],
    9: [(9, 3), (18, 3), (18, 15), (26, 19), (26, 24), (7, 24)],
}
SHA = "3f" * 32


def wilson(right: int, n: int) -> Proportion:
    """`right` of `n` with the 95 % Wilson interval."""
    share, z = right / n, 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Proportion(value=share, n=n, ci95=(max(0.0, middle - half), min(1.0, middle + half)))


def png(kind: int, size: int = 28) -> str:
    """A small grey picture of a piece of clothing, base64."""
    image = Image.new("L", (size, size), 8)
    shape = _SHAPES.get(kind, _SHAPES[0])
    points = [(x * size / 28, y * size / 28) for x, y in shape]
    ImageDraw.Draw(image).polygon(points, fill=120 + 13 * (kind % 10), outline=230)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def confusion(classes: int, each: int = 200) -> list[list[int]]:
    """Counts with `each` images a class, a few systematic mistakes, and a right diagonal."""
    table = [[0] * classes for _ in range(classes)]
    pairs = {
        (0, 6): 21,
        (6, 0): 25,
        (2, 4): 15,
        (4, 2): 13,
        (6, 2): 14,
        (4, 6): 12,
        (2, 6): 11,
        (9, 7): 6,
        (7, 9): 7,
    }
    for i, row in enumerate(table):
        for j in range(classes):
            if i != j:
                row[j] = pairs.get((i, j), 1 if (i * 7 + j * 3) % 11 == 0 and classes <= 40 else 0)
        row[(i + 1) % classes] += (i * 5) % 7 if classes > 1 else 0
        row[i] = each - (sum(row) - row[i])
    return table


def gain(against: str, value: float, half: float, p: float, words: str) -> Gain:
    """A gain with a symmetric interval."""
    return Gain(
        against=against, value=value, ci95=(value - half, value + half), p_value=p, words=words
    )


def _latency(evidence: str, p50: float, **more: Any) -> dict[str, Any]:
    if evidence == "measured_on_target":
        return {
            **_latency("measured_on_proxy", p50),
            "device": "jetson-orin-nano-8gb",
            "machine": "aarch64, 6 cores",
            "evidence": evidence,
            "runtime": "tensorrt",
            "provider": "TensorRT",
            "n": 1000,
            "p99_s": p50 * 1.31,
            **more,
        }
    if evidence == "predicted":
        return {
            "device": "jetson-orin-nano-8gb",
            "machine": "",
            "runtime": "tensorrt",
            "provider": "TensorRT",
            "threads": 0,
            "batch": 1,
            "evidence": evidence,
            "p50_s": p50,
            "band_s": (p50 * 0.62, p50 * 1.45),
            **more,
        }
    return {
        "device": "host",
        "machine": "x86-64, 2 cores",
        "runtime": "onnxruntime",
        "provider": "CPUExecutionProvider",
        "threads": 1,
        "batch": 1,
        "evidence": evidence,
        "p50_s": p50,
        "p90_s": p50 * 1.07,
        "p99_s": None,
        "n": 412,
        "load_s": 0.0481,
        "first_run_s": p50 * 3.1,
        "peak_rss_bytes": 41_300_000,
        "stable": True,
        "samples": "stages/08-bench/samples.json",
        **more,
    }


def conditions(celsius: float, **more: Any) -> dict[str, Any]:
    """A machine at one moment."""
    return {
        "temperature_c": celsius,
        "cpu_clock_hz": 1_510_400_000,
        "gpu_clock_hz": 624_750_000,
        "governor": "schedutil",
        "power_mode": "15W",
        "busy": 0.021,
        **more,
    }


def quantiles(p50: float, tail: float = 2.2) -> list[float]:
    """The 0th to 100th percentiles of a skewed time with a second mode and a slowest run of `tail` times the median."""
    body = [p50 * (0.93 + 0.0014 * k + (0.12 if k > 88 else 0.0)) for k in range(98)]
    return [*body, p50 * 1.31, p50 * (1 + tail) / 2, p50 * tail]


def measured_fully(p50: float, n: int = 1000, **more: Any) -> dict[str, Any]:
    """What a kit says that keeps all that there is to know of a measurement."""
    seen = quantiles(p50)
    return {
        "p50_s": p50 * 1.004,
        "p90_s": p50 * 1.181,
        "p95_s": p50 * 1.192,
        "p99_s": p50 * 1.63 if n >= 662 else None,
        "low": {"p50": p50 * 0.997, "p90": p50 * 1.172, "p95": p50 * 1.186},
        "n": n,
        "mean_s": p50 * 1.021,
        "max_s": seen[-1],
        "quantiles_s": seen,
        "tier": "default",
        "inputs": "random bytes",
        "warmup_runs": 64,
        "warmup_s": 0.31,
        "affinity": [0, 1],
        "placement": {"CPUExecutionProvider": 65},
        "before": conditions(48.1),
        "after": conditions(51.36, cpu_clock_hz=1_497_600_000, throttled=["soft thermal limit"]),
        "cv": 0.018,
        "drift": -0.0042,
        **more,
    }


def layers(precision: str) -> list[dict[str, Any]]:
    """A file's layers, the largest first; INT8 calls its first convolution otherwise, and has scales."""
    width = {"float32": 4, "float16": 2, "int8": 1}[precision]
    names = [f"/model/blocks/blocks.{i}/blocks.{i}.{i % 3}/conv_pw/Conv" for i in range(1, 18)]
    sizes = [410_880, 307_520, 222_336, *[154_560 // (k + 1) for k in range(13)], 864]
    found = [
        {"name": name, "operator": "Conv", "size_bytes": params * width + 64, "params": params}
        for name, params in zip(names, sizes, strict=True)
    ]
    if precision == "int8":
        found[-1]["name"] = "/input/Conv"
        found.append({"name": "/model/Add", "operator": "Add", "size_bytes": 18, "params": 0})
    return found


def artifacts(
    status: Status, n: int, top1: Proportion, recall: list[float | None]
) -> list[dict[str, Any]]:
    common = {
        "sha256": SHA,
        "opset": 17,
        "input": "uint8_nhwc",
        "per_class_recall": recall,
        "val_top1": 0.889,
    }
    parity = {
        "max_rel": 2.1e-6,
        "cosine": 1.0,
        "top1_agreement": 1.0,
        "n": 256,
        "against": "torch float32",
    }
    board = "predicted" if status == "unconfirmed" else "measured_on_target"
    lower = wilson(round(top1.value * n) - 7, n)
    return [
        {
            **common,
            "name": "float32",
            "path": "bundle/model.float32.onnx",
            "size_bytes": 15_234_112,
            "runtime": "onnxruntime",
            "precision": "float32",
            "top1": top1,
            "balanced_accuracy": top1.value,
            "parity": {**parity, "max_abs": 1.9e-5},
            "layers": layers("float32"),
            "latency": [
                _latency("predicted", 0.0019),
                _latency(
                    "measured_on_proxy",
                    0.0046,
                    **measured_fully(0.0046, 412, stable=False, warnings=["it got slower"]),
                ),
                _latency(
                    "measured_on_proxy",
                    0.0113,
                    **measured_fully(
                        0.0113,
                        412,
                        arrival="paced",
                        fps=30.0,
                        late=2,
                        scope="end_to_end",
                        parts_s={"decode": 0.0041, "resize": 0.0019, "run": 0.0047},
                    ),
                ),
            ],
            "eligible": False,
            "reason": "Larger than the limit of 8 MB; the reference for the others.",
        },
        {
            **common,
            "name": "float16",
            "layers": layers("float16"),
            "path": "bundle/model.float16.onnx",
            "size_bytes": 7_642_881,
            "runtime": "tensorrt",
            "precision": "float16",
            "top1": top1,
            "balanced_accuracy": top1.value,
            "parity": {**parity, "max_abs": 0.0121},
            "drop": gain("float32", 0.0, 0.0009, 1.0, "no measurable drop"),
            "latency": [
                _latency(board, 0.0012)
                if board == "predicted"
                else _latency(
                    board,
                    0.0012,
                    **measured_fully(
                        0.0012,
                        placement={"TensorrtExecutionProvider": 62, "CPUExecutionProvider": 3},
                        energy={
                            "source": "INA3221, VDD_IN",
                            "joules": 0.0094,
                            "watts": 7.81,
                            "idle_watts": 4.36,
                        },
                    ),
                ),
                _latency(
                    "measured_on_proxy",
                    0.0089,
                    stable=False,
                    warnings=["variation 4.1 % is above 2.5 %"],
                ),
            ],
            "reason": "The natural file for the device: half the size, no measurable drop.",
        },
        {
            **common,
            "name": "int8",
            "layers": layers("int8"),
            "per_class_recall": [
                None
                if value is None
                else min(1.0, max(0.0, value - 0.005 * (i % 4) + 0.005 * (i % 5 == 4)))
                for i, value in enumerate(recall)
            ],
            "path": "bundle/model.int8.onnx",
            "size_bytes": 4_088_230,
            "runtime": "tensorrt",
            "precision": "int8",
            "top1": lower,
            "balanced_accuracy": lower.value,
            "parity": {**parity, "max_abs": 1.84, "top1_agreement": 0.9648},
            "drop": gain("float32", -7 / n, 0.0041, 0.118, "no measurable drop"),
            "latency": [_latency("measured_on_proxy", 0.0027, n=40, p90_s=None)],
            "reason": "Smaller, but not expected to be faster on this device.",
        },
    ]


def _candidate(
    model: str, px: int, precision: str, fits: str, top1: float, **more: Any
) -> dict[str, Any]:
    macs = more.get("macs", 190_000_000)
    latency = macs / 1.4e11 + 0.0002
    return {
        "model": model,
        "input_size": px,
        "precision": precision,
        "pretrained": False,
        "params": 2_490_000,
        "macs": macs,
        "size_bytes": 7_640_000,
        "latency_s": latency,
        "latency_band_s": (latency * 0.6, latency * 1.5),
        "memory_bytes": 21_000_000,
        "expected_top1": top1,
        "fits": fits,
        "reason": "Fits every limit with its whole band.",
        **more,
    }


def plan() -> dict[str, Any]:
    return {
        "considered": 44,
        "chosen": _candidate("mobilenetv4_conv_small", 96, "float16", "safe", 0.88),
        "runners_up": [
            _candidate(
                "mobilenetv3_large_100",
                96,
                "float16",
                "safe",
                0.874,
                params=4_210_000,
                size_bytes=8_450_000,
            ),
            _candidate(
                "tf_efficientnet_lite0",
                96,
                "int8",
                "possible",
                0.91,
                macs=410_000_000,
                pretrained=True,
                reason="Only the point of its latency fits, not its band.",
            ),
        ],
        "rejected": [
            _candidate(
                "mobilenetv4_conv_medium",
                128,
                "float16",
                "no",
                0.9,
                size_bytes=19_400_000,
                macs=840_000_000,
                reason="19.4 MB is above the limit of 8 MB.",
            ),
            _candidate(
                "mobilenetv2_140",
                128,
                "float16",
                "no",
                0.89,
                memory_bytes=None,
                latency_s=None,
                latency_band_s=None,
                reason="12.2 MB is above the limit of 8 MB.",
            ),
        ],
        "input_size_reason": "96 px is the smallest size that holds three quarters of the "
        "detail of these images.",
    }
