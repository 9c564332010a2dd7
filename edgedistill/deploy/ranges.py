"""What calibration images show of a network's activations, in one walk, and the ranges that each method takes from it.

minmax       the least and the greatest value seen
percentile   all but one in ten thousand values at either end
entropy      the threshold at which the histogram in 128 levels is least surprising (Kullback-Leibler), as TensorRT
mse          the share of minmax at which the mean squared rounding and clipping error is least
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgedistill.deploy.onnx import INPUT_NAME
from edgedistill.nets import hold_memory

Floats = npt.NDArray[np.float64]
BINS = 2048
LEVELS = 256
ENTROPY_LEVELS = 128
ENTROPY_STEP = 16
TAIL = 1e-4
SHARES = np.linspace(0.3, 1.0, 71)
BATCH = 2
MERGED = ("Relu", "Clip")
SAMPLED = 1 << 14
"""Values of each tensor and image that go into its histogram; ranges and means are of all."""


@dataclass
class Seen:
    """One tensor over all calibration images: range, histogram, and mean and greatest size of each channel.

    `means` and `peaks` are `(C,)`, `None` for a tensor without channels (fewer than two dimensions).
    """

    low: float
    high: float
    counts: Floats
    means: Floats | None
    peaks: Floats | None

    def edges(self) -> Floats:
        """The histogram's edges (BINS + 1,)."""
        return np.linspace(self.low, self.high, BINS + 1)


