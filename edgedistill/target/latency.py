"""How long one image takes on a device, before anybody has run it: a point, a band, and a grade.

A model is a sum over kernels, each feature (`features.NAMES`) times a coefficient in seconds; where
several such sums were fitted, the point is their weighted geometric mean, and the band is wider
where they disagree. What other boards with the same runtime show of a student or its family is a
factor on a sum. Models are fitted by `benchmarks/fit_latency.py` on published measurements and
shipped as constants with their sources, stated in a user's profile as three terms, or fitted by
`edgedistill devices measure`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from edgedistill.target.features import NAMES

if TYPE_CHECKING:
    from edgedistill.result import Precision
    from edgedistill.target.device import Device

Floats = npt.NDArray[np.float64]
Tier = Literal["A", "B", "C", "D", "E"]

BYTES_PER_ELEMENT: dict[str, int] = {"float32": 4, "float16": 2, "int8": 1}

TIER_WORDS = {
    "A": "measured on this very device",
    "B": "estimate from measurements of this device, runtime and precision",
    "C": "estimate from measurements of this device on other families of networks",
    "D": "estimate carried over from another device or runtime, with few anchors on this one",
    "E": "order of magnitude: no anchor on this device and runtime",
}
MOST_APART = 1.0
"""How far apart, as a logarithm, sums are taken to be at most: beyond, one of them is simply wrong."""
SLOW_BAND = 3.0
"""How far up the band of a network goes that the profile says the device runs badly."""


@dataclass(frozen=True)
class Component:
    """One sum: seconds for each unit of a feature, and its weight in the geometric mean.

    `offsets` are factors by student or family, as other boards with the same runtime show them.
    """

    seconds: Mapping[str, float]
    weight: float = 1.0
    offsets: Mapping[str, float] = field(default_factory=dict)

    def point(self, network: Network) -> float:
        """Seconds of one image."""
        factor = self.offsets.get(network.name, self.offsets.get(network.family, 1.0))
        return max(float(network.features @ self._vector), 1e-9) * factor

    @cached_property
    def _vector(self) -> Floats:
        return np.array([self.seconds.get(name, 0.0) for name in NAMES])


@dataclass(frozen=True)
class LatencyModel:
    """What is known of one (device, runtime, precision, threads, power mode).

    `bands` are factors on the point by tier, (0.7,
    1.4) is from 30 % below to 40 % above; `tier` is that of a student whose family was measured
    (`families`; empty means that the tier holds for all), `unseen_tier` that of the others.
    Where several sums are fitted, the logarithm of a band grows by `widening` for each unit that their
    logarithms are apart. `macs` is the range that was measured, and `beyond` how many times its upper end a prediction
    may reach. `n` counts networks.
    """

    components: tuple[Component, ...]
    bands: Mapping[str, tuple[float, float]]
    tier: Tier
    unseen_tier: Tier
    families: frozenset[str] = frozenset()
    widening: float = 0.0
    macs: tuple[float, float] | None = None
    beyond: float = 2.0
    n: int = 0
    runtime: str = ""
    threads: int | None = None
    power_mode: str | None = None
    sources: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Network:
    """What is predicted: a student's name and family, its operators and its summed features."""

    name: str
    family: str
    operators: frozenset[str]
    features: Floats

    @property
    def macs(self) -> float:
        """Multiply-accumulates."""
        return float(self.features[NAMES.index("macs")])


@dataclass(frozen=True)
class Prediction:
    """A latency in seconds, with its band, its tier and what that means in words."""

    latency_s: float
    band_s: tuple[float, float]
    tier: Tier
    words: str


@dataclass(frozen=True)
class Abstention:
    """Why nothing honest can be said, and what to measure instead.

    `impossible` where the device cannot run the network at all; `floor_s` is what it takes at least, in
    seconds, where that much is sure.
    """

    words: str
    impossible: bool = False
    floor_s: float | None = None


def three_terms(
    precision: Precision,
    overhead_s: float,
    macs_per_s: float,
    bytes_per_s: float | None,
    band: tuple[float, float],
    tier: Tier,
) -> LatencyModel:
    """The model of a profile: overhead a kernel, rate, bandwidth at the width of the precision."""
    seconds = {"kernels": overhead_s, "macs": 1 / macs_per_s}
    if bytes_per_s is not None:
        seconds["elements"] = BYTES_PER_ELEMENT[precision] / bytes_per_s
    return LatencyModel((Component(seconds),), {tier: band}, tier, tier)


def predict(device: Device, precision: Precision, network: Network) -> Prediction | Abstention:
    """Latency of one image at `precision`, or why there is none."""
    slow = ""
    for weakness in device.weak:
        hit = sorted(network.operators & set(weakness.operators))
        if not hit and network.family not in weakness.families:
            continue
        what = ", ".join(hit) if hit else f"the {network.family} family"
        if weakness.effect == "unsupported":
            return Abstention(f"{what} does not run on this device: {weakness.why}", True)
        slow = f"; {what} is slow here: {weakness.why}"
    model = device.latency.get(precision)
    if model is None:
        return Abstention(_nothing_known(device, precision))
    covered = not model.families or network.family in model.families
    tier = model.tier if covered else model.unseen_tier
    point = evaluate(model, network)
    apart = _apart(model, network)
    low, high = (widened(edge, model.widening, apart) for edge in model.bands[tier])
    if model.macs is not None and network.macs > model.beyond * model.macs[1]:
        words = (
            f"{network.macs / 1e6:,.0f} M MACs are more than {model.beyond:g} times the largest network "
            "that was measured: measure it on the device"
        )
        return Abstention(words, floor_s=point * low)
    if slow:
        high = max(high, SLOW_BAND)
    words = model.words or TIER_WORDS[tier]
    return Prediction(point, (point * low, point * high), tier, f"tier {tier}, {words}{slow}")


def evaluate(model: LatencyModel, network: Network) -> float:
    """Seconds of one image, whatever they are worth."""
    logs = [math.log(c.point(network)) * c.weight for c in model.components]
    return math.exp(sum(logs) / sum(c.weight for c in model.components))


def widened(edge: float, widening: float, apart: float) -> float:
    """A band's edge, as a factor, of a network that the sums of a model are `apart` on."""
    return math.pow(edge, 1 + widening * min(apart, MOST_APART))


def _apart(model: LatencyModel, network: Network) -> float:
    points = [c.point(network) for c in model.components]
    return math.log(max(points) / min(points))


def _nothing_known(device: Device, precision: Precision) -> str:
    if device.runtime == "vendor":
        return (
            f"the {device.compiler} decides what fits its memory, and latency jumps where it does "
            "not: compile and measure it"
        )
    return f"nothing is known of {precision} on this device: measure it there"
