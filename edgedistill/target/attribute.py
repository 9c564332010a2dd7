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
from edgedistill.target.graph import Graph, kernels_of, read_graph
from edgedistill.target.kernels import KernelTable, row_of

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float64]

_SUFFIX = re.compile(
    r"(_nchwc|_token_\d+|_QuantizeLinear|_DequantizeLinear|_quantized|_q|_\d+|/\w*Fusion/?)$"
)


@dataclass(frozen=True)
class TimedKernels:
    """Kernels of a network behind its input, with the seconds of each; `left_over_s` belongs to
    none of them."""

    table: KernelTable
    seconds: Floats
    left_over_s: float


def timed_kernels(model: onnx.ModelProto, operators: Sequence[Mapping[str, Any]]) -> TimedKernels:
    """Spread the operator times of a trace over the kernels of the float32 file `model`.

    `operators` are rows of the kit (`{"name", "seconds"}`), of this file or of its INT8 sibling,
    whose nodes keep their names. Kernels that only prepare the pixels are left out.
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
    seconds = np.zeros(len(kernels))
    left_over = 0.0
    for operator in operators:
        place = _place(str(operator["name"]), graph, home, made)
        if place is None:
            left_over += float(operator["seconds"])
        else:
            seconds[place] += float(operator["seconds"])
    rows = np.array([row_of(cost) for cost in cost_of_kernels(graph, kernels)], np.int64)
    table = KernelTable(rows)
    first = int(np.argmax((table.column("macs") > 0) & (table.column("channels_out") > 3)))
    return TimedKernels(KernelTable(rows[first:]), seconds[first:], left_over)


def _place(name: str, graph: Graph, home: Mapping[str, int], made: Mapping[str, str]) -> int | None:
    while True:
        tensor = graph.root(made.get(name, name))
        if tensor in home:
            return home[tensor]
        shorter = _SUFFIX.sub("", name)
        if shorter == name:
            return None
        name = shorter
