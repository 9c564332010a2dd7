"""The students: a shipped table of MobileNet-class networks and what each costs at each size.

`students.json` is made by `benchmarks/make_students.py`. The vocabulary is closed: a network that
is not in the table has no counted cost, so nothing could be promised about it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from edgedistill.errors import UsageError, unknown
from edgedistill.result import Precision
from edgedistill.target.cost import KINDS, Cost
from edgedistill.target.latency import BYTES_PER_ELEMENT

TABLE = "students.json"
INT8_BYTES_PER_KERNEL = 9_500
"""Scales, zero points, wider biases and extra nodes of an INT8 file with one scale a channel.
onnxruntime's quantize_static added 3.5 to 9.2 kB a kernel to six nets; the upper end is taken."""

LOSS_PER_HALVING = 0.08
"""Top-1 that halving the input costs: MobileNetV2 1.0 has 71.8 % at 224, 65.3 % at 128 and 60.3 %
at 96 pixels (table in the Keras documentation of MobileNetV2), which is 0.08 to 0.09 a halving."""
RANDOM_START_LOSS = 0.10
"""What training from random weights costs on small data: on 10,000 images of Fashion-MNIST at 96
px a fine-tuned tf_efficientnet_lite0 reaches 0.921, mobilenetv4_conv_small from random weights
0.825, at nearly equal ImageNet top-1."""
INT8_LOSS = 0.02
"""What planning holds against a candidate that only fits as INT8: that file can still be refused
for its accuracy."""


@dataclass(frozen=True)
class SizeCost:
    """Cost of a student at one input size with the head of the table (1000 classes)."""

    macs_by_kind: Mapping[str, int]
    act_elements: int
    peak_act_elements: int


@dataclass(frozen=True)
class Student:
    """One student of the table.

    `params` counts what is trained with a head of `table_classes`; `stored_elements` is what the
    exported file keeps once batch norms are folded. `imagenet_top1` (a fraction) is the published
    accuracy of the weights `pretrained_tag` at `native_size` pixels. `licence` is that of those
    weights.
    """

    name: str
    family: str
    pretrained_tag: str
    licence: str
    imagenet_top1: float
    native_size: int
    params: int
    stored_elements: int
    weight_elements: int
    feature_dim: int
    layers: int
    graph_bytes: int
    table_classes: int
    sizes: Mapping[int, SizeCost]

    @property
    def head_params_per_class(self) -> int:
        """Weights and one bias."""
        return self.feature_dim + 1

    def params_for(self, classes: int) -> int:
        """Trained parameters with a head of `classes`."""
        return self.params - (self.table_classes - classes) * self.head_params_per_class

    def cost(self, input_size: int, classes: int) -> Cost:
        """Cost of one image of `input_size` pixels a side with a head of `classes`.

        A size between two of the table is interpolated in pixels, one outside scaled from the
        nearest.
        """
        fewer = self.table_classes - classes
        at = self._at(input_size)
        kinds = dict(at.macs_by_kind)
        kinds["fully_connected"] = kinds.get("fully_connected", 0) - fewer * self.feature_dim
        return Cost(
            macs=sum(kinds.values()),
            macs_by_kind=kinds,
            params=self.stored_elements - fewer * self.head_params_per_class,
            weight_elements=self.weight_elements - fewer * self.head_params_per_class,
            act_elements=at.act_elements - fewer,
            layers=self.layers,
            peak_act_elements=at.peak_act_elements,
        )

    def _at(self, size: int) -> SizeCost:
        if size in self.sizes:
            return self.sizes[size]
        below = [s for s in self.sizes if s < size]
        above = [s for s in self.sizes if s > size]
        if below and above:
            low, high = max(below), min(above)
            share = (size**2 - low**2) / (high**2 - low**2)
            return _blend(self.sizes[low], self.sizes[high], share)
        near = max(below) if below else min(above)
        return _scale(self.sizes[near], (size / near) ** 2)

    def size_bytes(self, precision: Precision, classes: int) -> int:
        """Size of the exported file: weights at their width, the graph, and for INT8 its scales."""
        stored = self.cost(max(self.sizes), classes).params
        bytes_ = stored * BYTES_PER_ELEMENT[precision] + self.graph_bytes
        return bytes_ + (INT8_BYTES_PER_KERNEL * self.layers if precision == "int8" else 0)

    def memory_bytes(
        self, precision: Precision, input_size: int, classes: int, runtime_bytes: int | None
    ) -> int | None:
        """Peak memory of a process that runs it: runtime, file, weights, most activations at once.

        The file is held while the weights are unpacked from it, so weights count twice. `None`
        where the runtime's own share is not known.
        """
        if runtime_bytes is None:
            return None
        width = BYTES_PER_ELEMENT[precision]
        activations = self.cost(input_size, classes).peak_act_elements * width
        return runtime_bytes + 2 * self.size_bytes(precision, classes) + activations


def expected_top1(
    student: Student, input_size: int, precision: Precision, *, pretrained: bool
) -> float:
    """A prior that ranks candidates; it promises nothing about the user's images.

    ImageNet top-1 of the published weights, less `LOSS_PER_HALVING` for each halving of their
    input size, less `RANDOM_START_LOSS` from random weights, less `INT8_LOSS` in INT8; a fraction
    in 0..1.
    """
    prior = student.imagenet_top1
    prior -= LOSS_PER_HALVING * max(0.0, math.log2(student.native_size / input_size))
    prior -= 0.0 if pretrained else RANDOM_START_LOSS
    prior -= INT8_LOSS if precision == "int8" else 0.0
    return min(max(prior, 0.0), 1.0)


def _blend(low: SizeCost, high: SizeCost, share: float) -> SizeCost:
    def mid(a: int, b: int) -> int:
        return round(a + (b - a) * share)

    return SizeCost(
        {k: mid(v, high.macs_by_kind[k]) for k, v in low.macs_by_kind.items()},
        mid(low.act_elements, high.act_elements),
        mid(low.peak_act_elements, high.peak_act_elements),
    )


def _scale(cost: SizeCost, factor: float) -> SizeCost:
    """Work on the map grows with its pixels; the fully connected part does not."""
    return SizeCost(
        {
            k: v if k == "fully_connected" else round(v * factor)
            for k, v in cost.macs_by_kind.items()
        },
        round(cost.act_elements * factor),
        round(cost.peak_act_elements * factor),
    )


@cache
def load_students() -> tuple[Student, ...]:
    """All students of the table, in its order."""
    text = resources.files("edgedistill.target").joinpath(TABLE).read_text("utf-8")
    table = json.loads(text)
    return tuple(_student(row, table["classes"]) for row in table["students"])


def _student(row: Mapping[str, Any], classes: int) -> Student:
    sizes = {
        int(size): SizeCost(
            macs_by_kind={kind: int(cost.get(kind, 0)) for kind in KINDS},
            act_elements=int(cost["act_elements"]),
            peak_act_elements=int(cost["peak_act_elements"]),
        )
        for size, cost in row["sizes"].items()
    }
    facts = {key: value for key, value in row.items() if key != "sizes"}
    return Student(**facts, table_classes=classes, sizes=sizes)


def table_sizes() -> tuple[int, ...]:
    """Input sizes of the table in pixels, ascending."""
    return tuple(sorted({size for student in load_students() for size in student.sizes}))


def find_student(name: str) -> Student:
    """The student of that name.

    Raises `UsageError` with the nearest name, also for a timm name outside the table.
    """
    students = {student.name: student for student in load_students()}
    if name not in students:
        raise UsageError(unknown("student", name, students))
    return students[name]
