"""How long one image takes on a device, before anybody has run it: three terms and a band.

    latency = overhead * kernels + MACs / rate + bytes / bandwidth

Bytes are the activations that kernels read and write plus the weights, at the width of the
precision. The terms of a profile are fitted on published measurements or carried over from a
sister device; `tier` says which, and the band is as wide as that allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedistill.result import Precision
    from edgedistill.target.cost import Cost
    from edgedistill.target.device import Device

BYTES_PER_ELEMENT: dict[str, int] = {"float32": 4, "float16": 2, "int8": 1}

TIER_WORDS = {
    "A": "measured on this very device",
    "B": "estimate from published measurements of this device, runtime and precision",
    "C": "estimate from published measurements of this device on other families of networks",
    "D": "estimate carried over from another device or runtime, with few anchors on this one",
    "E": "order of magnitude: no anchor on this device and runtime",
}


@dataclass(frozen=True)
class Terms:
    """Terms of one precision. `bytes_per_s` is `None` where the fit found no bandwidth term.

    `band` multiplies the point: (0.4, 1.6) is from 60 % below to 60 % above.
    """

    overhead_s: float
    macs_per_s: float
    bytes_per_s: float | None
    band: tuple[float, float]
    tier: str


@dataclass(frozen=True)
class Prediction:
    """A latency in seconds, with its band, its tier and what that means in words."""

    latency_s: float
    band_s: tuple[float, float]
    tier: str
    words: str


def predict(device: Device, precision: Precision, cost: Cost) -> Prediction | None:
    """Latency of one image at `precision`, or `None` where the profile has no terms for it."""
    terms = device.latency.get(precision)
    if terms is None:
        return None
    latency_s = terms.overhead_s * cost.layers + cost.macs / terms.macs_per_s
    if terms.bytes_per_s is not None:
        width = BYTES_PER_ELEMENT[precision]
        latency_s += width * (cost.act_elements + cost.weight_elements) / terms.bytes_per_s
    low, high = terms.band
    return Prediction(
        latency_s=latency_s,
        band_s=(latency_s * low, latency_s * high),
        tier=terms.tier,
        words=f"tier {terms.tier}, {TIER_WORDS[terms.tier]}",
    )
