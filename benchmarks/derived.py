"""From fitted data sets to the models of the device profiles: direct where the runtime is ours, carried over elsewhere.

B, C   the board's own table with TensorRT
D      the same board with another runtime: the geometric mean of its runtimes; the band is what runtimes differ by
E      another board: rates and bandwidth by the ratio of dense peaks and of memory bandwidths, overhead as found on
       the nearest relative (it follows no data sheet), and a factor of two to three either way
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.pooled import Problem, blend_weights, fit_plain, fit_typed
from benchmarks.published import LEAST_NETS, PLAIN_NAMES, TYPED_NAMES, DataSet, family
from edgedistill.target.device import Device, device_names, load_profile_facts

Floats = npt.NDArray[np.float64]
Model = dict[str, Any]

CPU_POOLS = ("TFLite ruy", "XNNPACK", "ArmNN", "ncnn CPU")
COVERAGE = 0.9
FAMILY_NAMES = {
    "mobilenet_v1": "mobilenetv1", "mobilenet_v2": "mobilenetv2", "mobilenet_v3": "mobilenetv3",
    "efficientnet_b": "efficientnet", "regnety": "regnet",
}  # fmt: skip
STUDENTS = {
    "mobilenet_v1_1.0_224": "mobilenetv1_100", "mobilenet_v2_0.5_224": "mobilenetv2_050",
    "mobilenet_v2_1.0_224": "mobilenetv2_100", "mobilenet_v2_1.4_224": "mobilenetv2_140",
    "tv:mobilenet_v2": "mobilenetv2_100", "tv:mnasnet1_0": "mnasnet_100", "tv:resnet18": "resnet18",
    "mobilenet_v3_large_1.0_224": "mobilenetv3_large_100", "mobilenet_v3_large_0.75_224": "tf_mobilenetv3_large_075",
    "mobilenet_v3_large_min_1.0_224": "tf_mobilenetv3_large_minimal_100",
    "mobilenet_v3_small_1.0_224": "mobilenetv3_small_100", "mobilenet_v3_small_0.75_224": "mobilenetv3_small_075",
    "mobilenet_v3_small_min_1.0_224": "tf_mobilenetv3_small_minimal_100",
    "efficientnet_lite0": "tf_efficientnet_lite0", "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2", "efficientnet_lite3": "tf_efficientnet_lite3",
    "timm:efficientnet_b0": "efficientnet_b0", "timm:regnety_002": "regnety_002", "timm:regnety_004": "regnety_004",
    "timm:regnety_006": "regnety_006", "timm:mobilenetv4_conv_small_224": "mobilenetv4_conv_small",
}  # fmt: skip


@dataclass(frozen=True)
class Pick:
    """Data sets by device, start of the runtime, precision, and threads where several were published."""

    device: str
    runtime: str
    precision: str
    threads: str | None = None

    def takes(self, one: DataSet) -> bool:
        """Whether a data set is meant."""
        return (
            one.device.startswith(self.device)
            and one.runtime.startswith(self.runtime)
            and one.precision.startswith(self.precision)
            and self.threads in (None, one.threads)
        )


@dataclass(frozen=True)
class Carried:
    """A profile's precision from data sets of its own board, or (`other`) of a related one."""

    device: str
    precision: str
    picks: tuple[Pick, ...]
    factor: float = 1.0
    other: str = ""


def _tflite(
    profile: str, board: str, *runtimes: str, other: str = "", factor: float = 1.0
) -> list[Carried]:
    pairs = (("float32", "fp32"), ("int8", "int8"))
    return [
        Carried(profile, ours, tuple(Pick(board, r, theirs) for r in runtimes), factor, other)
        for ours, theirs in pairs
    ]