def observe(model: onnx.ModelProto, images: npt.NDArray[Any]) -> dict[str, Seen]:
    """What each float tensor of a graph that may be quantized is, over model inputs (N, ...).

    A second walk over every fourth image fills the histograms.
    """
    hold_memory()
    run, names = _watched(model)
    seen: dict[str, Seen] = {}
    for tensors, count in _batches(run, images):
        for name, value in zip(names, tensors, strict=True):
            widen(seen, name, value, count / len(images))
    for tensors, _ in _batches(run, images[:: min(4, max(1, len(images) // 16))]):
        for name, value in zip(names, tensors, strict=True):
            fill(seen, name, value)
    return seen


def _watched(model: onnx.ModelProto) -> tuple[Callable[[Any], list[Any]], list[str]]:
    """A function from inputs to the float tensors of a graph, and their names.

    What only an activation reads is left out: it is merged into what makes it, and never a tensor of its own.
    """
    import onnxruntime

    watched = onnx.shape_inference.infer_shapes(model)
    known = {v.name: v for v in [*watched.graph.value_info, *watched.graph.output]}
    readers: dict[str, list[str]] = {}
    for node in watched.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    names = [
        name
        for node in watched.graph.node
        for name in node.output
        if readers.get(name, [""])[0] not in MERGED or len(readers[name]) > 1
        if name in known and known[name].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    del watched.graph.output[:]
    watched.graph.output.extend(known[name] for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    if watched.graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        return lambda batch: session.run(names, {INPUT_NAME: batch}), names
    return lambda batch: [batch, *session.run(names, {INPUT_NAME: batch})], [INPUT_NAME, *names]


def _batches(run: Callable[[Any], list[Any]], images: npt.NDArray[Any]) -> Iterator[Any]:
    for start in range(0, len(images), BATCH):
        batch = np.ascontiguousarray(images[start : start + BATCH])
        yield run(batch), len(batch)


def widen(seen: dict[str, Seen], name: str, value: Any, share: float) -> None:
    """Take in a batch that is this share of all images."""
    means: Floats | None = None
    peaks: Floats | None = None
    if value.ndim > 1:
        rest = tuple(axis for axis in range(value.ndim) if axis != 1)
        least, most = value.min(axis=rest), value.max(axis=rest)
        means = value.mean(axis=rest).astype(np.float64) * share
        peaks = np.maximum(most, -least).astype(np.float64)
        low, high = float(least.min()), float(most.max())
    else:
        low, high = float(value.min()), float(value.max())
    before = seen.get(name)
    if before is None:
        seen[name] = Seen(low, high, np.zeros(BINS), means, peaks)
        return
    before.low, before.high = min(before.low, low), max(before.high, high)
    if means is not None and before.means is not None:
        before.means += means
    if peaks is not None and before.peaks is not None:
        before.peaks = np.maximum(before.peaks, peaks)


def fill(seen: dict[str, Seen], name: str, value: Any) -> None:
    """Count the values of a batch into a histogram whose range is known."""
    one = seen[name]
    if one.high > one.low:
        # in float32 the bins of a narrow range, or one of denormal numbers, have no width
        some = _sample(value).astype(np.float64)
        one.counts += np.histogram(some, BINS, (one.low, one.high))[0]


def _sample(value: Any) -> Any:
    """Every k-th value of a batch; k is odd, so that no row or column of a picture is left out."""
    flat = value.reshape(-1)
    step = max(1, len(flat) // (SAMPLED * len(value))) | 1
    return flat[::step]


def ranges(seen: Mapping[str, Seen], method: str) -> dict[str, tuple[float, float]]:
    """The range of each tensor by a method of this module; every range holds 0."""
    found = {}
    for name, one in seen.items():
        low, high = METHODS[method](one) if one.counts.sum() else (one.low, one.high)
        found[name] = (min(low, 0.0), max(high, 0.0))
    return found


def _minmax(one: Seen) -> tuple[float, float]:
    return one.low, one.high


def _percentile(one: Seen) -> tuple[float, float]:
    share = np.cumsum(one.counts) / one.counts.sum()
    edges = one.edges()
    low = edges[int(np.searchsorted(share, TAIL, side="right"))]
    high = edges[int(np.searchsorted(share, 1 - TAIL)) + 1]
    return float(low), float(high)


def _mse(one: Seen) -> tuple[float, float]:
    edges = one.edges()
    middle, weights = (edges[:-1] + edges[1:]) / 2, one.counts / one.counts.sum()

    def error(share: float) -> float:
        low, high = min(share * one.low, 0.0), max(share * one.high, 0.0)
        scale = (high - low) / (LEVELS - 1)
        kept = np.clip(np.round((middle - low) / scale), 0, LEVELS - 1) * scale + low
        return float((weights * (kept - middle) ** 2).sum())

    best = min(reversed(SHARES), key=error)  # at a tie the widest
    return float(best * one.low), float(best * one.high)


def _entropy(one: Seen) -> tuple[float, float]:
    """TensorRT's calibration on the sizes of the values; a range of both signs is cut at both ends."""
    edges = one.edges()
    middle = np.abs((edges[:-1] + edges[1:]) / 2)
    top = max(abs(one.low), abs(one.high))
    sizes = np.histogram(middle, BINS, (0, top), weights=one.counts)[0]
    sizes[0] = sizes[1]  # what a Relu made 0 is exact in any range
    counts = range(ENTROPY_LEVELS, BINS + 1, ENTROPY_STEP)
    best = min(reversed(counts), key=lambda count: _surprise(sizes, count))
    threshold = best * top / BINS
    return max(one.low, -threshold), min(one.high, threshold)


def _surprise(sizes: Floats, count: int) -> float:
    """The divergence of the first `count` bins, with the rest added to the last, from the same in few levels."""
    wanted = sizes[:count].copy()
    wanted[-1] += sizes[count:].sum()
    level = np.arange(count) * ENTROPY_LEVELS // count
    used = sizes[:count] > 0
    total = np.bincount(level, sizes[:count], ENTROPY_LEVELS)
    filled = np.bincount(level, used, ENTROPY_LEVELS)
    coarse = np.where(used, (total / np.maximum(filled, 1))[level], 0)
    p, q = wanted / wanted.sum(), coarse / max(float(coarse.sum()), 1e-12)
    both = (p > 0) & (q > 0)
    lost = float(p[(p > 0) & (q <= 0)].sum())
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * np.log(1e12))


METHODS: Mapping[str, Callable[[Seen], tuple[float, float]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
