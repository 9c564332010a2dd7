"""What a result says of synthetic images: where they come from, what was kept, and what each class has from them."""

from __future__ import annotations

from edgedistill.document import Count, Document, Finite, Fraction, Seconds, Sha256


class SyntheticClass(Document):
    """One class: real training images, synthetic ones that were kept and that are lacking after all tries; recall on
    test of the distilled arm without and with them, `None` without a test image.
    """

    name: str
    real: Count
    kept: Count
    lacking: Count
    recall_without: Fraction | None
    recall_with: Fraction | None


class Synthetic(Document):
    """Synthetic images of a build. `agreement` is the share of all made in which the teacher sees the class asked for,
    `share` that of a batch; `sheet` is a picture of kept and dropped images (PNG, base64).
    """

    generator: str
    kind: str
    generator_sha256: Sha256 | None
    revision: str | None
    licence: str | None
    steps: Count
    guidance: Finite
    made: Count
    kept: Count
    agreement: Fraction
    dropped: dict[str, Count]
    seconds: Seconds
    share: Fraction
    schedule: str
    classes: list[SyntheticClass]
    sheet: str | None = None
