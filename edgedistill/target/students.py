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

import numpy as np
import numpy.typing as npt

from edgedistill.errors import UsageError, unknown
from edgedistill.result import Precision
from edgedistill.target.cost import Cost, cost_of_graph
from edgedistill.target.features import features_of, summed
from edgedistill.target.kernels import COLUMNS, KernelTable, kernel_of, table_of
from edgedistill.target.latency import BYTES_PER_ELEMENT, Network

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TABLE = "students.json"
INT8_BYTES_PER_KERNEL = 9_500
"""Scales, zero points, wider biases and extra nodes of an INT8 file with one scale a channel.
onnxruntime's quantize_static added 3.5 to 9.2 kB a kernel to six nets; the upper end is taken."""

HEAD_SHARE = 0.1
"""The classifier of an INT8 file stays in float where that adds at most this share to the weights."""

_MACS, _WRITTEN, _WEIGHTS, _CHANNELS_OUT, _PIXELS = (
    COLUMNS.index(name) for name in ("macs", "written", "weights", "channels_out", "pixels")
)
_GROWING = [COLUMNS.index(name) for name in ("macs", "read", "written", "pixels")]


@dataclass(frozen=True)
class SizeCost:
    """A student at one input size: its kernels as places in the table, in the order they run."""

    kernels: tuple[int, ...]
    peak_act_elements: int


@dataclass(frozen=True, eq=False)
class Student:
    """One student of the table.

    `params` counts what is trained with a head of `table_classes`; `stored_elements` is what the
    exported file keeps once branches are merged and batch norms folded. `imagenet_top1` (a
    fraction) is the published accuracy of the weights `pretrained_tag` at `native_size` pixels.
    `licence` is that of those weights. `operators` are those of the ONNX graph.
    """

    name: str
    family: str
    pretrained_tag: str
    licence: str
    imagenet_top1: float
    native_size: int
    params: int
    head_params_per_class: int
    stored_elements: int
    feature_dim: int
    graph_bytes: int
    operators: frozenset[str]
    table_classes: int
    sizes: Mapping[int, SizeCost]

    @property
    def layers(self) -> int:
        """Kernels at the largest size of the table."""
        return len(self.sizes[max(self.sizes)].kernels)

    def params_for(self, classes: int) -> int:
        """Trained parameters with a head of `classes`."""
        return self.params - (self.table_classes - classes) * self.head_params_per_class

    def stored_for(self, classes: int) -> int:
        """Numbers in the exported file with a head of `classes`."""
        return self.stored_elements - (self.table_classes - classes) * (self.feature_dim + 1)

    def rows(self, input_size: int, classes: int) -> Ints:
        """Kernels at `input_size` pixels a side with a head of `classes`, shape (N, columns).

        A size that the table lacks is scaled from the nearest: work on a map grows with its
        pixels, work on a vector does not.
        """
        near = self._nearest(input_size)
        rows = kernel_table().rows[list(self.sizes[near].kernels)].copy()
        if near != input_size:
            on_a_map = rows[:, _PIXELS] > 1
            factor = (input_size / near) ** 2
            grown = np.rint(rows[:, _GROWING] * factor).astype(np.int64)
            rows[:, _GROWING] = np.where(on_a_map[:, None], grown, rows[:, _GROWING])
        head = rows[-1]
        fewer = self.table_classes - classes
        head[_MACS] -= fewer * self.feature_dim
        head[_WEIGHTS] -= fewer * (self.feature_dim + 1)
        head[_WRITTEN] -= fewer
        head[_CHANNELS_OUT] -= fewer
        return rows

    def cost(self, input_size: int, classes: int) -> Cost:
        """Cost of one image of `input_size` pixels a side with a head of `classes`."""
        rows = self.rows(input_size, classes)
        return Cost(
            kernels=tuple(kernel_of(row) for row in rows.tolist()),
            params=self.stored_for(classes),
            peak_act_elements=self.peak_act_elements(input_size),
            operators=self.operators,
        )

    def macs(self, input_size: int, classes: int) -> int:
        """Multiply-accumulates of one image."""
        return int(self.rows(input_size, classes)[:, _MACS].sum())

    def features(self, input_size: int, classes: int) -> Floats:
        """What a latency model multiplies, summed over the kernels; see `features.NAMES`."""
        near = self._nearest(input_size)
        if near != input_size:
            scaled: Floats = features_of(KernelTable(self.rows(input_size, classes))).sum(0)
            return scaled
        total: Floats = _feature_sums()[self.name, near] + _head_difference(self.name, classes)
        return total

    def network(self, input_size: int, classes: int) -> Network:
        """What a latency is predicted for."""
        features = self.features(input_size, classes)
        return Network(self.name, self.family, self.operators, features)

    def peak_act_elements(self, input_size: int) -> int:
        """The most activation elements alive at once."""
        near = self._nearest(input_size)
        return round(self.sizes[near].peak_act_elements * (input_size / near) ** 2)

    def _nearest(self, size: int) -> int:
        return min(self.sizes, key=lambda s: (abs(math.log(s / size)), s))

    def size_bytes(self, precision: Precision, classes: int) -> int:
        """Size of the exported file: weights at their width, the graph, and for INT8 its scales."""
        stored = self.stored_for(classes)
        bytes_ = stored * BYTES_PER_ELEMENT[precision] + self.graph_bytes
        if precision != "int8":
            return bytes_
        head = 3 * (self.feature_dim + 1) * classes
        wider = head if head <= HEAD_SHARE * stored else 0
        return bytes_ + INT8_BYTES_PER_KERNEL * self.layers + wider

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
        activations = self.peak_act_elements(input_size) * width
        return runtime_bytes + 2 * self.size_bytes(precision, classes) + activations


