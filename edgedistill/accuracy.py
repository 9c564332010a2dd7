"""How the result document states an accuracy, its calibration, and a difference of two."""

from __future__ import annotations

from edgedistill.document import Count, Document, Finite, Fraction


class Proportion(Document):
    """An accuracy: `value` of `n` images with its 95 % Wilson interval."""

    value: Fraction
    n: Count
    ci95: tuple[Fraction, Fraction] | None = None


class Calibration(Document):
    """Expected calibration error (15 bins) and mean confidence."""

    ece: Fraction
    confidence: Fraction


class Gain(Document):
    """One arm against another on the same images: difference in top-1, its 95 % interval and exact McNemar p."""

    against: str
    value: Finite
    ci95: tuple[Finite, Finite]
    p_value: Fraction
    words: str
