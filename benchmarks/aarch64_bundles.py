"""What the kit is shown with on 64-bit Arm: bundles of a student after a short training, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedistill.data.sources import SAMPLE_FILE
from edgedistill.rundir import Work, now_utc

IMAGES, GOLDEN, EPOCHS, BATCH, SIDE = 256, 16, 3, 64, 64
FLAVOURS = ("arm", "x86")


def rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Grey images (N, 28, 28) as the student takes them, (N, SIDE, SIDE, 3)."""
    from edgedistill.synthesis import resized

    return resized(np.repeat(grey[..., None], 3, axis=3), SIDE)


def trained(student: str, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Any:
    """The student and how it sees images, after a short training from random weights."""
    import timm
    import torch
    from torch.nn.functional import cross_entropy

    from edgedistill.deploy.untrained import MEAN, STD
    from edgedistill.nets import Look

    torch.set_num_threads(1)
    torch.manual_seed(0)
    look, steps = Look(SIDE, MEAN, STD), EPOCHS * (len(pixels) // BATCH)
    net: Any = timm.create_model(student, num_classes=10, exportable=True).train()
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(pixels))[: len(pixels) // BATCH * BATCH]
        for rows in order.numpy().reshape(-1, BATCH):
            logits = net(look.tensor(pixels[rows], torch.device("cpu")))
            loss: Any = cross_entropy(logits, torch.from_numpy(labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval(), look


def make_bundles(work: Path, student: str) -> dict[str, Path]:
    """Bundles with the INT8 file for Arm and with that for x86, beside the test images."""
    folders = {flavour: work / "bundles" / student / flavour for flavour in FLAVOURS}
    if not all((folder / "bundle" / "manifest.json").exists() for folder in folders.values()):
        from edgedistill.deploy.onnx import export_float32, to_float16
        from edgedistill.deploy.quantize import quantize
        from edgedistill.deploy.stage import Shape, model_inputs, pack, packed, preprocess_of

        print(f"training {student} for {EPOCHS} epochs of the built-in images", flush=True)
        with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
            train, test = rgb(sample["train_images"]), rgb(sample["test_images"][:IMAGES])
            labels = sample["train_labels"].astype(np.int64)
            answers, total = (
                sample["test_labels"][:IMAGES].astype(np.int64),
                len(sample["test_labels"]),
            )
        net, look = trained(student, train, labels)
        for flavour, folder in folders.items():
            how = preprocess_of(SIDE, look.mean, look.std)
            classes = tuple(f"class {i}" for i in range(10))
            shape = Shape("uint8_nhwc", classes, how, 17, "onnxruntime", flavour)
            plain = packed("float32", export_float32(net, look, shape.layout, 17, {}), shape)
            seen = model_inputs(plain, train[:IMAGES], shape)
            int8 = quantize(plain.data, seen, flavour, "minmax", {})
            half = packed("float16", to_float16(plain.data, {}), shape)
            folder.mkdir(parents=True, exist_ok=True)
            pack(
                Work(folder), name=student, device="raspberry-pi-5" if flavour == "arm" else "x86-cpu",
                created_utc=now_utc(), shape=shape, models=[plain, half, packed("int8", int8, shape)],
                chosen="float32", golden=train[:GOLDEN], licences={}, evalset=(test, answers, total),
            )  # fmt: skip
    return {flavour: folder / "bundle" for flavour, folder in folders.items()}


def write_pictures(folder: Path) -> Path:
    """The test images as PNG files, as a camera would hand them over: not yet of the student's size."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        for place, image in enumerate(sample["test_images"][:IMAGES]):
            Image.fromarray(image).save(folder / f"{place:03}.png")
    return folder
