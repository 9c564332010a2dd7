"""The model files of a network: exported, held against torch on real images, and quantized.

A build's stages and `edgedistill export` make their files here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from edgedistill.deploy.bundle import Packed
from edgedistill.deploy.onnx import export_float32, to_float16
from edgedistill.deploy.stage import (
    Floats,
    Pixels,
    Shape,
    check_parity,
    kit_logits,
    packed,
)
from edgedistill.nets import Look
from edgedistill.result import Precision
from edgedistill.rundir import Work


def look_of(shape: Shape) -> Look:
    """How the network of a shape sees an image."""
    return Look(shape.preprocess.crop, shape.preprocess.mean, shape.preprocess.std)


def float_files(model: nn.Module, shape: Shape, about: Mapping[str, str]) -> list[Packed]:
    """The float32 and the float16 file of a network; `about` is what they say of themselves."""
    data = export_float32(model, look_of(shape), shape.layout, shape.opset, about)
    return [packed("float32", data, shape), packed("float16", to_float16(data, about), shape)]


def parity_pixels(val: Pixels, count: int, train: Callable[[int], Pixels]) -> Pixels:
    """The images (n, S, S, 3) that files are held against torch on: validation's, then training's."""
    pixels = np.asarray(val[:count])
    return pixels if len(pixels) == count else np.concatenate([pixels, train(count - len(pixels))])


def parities(
    items: Sequence[Packed], pixels: Pixels, reference: Floats, shape: Shape, work: Work
) -> dict[Precision, dict[str, Any]]:
    """How far each file, run by the kit, lies from torch's `reference` (N, C). Raises `ParityError`."""
    return {
        item.name: check_parity(item, kit_logits(item, pixels, shape, work), reference)
        for item in items
    }
