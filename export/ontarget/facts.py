"""What a bundle is, as frozen facts; `contract.py` reads them from a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ontarget.fields import ContractError, shown

BYTES = {"uint8_nhwc": "uint8", "int8_nhwc": "int8"}
"""Layouts `(N, S, S, 3)` whose values are the pixels themselves, or pixel - 128, by their type."""


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes pixels: shorter side to `resize`, centre `crop`, then `(pixel / 255 -
    mean) / std`.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: str = "bicubic"
    color: str = "RGB"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph; `layout` is None for an output, a None in `shape` is a free
    size.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    layout: str | None = None


@dataclass(frozen=True)
class Model:
    """One ONNX file of the bundle; `file` is relative to the bundle, `path` is where it lies.

    `flavour` is the kind of processor or runtime that an INT8 file is for, None where it is not said.
    """

    name: str
    file: str
    path: Path
    sha256: str
    size_bytes: int
    precision: str
    runtime: str
    opset: int
    input: TensorSpec
    output: TensorSpec
    flavour: str | None = None


@dataclass(frozen=True)
class Golden:
    """A few training images with the outputs that each model must give."""

    file: str
    path: Path
    sha256: str
    n: int


@dataclass(frozen=True)
class Bundle:
    """A parsed and checked bundle. Hashes are stated here; `verify_hashes` compares them."""

    folder: Path
    name: str
    device: str
    created_utc: str
    edgedistill: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    chosen: str
    models: tuple[Model, ...]
    golden: Golden
    labels_path: Path
    labels_sha256: str
    licences: dict[str, str | None]
    manifest_sha256: str

    def model(self, name: str | None = None) -> Model:
        """The model of that name, the chosen one for None. Raises ContractError with the known
        names.
        """
        wanted = self.chosen if name is None else name
        for model in self.models:
            if model.name == wanted:
                return model
        known = ", ".join(m.name for m in self.models)
        raise ContractError(f"the bundle has no model {shown(wanted)}. It has: {known}.")
