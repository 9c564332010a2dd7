"""How the result document states an accuracy, a difference of two, and an arm of a proof."""

from __future__ import annotations

from edgedistill.document import Count, Document, Finite, Fraction, Seconds, Sha256


class Proportion(Document):
    """An accuracy: `value` of `n` images with its 95 % Wilson interval."""

    value: Fraction
    n: Count
    ci95: tuple[Fraction, Fraction] | None = None


class Calibration(Document):
    """Expected calibration error (15 bins), mean confidence, and mean cross entropy in nats of `n` images.

    `loss` and `n` are `None` in documents of before.
    """

    ece: Fraction
    confidence: Fraction
    loss: Finite | None = None
    n: Count | None = None


class Gain(Document):
    """One arm against another on the same images: difference in top-1, its 95 % interval and exact McNemar p."""

    against: str
    value: Finite
    ci95: tuple[Finite, Finite]
    p_value: Fraction
    words: str


class SeedGain(Document):
    """One arm against another over runs with different seeds: mean difference in top-1, its 95 % t interval and
    two-sided p.

    `noise_arms` is from how many arms of a study the noise of a seed was judged, 0 where from these two alone.
    """

    against: str
    value: Finite
    ci95: tuple[Finite, Finite] | None = None
    p_value: Fraction | None = None
    seeds: Count
    noise_arms: Count = 0
    words: str


class SeedTop1(Document):
    """Test top-1 of an arm trained with one seed."""

    seed: int
    top1: Fraction
    val_top1: Fraction | None = None


class CurvePoint(Document):
    """One epoch of training. Losses in nats; `seconds` of training until its end, `lr` the highest rate at its end.

    `loss` is what is trained on, `val_loss` the mean cross entropy on validation.
    """

    epoch: Count
    loss: Finite
    val_top1: Fraction | None = None
    val_loss: Finite | None = None
    parts: dict[str, Finite] = {}
    seconds: Seconds | None = None
    lr: Finite | None = None


class Arm(Document):
    """One way of training the student. `gain` is against plain at equal steps, `gains` against every other arm.

    `flops_parts` are floating-point operations of each part of the work, a backward pass counted as two forward ones,
    `flops` those of all parts that were counted.
    """

    name: str
    what: str = ""
    top1: Proportion
    val_top1: Fraction | None = None
    balanced_accuracy: Fraction | None = None
    steps: Count
    epochs: Count
    seconds: Seconds
    seconds_parts: dict[str, Seconds] = {}
    flops_parts: dict[str, Finite] = {}
    flops: Finite | None = None
    weights_sha256: Sha256 | None = None
    gain: Gain | None = None
    gains: list[Gain] = []
    seeds: list[SeedTop1] = []
    seed_gain: SeedGain | None = None
    notes: list[str] = []
    curve: list[CurvePoint] = []
