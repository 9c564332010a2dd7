"""Which INT8 file: ways to make it are tried one after the other on validation images, and each step keeps the better.

Ranges by every method; then channels equalised; then biases corrected; then pixels taken as the quantized tensor. Files
are ranked by the divergence of their predictions from those of the float file, which says more with few images than
top-1; whether a file is good enough is said by top-1. Where none is, the products that lose most go back to float, as
few as it takes. A method that is named is the only way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgedistill.deploy.equalize import corrected, equalized, pairs
from edgedistill.deploy.integers import integer_input, takes_integers
from edgedistill.deploy.products import macs, products
from edgedistill.deploy.quantize import kept_in_float, prepared, quantized
from edgedistill.deploy.ranges import METHODS, Seen, observe, ranges
from edgedistill.deploy.stage import Shape, kit_logits, model_inputs, packed
from edgedistill.metrics import softmax, top1
from edgedistill.progress import Face
from edgedistill.rundir import Work

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
RANKED = 256
"""Validation images at most by which ways are compared."""
PROBED = 64
"""Images at most by which the loss of one convolution alone is found."""
MOST_IN_FLOAT = 0.5
"""Share of the convolutions that may go back to float; beyond it the file is no INT8 file any more."""
LEAST_PROBABILITY = 1e-12
TOLERATED, SLIGHT = 1.25, 1e-3
"""A file that takes integers may diverge this many times as much as the one that does not, and this many nats more:
borders are a little off."""


@dataclass(frozen=True)
class Asked:
    """What a file is made from, and what it is measured on: images of the training split, and validation images.

    `logits` (V, C) are those of the float32 file on the validation images; `integers` says whether the target's runtime
    takes pixels as the quantized tensor; `allowed` is the top-1 that may be lost, a fraction.
    """

    float32: bytes
    shape: Shape
    metadata: Callable[[str], Mapping[str, str]]
    calibration: Pixels
    pixels: Pixels
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    method: str
    integers: bool
    allowed: float


@dataclass(frozen=True)
class Way:
    """How a file is made."""

    method: str
    equalized: bool = False
    corrected: bool = False
    integers: bool = False
    float_nodes: tuple[str, ...] = ()

    def words(self, products: int) -> str:
        """The same for a person; `products` is how many convolutions and matrix products there are."""
        parts = [f"ranges by {self.method}"]
        parts += ["channels equalised"] if self.equalized else []
        parts += ["biases corrected"] if self.corrected else []
        parts += ["pixels taken as integers"] if self.integers else []
        if self.float_nodes:
            parts.append(f"{len(self.float_nodes)} of {products} products in float")
        return ", ".join(parts)


@dataclass(frozen=True)
class Made:
    """A file, and what it loses on validation images: `divergence` in nats, `drop` of top-1 as a fraction."""

    way: Way
    data: bytes = field(repr=False)
    layout: str
    divergence: float
    drop: float


class Search:
    """Makes and measures INT8 files of one float32 file; what was made is remembered in `tried`."""

    def __init__(self, asked: Asked, work: Work, face: Face) -> None:
        self._asked, self._work, self._face = asked, work, face
        self.tried: list[Made] = []
        self._graphs: dict[tuple[bool, bool], tuple[onnx.ModelProto, dict[str, Seen]]] = {}
        self.products = len(products(onnx.load_model_from_string(asked.float32).graph))

    def best(self) -> Made:
        """The best file that was found; one that loses more than is allowed only when none loses less."""
        asked = self._asked
        integers = asked.integers and takes_integers(onnx.load_model_from_string(asked.float32))
        named = Way(asked.method, integers=integers)
        best = self._compared(integers) if asked.method == "auto" else self.make(named)
        best = self._on_all(best)
        return best if best.drop <= asked.allowed else self._mixed(best)

    def _compared(self, integers: bool) -> Made:
        """The best of all ways without a product in float; each step keeps the better."""
        with self._face.bar("INT8", len(METHODS) + 3) as advance:

            def make(way: Way) -> Made:
                made = self.make(way)
                advance(1)
                return made

            best = min((make(Way(method)) for method in METHODS), key=_loss)
            if pairs(self._graph(best.way)[0].graph):
                best = min(best, make(replace(best.way, equalized=True)), key=_loss)
            best = min(best, make(replace(best.way, corrected=True)), key=_loss)
            if integers:
                best = self._either(best, make(replace(best.way, integers=True)))
        return best

    def _either(self, floats: Made, integers: Made) -> Made:
        """The file that takes integers, unless it is clearly further from the float file or loses too much."""
        loses = integers.drop > max(self._asked.allowed, floats.drop)
        far = integers.divergence > TOLERATED * floats.divergence + SLIGHT
        return floats if loses or far else integers

    def make(self, way: Way) -> Made:
        """The file that is made this way, measured on some images."""
        layout = self._layout(way)
        made = self._measured(way, self._data(way, layout), layout, self._rows(RANKED))
        self.tried.append(made)
        self._face.detail(
            f"INT8, {way.words(self.products)}: divergence {made.divergence:.2g}, "
            f"{100 * made.drop:+.1f} points lost"
        )
        return made

    def _on_all(self, made: Made) -> Made:
        """The same file measured on all images: few tell which way is nearest, not what top-1 is lost."""
        if len(self._asked.pixels) <= RANKED:
            return made
        return self._measured(made.way, made.data, made.layout, self._rows(None))

    def _rows(self, most: int | None) -> Rows:
        """Validation images, at most so many of them, from first to last: they may be in the order of their classes."""
        count = len(self._asked.pixels)
        return np.linspace(0, count - 1, min(most or count, count)).round().astype(np.int64)

    def _measured(self, way: Way, data: bytes, layout: str, rows: Rows) -> Made:
        asked, logits = self._asked, self._logits(data, layout, rows)
        reference, labels = asked.logits[rows], asked.labels[rows]
        drop = top1(reference, labels) - top1(logits, labels)
        return Made(way, data, layout, divergence(reference, logits), drop)

    def _data(self, way: Way, layout: str) -> bytes:
        model, seen = self._graph(way)
        limits, flavour = ranges(seen, way.method), str(self._asked.shape.flavour)
        about = self._asked.metadata(layout)
        if way.corrected:
            rounded = onnx.load_model_from_string(quantized(model, limits, flavour, about))
            model = corrected(model, rounded, seen)
        return quantized(model, limits, flavour, about, way.float_nodes)

    def _layout(self, way: Way) -> str:
        shape = self._asked.shape
        return "int8_nhwc" if way.integers and shape.flavour == "tensorrt" else shape.layout

    def _graph(self, way: Way) -> tuple[onnx.ModelProto, dict[str, Seen]]:
        """The prepared float graph of a way, and what the calibration images show of it."""
        key = (way.equalized, way.integers)
        if key not in self._graphs:
            asked = self._asked
            if way.equalized:
                model, seen = self._graph(replace(way, equalized=False))
                model = equalized(model, seen)
            else:
                data = asked.float32
                if way.integers:
                    whole = onnx.load_model_from_string(data)
                    signed = self._layout(way) == "int8_nhwc"
                    whole = integer_input(whole, asked.shape.preprocess, signed)
                    data = whole.SerializeToString()
                model = prepared(data)
            item = packed("int8", b"", asked.shape, layout=self._layout(way))
            fed = model_inputs(item, asked.calibration, asked.shape)
            self._graphs[key] = model, observe(model, fed)
        return self._graphs[key]

    def _logits(self, data: bytes, layout: str, rows: Rows) -> npt.NDArray[np.float32]:
        item = packed("int8", data, self._asked.shape, layout=layout)
        return kit_logits(item, self._asked.pixels[rows], self._asked.shape, self._work)

    def _mixed(self, best: Made) -> Made:
        """The fewest products back to float with which the file loses no more than is allowed."""
        order = self._by_loss(best.way)
        most = max(1, int(MOST_IN_FLOAT * len(order)))
        low, high, good = 0, 1, None
        while good is None and low < high:
            made = self._on_all(self.make(replace(best.way, float_nodes=tuple(order[:high]))))
            if made.drop <= self._asked.allowed:
                good = made
            else:
                low, high = high, min(2 * high, most)
        if good is None:
            return best
        while high - low > 1:
            middle = (low + high) // 2
            made = self._on_all(self.make(replace(best.way, float_nodes=tuple(order[:middle]))))
            if made.drop <= self._asked.allowed:
                good, high = made, middle
            else:
                low = middle
        return good

    def _by_loss(self, way: Way) -> list[str]:
        """Names of the products that are in INT8, the one that alone loses most first."""
        model, seen = self._graph(way)
        limits, flavour = ranges(seen, way.method), str(self._asked.shape.flavour)
        layout = self._layout(way)
        kept = kept_in_float(model)
        names = [node.name for node in products(model.graph) if node.name not in kept]
        loss, rows = {}, self._rows(PROBED)
        with self._face.bar("INT8 loses too much: what each product loses", len(names)) as advance:
            for name in names:
                data = quantized(model, limits, flavour, self._asked.metadata(layout), only=[name])
                logits = self._logits(data, layout, rows)
                loss[name] = divergence(self._asked.logits[rows], logits)
                advance(1)
        return sorted(names, key=lambda name: -loss[name])

    def float_share(self, way: Way) -> float:
        """The share of all multiply-accumulates that a way leaves in float."""
        model, _ = self._graph(way)
        each = macs(model)
        return sum(each.get(name, 0) for name in way.float_nodes) / max(1, sum(each.values()))


def divergence(reference: npt.NDArray[Any], logits: npt.NDArray[Any]) -> float:
    """Mean Kullback-Leibler divergence, in nats, of predictions (N, C) from those of a reference."""
    p, q = (np.maximum(softmax(values), LEAST_PROBABILITY) for values in (reference, logits))
    return float((p * np.log(p / q)).sum(axis=1).mean())


def _loss(made: Made) -> float:
    return made.divergence


def told(tried: Sequence[Made], products: int) -> list[dict[str, Any]]:
    """What was tried, for the result."""
    return [
        {"way": made.way.words(products), "divergence": made.divergence, "drop": made.drop}
        for made in tried
    ]
