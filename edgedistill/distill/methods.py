"""What each `distill.method` is: weights of the terms of the loss and the temperature, as its authors have them, or
better where that was measured (docs/results.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgedistill.errors import UsageError
from edgedistill.recipe import Recipe
from edgedistill.schema import Method


@dataclass(frozen=True)
class Blend:
    """A method: weight of each term (those not named are 0), temperature, schedule of the weights, and its source.

    `mix`: how views are made of two images, where the method asks for it.
    """

    weights: Mapping[str, float]
    temperature: float
    source: str
    weight_schedule: str = "constant"
    mix: str = field(default="none")


METHODS: Mapping[Method, Blend] = {
    "align_uniform": Blend(
        {"ce": 1.0, "kd": 1.0, "align_uniform": 1.0},
        4.0,
        "Farhat & Chen 2024, but that the teacher fades out",
        "linear",
    ),
    "kd": Blend({"ce": 1.0, "kd": 1.0}, 4.0, "Hinton et al. 2015, weights of Farhat & Chen 2024"),
    "dkd": Blend({"ce": 1.0, "dkd": 1.0}, 4.0, "Zhao et al. 2022", "warmup"),
    "dist": Blend({"ce": 1.0, "dist": 2.0}, 4.0, "Huang et al. 2022, small data sets"),
    "crd": Blend({"ce": 1.0, "kd": 1.0, "crd": 0.8}, 4.0, "Tian et al. 2020, CRD + KD"),
    "info_nce": Blend({"ce": 1.0, "kd": 1.0, "info_nce": 1.0}, 4.0, "as CRD, within the batch"),
    "cosine": Blend({"ce": 1.0, "kd": 1.0, "cosine": 1.0}, 4.0, "features, by angle"),
    "mse": Blend({"ce": 1.0, "kd": 1.0, "mse": 1.0}, 4.0, "features, by squared difference"),
    "soft": Blend({"soft": 1.0}, 1.0, "teacher's probabilities alone"),
    "hard": Blend({"ce": 0.5, "hard": 0.5}, 1.0, "Touvron et al. 2021"),
    "function_matching": Blend({"kd": 1.0}, 2.0, "Beyer et al. 2022", mix="mixup"),
}
LEAST_FADING = 3_000
"""Training images from which on a teacher fades out. With 20,000 that is worth 0.25 points (docs/results.md); with few,
a student from random weights does not come near its teacher, and the paper's constant weights stay (docs/log.md)."""
TERMS = (
    "ce", "kd", "dkd", "dist", "hard", "soft", "logit_mse", "align_uniform", "info_nce", "crd", "cosine", "mse",
)  # fmt: skip


def method_values(recipe: Recipe, images: int | None = None) -> dict[str, tuple[Any, str]]:
    """What `distill.method` says of all that the recipe left open, by dotted path, each with the reason.

    `images` is how many there are to train on, where it is known.
    """
    section = recipe.distill
    blend = METHODS[section.method]
    why = f"method {section.method}: {blend.source}"
    values: dict[str, tuple[Any, str]] = {
        f"distill.weights.{term}": (blend.weights.get(term, 0.0), why)
        for term in TERMS
        if getattr(section.weights, term) == "auto"
    }
    given = (getattr(section.weights, term) for term in TERMS)
    if not any(
        blend.weights.get(term, 0.0) if value == "auto" else value
        for term, value in zip(TERMS, given, strict=True)
    ):
        raise UsageError(
            "distill.weights are all 0, so there is nothing to learn from. Give one above 0, for example "
            "--set distill.weights.ce=1"
        )
    if section.temperature == "auto":
        values["distill.temperature"] = (blend.temperature, why)
    if section.weight_schedule == "auto":
        few = blend.weight_schedule == "linear" and images is not None and images < LEAST_FADING
        values["distill.weight_schedule"] = (
            ("constant", f"{images:,} images: a student hardly ends above its teacher")
            if few
            else (blend.weight_schedule, why)
        )
    if recipe.data.mix == "auto":
        values["data.mix"] = (blend.mix, why)
    return values
