"""A student with random weights as the folder that ships, so that a machine can be timed before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from torch import nn

from edgedistill.deploy.onnx import export_float32
from edgedistill.deploy.quantize import quantize
from edgedistill.deploy.stage import Shape, model_inputs, pack, packed, preprocess_of
from edgedistill.nets import Look, bn_layers
from edgedistill.rundir import Work, now_utc
from edgedistill.target.device import Device

IMAGES = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def untrained_bundle(folder: Path, model: str, size: int, classes: int, device: Device) -> Path:
    """Write a bundle of `model` for random images of `size` pixels: float32, and INT8 where the device takes it.

    Statistics come from one pass of noise: without them activations grow or vanish from layer to layer, and numbers
    too small to be normal are slow to compute with.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    look = Look(size, MEAN, STD)
    net = _net(model, classes, look.tensor(pixels, torch.device("cpu")))
    shape = Shape(
        device.input_layout,
        tuple(f"class {i}" for i in range(classes)),
        preprocess_of(size, MEAN, STD),
        device.opset,
        "onnxruntime",
    )
    items = [packed("float32", export_float32(net, look, shape.layout, shape.opset, {}), shape)]
    if "int8" in device.precisions and device.int8_flavour is not None:
        inputs = model_inputs(items[0], pixels, shape)
        data = quantize(items[0].data, inputs, device.int8_flavour, "minmax", {})
        items.append(packed("int8", data, shape))
    work = Work(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pack(
        work, name=model, device=device.name, created_utc=now_utc(), shape=shape, models=items,
        chosen="float32", golden=pixels, licences={}, evalset=None,
    )  # fmt: skip
    return folder / "bundle"


def _net(model: str, classes: int, images: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = timm.create_model(model, num_classes=classes, exportable=True)
    net.train()
    for layer in bn_layers(net):
        layer.momentum = None
    with torch.no_grad():
        net(images)
    return net.eval()
