"""Published latencies as data sets: which rows are of networks whose cost is known, by board and runtime.

Nothing published is kept in this project: the table is given as a path, and only what was fitted on it is shipped.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Costs = Mapping[str, Mapping[str, str]]

LEAST_NETS = 12
LEAST_FOR_POOL = 5
SAME_NETS = {
    "mobilenet_v3_large": "mobilenet_v3_large_1.0_224",
    "mobilenet_v3_small": "mobilenet_v3_small_1.0_224",
    "regnetY200": "timm:regnety_002",
    "regnetY400": "timm:regnety_004",
    "regnetY600": "timm:regnety_006",
    "efficientnet_b0": "timm:efficientnet_b0",
    "V1-1.0x": "mobilenet_v1_1.0_224",
    "V2-1.0x": "mobilenet_v2_1.0_224",
    "MNv4-Conv-S": "timm:mobilenetv4_conv_small_224",
    "MNv4-Conv-L": "timm:mobilenetv4_conv_large_384",
    "MNv4-Hybrid-M": "timm:mobilenetv4_hybrid_medium_256",
    "FastViT-T8": "timm:fastvit_t8_256",
    "MIT-EfficientViT-B1": "timm:efficientvit_b1_224",
}
FAMILIES = (
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "mobilenetv4", "efficientnet_lite"),
    *("efficientnet_b", "resnet", "vgg", "densenet", "shufflenet_v2", "shufflenet", "mnasnet"),
    *("squeezenet", "regnety", "mobileone", "efficientvit", "fastvit", "repvit"),
)
BOARDS = re.compile(r"^(rk3588|rk3568|rk3566|rk3399|rpi5|rpi4|rpi3|rtx3090|sd855)")


@dataclass(frozen=True)
class DataSet:
    """Latencies in seconds of one (device, runtime, threads, precision), one a network."""

    device: str
    runtime: str
    threads: str
    precision: str
    nets: tuple[str, ...]
    seconds: Floats
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Device, runtime and precision."""
        return self.device, self.runtime, self.precision

    @property
    def board(self) -> str:
        """The processor: listings of one processor are one board, whatever they are called."""
        first = self.device.split(" ")[0].lower()
        found = BOARDS.match(first)
        return found[1] if found else first

    @property
    def width(self) -> int:
        """Bytes an element."""
        return (
            1
            if self.precision.startswith("int8")
            else 2
            if self.precision.startswith("fp16")
            else 4
        )

    @property
    def pool(self) -> str:
        """Runtimes that behave alike."""
        name = self.runtime
        for start, pool in (("ncnn-cpu", "ncnn CPU"), ("ncnn-vulkan", "ncnn Vulkan")):
            if name.startswith(start):
                return pool
        for part, pool in (("ArmNN", "ArmNN"), ("xnnpack", "XNNPACK"), ("XNNPACK", "XNNPACK")):
            if part in name:
                return pool
        if "TensorRT" in name:
            return "TensorRT"
        return "TFLite ruy" if name.startswith("TFLite") else name

    @property
    def label(self) -> str:
        """For a table."""
        runtime = re.sub(r"\s*\(.*?\)", "", self.runtime)
        return f"{self.device}, {runtime}, {self.precision.split(' ')[0]}"


def family(net: str) -> str:
    """The family of a network by the key of its cost."""
    name = net.split(":")[-1]
    if name == "mobilenet":
        return "mobilenet_v1"
    return next((f for f in FAMILIES if name.startswith(f)), name.split("_")[0])


def cost_key(row: Mapping[str, str], costs: Costs) -> str | None:
    """Key in the table of costs of a row of the table of latencies, `None` where the cost is not known."""
    model, size = row["model"], row["input_size"]
    if row["runtime"].startswith("ncnn"):
        found: str | None = f"ncnn:{model}"
    elif m := re.match(r"mobilenet-v([12])-(?:precision_\w+?-)?([\d.]+)-(\d+)", model):
        found = f"mobilenet_v{m[1]}_{m[2]}_{m[3]}"
    elif m := re.match(r"mobilenet_v([12])_([\d.]+)$", model):
        found = f"mobilenet_v{m[1]}_{m[2]}_{size}"
    elif m := re.match(r"efficientnet-(?:\w+-)?lite(\d)", model):
        found = f"efficientnet_lite{m[1]}"
    elif m := re.match(
        r"mobilenet-v3-(?:precision_\w+?-)?(large|small)(-minimalistic)?(?:-224|_224_([\d.]+))", model
    ):  # fmt: skip
        found = f"mobilenet_v3_{m[1]}_{'min_' if m[2] else ''}{m[3] or '1.0'}_224"
    elif m := re.match(r"mobilenet_v3_(large|small)(_minimalistic)?_([\d.]+)(?:_8bit)?$", model):
        found = f"mobilenet_v3_{m[1]}_{'min_' if m[2] else ''}{m[3]}_224"
    elif model.startswith("resnet50"):
        found = "resnet50"
    else:
        base = model.split(".")[0]
        keys = (
            SAME_NETS.get(model, ""), f"timm:{base}_{size}", f"timm:{base}", f"tv:{model.removesuffix('_bn')}",
        )  # fmt: skip
        found = next((k for k in keys if k in costs), None)
    return found if found in costs else None


def read_costs(path: Path) -> Costs:
    """The table of costs by its keys."""
    with path.open(newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def read_sets(path: Path, costs: Costs, least: int = LEAST_FOR_POOL) -> list[DataSet]:
    """Data sets of batch 1 with at least `least` networks of known cost; rows of one network become their median."""
    groups: dict[tuple[str, str, str, str], dict[str, list[float]]] = defaultdict(dict)
    sources: dict[tuple[str, str, str, str], str] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            net = cost_key(row, costs)
            if row["batch"] != "1" or net is None:
                continue
            key = (row["device"], row["runtime"], row["threads"], row["precision"])
            groups[key].setdefault(net, []).append(float(row["latency_ms"]) / 1e3)
            sources.setdefault(key, row["source"].split(";")[0])
    sets = []
    for key, rows in groups.items():
        if len(rows) >= least:
            nets = tuple(sorted(rows))
            seconds = np.array([np.median(rows[net]) for net in nets])
            sets.append(DataSet(*key, nets, seconds, sources[key]))
    return sets


def plain_features(cost: Mapping[str, str], width: int) -> list[float]:
    """Kernels, MACs and bytes of one network."""
    elements = (float(cost["act_elems_M"]) + float(cost["params_M"])) * 1e6
    return [float(cost["layers"]), float(cost["macs_M"]) * 1e6, elements * width]


def typed_features(cost: Mapping[str, str], width: int) -> list[float]:
    """Kernels, MACs of three kinds (grouped ones and attention count as pointwise), and bytes."""
    mega = {key: float(value) * 1e6 for key, value in cost.items() if key.endswith("_M")}
    pointwise = mega["macs_pw_M"] + mega["macs_grouped_M"] + mega["macs_mm_M"]
    elements = mega["act_elems_M"] + mega["params_M"]
    return [
        float(cost["layers"]),
        pointwise,
        mega["macs_dw_M"],
        mega["macs_dense_M"],
        elements * width,
    ]


PLAIN_NAMES = ("kernels", "macs", "elements")
TYPED_NAMES = ("kernels", "pointwise_macs", "depthwise_macs", "dense_macs", "elements")


def families_of(nets: Sequence[str]) -> list[str]:
    """Families in alphabetical order."""
    return sorted({family(net) for net in nets})
