"""What a latency model multiplies: sums over the kernels of a network, one column a feature.

Every feature is a count of elements, multiply-accumulates or kernels, so that its coefficient is a
time and the sum over kernels is the time of a network. Coarse features are those that published
tables can carry; fine ones, by class of kernel, need per-operator times of the machine itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgedistill.target.cost import KERNEL_KINDS
from edgedistill.target.kernels import KernelTable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COARSE = ("kernels", "macs", "pointwise_macs", "depthwise_macs", "dense_macs", "elements")
"""`pointwise_macs` takes grouped convolutions and attention with it; `elements` are activations
read and written plus weights."""

CLASSES = (
    *("depthwise", "depthwise_wide", "depthwise_odd", "depthwise_many"),
    *("pointwise", "pointwise_odd", "dense", "stem", "grouped"),
    *("fully_connected", "squeeze_excite", "attention"),
    *("elementwise", "pooling", "normalisation", "movement"),
)
"""Kinds of kernels as runtimes tell them apart. `depthwise_wide` has a filter wider than 3,
`depthwise_many` several filters a channel; `odd` is a count of channels that is no multiple of 8,
which vector kernels refuse; `stem` reads at most 4 channels."""

COLUMNS = ("count", "macs", "padded_macs", "read", "written", "weights", "hard", "smooth", "sums")
"""What is summed for each class. `padded_macs` counts output channels up to the next multiple of 8;
`hard`, `smooth` and `sums` are output elements times fused steps of that sort."""

VECTOR = 8
STEM_CHANNELS = 4

NAMES = (*COARSE, *(f"{kind}.{column}" for kind in CLASSES for column in COLUMNS))


def classes_of(table: KernelTable) -> npt.NDArray[np.int64]:
    """Place in `CLASSES` of each kernel, shape (N,)."""
    out, inner = table.column("channels_out"), table.column("channels_in")
    odd_out = out % VECTOR != 0
    names = np.array(KERNEL_KINDS, dtype=object)[table.column("kind")]
    deep = names == "depthwise"
    names[deep & (table.column("window") > 3)] = "depthwise_wide"
    names[deep & odd_out] = "depthwise_odd"
    names[deep & (out > table.column("groups"))] = "depthwise_many"
    names[(names == "pointwise") & (odd_out | (inner % VECTOR != 0))] = "pointwise_odd"
    names[(names == "dense") & (inner <= STEM_CHANNELS)] = "stem"
    return np.array([CLASSES.index(name) for name in names], np.int64)


def columns_of(table: KernelTable) -> Floats:
    """`COLUMNS` of each kernel, shape (N, len(COLUMNS))."""
    out = table.column("channels_out").astype(np.float64)
    macs = table.column("macs").astype(np.float64)
    written = table.column("written").astype(np.float64)
    padded = np.ceil(np.maximum(out, 1) / VECTOR) * VECTOR
    values = {
        "count": np.ones(len(table)),
        "macs": macs,
        "padded_macs": macs * padded / np.maximum(out, 1),
        "read": table.column("read"),
        "written": written,
        "weights": table.column("weights"),
        "hard": written * table.column("hard"),
        "smooth": written * table.column("smooth"),
        "sums": written * table.column("arithmetic"),
    }
    return np.stack([np.asarray(values[name], np.float64) for name in COLUMNS], axis=1)


def coarse_of(table: KernelTable) -> Floats:
    """`COARSE` of each kernel, shape (N, len(COARSE))."""
    kind = table.column("kind")
    macs = table.column("macs").astype(np.float64)

    def of(*kinds: str) -> Floats:
        places = [KERNEL_KINDS.index(k) for k in kinds]
        return np.where(np.isin(kind, places), macs, 0.0)

    moved = table.column("read") + table.column("written") + table.column("weights")
    values = {
        "kernels": np.ones(len(table)),
        "macs": macs,
        "pointwise_macs": of("pointwise", "grouped", "attention"),
        "depthwise_macs": of("depthwise"),
        "dense_macs": of("dense"),
        "elements": moved.astype(np.float64),
    }
    return np.stack([values[name] for name in COARSE], axis=1)


def features_of(table: KernelTable) -> Floats:
    """Features of each kernel, shape (N, len(NAMES))."""
    return summed(table, np.arange(len(table)), np.arange(len(table)), len(table))


def summed(table: KernelTable, places: Ints, owners: Ints, count: int) -> Floats:
    """Features summed over kernels, shape (count, len(NAMES)): kernel `places[i]` is one of `owners[i]`."""
    coarse, columns = coarse_of(table)[places], columns_of(table)[places]
    cells = owners * len(CLASSES) + classes_of(table)[places]
    total = np.zeros((count, len(NAMES)))
    for i in range(len(COARSE)):
        total[:, i] = np.bincount(owners, coarse[:, i], count)
    fine = total[:, len(COARSE) :].reshape(count, len(CLASSES), len(COLUMNS))
    for i in range(len(COLUMNS)):
        sums = np.bincount(cells, columns[:, i], count * len(CLASSES))
        fine[:, :, i] = sums.reshape(count, len(CLASSES))
    total[:, len(COARSE) :] = fine.reshape(count, -1)
    return total


def by_class(features: Floats) -> Floats:
    """The fine features of one network as (len(CLASSES), len(COLUMNS))."""
    return features[len(COARSE) :].reshape(len(CLASSES), len(COLUMNS))
