"""The bundle: the one folder that ships, with the kit that runs it. The same input gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ontarget.contract import BUNDLE_SCHEMA, EVALSET_SCHEMA, MANIFEST, write_labels
from ontarget.facts import BYTES, Model, Preprocess, TensorSpec

from edgedistill import __version__
from edgedistill.result import Precision
from edgedistill.rundir import Work, sha256_file

EPOCH = (1980, 1, 1, 0, 0, 0)
KIT = "ontarget.pyz"
SHIPPED_BESIDE = ("README.md", "build_engine.sh")


@dataclass(frozen=True)
class Packed:
    """One model file to pack: its bytes and what the manifest says of it.

    `tensors` names its input and its output; `input_type` is said where the precision does not say it.
    """

    name: Precision
    data: bytes
    precision: Precision
    runtime: str
    opset: int
    layout: str
    flavour: str | None = None
    batch: int | None = None
    tensors: tuple[str, str] = ("images", "logits")
    input_type: str | None = None

    @property
    def file(self) -> str:
        """Name of the file in the bundle."""
        return f"model.{self.name}.onnx"

    def input_dtype(self) -> str:
        """Element type of the graph's input."""
        if self.layout in BYTES:
            return BYTES[self.layout]
        return self.input_type or ("float16" if self.precision == "float16" else "float32")


def spec(packed: Packed, path: Path, size: int, classes: int) -> Model:
    """The kit's view of a packed file at `path`."""
    image = (size, size, 3) if packed.layout in BYTES else (3, size, size)
    return Model(
        name=packed.name,
        file=packed.file,
        path=path,
        sha256=hashlib.sha256(packed.data).hexdigest(),
        size_bytes=len(packed.data),
        precision=packed.precision,
        runtime=packed.runtime,
        opset=packed.opset,
        input=TensorSpec(
            packed.tensors[0], packed.input_dtype(), (packed.batch, *image), packed.layout
        ),
        output=TensorSpec(packed.tensors[1], "float32", (packed.batch, classes)),
        flavour=packed.flavour,
    )


def kit_bytes() -> bytes:
    """`ontarget.pyz`: the kit as one executable file, the same bytes every time."""
    buffer = io.BytesIO()
    root = resources.files("ontarget")
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(f.name for f in root.iterdir() if f.name.endswith(".py")):
            _add(archive, f"ontarget/{name}", root.joinpath(name).read_bytes())
        _add(archive, "__main__.py", b"from ontarget.__main__ import run\n\nrun()\n")
    return b"#!/usr/bin/env python3\n" + buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A compressed .npz without a clock in it, so that the same arrays are the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]))
            _add(archive, f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def kit_hash() -> str:
    """Hash of the kit that ships, so that a newer kit makes a new bundle."""
    data = kit_bytes() + b"".join(beside_bytes(name) for name in SHIPPED_BESIDE)
    return hashlib.sha256(data).hexdigest()


def beside_bytes(name: str) -> bytes:
    """A file of the device side that ships in each bundle, from the wheel or the checkout."""
    packaged = resources.files("edgedistill").joinpath("_export", name)
    if packaged.is_file():
        return packaged.read_bytes()
    return (Path(__file__).resolve().parents[2] / "export" / name).read_bytes()


def write_bundle(
    work: Work,
    *,
    name: str,
    device: str,
    created_utc: str,
    classes: Sequence[str],
    preprocess: Preprocess,
    models: Sequence[Packed],
    chosen: str,
    golden_pixels: npt.NDArray[np.uint8],
    golden_logits: Mapping[str, npt.NDArray[np.float32]],
    licences: Mapping[str, str | None],
    golden_words: str | None = None,
) -> dict[str, Any]:
    """Write the bundle into the working folder and return its manifest."""
    for packed in models:
        work.write(packed.file, packed.data)
    write_labels(work.path("labels.txt"), list(classes))
    logits = {f"logits_{model}": values for model, values in golden_logits.items()}
    golden = work.write("golden.npz", npz_bytes({"pixels": golden_pixels, **logits}))
    work.write(KIT, kit_bytes())
    for file in SHIPPED_BESIDE:
        work.write(file, beside_bytes(file))
    work.path("build_engine.sh").chmod(0o755)
    work.path(KIT).chmod(0o755)
    manifest = {
        "schema": BUNDLE_SCHEMA,
        "name": name,
        "created_utc": created_utc,
        "edgedistill": __version__,
        "device": device,
        "classes": list(classes),
        "preprocess": {
            "resize": preprocess.resize,
            "crop": preprocess.crop,
            "resample": preprocess.resample,
            "color": preprocess.color,
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
        },
        "chosen": chosen,
        "models": [_model_entry(packed, preprocess.crop, len(classes)) for packed in models],
        "golden": {
            "file": "golden.npz",
            "sha256": sha256_file(golden),
            "n": len(golden_pixels),
            **({"images": golden_words} if golden_words is not None else {}),
        },
        "labels": {"file": "labels.txt", "sha256": sha256_file(work.path("labels.txt"))},
        "licences": dict(licences),
    }
    work.write(MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def _model_entry(packed: Packed, size: int, classes: int) -> dict[str, Any]:
    model = spec(packed, Path(packed.file), size, classes)
    return {
        "name": model.name,
        "file": model.file,
        "sha256": model.sha256,
        "size_bytes": model.size_bytes,
        "precision": model.precision,
        "runtime": model.runtime,
        "opset": model.opset,
        **({"flavour": model.flavour} if model.flavour is not None else {}),
        "input": {
            "name": model.input.name,
            "layout": model.input.layout,
            "dtype": model.input.dtype,
            "shape": list(model.input.shape),
        },
        "output": {
            "name": model.output.name,
            "dtype": model.output.dtype,
            "shape": list(model.output.shape),
        },
    }


def write_evalset(
    work: Work, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], total: int
) -> None:
    """Test images as the model takes them, for accuracy on the board; `total` is the size of the whole split."""
    folder = work.path("evalset")
    folder.mkdir(exist_ok=True)
    for name, array in (("pixels", pixels), ("labels", labels)):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array))
        work.write(f"evalset/{name}.npy", buffer.getvalue())
    about = {
        "schema": EVALSET_SCHEMA,
        "n": len(labels),
        "of": total,
        "pixels_sha256": sha256_file(folder / "pixels.npy"),
        "labels_sha256": sha256_file(folder / "labels.npy"),
    }
    work.write("evalset/evalset.json", json.dumps(about, indent=1) + "\n")
