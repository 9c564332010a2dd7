"""Which kernel of a network each operator of a runtime's trace belongs to.

A runtime fuses, renames and inserts operators. Its names keep the node or the tensor of the file
that they come from, with suffixes of its own; what cannot be traced back is left over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgedistill.target.cost import cost_of_kernels
from edgedistill.target.graph import Graph, kernels_of
from edgedistill.target.kernels import KernelTable, table_of
from edgedistill.target.reading import read_graph

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float64]

_SUFFIX = re.compile(
    r"(_nchwc|_token_\d+|_QuantizeLinear|_DequantizeLinear|_quantized|_q|_\d+|/\w*Fusion/?)$"
)


INSERTED = {
    "hard": ("HardSigmoid", "HardSwish", "QLinearAdd", "QLinearMul", "QuantizeLinear"),
    "smooth": ("Gelu", "QuickGelu", "FastGelu", "BiasGelu", "Erf", "Sigmoid", "QLinearSigmoid"),
}
"""Operators that runtimes make of gates and smooth functions under names of their own."""


@dataclass(frozen=True)
class TimedKernels:
    """Kernels of a network behind its input, with the seconds of each and how many operators they
    are the sum of. `input_s` are those of the kernels that prepare the pixels; `inserted` those that
    belong to none, by what they do: hard gates, smooth functions, and all else (copies, reordering).
    """

    table: KernelTable
    seconds: Floats
    operators: Floats
    input_s: float
    inserted: Mapping[str, float]
    inserted_operators: int

    @property
    def total_s(self) -> float:
        """Seconds of all operators."""
        return float(self.seconds.sum()) + self.input_s + sum(self.inserted.values())

    @property
    def total_operators(self) -> float:
        """How many operators ran; those of the input are left out."""
        return float(self.operators.sum()) + self.inserted_operators


def timed_kernels(model: onnx.ModelProto, operators: Sequence[Mapping[str, Any]]) -> TimedKernels:
    """Spread the operator times of a trace over the kernels of the float32 file `model`.

    `operators` are rows of the kit (`{"name", "operator", "seconds"}`), of this file or of its INT8
    sibling, whose nodes keep their names.
    """
    graph = read_graph(model)
    kernels = kernels_of(graph)
    home = {
        out: place
        for place, kernel in enumerate(kernels)
        for index in kernel.nodes
        for out in graph.nodes[index].outputs
    }
    made = {node.name: node.outputs[0] for node in graph.nodes if node.name and node.outputs}
    seconds, counts = np.zeros(len(kernels)), np.zeros(len(kernels))
    inserted = dict.fromkeys((*INSERTED, "other"), 0.0)
    several = 0
    for operator in operators:
        place = _place(str(operator["name"]), graph, home, made)
        if place is not None:
            seconds[place] += float(operator["seconds"])
            counts[place] += 1
            continue
        kinds = [kind for kind, ops in INSERTED.items() if operator["operator"] in ops]
        inserted[kinds[0] if kinds else "other"] += float(operator["seconds"])
        several += 1
    table = table_of(cost_of_kernels(graph, kernels))
    behind = np.flatnonzero((table.column("macs") > 0) & (table.column("channels_out") > 3))
    first = int(behind[0]) if len(behind) else 0
    return TimedKernels(
        table=KernelTable(table.rows[first:]),
        seconds=seconds[first:],
        operators=counts[first:],
        input_s=float(seconds[:first].sum()),
        inserted=inserted,
        inserted_operators=several,
    )


def _place(name: str, graph: Graph, home: Mapping[str, int], made: Mapping[str, str]) -> int | None:
    while True:
        tensor = graph.root(made.get(name, name))
        if tensor in home:
            return home[tensor]
        shorter = _SUFFIX.sub("", name)
        if shorter == name:
            return None
        name = shorter
