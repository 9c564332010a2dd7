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

from benchmarks.bands import COVERAGE
from benchmarks.blend import blend_weights
from benchmarks.picks import CARRIED, DIRECT, FAMILY_NAMES, SCALED, STUDENTS, Carried, Pick
from benchmarks.pooled import Problem, fit_plain, fit_typed
from benchmarks.published import LEAST_NETS, PLAIN_NAMES, TYPED_NAMES, family
from edgedistill.target.device import Device, device_names, load_profile_facts

Floats = npt.NDArray[np.float64]
Model = dict[str, Any]

CPU_POOLS = ("TFLite ruy", "XNNPACK", "ArmNN", "ncnn CPU")

E_BAND = (1 / 3, 2.0)
FLOAT32_BAND = (1 / 3, 2.5)


def models(
    data: Problem, bands: Mapping[str, Floats], widening: float, when: str
) -> dict[str, Any]:
    """The document of models that ships."""
    known = data.there
    plain, typed = fit_plain(data, known), fit_typed(data, known)
    weight = blend_weights(data, known, 0)
    made = Maker(data, plain, typed.terms, typed.by_group, weight, bands, widening)
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
    widening: float

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
            "widening": round(self.widening, 3),
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
                    "offsets": {},
                }],
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
        components = []
        for i in chosen:
            width, typed = self.data.sets[i].width, float(self.weight[i])
            plain = self.plain[i] * [1, 1, width] * factor
            kinds = self.typed[i] * [1, 1, 1, 1, width] * factor
            components += [
                _component(PLAIN_NAMES, plain, 1 - typed, {}),
                _component(TYPED_NAMES, kinds, typed, self._offsets(i)),
            ]
        first = self.data.sets[chosen[0]]
        macs = [self.data.plain[i, : len(self.data.sets[i].nets), 1] for i in chosen]
        return {
            "device": device,
            "runtime": first.runtime,
            "precision": precision,
            "threads": int(first.threads) if first.threads.isdigit() else None,
            "power_mode": None,
            "components": components,
            "families": sorted({FAMILY_NAMES.get(family(n), family(n)) for n in first.nets}),
            "macs": [min(float(m.min()) for m in macs), max(float(m.max()) for m in macs)],
            "sources": sorted({self.data.sets[i].source for i in chosen}),
        }

    def _offsets(self, i: int) -> dict[str, float]:
        """Factors by student and family, as other boards of the runtime show them."""
        shown = self.by_group[self.data.group[i]]
        factors = {}
        for place, net in enumerate(self.data.nets):
            if net in STUDENTS and shown[place]:
                factors[STUDENTS[net]] = math.exp(shown[place])
        for place, name in enumerate(self.data.families):
            value = shown[len(self.data.nets) + place]
            if value:
                factors[FAMILY_NAMES.get(name, name)] = math.exp(value)
        return {
            name: round(factor, 3)
            for name, factor in sorted(factors.items())
            if abs(factor - 1) >= 0.01
        }


def _component(
    names: Sequence[str], seconds: Floats, weight: float, offsets: Mapping[str, float]
) -> dict[str, Any]:
    pairs = zip(names, seconds.tolist(), strict=True)
    return {
        "seconds": {name: _short(value) for name, value in pairs if value > 0},
        "weight": round(weight, 3),
        "offsets": offsets,
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _band(half: float) -> list[float]:
    return [round(math.exp(-half), 3), round(math.exp(half), 3)]