DIRECT = (
    ("jetson-nano", "float16", Pick("jetson-nano", "torch2trt", "fp16")),
    ("jetson-agx-xavier", "float16", Pick("jetson-agx-xavier", "torch2trt", "fp16")),
    ("jetson-xavier-nx", "float16", Pick("jetson-xavier-nx", "TensorRT hw", "fp16")),
    ("t4", "float16", Pick("t4", "TensorRT hw", "fp16")),
)
CARRIED = (
    *_tflite("raspberry-pi-3", "rpi3", "TFLite 2.7.1"),
    *_tflite("raspberry-pi-4", "rpi4b", "TFLite 2.7.1", "ArmNN"),
    *_tflite("rk3588", "rk3588s (Firefly)", "TFLite 2.11"),
    *_tflite(
        "raspberry-pi-5",
        "rk3588s (Firefly)",
        "TFLite 2.11",
        other="RK3588S, four of the same cores",
    ),
    *_tflite("graviton3", "aws-m7g", "TFLite xnnpack"),
    *_tflite("laptop-x86", "ryzen5-5625u", "TFLite xnnpack"),
    *_tflite(
        "x86-cpu", "aws-c5.4xlarge", "TFLite xnnpack", other="a server processor with AVX-512"
    ),
    Carried("raspberry-pi-zero-2w", "float32", (Pick("rpi-zero2w", "ncnn-cpu", "fp32", "4"),)),
    Carried(
        "raspberry-pi-zero-2w",
        "int8",
        (Pick("rpi3", "TFLite 2.7.1", "int8"),),
        1.2,
        "Raspberry Pi 3 by clock",
    ),
    Carried("intel-n5105", "float32", (Pick("intel-n5105", "ncnn-cpu", "fp32", "4"),)),
    Carried("intel-n5105", "int8", (Pick("intel-n5105", "ncnn-cpu", "int8", "4"),)),
    Carried(
        "intel-n100",
        "float32",
        (Pick("intel-n5105", "ncnn-cpu", "fp32", "4"),),
        0.85,
        "N5105 by clock",
    ),
    Carried(
        "intel-n100",
        "int8",
        (Pick("intel-n5105", "ncnn-cpu", "int8", "4"),),
        0.85,
        "N5105 by clock",
    ),
    Carried(
        "rk3566",
        "float32",
        (Pick("rk3566 (OrangePi CM4)", "ncnn-cpu", "fp16", "4"),),
        1.6,
        "its float16",
    ),
    Carried("rk3566", "int8", (Pick("rk3566 (OrangePi CM4)", "ncnn-cpu", "int8", "4"),)),
    Carried("pixel-4", "float32", (Pick("sd855+", "ncnn-cpu", "fp16", "1"),), 1.6, "its float16"),
    Carried("pixel-4", "int8", (Pick("sd855+", "ncnn-cpu", "int8", "1"),)),
    Carried("pixel-6", "float32", (Pick("pixel6", "TFLite XNNPACK CPU", "int8"),), 2.3, "its INT8"),
    Carried("pixel-6", "int8", (Pick("pixel6", "TFLite XNNPACK CPU", "int8"),)),
    Carried(
        "pixel-8",
        "float32",
        (Pick("pixel6", "TFLite XNNPACK CPU", "int8"),),
        1.9,
        "INT8 of Pixel 6",
    ),
    Carried("pixel-8", "int8", (Pick("pixel6", "TFLite XNNPACK CPU", "int8"),), 0.85, "Pixel 6"),
)
ORIN_OVERHEAD_S = 30e-6
"""Overhead a kernel of Orin Nano and NX: as on Xavier NX and AGX Xavier, since it follows no data sheet."""
AGX_ORIN_OVERHEAD_S = 17e-6
"""Left of EfficientViT-B2 on AGX Orin (mit-han-lab/efficientvit@33e23b0) with scaled rates; MobileViT-S leaves 10."""
SERVER_OVERHEAD_S = 8.8e-6
"""As fitted on a T4 host (super-gradients model_zoo.md@e0ccacf)."""
SCALED = {
    "jetson-orin-nano-4gb": ORIN_OVERHEAD_S, "jetson-orin-nano-8gb": ORIN_OVERHEAD_S,
    "jetson-orin-nano-4gb-super": ORIN_OVERHEAD_S, "jetson-orin-nano-8gb-super": ORIN_OVERHEAD_S,
    "jetson-orin-nx-8gb": ORIN_OVERHEAD_S, "jetson-orin-nx-16gb": ORIN_OVERHEAD_S,
    "jetson-orin-nx-16gb-super": ORIN_OVERHEAD_S, "jetson-agx-orin-32gb": AGX_ORIN_OVERHEAD_S,
    "jetson-agx-orin-64gb": AGX_ORIN_OVERHEAD_S, "l4": SERVER_OVERHEAD_S, "jetson-tx2": 73e-6,
}  # fmt: skip
E_BAND = (1 / 3, 2.0)
FLOAT32_BAND = (1 / 3, 2.5)


