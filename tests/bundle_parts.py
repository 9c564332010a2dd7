"""What the tests of bundles share: a small one that is whole, and another file in its place with every hash right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch

from edgedistill.deploy.files import float_files
from edgedistill.deploy.stage import Shape, metadata, pack, preprocess_of
from edgedistill.rundir import Work

CLASSES = ("bag", "boot", "naïve\ntrouser")
FILE = "model.float32.onnx"


def make_bundle(folder: Path) -> Path:
    """A bundle of a random network for images of 32 px, in float32 and float16."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=len(CLASSES)).eval()
    preprocess = preprocess_of(32, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
    shape = Shape("uint8_nhwc", CLASSES, preprocess, 17, "onnxruntime", "x86")
    items = float_files(model, shape, metadata(shape, "test_resnet", {}))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    pack(
        Work(folder), name="tiny", device="host", created_utc="2026-11-01T00:00:00Z", shape=shape,
        models=items, chosen="float32", golden=pixels, evalset=None,
        licences={"teacher": None, "student": "MIT", "data": None},
    )  # fmt: skip
    return folder / "bundle"


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest of a bundle in place."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


def edit_model(bundle: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change the float32 file, and give the manifest its new hash."""
    path = bundle / FILE
    proto = onnx.load(str(path))
    change(proto)
    data = proto.SerializeToString(deterministic=True)
    path.write_bytes(data)

    def stated(manifest: dict[str, Any]) -> None:
        manifest["models"][0] |= {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
        }

    edit_manifest(bundle, stated)
