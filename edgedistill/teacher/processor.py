"""What an image processor of Hugging Face transformers does to pixels, read from its file without running it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgedistill.teacher.pretrained import IMAGENET_MEAN, IMAGENET_STD, triple

NATIVE_SIZE = 224
LARGEST = 4096


@dataclass(frozen=True)
class Eye:
    """Native square size in pixels, `mean` and `std` of 0..1 pixels, and whether colours come as blue, green, red."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool = False
    note: str = ""


def eye_of(processor: Mapping[str, Any], config: Any) -> Eye:
    """What `preprocessor_config.json` says, or ImageNet's numbers where there is none. Raises `ValueError`.

    A processor multiplies by `rescale_factor` (1 / 255), may subtract 1 (`rescale_offset`), then normalises;
    EfficientNet's divides by the deviation twice (`include_top`).
    """
    size = _size(processor, config)
    if not processor:
        note = "no preprocessor_config.json: ImageNet's mean and std are assumed"
        return Eye(size, IMAGENET_MEAN, IMAGENET_STD, note=note)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    flip = bool(processor.get("do_flip_channel_order", False))
    normalises = processor.get("do_normalize")
    if normalises is None:  # MobileViT's, the one that turns colours, does not
        normalises = "image_mean" in processor and not flip
    if normalises:
        mean = _colours(processor.get("image_mean", IMAGENET_MEAN))
        std = _colours(processor.get("image_std", IMAGENET_STD), above=0)
    factor = 255.0
    if processor.get("do_rescale", True):
        factor = 255.0 * float(processor.get("rescale_factor", 1 / 255))
    offset = 1.0 if processor.get("rescale_offset") else 0.0
    power = 2 if processor.get("include_top") else 1
    if not 0 < factor < 1e6:
        raise ValueError(f"its image processor's rescale_factor cannot be used: {factor / 255}")
    return Eye(
        size,
        triple([(m + offset) / factor for m in mean]),
        triple([s**power / factor for s in std], above=0),
        flip,
    )


def _colours(values: Any, above: float = -1e6) -> tuple[float, float, float]:
    """Three numbers, or one for every colour."""
    return triple([values] * 3 if isinstance(values, int | float) else values, above)


def _size(processor: Mapping[str, Any], config: Any) -> int:
    """The side that the processor crops or resizes to, else what the model was built for."""
    asked = processor.get("crop_size") if processor.get("do_center_crop") else None
    for found in (asked, processor.get("size"), getattr(config, "image_size", None)):
        size = _side(found)
        if size is not None:
            if not 8 <= size <= LARGEST:
                raise ValueError(f"its image size cannot be used: {size} px")
            return size
    vision = getattr(config, "vision_config", None)
    if vision is not None:
        return _size({}, vision)
    patches = getattr(config, "num_patches", None)  # SigLIP 2 of free shapes has no image size
    return math.isqrt(patches) * int(config.patch_size) if patches else NATIVE_SIZE


def _side(found: Any) -> int | None:
    """Pixels of `224`, `[224, 224]`, `{"height": 224, "width": 224}` or `{"shortest_edge": 224}`."""
    if isinstance(found, Mapping):
        found = next((found[k] for k in ("height", "shortest_edge") if found.get(k)), None)
    if isinstance(found, list | tuple) and found:
        found = found[0]
    return int(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