def models(data: Problem, bands: Mapping[str, Floats], when: str) -> dict[str, Any]:
    """The document of models that ships."""
    known = data.there
    plain, typed = fit_plain(data, known), fit_typed(data, known)
    weight = blend_weights(data, known, 0)
    made = Maker(data, plain, typed.terms, typed.by_group, weight, bands)
    rows = [made.direct(*one) for one in DIRECT] + [made.carried(one) for one in CARRIED]
    rows += made.scaled()
    devices = set(device_names())
    assert all(row["device"] in devices for row in rows)
    rows.sort(key=lambda row: (row["device"], row["precision"]))
    return {"schema": "edgedistill.latency/1", "fitted": when, "models": rows}


@dataclass(frozen=True)
class Maker:
    """Rows of the table from what was fitted."""

    data: Problem
    plain: Floats
    typed: Floats
    by_group: Floats
    weight: Floats
    bands: Mapping[str, Floats]

    def direct(self, device: str, precision: str, pick: Pick) -> Model:
        """A board's own table with our runtime."""
        (i,) = self._find((pick,))
        one = self.data.sets[i]
        few = len(one.nets) < LEAST_NETS
        halves = {tier: float(self.bands[tier][i]) for tier in ("B", "C")}
        if any(math.isnan(h) for h in halves.values()):
            halves = dict.fromkeys(halves, math.log(2))
        halves["C"] = max(halves.values())
        return {
            **self._row(device, precision, [i]),
            "bands": {tier: _band(half) for tier, half in halves.items()},
            "tier": "C" if few else "B",
            "unseen_tier": "C",
            "words": "",
            "n": len(one.nets),
        }

    def carried(self, one: Carried) -> Model:
        """A board whose table is of another runtime, or a relative of it."""
        chosen = self._find(one.picks)
        half = self.between_runtimes()
        row = self._row(one.device, one.precision, chosen, one.factor)
        runtimes = ", ".join(sorted({self.data.sets[i].pool for i in chosen}))
        where = f"from {one.other}" if one.other else "on the same processor"
        tier = "E" if one.other else "D"
        return {
            **row,
            "bands": {tier: _band(half * (1.2 if one.other else 1.0))},
            "tier": tier,
            "unseen_tier": tier,
            "families": [],
            "words": f"carried over from {runtimes} {where}; runtimes differ by a factor of {math.exp(half):.1f}",
            "n": max(len(self.data.sets[i].nets) for i in chosen),
        }

    def scaled(self) -> list[Model]:
        """NVIDIA boards without a table: rates of AGX Xavier by dense peak and bandwidth, a relative's overhead."""
        (base,) = self._find((DIRECT[1][2],))
        xavier = load_profile_facts("jetson-agx-xavier")
        _, per_mac, per_byte = self.plain[base]
        rows = []
        for name, own in SCALED.items():
            device = load_profile_facts(name)
            rows += self._scaled_device(device, xavier, own, per_mac, per_byte)
        for name in ("jetson-nano", "jetson-agx-xavier", "jetson-xavier-nx", "t4"):
            device = load_profile_facts(name)
            if device.launch_overhead_s is not None:
                made = self._scaled_device(
                    device, xavier, device.launch_overhead_s, per_mac, per_byte
                )
                rows += [row for row in made if row["precision"] != "float16"]
        return rows

    def _scaled_device(
        self, device: Device, xavier: Device, overhead: float, per_mac: float, per_byte: float
    ) -> list[Model]:
        gpu, base = device.accelerator, xavier.accelerator
        assert gpu and base and base.dense_float16_flops and gpu.dense_float16_flops
        assert device.memory_bytes_per_s and xavier.memory_bytes_per_s and gpu.dense_float32_flops
        half = per_mac * base.dense_float16_flops / gpu.dense_float16_flops
        moved = per_byte * xavier.memory_bytes_per_s / device.memory_bytes_per_s
        rates = {
            "float16": half,
            "int8": half,
            "float32": half * gpu.dense_float16_flops / gpu.dense_float32_flops,
        }
        widths = {"float16": 2, "int8": 2, "float32": 4}  # Q/DQ gains nothing on mobile networks
        words = "scaled from AGX Xavier by dense peak and bandwidth; the overhead of a kernel is that of a relative"
        return [
            {
                "device": device.name,
                "runtime": "tensorrt",
                "precision": precision,
                "threads": None,
                "power_mode": device.power_mode,
                "components": [{
                    "seconds": {
                        "kernels": overhead,
                        "macs": _short(rates[precision]),
                        "elements": _short(moved * widths[precision]),
                    },
                    "weight": 1.0,
                }],
                "offsets": {},
                "families": [],
                "macs": None,
                "bands": {"E": list(FLOAT32_BAND if precision == "float32" else E_BAND)},
                "tier": "E",
                "unseen_tier": "E",
                "words": words,
                "n": 0,
                "sources": ["NVIDIA-AI-IOT/torch2trt@4e820ae (AGX Xavier)"],
            }
            for precision in device.precisions
        ]  # fmt: skip

    def between_runtimes(self) -> float:
        """What two runtimes differ by on one processor and precision: 90 % of log ratios over their common networks."""
        logs: list[float] = []
        cpu = [
            i
            for i, s in enumerate(self.data.sets)
            if s.pool in CPU_POOLS and "1.15" not in s.runtime
        ]
        for i, j in itertools.combinations(cpu, 2):
            a, b = self.data.sets[i], self.data.sets[j]
            if a.board != b.board or a.width != b.width or a.pool == b.pool:
                continue
            if "1" in (a.threads, b.threads):
                continue
            other = dict(zip(b.nets, b.seconds, strict=True))
            logs += [
                abs(math.log(s / other[n]))
                for n, s in zip(a.nets, a.seconds, strict=True)
                if n in other
            ]
        return float(np.quantile(logs, COVERAGE))

    def _find(self, picks: Sequence[Pick]) -> list[int]:
        found = []
        for pick in picks:
            hits = [i for i, one in enumerate(self.data.sets) if pick.takes(one)]
            assert len(hits) == 1, (pick, [self.data.sets[i].label for i in hits])
            found += hits
        return found

    def _row(
        self, device: str, precision: str, chosen: Sequence[int], factor: float = 1.0
    ) -> Model:
        components, offsets, weights = [], {}, []
        for i in chosen:
            one, typed = self.data.sets[i], float(self.weight[i])
            wide = [1.0, 1.0, float(one.width)]
            plain = dict(zip(PLAIN_NAMES, (self.plain[i] * wide * factor).tolist(), strict=True))
            kinds = dict(
                zip(
                    TYPED_NAMES,
                    (self.typed[i] * [1, 1, 1, 1, one.width] * factor).tolist(),
                    strict=True,
                )
            )
            components += [_component(plain, 1 - typed), _component(kinds, typed)]
            weights.append(typed)
        if len(chosen) == 1:
            offsets = self._offsets(chosen[0], weights[0])
        first = self.data.sets[chosen[0]]
        macs = [
            float(np.exp(0) * self.data.plain[i, : len(self.data.sets[i].nets), 1].max())
            for i in chosen
        ]
        least = [float(self.data.plain[i, : len(self.data.sets[i].nets), 1].min()) for i in chosen]
        return {
            "device": device,
            "runtime": first.runtime,
            "precision": precision,
            "threads": int(first.threads) if first.threads.isdigit() else None,
            "power_mode": None,
            "components": components,
            "offsets": offsets,
            "families": sorted({FAMILY_NAMES.get(family(n), family(n)) for n in first.nets}),
            "macs": [min(least), max(macs)],
            "sources": sorted({self.data.sets[i].source for i in chosen}),
        }

    def _offsets(self, i: int, typed: float) -> dict[str, float]:
        """Factors by student and family, as other boards of the runtime show them."""
        shown = self.by_group[self.data.group[i]]
        factors = {}
        for place, net in enumerate(self.data.nets):
            if net in STUDENTS and shown[place]:
                factors[STUDENTS[net]] = math.exp(typed * shown[place])
        for place, name in enumerate(self.data.families):
            value = shown[len(self.data.nets) + place]
            if value:
                factors[FAMILY_NAMES.get(name, name)] = math.exp(typed * value)
        return {
            name: round(factor, 3)
            for name, factor in sorted(factors.items())
            if abs(factor - 1) >= 0.01
        }


def _component(seconds: Mapping[str, float], weight: float) -> dict[str, Any]:
    return {
        "seconds": {k: _short(v) for k, v in seconds.items() if v > 0},
        "weight": round(weight, 3),
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _band(half: float) -> list[float]:
    return [round(math.exp(-half), 3), round(math.exp(half), 3)]