def network_of(name: str, input_size: int, classes: int, float32: bytes) -> Network:
    """What a latency is predicted for: the student of that name; of another network, what its float32 file holds.

    Raises `DocumentError` for a file whose shapes cannot be derived.
    """
    known = {student.name: student for student in load_students()}
    if name in known:
        return known[name].network(input_size, classes)
    import onnx

    cost = cost_of_graph(onnx.load_model_from_string(float32))
    features = features_of(table_of(cost.kernels)).sum(0)
    return Network(name, name, cost.operators, features)


@cache
def _table() -> dict[str, Any]:
    text = resources.files("edgedistill.target").joinpath(TABLE).read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@cache
def kernel_table() -> KernelTable:
    """The distinct kernels of all students."""
    return KernelTable(np.array(_table()["kernels"], np.int64))


@cache
def _feature_sums() -> dict[tuple[str, int], Floats]:
    """Summed features of every student at every size of the table, with the head of the table."""
    keys = [(one.name, size) for one in load_students() for size in one.sizes]
    parts = [one.sizes[size].kernels for one in load_students() for size in one.sizes]
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    sums = summed(kernel_table(), np.concatenate(parts), owners, len(parts))
    return dict(zip(keys, sums, strict=True))


@cache
def _head_difference(name: str, classes: int) -> Floats:
    """What a head of `classes` changes in the features; it does not depend on the size."""
    student = find_student(name)
    size = max(student.sizes)
    heads = np.stack([student.rows(size, c)[-1] for c in (classes, student.table_classes)])
    asked, stored = features_of(KernelTable(heads))
    difference: Floats = asked - stored
    return difference


@cache
def load_students() -> tuple[Student, ...]:
    """All students of the table, in its order."""
    return tuple(_student(row, _table()["classes"]) for row in _table()["students"])


def _student(row: Mapping[str, Any], classes: int) -> Student:
    sizes = {
        int(size): SizeCost(tuple(cost["kernels"]), int(cost["peak_act_elements"]))
        for size, cost in row["sizes"].items()
    }
    facts = {key: value for key, value in row.items() if key not in ("sizes", "operators")}
    return Student(
        **facts, operators=frozenset(row["operators"]), table_classes=classes, sizes=sizes
    )


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
